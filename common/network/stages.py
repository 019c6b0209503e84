"""The stages of a ResNet, and the parameters that belong to each."""

from __future__ import annotations

from collections.abc import Iterable

BACKBONE_STAGES = ("stem", "layer1", "layer2", "layer3", "layer4")
STAGES = (*BACKBONE_STAGES, "head")
EARLY_STAGES = ("stem", "layer1", "layer2")
# Stage -> the first parts of the names that belong to it; bn0 and bn5 are those of the pre-activation ResNet.
FIRST_PARTS: dict[str, tuple[str, ...]] = {
    "stem": ("bn0", "conv1", "bn1"),
    "layer1": ("layer1",),
    "layer2": ("layer2",),
    "layer3": ("layer3",),
    "layer4": ("layer4", "bn5"),
    "head": ("fc",),
}


def stage_of(name: str) -> str:
    """Return the stage of a parameter or statistic.

    >>> stage_of("layer2.0.conv1.weight")
    'layer2'

    Args:
        name: torchvision's name of the parameter or statistic.

    Returns:
        One of STAGES.

    Raises:
        ValueError: The name belongs to no stage, or to more than one.
    """
    first = name.split(".")[0]
    claims = [stage for stage in STAGES if first in FIRST_PARTS[stage]]
    if not claims:
        raise ValueError(f"{name} belongs to none of the stages {', '.join(STAGES)}")
    if len(claims) > 1:
        raise ValueError(f"{name} belongs to several stages: {', '.join(claims)}")
    return claims[0]


def by_stage(names: Iterable[str]) -> dict[str, list[str]]:
    """Group names by stage.

    >>> by_stage(["fc.bias", "conv1.weight"])["stem"]
    ['conv1.weight']

    Args:
        names: torchvision's names of parameters and statistics.

    Returns:
        Stage -> its names in the order of `names`; every stage is present, in the order of STAGES.
    """
    groups: dict[str, list[str]] = {stage: [] for stage in STAGES}
    for name in names:
        groups[stage_of(name)].append(name)
    return groups
