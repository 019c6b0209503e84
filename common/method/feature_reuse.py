"""Whether a phase trains the head on features that are computed once, and why not."""

from __future__ import annotations

from collections.abc import Sequence

from common.method.phases import Phase
from common.network.stages import BACKBONE_STAGES
from common.spec.experiment import ExperimentSpec


def freezes_backbone(phase: Phase) -> bool:
    """Whether neither a parameter nor a statistic of the backbone changes in a phase."""
    return phase.trained_stages == ("head",) and phase.frozen_statistics.issuperset(BACKBONE_STAGES)


def reused(spec: ExperimentSpec, phase: Phase) -> bool:
    """Whether a phase trains the head on features that are computed once.

    Not with the native pipeline: the order of the samples must be known here, and the framework's own has its own.
    """
    # Features are kept as float32.
    allowed = spec.reuse_features == "auto" and spec.pipeline != "native" and spec.precision != "fp64"
    return allowed and not spec.augments and freezes_backbone(phase)


def describe(spec: ExperimentSpec, phase: Phase) -> str | None:
    """What is done about features in a phase, in words; None where the backbone trains."""
    if not freezes_backbone(phase):
        return None
    if reused(spec, phase):
        return "the features of each image are computed once"
    reason = "reuse_features is never"
    if spec.precision == "fp64":
        reason = "features are kept as float32"
    if spec.pipeline == "native":
        reason = "the pipeline is native"
    if spec.augments:
        reason = "training images are augmented; --train-crop none with --no-flip would change that"
    return f"the features of each image are computed anew every epoch, as {reason}"


def notes(spec: ExperimentSpec, chosen: Sequence[Phase]) -> list[str]:
    """Return a line for each of the phases that trains the head alone: what is done about features."""
    described = [(phase.name, describe(spec, phase)) for phase in chosen if phase.epochs]
    return [f"phase {name}: {text}" for name, text in described if text]
