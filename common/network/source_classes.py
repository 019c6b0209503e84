"""Which classes of the source network belong to the data's, and a head made from their rows."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.network import sources
from common.network.weights import Arrays
from common.spec.experiment import ExperimentSpec
from common.system.errors import UserError


def rows_for(spec: ExperimentSpec, classes: Sequence[str]) -> list[list[int]]:
    """The rows of an experiment's source head that belong to each of the data's classes; see `match`."""
    rest = () if spec.strategy == "zero-shot" else spec.head_init_classes
    return match(classes, sources.source_class_names(spec), rest)


def match(classes: Sequence[str], source_names: Sequence[str], rest: Sequence[str] = ()) -> list[list[int]]:
    """For each class of the data the indices of the source classes that belong to it.

    A class belongs to the source class of its name, where case, spaces, hyphens and underscores do not count unless
    several names differ in these alone. One class may have no such name: to it belong all source classes that belong
    to no other, or those that `rest` names. Raises UserError where several have none, or where nothing is left over.
    """
    named = {name: find(name, source_names) for name in classes}
    unnamed = [name for name, found in named.items() if not found]
    if len(unnamed) > 1:
        raise UserError(
            f"the source weights have no classes named {', '.join(map(repr, unnamed))}; only one class of the data may "
            "be without a namesake and stand for everything else. Rename the class folders, or train: --strategy "
            "feature-extraction --head-init xavier_uniform"
        )
    taken = {index for found in named.values() for index in found}
    if rest and not unnamed:
        raise UserError("head_init_classes: every class of the data has a namesake, so there is nothing to set")
    if unnamed:
        named[unnamed[0]] = _rest(rest, source_names, taken)
    return [named[name] for name in classes]


def find(name: str, source_names: Sequence[str]) -> list[int]:
    """The indices of the source classes called `name`, exactly if there is one, else regardless of case and spacing."""
    exact = [index for index, source in enumerate(source_names) if source == name]
    return exact or [index for index, source in enumerate(source_names) if _plain(source) == _plain(name)]


def _rest(wanted: Sequence[str], source_names: Sequence[str], taken: set[int]) -> list[int]:
    """The source classes of the class without a namesake."""
    chosen: set[int] = set()
    for name in wanted:
        found = find(name, source_names)
        if not found:
            near = difflib.get_close_matches(name, source_names, n=3, cutoff=0.5)
            hint = f"; near it are {', '.join(map(repr, near))}" if near else ""
            raise UserError(f"head_init_classes: the source weights have no class named {name!r}{hint}")
        chosen.update(found)
    left = sorted((chosen or set(range(len(source_names)))) - taken)
    if not left:
        raise UserError("every class of the source weights is one of the data's: none is left for the remaining class")
    return left


def _plain(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter not in " -_")


def group_logits(logits: NDArray[Any], rows: Sequence[Sequence[int]]) -> NDArray[Any]:
    """Logits (N, source classes) -> (N, classes): log(sum(exp)) over each class's rows, in the same type.

    So the softmax gives a class exactly the sum of its source classes' probabilities, among those that belong to any.
    """
    grouped = [np.logaddexp.reduce(logits[:, list(chosen)].astype(np.float64), axis=1) for chosen in rows]
    return np.stack(grouped, axis=1).astype(logits.dtype)


def mean_head(source: Mapping[str, NDArray[Any]], rows: Sequence[Sequence[int]]) -> Arrays:
    """A head whose row for each class is the mean of that class's rows in the source head, of weight and bias."""
    return {
        name: np.stack([source[name][list(chosen)].astype(np.float64).mean(axis=0) for chosen in rows]).astype(
            source[name].dtype
        )
        for name in ("fc.weight", "fc.bias")
    }
