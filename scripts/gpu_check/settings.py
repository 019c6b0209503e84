"""What all parts of the GPU check are told, and the sizes of their work. Only the standard library is imported here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """What a part is told."""

    output: str
    """Folder for the results; what is made on the way goes to `work` in it, and what jobs say to `logs`."""
    device: str
    """`gpu`, or `cpu` for a rehearsal."""
    pythons: dict[str, str]
    """Backend -> the interpreter that has its framework."""

    @property
    def sizes(self) -> Sizes:
        """The sizes of the work."""
        return SIZES[self.device]


@dataclass(frozen=True)
class Sizes:
    """How much the parts do: enough on a GPU to be worth measuring, and little in a rehearsal."""

    image_size: int
    batch_size: int
    train_limit: int
    test_limit: int
    steps: int
    """Training steps of each way to train in the crosscheck."""
    scenarios: tuple[str, ...]
    """The ways to train that the crosscheck examines."""
    bench_image_size: int
    bench_batch_sizes: tuple[int, ...]
    repeats: int
    epochs: int
    """Epochs of the trainings whose accuracies are compared."""
    seeds: int


SIZES = {
    "gpu": Sizes(
        image_size=96, batch_size=32, train_limit=200, test_limit=200, steps=10,
        scenarios=("sgd, sum", "momentum, frozen statistics", "adam, frozen statistics", "strong decay", "warm-up",
                   "weighted and smoothed", "lora, sgd"),
        bench_image_size=224, bench_batch_sizes=(128,), repeats=5, epochs=3, seeds=2,
    ),
    "cpu": Sizes(
        image_size=72, batch_size=8, train_limit=24, test_limit=16, steps=2, scenarios=("sgd, sum", "warm-up"),
        bench_image_size=72, bench_batch_sizes=(8,), repeats=1, epochs=1, seeds=1,
    ),
}  # fmt: skip
