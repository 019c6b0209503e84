"""Compare the backends' probes: each with the yardstick, and every two with each other."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from common.crosscheck.probe import Arrays
from common.crosscheck.scenarios import YARDSTICK_BACKEND, Scenario

# A backend's float32 run may be this many times as far from the float64 run as torch's float32 run is: rounding
# differs with the order of summation, and its growth over the steps is of the same kind in every framework.
FACTOR = 3.0


@dataclass(frozen=True)
class Tolerance:
    """The relative distances that a check allows."""

    floor: float
    """A distance to the yardstick that is always allowed, since torch's own, times FACTOR, may be small by luck."""
    target: float | None = None
    """The distance that no two backends should exceed; None sets no target."""
    binding: bool = True
    """Whether a missed target fails the check; otherwise the check only notes it."""


# A forward pass through 18 layers is 1e-6 off. A channel's sum over n = 32 * 48 * 48 values in one float32
# accumulator, as MXNet does it, is off by up to sqrt(n) * 6e-8 = 2e-5, where torch, which adds pairwise, is not.
LOGITS = Tolerance(2e-5, target=1e-5)
# A ReLU whose input is within rounding of zero lets the gradient through in one framework and not in another. That
# changes the gradients before it by up to 2e-3 in a batch of 8; torch's float32 does it to torch's float64 as well.
GRADIENTS = Tolerance(5e-3, target=1e-5, binding=False)
# Steps of SGD follow the gradient in proportion, so that the same ReLU moves parameters by 1e-3 of a small update.
# Which framework meets such a ReLU is chance: over 20 steps with frozen statistics one is 3e-6 off and another 3e-5.
LOSSES, PARAMETERS, STATISTICS = Tolerance(5e-5, target=1e-4), Tolerance(5e-5), Tolerance(2e-5, target=1e-4)
# Adam divides by the gradient's size: where the gradient is nothing but rounding, the sign of the step is chance.
ADAM_LOSSES, ADAM_PARAMETERS = Tolerance(1e-4, target=1e-4, binding=False), Tolerance(1e-3)
ADAM_STATISTICS = Tolerance(1e-4, target=1e-4, binding=False)
# Rounding may move a logit after an epoch by this share of the largest logit, even where it moved torch's by less.
NEAR_TIE = 1e-5


@dataclass
class Check:
    """One check, a line of the table."""

    name: str
    passed: bool
    distances: dict[str, float] = field(default_factory=dict)
    """The relative distance to the yardstick by backend."""
    allowed: float | None = None
    """The largest distance with which a backend passes; None where equality decides."""
    farthest: tuple[str, str, float] | None = None
    """The two backends that are farthest from each other, and their relative distance."""
    note: str = ""


@dataclass
class Probe:
    """One backend's probe, as read from its file."""

    facts: dict[str, Any]
    arrays: Arrays


def compare(probes: dict[str, Probe], yardstick: Probe, scenarios: tuple[Scenario, ...]) -> list[Check]:
    """Make all checks of the backends' probes.

    Args:
        probes: The float32 probe of each backend; torch's has to be among them.
        yardstick: The float64 probe of torch.
        scenarios: The scenarios that the probes contain.

    Returns:
        The checks in the order of the table.
    """
    checks = [*_facts(probes), _top1("zero-shot top-1", "zero-shot", probes, yardstick)]
    checks.append(_distance("logits", _single("logits"), probes, yardstick, LOGITS))
    for mode in ("train", "frozen"):
        gradients = _group(f"gradient, {mode}/")
        checks.append(_distance(f"gradients, {mode} statistics", gradients, probes, yardstick, GRADIENTS))
    for scenario in scenarios:
        name, adam = scenario.name, scenario.changes.get("optimizer") == "adam"
        losses, parameters, statistics = (
            (ADAM_LOSSES, ADAM_PARAMETERS, ADAM_STATISTICS) if adam else (LOSSES, PARAMETERS, STATISTICS)
        )
        checks.append(_losses(f"{name}: losses", _single(f"{name}/losses"), probes, yardstick, losses))
        for what, tolerance in (("parameters", parameters), ("statistics", statistics)):
            checks.append(_distance(f"{name}: {what}", _group(f"{name}/{what}/"), probes, yardstick, tolerance))
    checks.append(_same("epoch: test labels", {name: probe.arrays["epoch/labels"] for name, probe in probes.items()}))
    checks.append(_top1("epoch: test predictions", "epoch/logits", probes, yardstick))
    return checks


