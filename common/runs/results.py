"""Keep the record of a run true while it goes on and however it ends, and write its results."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common.contract.backend import Backend
from common.contract.experiment import Experiment
from common.contract.results import EpochMetrics, History, Predictions
from common.contract.watch import ForwardingWatch, Stopped, Watch
from common.network import resnet, weights
from common.preprocessing import transforms
from common.runs import record
from common.runs.predictions import write_predictions
from common.runs.record import RunRecord
from common.system.errors import RunError
from common.system.machine import now, peak_memory
from common.training import loop


class RecordingWatch(ForwardingWatch):
    """A watch that writes the record after every epoch and passes everything on to another watch."""

    def __init__(self, folder: Path, run: RunRecord, shown: Watch) -> None:
        super().__init__(shown)
        self.folder, self.run = folder, run

    def on_epoch(self, metrics: EpochMetrics, predictions: Predictions) -> None:
        """Add the epoch to the record and write it, then pass the epoch on."""
        self.run.epochs.append(metrics)
        record.write_record(self.folder, self.run)
        super().on_epoch(metrics, predictions)


@contextmanager
def recorded(folder: Path, run_record: RunRecord, finish: Callable[[], None]) -> Iterator[None]:
    """Keep the record true however the work inside ends: complete, or marked with the error that ended it.

    Args:
        folder: The run's folder, whose predictions and model of an earlier run are deleted.
        run_record: The record, written at the start and at the end.
        finish: Adds to the record the facts that are known at the end only.
    """
    for stale in (record.PREDICTIONS, record.MODEL):
        (folder / stale).unlink(missing_ok=True)
    record.write_record(folder, run_record)
    try:
        yield
    except BaseException as error:
        run_record.status = status_of(error)
        run_record.error = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise
    else:
        run_record.status = "complete"
    finally:
        # Ctrl-C may come while another error is handled, such as that of a process whose partner was interrupted.
        if run_record.status == "running":
            run_record.status, run_record.error = "interrupted", KeyboardInterrupt.__name__
        finish()
        record.write_record(folder, run_record)


def status_of(error: BaseException) -> record.Status:
    """Return the status that the record gets when `error` ended the run."""
    if isinstance(error, KeyboardInterrupt | Stopped):
        return "interrupted"
    return "diverged" if isinstance(error, loop.Diverged) else "failed"


def finish(run_record: RunRecord, backend: Backend, start: float) -> None:
    """Add to the record the facts that are known at the end only: times in seconds, memory in bytes."""
    run_record.finished = now()
    training = sum(metrics.seconds for metrics in run_record.epochs)
    run_record.timing["training_seconds"] = training
    run_record.timing["total_seconds"] = time.perf_counter() - start
    images = len(run_record.epochs) * run_record.data["trained_images"]
    if training:
        run_record.timing["images_per_second"] = images / training
    run_record.environment["peak_memory_bytes"] = peak_memory()
    run_record.environment["peak_gpu_memory_bytes"] = backend.peak_gpu_memory()


def note_results(run_record: RunRecord, history: History) -> None:
    """Add to the record the results of the kept model.

    These are its loss and accuracy on test and validation images, its epoch, whether training stopped early, and the
    counts of reused features.
    """
    assert history.test is not None
    run_record.final = {"test_loss": history.test.loss, "test_accuracy": history.test.accuracy}
    if history.validation is not None:
        run_record.final["validation_loss"] = history.validation.loss
        run_record.final["validation_accuracy"] = history.validation.accuracy
    run_record.resolved["features"] = history.features
    run_record.kept_epoch, run_record.stopped_early = history.kept_epoch, history.stopped_early


def write_results(folder: Path, experiment: Experiment, model: Any, history: History) -> None:
    """Write the predictions and, unless the strategy is `zero-shot`, the trained model.

    Args:
        folder: The run's folder.
        experiment: The experiment, for names of classes and files and for the model's header.
        model: The trained model.
        history: Its predictions of the test images.

    Raises:
        RunError: The history has no predictions.
    """
    spec, data = experiment.spec, experiment.data
    if history.test is None:
        raise RunError("training ended without an evaluation")
    write_predictions(folder, history.test, data)
    if spec.strategy == "zero-shot":
        return
    header = weights.Header(
        resnet.architecture(spec.backend, spec.model),
        data.classes,
        transforms.preprocessing(experiment.plan.transform),
        f"{spec.strategy} on {data.name} with {spec.backend}, starting from {spec.weights}",
    )
    weights.write(folder / record.MODEL, weights.Checkpoint(header, experiment.backend.to_arrays(model)))
