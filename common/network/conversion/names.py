"""Other names of torchvision's parameters, and what stands before them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from functools import cache

from common.network import resnet

Table = dict[str, str]
# What a prefix can end with: `model.`, `resnetv10_`, `state_dict/`.
_SEPARATORS = "._/"
# Modules of torchvision's ResNet in their order, by which nn.Sequential(*network.children()) calls them.
_CHILDREN = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}
_PARTS = ("weight", "bias", "running_mean", "running_var")


@cache
def body_names() -> frozenset[str]:
    """Return torchvision's names of everything but the head, for all architectures."""
    return frozenset(
        name for architecture in resnet.ARCHITECTURES for name in resnet.shapes(architecture) if name not in resnet.HEAD
    )


@cache
def torch_tables() -> tuple[Table, ...]:
    """Return the tables of names in PyTorch: torchvision's (and timm's), Hugging Face's, and those of nn.Sequential."""
    names = sorted(body_names())
    sequential = {}
    for name in names:
        first, rest = name.split(".", 1)
        if first in _CHILDREN:
            sequential[f"{_CHILDREN[first]}.{rest}"] = name
    return {name: name for name in names}, {hugging_face(name): name for name in names}, sequential


def hugging_face(name: str) -> str:
    """Return the name that Hugging Face's `ResNetModel` gives to a parameter.

    >>> hugging_face("layer2.0.downsample.1.bias"), hugging_face("conv1.weight")
    ('encoder.stages.1.layers.0.shortcut.normalization.bias', 'embedder.embedder.convolution.weight')

    Args:
        name: torchvision's name.

    Returns:
        The name without what a model with a head puts before it, `resnet.`.
    """
    *layers, part = name.split(".")
    kind = "convolution" if layers[-1].startswith("conv") or layers[-2:] == ["downsample", "0"] else "normalization"
    if not layers[0].startswith("layer"):
        # bn0 and bn5 of the pre-activation network have no counterpart.
        place = "embedder.embedder" if layers[0] in ("conv1", "bn1") else layers[0]
        return f"{place}.{kind}.{part}"
    inner = "shortcut" if layers[2] == "downsample" else f"layer.{int(layers[2][-1]) - 1}"
    return f"encoder.stages.{int(layers[0][-1]) - 1}.layers.{layers[1]}.{inner}.{kind}.{part}"


def prefixes(names: Iterable[str], known: Collection[str]) -> Counter[str]:
    """Count, for everything that stands before a known name, how many known names it stands before.

    >>> prefixes(["module.conv1.weight", "module.bn1.bias"], {"conv1.weight", "bn1.bias"})
    Counter({'module.': 2})

    Args:
        names: The names to look at.
        known: The known names.

    Returns:
        Prefix -> number of names; the empty prefix stands for known names by themselves.
    """
    counts: Counter[str] = Counter()
    for name in names:
        starts = [0, *(place + 1 for place, letter in enumerate(name) if letter in _SEPARATORS)]
        counts.update(name[:start] for start in starts if name[start:] in known)
    return counts


def best(counts: Counter[str]) -> list[str]:
    """Return the prefixes with the highest count, in their order."""
    return sorted(prefix for prefix, count in counts.items() if count == max(counts.values()))


def rename(names: Sequence[str], tables: Iterable[Table]) -> dict[str, str]:
    """Give torchvision's names to tensors that a table knows, and leave what stands before them.

    Args:
        names: The names in the file.
        tables: Tables of other names -> torchvision's; the one that knows the most names is used.

    Returns:
        Name in the file -> torchvision's name behind the same prefix; a name that the table lacks stays.
    """
    counted = [(prefixes(names, table), table) for table in tables]
    counts, table = max(counted, key=lambda pair: max(pair[0].values(), default=0))
    renamed = {name: name for name in names}
    for prefix in best(counts) if counts else ():
        for name in names:
            if name.startswith(prefix) and name[len(prefix) :] in table:
                renamed[name] = prefix + table[name[len(prefix) :]]
    return renamed
