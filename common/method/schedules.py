"""Learning-rate schedules: the factor of every learning rate at each step of a phase, for every framework alike."""

from __future__ import annotations

import math

from common.spec.experiment import ExperimentSpec
from common.system.errors import UserError

# Defaults of torch.optim.lr_scheduler.OneCycleLR (pct_start, div_factor, final_div_factor): share of the steps in which
# the rate rises, ratio of the peak to the first rate, and ratio of the first rate to the last.
RISING_SHARE, PEAK_BY_FIRST, FIRST_BY_LAST = 0.3, 25.0, 1e4
# With fewer steps, the rise would have none.
FEWEST_STEPS_OF_ONE_CYCLE = 4


def factor(spec: ExperimentSpec, step: int, steps: int) -> float:
    """Return the factor that multiplies every learning rate at a step of a phase; its peak is 1.

    With i = `step`, n = `steps`, w = `schedule_warm_up_steps`, p = 0.3 n - 1 and half(t) = (1 + cos(pi t)) / 2:

        warm-up, i < w:    (i + 1) / (w + 1)
        constant:          1
        cosine:            half((i - w) / (n - w))
        one-cycle, i <= p: 1 + (1 / 25 - 1) half(i / p)
        one-cycle, i > p:  1 / 250,000 + (1 - 1 / 250,000) half((i - p) / (n - 1 - p))

    The warm-up (Goyal et al. 2017) precedes constant and cosine, which take the steps that are left. The cosine falls
    from 1 to almost 0: Loshchilov and Hutter 2017, eq. 5, without restarts, as
    `torch.optim.lr_scheduler.CosineAnnealingLR` does it a step at a time. One-cycle rises from 1/25 to 1 and falls to
    1/250,000: `torch.optim.lr_scheduler.OneCycleLR` with its defaults (Smith 2018), but momentum stays as it is.

    >>> factor(ExperimentSpec(schedule="cosine"), step=5, steps=10)
    0.5

    Args:
        spec: The experiment, for `schedule` and `schedule_warm_up_steps`.
        step: The step within the phase, counted from 0.
        steps: Number of steps of the phase.

    Returns:
        The factor, above 0 and at most 1.
    """
    ramp = spec.schedule_warm_up_steps
    if step < ramp:
        return (step + 1) / (ramp + 1)
    if spec.schedule == "cosine":
        return _between(1.0, 0.0, (step - ramp) / (steps - ramp))
    if spec.schedule == "one-cycle":
        peak, last, first = RISING_SHARE * steps - 1, steps - 1, 1 / PEAK_BY_FIRST
        if step <= peak:
            return _between(first, 1.0, step / peak)
        return _between(1.0, first / FIRST_BY_LAST, (step - peak) / (last - peak))
    assert spec.schedule == "constant", spec.schedule
    return 1.0


def check(spec: ExperimentSpec, phase: str, steps: int) -> None:
    """Raise UserError where the schedule does not fit into the steps of a phase."""
    if spec.schedule_warm_up_steps >= steps:
        raise UserError(
            f"schedule_warm_up_steps = {spec.schedule_warm_up_steps}: the phase {phase!r} has only {steps} steps; "
            "choose fewer, or more --epochs"
        )
    if spec.schedule == "one-cycle" and steps < FEWEST_STEPS_OF_ONE_CYCLE:
        raise UserError(
            f"schedule = 'one-cycle' needs at least {FEWEST_STEPS_OF_ONE_CYCLE} steps, but the phase {phase!r} has "
            f"{steps}; choose more --epochs, a smaller --batch-size or another --schedule"
        )


def _between(start: float, end: float, share: float) -> float:
    """Interpolate along half a cosine from `start`, at a share of 0, to `end`, at a share of 1."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
