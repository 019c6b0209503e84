"""Phases and learning rates as data, the same for every backend: which stage learns how fast, and for how long."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from common.network import lora, resnet
from common.network.stages import BACKBONE_STAGES, EARLY_STAGES, STAGES, stage_of
from common.spec.experiment import ExperimentSpec
from common.system.errors import UserError

# The three groups of the discriminative strategy: 1e-5 early, 1e-4 late, 1e-3 head.
EARLY_MULTIPLE = 0.1


@dataclass(frozen=True)
class Phase:
    """A stretch of epochs with one set of learning-rate multiples. The optimizer's state starts anew with a phase."""

    name: str
    epochs: int
    multiples: dict[str, float]
    """Stage -> multiple of the learning rate; 0 freezes the parameters of the stage: no update, no weight decay."""
    learning_rate: float
    """Learning rate of a stage whose multiple is 1, before any schedule."""
    frozen_statistics: frozenset[str]
    """Stages whose BatchNorm layers use their running statistics and leave them as they are."""
    adapters: bool = False
    """Whether the backbone's multiples are those of the adapters beside its convolutions, while all of the backbone's
    own parameters are frozen.
    """

    @property
    def trained_stages(self) -> tuple[str, ...]:
        """The stages whose multiple is above 0, in the order of STAGES."""
        return tuple(stage for stage in STAGES if self.multiples[stage] > 0)

    @property
    def learning_rates(self) -> dict[str, float]:
        """Trained stage -> its learning rate, before any schedule."""
        return {stage: self.learning_rate * self.multiples[stage] for stage in self.trained_stages}

    def assign(self, names: Iterable[str]) -> dict[str, list[str]]:
        """Sort the parameters of a model into the parameter groups of the phase.

        Args:
            names: torchvision's names of all parameters of the model, and of its adapters if it has any.

        Returns:
            Trained stage -> the names that learn at its rate, in the order of `names`. A frozen parameter is in none.

        Raises:
            RuntimeError: A name belongs to no stage or to several, or comes twice.
        """
        groups: dict[str, list[str]] = {stage: [] for stage in self.trained_stages}
        seen: set[str] = set()
        for name in names:
            if name in seen:
                raise RuntimeError(f"{name} comes twice among the parameters")
            seen.add(name)
            try:
                stage = stage_of(name)
            except ValueError as error:
                raise RuntimeError(str(error)) from error
            if self.trains(name):
                groups[stage].append(name)
        return groups

    def check_held(self, held: Iterable[str], names: Iterable[str]) -> None:
        """Check that an optimizer holds each trained parameter of a model exactly once, and no other.

        Args:
            held: Names of the parameters that the optimizer holds, as read back from it.
            names: Names of all parameters of the model.

        Raises:
            RuntimeError: The optimizer lacks a parameter that trains, holds one twice, or holds one that is frozen.
        """
        counts = Counter(held)
        wrong = [name for name in names if counts.pop(name, 0) != self.trains(name)] + list(counts)
        if wrong:
            raise RuntimeError(
                f"each trained parameter must be in exactly one parameter group, and no other in any; not so: "
                f"{', '.join(wrong)}"
            )

    def trains(self, name: str) -> bool:
        """Return whether the parameter of this torchvision name learns; a running statistic never does."""
        stage = stage_of(name)
        frozen = self.adapters and stage != "head" and not lora.is_adapter(name)
        return self.multiples[stage] > 0 and not frozen and not resnet.is_statistic(name)


def phases(spec: ExperimentSpec, param_group: bool = True) -> tuple[Phase, ...]:
    """Return the phases of an experiment.

    Args:
        spec: The experiment; `common.method.auto.resolve` has already replaced the strategy `auto`.
        param_group: Whether stages and head have learning rates of their own; otherwise everything that is trained
            has the multiple 1, which is how the chapter trains from scratch.

    Returns:
        The phases in their order; none for the strategy `zero-shot`.

    Raises:
        UserError: The strategy is still `auto`, or a phase would train nothing.
    """
    if spec.strategy == "auto":
        raise UserError("strategy auto: only scripts.run, which has seen the images, can tell; name another --strategy")
    if spec.strategy == "zero-shot":
        return ()
    chosen = _phases(spec, param_group)
    for phase in chosen:
        if not phase.trained_stages:
            raise UserError(
                f"strategy {spec.strategy}: head_multiple and stage_multiples are 0 for every stage that would train "
                f"in the phase {phase.name!r}; set one above 0"
            )
    return chosen


def _phases(spec: ExperimentSpec, param_group: bool) -> tuple[Phase, ...]:
    """Return the phases of a strategy that trains, without a check of their multiples."""
    everything = _multiples(spec, param_group)
    head_only = {stage: everything[stage] if stage == "head" else 0.0 for stage in STAGES}
    if spec.strategy == "feature-extraction":
        return (Phase("head", spec.epochs, head_only, spec.learning_rate, frozenset(STAGES)),)
    if spec.strategy == "warm-up":
        first = min(spec.warm_up_epochs, spec.epochs)
        return (
            Phase("head", first, head_only, spec.learning_rate, frozenset(STAGES)),
            Phase("everything", spec.epochs - first, everything, spec.learning_rate, _frozen_statistics(spec)),
        )
    if spec.strategy == "partial":
        untouched = BACKBONE_STAGES[: len(BACKBONE_STAGES) - spec.partial_stages]
        multiples = {stage: 0.0 if stage in untouched else multiple for stage, multiple in everything.items()}
        return (
            Phase(
                "last stages",
                spec.epochs,
                multiples,
                spec.learning_rate,
                _frozen_statistics(spec) | frozenset(untouched),
            ),
        )
    if spec.strategy == "lora":
        return (Phase("adapters", spec.epochs, everything, spec.learning_rate, frozenset(STAGES), adapters=True),)
    return (Phase("everything", spec.epochs, everything, spec.learning_rate, _frozen_statistics(spec)),)


def _multiples(spec: ExperimentSpec, param_group: bool) -> dict[str, float]:
    """Return stage -> multiple of the learning rate, as if no stage were frozen."""
    if not param_group or spec.strategy == "scratch":
        return dict.fromkeys(STAGES, 1.0)
    multiples = {**asdict(spec.stage_multiples), "head": spec.head_multiple}
    if spec.strategy == "discriminative":
        for stage in EARLY_STAGES:
            multiples[stage] *= EARLY_MULTIPLE
    return multiples


def _frozen_statistics(spec: ExperimentSpec) -> frozenset[str]:
    """Return the stages whose BatchNorm statistics stay as they are, by the spec's `batch_norm`."""
    return {
        "train": frozenset[str](),
        "frozen": frozenset(STAGES),
        "frozen_early": frozenset(EARLY_STAGES),
    }[spec.batch_norm]