def _facts(probes: dict[str, Probe]) -> list[Check]:
    """Check the facts that must be equal to the last digit."""
    checks = []
    for name in ("parameters_by_stage", "class_to_idx", "hotdog_index", "hotdog_name", "pixels"):
        checks.append(_same(name.replace("_", " "), {b: probe.facts[name] for b, probe in probes.items()}))
    shapes = {b: {k: sorted(shape) for k, shape in p.facts["head_shapes"].items()} for b, p in probes.items()}
    checks.append(_same("head shapes, as (classes, features)", shapes))
    checks.append(_same("hot-dog row of the source head", {b: p.arrays["hotdog row"] for b, p in probes.items()}))
    return checks


def _same(name: str, values: dict[str, Any]) -> Check:
    """Check that all backends have the value of the first."""
    first = next(iter(values))
    different = [
        other for other, value in values.items()
        if not (np.array_equal(value, values[first]) if isinstance(value, np.ndarray) else value == values[first])
    ]  # fmt: skip
    note = f"{', '.join(different)} differ from {first}" if different else "equal"
    return Check(name, not different, note=note)


Chooser = Callable[[Arrays], Arrays]
Measure = Callable[[Arrays, Arrays], float]


def _distance(name: str, choose: Chooser, probes: dict[str, Probe], yardstick: Probe, tolerance: Tolerance) -> Check:
    """Check each tensor against the yardstick, and every two backends, all tensors together, against the target."""
    chosen = {backend: choose(probe.arrays) for backend, probe in probes.items()}
    check = _measure(name, chosen, choose(yardstick.arrays), _worst_tensor, tolerance.floor)
    pairs = [_all_tensors(chosen[a], chosen[b]) for a, b in itertools.combinations(chosen, 2)]
    _aim(check, float(np.max(pairs, initial=0.0)), tolerance)
    return check


def _losses(name: str, choose: Chooser, probes: dict[str, Probe], yardstick: Probe, tolerance: Tolerance) -> Check:
    """Check the loss of every step against the yardstick, and those of every two backends against the target."""
    chosen = {backend: choose(probe.arrays) for backend, probe in probes.items()}
    check = _measure(name, chosen, choose(yardstick.arrays), _largest_relative, tolerance.floor)
    _aim(check, check.farthest[2] if check.farthest else 0.0, tolerance)
    return check


def _measure(name: str, chosen: dict[str, Arrays], true: Arrays, measure: Measure, floor: float) -> Check:
    """Check that each backend is near the yardstick: measure(backend) <= max(FACTOR * measure(torch), floor)."""
    distances = {backend: measure(values, true) for backend, values in chosen.items()}
    allowed = max(FACTOR * distances[YARDSTICK_BACKEND], floor)
    pairs = [(a, b, measure(chosen[a], chosen[b])) for a, b in itertools.combinations(chosen, 2)]
    farthest = max(pairs, key=lambda pair: pair[2], default=None)
    # As distance <= allowed, so that NaN fails.
    return Check(name, all(distance <= allowed for distance in distances.values()), distances, allowed, farthest)


def _aim(check: Check, apart: float, tolerance: Tolerance) -> None:
    """Note a missed target, and fail the check if it was binding."""
    if tolerance.target is not None and not apart <= tolerance.target:
        check.passed = check.passed and not tolerance.binding
        check.note = f"the target of {tolerance.target:g} is missed: {apart:.1e}"


