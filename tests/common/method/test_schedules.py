"""Factors of the learning rate, against what PyTorch 2's schedulers give for a learning rate of 1."""

from __future__ import annotations

import pytest

from common.method import schedules
from common.spec.experiment import ExperimentSpec
from common.system.errors import UserError


def factors(steps: int, **changes: object) -> list[float]:
    spec = ExperimentSpec(**changes)  # type: ignore[arg-type]
    return [schedules.factor(spec, step, steps) for step in range(steps)]


def test_constant_is_one() -> None:
    assert factors(5) == [1.0] * 5


def test_cosine_is_torchs() -> None:
    """CosineAnnealingLR(T_max=6)."""
    expected = [1.0, 0.933012701892, 0.75, 0.5, 0.25, 0.066987298108]
    assert factors(6, schedule="cosine") == pytest.approx(expected, abs=1e-11)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        # OneCycleLR(max_lr=1, total_steps=10), and 7, whose peak of 1 lies between two steps.
        (10, [0.04, 0.52, 1.0, 0.950484632013, 0.81174565395, 0.611262021936, 0.388741978064, 0.18825834605,
              0.049519367987, 4e-06]),
        (7, [0.04, 0.980556627335, 0.91904437627, 0.672683836481, 0.35773877574, 0.099296791893, 4e-06]),
    ],
)  # fmt: skip
def test_one_cycle_is_torchs(steps: int, expected: list[float]) -> None:
    assert factors(steps, schedule="one-cycle") == pytest.approx(expected, abs=1e-11)


def test_the_rate_warms_up_before_the_schedule() -> None:
    assert factors(6, schedule_warm_up_steps=3) == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])
    warmed = factors(7, schedule="cosine", schedule_warm_up_steps=3)
    assert warmed == pytest.approx([0.25, 0.5, 0.75, *factors(4, schedule="cosine")])


@pytest.mark.parametrize("changes", [{"schedule": "one-cycle"}, {"schedule_warm_up_steps": 3}])
def test_what_does_not_fit_into_a_phase_is_refused(changes: dict[str, object]) -> None:
    spec = ExperimentSpec(**changes)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="'head' has"):
        schedules.check(spec, "head", 3)
    schedules.check(spec, "head", 4)
