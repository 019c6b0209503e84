"""Decide whether a phase trains the head on features that are computed once, and say why where it does not."""

from __future__ import annotations

from collections.abc import Sequence

from common.method.phases import Phase
from common.network.stages import BACKBONE_STAGES
from common.spec.experiment import ExperimentSpec


def freezes_backbone(phase: Phase) -> bool:
    """Return whether a phase changes neither a parameter nor a BatchNorm statistic of the backbone."""
    return phase.trained_stages == ("head",) and phase.frozen_statistics.issuperset(BACKBONE_STAGES)


def reused(spec: ExperimentSpec, phase: Phase) -> bool:
    """Return whether a phase trains the head on features that are computed once.

    Args:
        spec: The experiment.
        phase: One of its phases.

    Returns:
        True where the backbone is frozen, no image is augmented, the precision is not float64, `reuse_features` is
        `auto`, and the pipeline is not `native`: features are read in the order of the samples, which must be known
        here, while a framework's own pipeline shuffles by itself.
    """
    # Features are kept as float32, which would round those of a float64 experiment.
    allowed = spec.reuse_features == "auto" and spec.pipeline != "native" and spec.precision != "fp64"
    return allowed and not spec.augments and freezes_backbone(phase)


def describe(spec: ExperimentSpec, phase: Phase) -> str | None:
    """Say in words whether a phase reuses features and, if not, why; return None where the backbone changes."""
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
    """Return a line for each phase with epochs and a frozen backbone, which says whether its features are reused."""
    described = [(phase.name, describe(spec, phase)) for phase in chosen if phase.epochs]
    return [f"phase {name}: {text}" for name, text in described if text]