def _top1(name: str, key: str, probes: dict[str, Probe], yardstick: Probe) -> Check:
    """Check that every image has the yardstick's top-1 class, near-ties excepted.

    An image is a near-tie if its two largest logits z1 >= z2 in the yardstick are nearer to each other than rounding
    may move them:

        z1 - z2 <= 2 * FACTOR * max(largest error of torch's float32 logits, NEAR_TIE * largest |logit|)

    Args:
        name: The name of the check.
        key: The key of the logits, (images, classes), in the probes.
        probes: The float32 probe of each backend.
        yardstick: The float64 probe of torch.

    Returns:
        The check, with the relative L2 distances of the logits.
    """
    true = yardstick.arrays[key]
    if any(probe.arrays[key].shape != true.shape for probe in probes.values()):
        return Check(name, False, note="not the same number of images")
    errors = {backend: float(np.abs(probe.arrays[key] - true).max()) for backend, probe in probes.items()}
    ordered = np.sort(true, axis=1)
    tie = ordered[:, -1] - ordered[:, -2] <= 2 * FACTOR * max(errors[YARDSTICK_BACKEND], NEAR_TIE * np.abs(true).max())
    wrong, excused = {}, 0
    for backend, probe in probes.items():
        differs = probe.arrays[key].argmax(axis=1) != true.argmax(axis=1)
        wrong[backend] = int((differs & ~tie).sum())
        excused += int((differs & tie).sum())
    note = f"{len(true)} images, {excused} near-ties differ"
    if any(wrong.values()):
        note = ", ".join(f"{backend}: {count} of {len(true)} differ" for backend, count in wrong.items() if count)
    scale = float(np.linalg.norm(true))
    distances = {b: float(np.linalg.norm(p.arrays[key] - true)) / scale for b, p in probes.items()}
    return Check(name, not any(wrong.values()), distances, None, None, note)


def _single(key: str) -> Chooser:
    """Return a function that chooses one array of a probe."""
    return lambda arrays: {key: arrays[key]}


def _group(prefix: str) -> Chooser:
    """Return a function that chooses the arrays of a probe whose names begin with `prefix`."""
    return lambda arrays: {name: array for name, array in arrays.items() if name.startswith(prefix)}


def _worst_tensor(values: Arrays, true: Arrays) -> float:
    """Return the largest relative L2 distance of a tensor, or infinity where tensors are missing.

        distance = max over tensors of |value - true| / max(|true|, 1e-4 * largest |true| of all tensors)

    The second term is for tensors that are nothing but rounding, such as a gradient that is zero in exact arithmetic:
    they are measured by the scale of the others.

    Args:
        values: The tensors by name.
        true: The tensors that they are compared with.
    """
    if values.keys() != true.keys():
        return float("inf")
    norms = {name: float(np.linalg.norm(array)) for name, array in true.items()}
    smallest = 1e-4 * max(norms.values(), default=0.0)
    relative = [
        np.linalg.norm(values[name].astype(np.float64) - true[name]) / max(norms[name], smallest, 1e-30)
        for name in true
    ]
    # np.max propagates NaN, and max does not.
    return float(np.max(relative))


def _all_tensors(values: Arrays, true: Arrays) -> float:
    """Return the relative L2 distance of all tensors as one vector, or infinity where tensors are missing."""
    if values.keys() != true.keys():
        return float("inf")
    squares = sum(float(np.sum((values[name].astype(np.float64) - true[name]) ** 2)) for name in true)
    return float(np.sqrt(squares / sum(float(np.sum(array.astype(np.float64) ** 2)) for array in true.values())))


def _largest_relative(values: Arrays, true: Arrays) -> float:
    """Return the largest relative difference max |value - true| / |true| of two single arrays.

    >>> round(_largest_relative({"losses": np.array([1.0, 2.2])}, {"losses": np.array([1.0, 2.0])}), 6)
    0.1
    """
    (first,), (second,) = values.values(), true.values()
    return float(np.max(np.abs(first - second) / np.abs(second)))
