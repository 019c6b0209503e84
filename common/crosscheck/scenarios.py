"""Define what the crosscheck examines: the ways of training, and the entries of each array that a probe keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.spec.experiment import ExperimentSpec

# The backend whose float64 run is the yardstick for all float32 runs.
YARDSTICK_BACKEND = "torch"
# Entries of each tensor that a probe keeps: enough that any change of layout, rate or decay shows in them.
SAMPLED_ENTRIES = 4096


@dataclass(frozen=True)
class Scenario:
    """One way of training in which all backends take the same steps on the same batches."""

    name: str
    changes: dict[str, Any]
    """The fields of the spec that make this way, with their values."""

    def spec(self, base: ExperimentSpec) -> ExperimentSpec:
        """Return the base experiment with the changes of this scenario."""
        return base.replace(**self.changes)


# The book's learning rate for the sum over 128 images is 5e-5; 6.4e-3 is the same for the mean.
SCENARIOS = (
    Scenario("sgd, sum", {}),
    Scenario("sgd, sum, frozen statistics", {"batch_norm": "frozen"}),
    Scenario("sgd, mean", {"loss_reduction": "mean", "learning_rate": 6.4e-3}),
    Scenario(
        "sgd, mean, frozen statistics", {"loss_reduction": "mean", "learning_rate": 6.4e-3, "batch_norm": "frozen"}
    ),
    Scenario("momentum", {"optimizer": "momentum"}),
    Scenario("momentum, frozen statistics", {"optimizer": "momentum", "batch_norm": "frozen"}),
    Scenario("adam", {"optimizer": "adam", "learning_rate": 1e-5}),
    Scenario("adam, frozen statistics", {"optimizer": "adam", "learning_rate": 1e-5, "batch_norm": "frozen"}),
    # The book's decay of 1e-3 moves a parameter by 5e-8 of itself a step: a parameter group without it would not show.
    Scenario("strong decay", {"weight_decay": 1.0}),
    Scenario("warm-up", {"strategy": "warm-up", "epochs": 2, "warm_up_epochs": 1}),
    Scenario("discriminative", {"strategy": "discriminative"}),
    # A learning rate that changes shows whether momentum accumulates gradients or updates.
    Scenario("cosine, momentum", {"schedule": "cosine", "schedule_warm_up_steps": 2, "optimizer": "momentum"}),
    Scenario("one-cycle, adam", {"schedule": "one-cycle", "optimizer": "adam", "learning_rate": 1e-5}),
    Scenario("weighted and smoothed", {"class_weights": "balanced", "label_smoothing": 0.1}),
    Scenario("feature extraction", {"strategy": "feature-extraction"}),
    Scenario("last two stages", {"strategy": "partial"}),
    # B starts at zero and learns slowly: at this rate the convolutions move by 1e-3 of themselves, fifty times what
    # parameters may differ by, and yet the loss stays calm.
    Scenario("lora, sgd", {"strategy": "lora", "loss_reduction": "mean", "learning_rate": 0.05, "head_multiple": 0.1}),
)
SHORT = (
    "sgd, sum",
    "sgd, mean, frozen statistics",
    "momentum",
    "adam, frozen statistics",
    "strong decay",
    "warm-up",
    "discriminative",
    "cosine, momentum",
    "weighted and smoothed",
    "lora, sgd",
)


def chosen(short: bool) -> tuple[Scenario, ...]:
    """Return all scenarios, or if `short` the few that together touch every definition."""
    return tuple(scenario for scenario in SCENARIOS if not short or scenario.name in SHORT)


def sample(array: NDArray[Any]) -> NDArray[Any]:
    """Return SAMPLED_ENTRIES entries of an array, or all entries of a smaller one.

    The choice depends on the array's size alone, so that it is the same in every backend.

    >>> sample(np.arange(6).reshape(2, 3))
    array([0, 1, 2, 3, 4, 5])

    Args:
        array: An array of any shape.

    Returns:
        A copy of the entries, (entries,), in the array's dtype.
    """
    flat = array.reshape(-1)
    if flat.size <= SAMPLED_ENTRIES:
        return flat.copy()
    chosen_entries = np.random.default_rng(flat.size).random(SAMPLED_ENTRIES) * flat.size
    return flat[chosen_entries.astype(np.int64)].copy()
