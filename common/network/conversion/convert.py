"""From the tensors of any file to a network in torchvision's names, with an account of what was kept and left out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.network import resnet, weights
from common.network.conversion import names
from common.network.conversion.heads import Head, arrays_of, find_head
from common.network.conversion.stored import CONTAINER, StoredTensors
from common.network.stages import FIRST_PARTS
from common.system.errors import UserError

COUNTER = "num_batches_tracked"
_BODY_PARTS = {part for stage, parts in FIRST_PARTS.items() if stage != "head" for part in parts}


@dataclass(frozen=True)
class Conversion:
    """A network that was found in a file."""

    architecture: str
    arrays: weights.Arrays
    """float32 under torchvision's names; without `fc.weight` and `fc.bias` where the file has no head."""
    prefix: str
    """What stood before the names of the network."""
    mapped: dict[str, str]
    """Name in the file -> torchvision's name."""
    head: Head
    left_out: dict[str, list[str]]
    """Reason -> names in the file."""

    @property
    def classes(self) -> int:
        """Number of rows of the head; 0 without one."""
        return len(self.arrays["fc.weight"]) if self.head.weight else 0


def convert(stored: StoredTensors, where: object, prefix: str | None = None) -> Conversion:
    """Find the one ResNet in the tensors of a file.

    Args:
        stored: The tensors.
        where: The file, for messages.
        prefix: What stands before the names of the network, where a file has several; None to find it.

    Returns:
        The network.

    Raises:
        UserError: There is no network of a known architecture, there are several, or a tensor has a wrong shape or
            type, or values that are not finite.
    """
    if not stored.tensors:
        raise UserError(f"{where}: holds no named tensors")
    renamed = names.rename(list(stored.tensors), (*names.torch_tables(), *stored.tables))
    prefix = _choose_prefix(list(renamed.values()), where, prefix)
    container = prefix[: prefix.rfind(CONTAINER) + 1]
    inside, left_out = {}, dict[str, list[str]]()
    origin: dict[str, str] = {}
    for own, name in renamed.items():
        if name.endswith(COUNTER):
            left_out.setdefault("counts of batches, which BatchNorm does not use here", []).append(own)
        elif name[: name.rfind(CONTAINER) + 1] != container:
            left_out.setdefault("beside the network, such as an optimizer's state", []).append(own)
        else:
            short = name.removeprefix(prefix) if name.startswith(prefix) else name
            inside[short], origin[short] = stored.tensors[own], own
    architecture = identify({name: tensor.shape for name, tensor in inside.items()}, where)
    body = {name for name in resnet.shapes(architecture) if name not in resnet.HEAD}
    rest = {name: tensor for name, tensor in inside.items() if name not in body}
    _refuse_more_convolutions(rest, origin, prefix, f"{where}: {architecture}")
    head = find_head(rest, resnet.features(architecture))
    found = {**inside, **(arrays_of(head, rest) if head.weight else {})}
    expected = weights.expected_shapes(architecture, len(rest[head.weight]) if head.weight else 0)
    arrays = {name: _as_float32(found[name], f"{where}: the tensor {origin.get(name, name)}") for name in expected}
    weights.check(arrays, expected, where)
    mapped = {origin[name]: name for name in body}
    mapped |= {origin[own]: new for own, new in ((head.weight, "fc.weight"), (head.bias, "fc.bias")) if own}
    unused = [own for own in origin.values() if own not in mapped]
    if unused:
        left_out[head.why_not or f"no parameter of {architecture}"] = unused
    return Conversion(architecture, arrays, prefix, mapped, head, left_out)


