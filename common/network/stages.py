"""The stages of a ResNet, and which of them a parameter belongs to."""

from __future__ import annotations

from collections.abc import Iterable

BACKBONE_STAGES = ("stem", "layer1", "layer2", "layer3", "layer4")
STAGES = (*BACKBONE_STAGES, "head")
EARLY_STAGES = ("stem", "layer1", "layer2")


def stage_of(name: str) -> str:
    """The stage of a parameter or statistic, by its torchvision name, such as `layer2.0.conv1.weight`.

    Raises ValueError for a name that belongs to no stage.
    """
    first = name.split(".")[0]
    if first in ("layer1", "layer2", "layer3", "layer4"):
        return first
    stages = {"bn0": "stem", "conv1": "stem", "bn1": "stem", "bn5": "layer4", "fc": "head"}
    if first not in stages:
        raise ValueError(f"{name} belongs to none of the stages {', '.join(STAGES)}")
    return stages[first]


def by_stage(names: Iterable[str]) -> dict[str, list[str]]:
    """Names grouped by stage, every stage present, in the order of STAGES."""
    groups: dict[str, list[str]] = {stage: [] for stage in STAGES}
    for name in names:
        groups[stage_of(name)].append(name)
    return groups
