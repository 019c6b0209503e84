"""Match the data's classes with those of the source network, and make a head from the matching rows."""

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
    """Find the rows of the experiment's source head that belong to each class of the data.

    Args:
        spec: What the user chose.
        classes: Names of the data's classes.

    Returns:
        What `match` returns.

    Raises:
        UserError: The source weights have no head, or `match` refuses the names.
    """
    names = sources.source_class_names(spec)
    if not names:
        wanted = "--strategy zero-shot" if spec.strategy == "zero-shot" else "--head-init source-class"
        raise UserError(
            f"{wanted} uses the classes of the source's head, and --weights {spec.weights} is a backbone without one; "
            "choose another strategy with --head-init xavier_uniform, or weights with a head"
        )
    rest = () if spec.strategy == "zero-shot" else spec.head_init_classes
    return match(classes, names, rest)


def match(classes: Sequence[str], source_names: Sequence[str], rest: Sequence[str] = ()) -> list[list[int]]:
    """Find, for each class of the data, the source classes that belong to it.

    A class belongs to the source class of its name, where case, spaces, hyphens and underscores do not count unless
    several names differ in these alone. One class may have no such name: to it belong all source classes that belong to
    no other class, or those of them that `rest` names.

    >>> match(["hotdog", "not-hotdog"], ["pizza", "hotdog", "burger"])
    [[1], [0, 2]]

    Args:
        classes: Names of the data's classes.
        source_names: Names of the source classes, in the order of the source head's rows.
        rest: Source classes of the class without a namesake; empty for all that are left over.

    Returns:
        For each class the indices of its source classes.

    Raises:
        UserError: Several classes have no namesake, none is left over for the one without, or `rest` is given though
            every class has a namesake or names a class that the source does not have.
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
    """Find the source classes of a name: those called exactly so, or else those that differ in case and spacing alone.

    >>> find("Hot Dog", ["pizza", "hot_dog"])
    [1]

    Args:
        name: The name to look for.
        source_names: Names of the source classes.

    Returns:
        The indices of the source classes; none where no name fits.
    """
    exact = [index for index, source in enumerate(source_names) if source == name]
    return exact or [index for index, source in enumerate(source_names) if _plain(source) == _plain(name)]


def _rest(wanted: Sequence[str], source_names: Sequence[str], taken: set[int]) -> list[int]:
    """Return the source classes of the one class of the data that has no namesake.

    Args:
        wanted: Names of source classes to choose from; empty for all.
        source_names: Names of all source classes.
        taken: Indices of the source classes that belong to another class.

    Returns:
        The indices, ascending, without those that are taken.

    Raises:
        UserError: The source has no class of a wanted name, or nothing is left.
    """
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
    """Sum the probabilities of source classes: logit[n, c] = log(sum over s in rows[c] of exp(logits[n, s])).

    The softmax of the result gives a class exactly the sum of its source classes' probabilities, among the source
    classes that belong to any class.

    >>> group_logits(np.zeros((1, 3), np.float32), [[0], [1, 2]]).round(2)
    array([[0.  , 0.69]], dtype=float32)

    Args:
        logits: (N, source classes).
        rows: For each class the indices of its source classes.

    Returns:
        Logits (N, classes) in the dtype of `logits`, computed in float64.
    """
    grouped = [np.logaddexp.reduce(logits[:, list(chosen)].astype(np.float64), axis=1) for chosen in rows]
    return np.stack(grouped, axis=1).astype(logits.dtype)


def mean_head(source: Mapping[str, NDArray[Any]], rows: Sequence[Sequence[int]]) -> Arrays:
    """Make a head from the source's: each class's row is the mean of that class's rows in the source head.

    >>> source = {"fc.weight": np.eye(3), "fc.bias": np.array([1.0, 2.0, 4.0])}
    >>> mean_head(source, [[0], [1, 2]])["fc.bias"]
    array([1., 3.])

    Args:
        source: The source's arrays, with `fc.weight` (source classes, features) and `fc.bias` (source classes,).
        rows: For each class the indices of its source classes.

    Returns:
        `fc.weight` (classes, features) and `fc.bias` (classes,) in the source's dtype, averaged in float64.
    """
    return {
        name: np.stack([source[name][list(chosen)].astype(np.float64).mean(axis=0) for chosen in rows]).astype(
            source[name].dtype
        )
        for name in ("fc.weight", "fc.bias")
    }