def _choose_prefix(found: list[str], where: object, wanted: str | None) -> str:
    """Return what stands before the names of the network; UserError where there is no network, or several."""
    counts = names.prefixes(found, names.body_names())
    if wanted is not None:
        if wanted not in counts:
            offered = ", ".join(repr(prefix) for prefix, _ in counts.most_common(5)) or "none"
            raise UserError(f"{where}: --prefix {wanted!r} stands before no network; what does: {offered}")
        return wanted
    if not counts:
        raise UserError(
            f"{where}: no ResNet; none of the {len(found)} tensors has a name of one ({_some(found)}). "
            f"Known are {', '.join(resnet.ARCHITECTURES)}"
        )
    best = names.best(counts)
    if len(best) > 1:
        raise UserError(
            f"{where}: holds {len(best)} networks, whose names begin with {' and '.join(map(repr, best))}; "
            f"choose one: --prefix {best[0]}"
        )
    return best[0]


def identify(shapes: Mapping[str, tuple[int, ...]], where: object) -> str:
    """Return the architecture whose body these tensors are.

    Args:
        shapes: torchvision's name -> shape of each tensor; other names may be among them.
        where: The file, for messages.

    Returns:
        One of resnet.ARCHITECTURES.

    Raises:
        UserError: A tensor is missing or too many, or has another shape; the message says of which architecture.
    """
    present = {name for name in shapes if name.split(".")[0] in _BODY_PARTS}
    bodies = {a: {n for n in resnet.shapes(a) if n not in resnet.HEAD} for a in resnet.ARCHITECTURES}
    nearest = min(bodies, key=lambda a: len(bodies[a] ^ present))
    missing, extra = sorted(bodies[nearest] - present), sorted(present - bodies[nearest])
    start = f"{where}: none of the known networks, {', '.join(resnet.ARCHITECTURES)}"
    if missing and all(map(resnet.is_statistic, missing)):
        raise UserError(
            f"{where}: {nearest}, but BatchNorm's running means and variances are missing; save them too (in Flax, "
            "the collection batch_stats beside params)"
        )
    if len(missing) > len(bodies[nearest]) / 2:
        raise UserError(f"{start}: only {len(present)} of the tensors have a name of a ResNet ({_some(present)})")
    if missing or extra:
        what = [f"lacks {_some(missing)}"] if missing else []
        what += [f"has {_some(extra)} besides"] if extra else []
        raise UserError(f"{start}: nearest is {nearest}, but the file {' and '.join(what)}{_blocks(present)}")
    for name, shape in resnet.shapes(nearest).items():
        if name not in resnet.HEAD and shapes[name] != shape:
            raise UserError(f"{start}: nearest is {nearest}, but {name} has shape {shapes[name]}, expected {shape}")
    return nearest


def _blocks(present: Iterable[str]) -> str:
    """Return a part of a sentence on the numbers of blocks, by which people know a ResNet."""
    blocks = {match[0] for name in present if (match := re.match(r"layer\d\.\d+", name))}
    counts = Counter(block.split(".")[0] for block in blocks)
    return f" (blocks a stage: {', '.join(str(counts[layer]) for layer in sorted(counts))})" if counts else ""


def _refuse_more_convolutions(
    rest: Mapping[str, NDArray[Any]], origin: Mapping[str, str], prefix: str, start: str
) -> None:
    """Raise UserError where the network has convolutions that the architecture lacks: it computes something else."""
    more = [origin[name] for name, t in rest.items() if t.ndim == 4 and origin[name].startswith(prefix)]
    if more:
        raise UserError(
            f"{start} is a part of it, but it has convolutions besides ({_some(more)}), so that it is another network"
        )


def _as_float32(tensor: NDArray[Any], what: str) -> NDArray[np.float32]:
    if tensor.dtype.kind != "f":
        raise UserError(f"{what} has dtype {tensor.dtype}, expected a floating-point type")
    # What is too large for float32 becomes infinite, which `weights.check` refuses.
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(tensor, np.float32)


def _some(found: Iterable[str]) -> str:
    """Return the first names of a list in words."""
    listed = sorted(found)
    more = f" and {len(listed) - 3} more" if len(listed) > 3 else ""
    return ", ".join(name if len(name) < 100 else f"{name[:97]}..." for name in listed[:3]) + more
