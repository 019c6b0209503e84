"""Run one trial of a study and store its result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from optuna.trial import Trial, TrialState

from common.contract.results import EpochMetrics
from common.contract.watch import Stopped
from common.runs.record import RunRecord
from common.spec.experiment import ExperimentSpec
from common.sweep.study import Outcome, Result, Study, result_of
from common.sweep.vary import with_values
from common.training.loop import Diverged


def run_trial(
    study: Study,
    trial: Trial,
    bases: Mapping[str, ExperimentSpec],
    run: Callable[[ExperimentSpec, Path, Callable[[EpochMetrics], None]], RunRecord],
) -> Result:
    """Run one trial and store its result; a run that diverges or is pruned is a result like any other.

    Any other error is stored as the trial's failure and raised again.

    Args:
        study: The study of the trial.
        trial: The trial, as `Study.ask` started it.
        bases: The experiment of each strategy, before it is varied.
        run: Runs an experiment into a folder, and calls back with the metrics of each epoch.

    Returns:
        The result.

    Raises:
        KeyboardInterrupt: The run was interrupted; the trial is stored as interrupted.
    """

    def on_epoch(metrics: EpochMetrics) -> None:
        assert metrics.validation_accuracy is not None
        trial.report(metrics.validation_accuracy, metrics.epoch)
        if trial.should_prune():
            raise Stopped(f"pruned after epoch {metrics.epoch}: its validation accuracy was below the others' median")

    def note(outcome: Outcome, reason: str, state: TrialState, accuracy: float | None = None) -> None:
        trial.set_user_attr("outcome", outcome)
        trial.set_user_attr("reason", reason)
        study.study.tell(trial, accuracy, state=state)

    trial.set_user_attr("backend", next(iter(bases.values())).backend)
    try:
        record = run(spec_of(bases, trial), study.folder / f"{trial.number:04d}", on_epoch)
    except Diverged as error:
        note("diverged", str(error), TrialState.PRUNED)
    except Stopped as error:
        note("pruned", str(error), TrialState.PRUNED)
    except KeyboardInterrupt:
        note("interrupted", "interrupted", TrialState.FAIL)
        raise
    except Exception as error:
        note("failed", f"{type(error).__name__}: {error}", TrialState.FAIL)
        raise
    else:
        note("complete", "", TrialState.COMPLETE, score(record))
    return result_of(study.study.get_trials(deepcopy=False)[trial.number])


def spec_of(bases: Mapping[str, ExperimentSpec], trial: Trial) -> ExperimentSpec:
    """Return the experiment of a trial: that of its strategy, with the trial's values."""
    strategy = trial.params.get("strategy")
    base = bases[strategy] if strategy is not None else next(iter(bases.values()))
    return with_values(base, trial.params)


def score(record: RunRecord) -> float:
    """Return the accuracy of the kept model on the held-out training images, by which a sweep chooses.

    Test images never take part in the choice.
    """
    return record.final["validation_accuracy"]
