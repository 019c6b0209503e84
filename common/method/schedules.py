"""The learning rate over the steps of a phase, as a factor that every framework multiplies its rates with."""

from __future__ import annotations

import math

from common.spec.experiment import ExperimentSpec
from common.system.errors import UserError

# torch.optim.lr_scheduler.OneCycleLR's defaults: share of the steps in which the rate rises, the peak by the first
# rate, and the first rate by the last.
RISING_SHARE, PEAK_BY_FIRST, FIRST_BY_LAST = 0.3, 25.0, 1e4
# With fewer steps none falls into the rise.
FEWEST_STEPS_OF_ONE_CYCLE = 4


def factor(spec: ExperimentSpec, step: int, steps: int) -> float:
    """The multiple of the learning rate for `step`, counted from 0, of a phase's `steps`; its peak is 1.

    constant: 1.
    cosine: (1 + cos(pi * step / steps)) / 2, from 1 to almost 0 (Loshchilov and Hutter 2017, eq. 5, without restarts,
    as `torch.optim.lr_scheduler.CosineAnnealingLR` does it a step at a time).
    one-cycle: rises from 1/25 to 1 and falls to 1/250,000, each along half a cosine, with its peak at 0.3 * steps - 1:
    `torch.optim.lr_scheduler.OneCycleLR` with its defaults (Smith 2018). Momentum stays as it is.

    `schedule_warm_up_steps` = w precede constant and cosine: step i < w has (i + 1) / (w + 1), and the schedule takes
    the steps that are left (Goyal et al. 2017).
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
    """From `start` at 0 to `end` at 1 along half a cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
