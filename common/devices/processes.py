"""Which part of the work is this process's, where several devices share each batch.

PyTorch has one process a device, JAX one a machine, Keras and MXNet one in all. `spec.devices` counts the devices of
all processes. A batch is shared evenly, or, where its images cannot be (an epoch's last batch), computed whole by
every device, so that no image is lost and none weighs more than another.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from common.spec.experiment import ExperimentSpec
from common.system.errors import UserError

Item = TypeVar("Item")

# Those whose processes can work together.
SEVERAL_PROCESSES = ("torch", "jax")


@dataclass(frozen=True)
class World:
    """The processes that train one model together, and this one's place among them."""

    rank: int = 0
    """Number of this process, counted from 0."""
    size: int = 1
    """How many processes there are."""
    local_rank: int = 0
    """Number of this process among those of its machine."""
    local_size: int = 1
    """How many processes its machine has."""
    coordinator: str = ""
    """host:port of the first process, by which the others find it."""

    @property
    def leads(self) -> bool:
        """Whether this is the process that shows progress and writes files; the others compute the same."""
        return self.rank == 0

    def variables(self) -> dict[str, str]:
        """The environment variables that say the same, as torchrun sets them."""
        host, port = self.coordinator.rsplit(":", 1)
        numbers = {"RANK": self.rank, "WORLD_SIZE": self.size}
        numbers |= {"LOCAL_RANK": self.local_rank, "LOCAL_WORLD_SIZE": self.local_size}
        return {**{name: str(number) for name, number in numbers.items()}, "MASTER_ADDR": host, "MASTER_PORT": port}


ALONE = World()


def world() -> World:
    """The world that torchrun's environment variables describe; without them, this process alone.

    Raises UserError where they contradict each other or some are missing.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return ALONE
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    # A launcher that names no number within the machine has one process on each.
    values = {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", **os.environ}
    try:
        rank, size, local_rank, local_size = (int(values[name]) for name in names)
        coordinator = f"{values['MASTER_ADDR']}:{int(values['MASTER_PORT'])}"
    except (KeyError, ValueError) as error:
        raise UserError(
            f"WORLD_SIZE = {os.environ['WORLD_SIZE']!r} in the environment says that several processes work together, "
            f"but {', '.join(names)}, MASTER_ADDR and MASTER_PORT are not all there with sensible values; unset it, or "
            "let torchrun set them"
        ) from error
    if not (0 <= rank < size and 0 <= local_rank < local_size <= size):
        raise UserError(
            f"RANK = {rank}, WORLD_SIZE = {size}, LOCAL_RANK = {local_rank}, LOCAL_WORLD_SIZE = "
            f"{local_size} in the environment contradict each other; unset them, or let torchrun set them"
        )
    return World(rank, size, local_rank, local_size, coordinator)


def world_of(spec: ExperimentSpec) -> World:
    """The world of an experiment; raises UserError where its processes do not fit its devices."""
    found = world()
    if found.size > 1 and spec.backend not in SEVERAL_PROCESSES:
        raise UserError(
            f"{found.size} processes were started together, but {spec.backend} drives all its devices from one; start "
            f"one with --devices {found.size}, or choose --backend {' or '.join(SEVERAL_PROCESSES)}"
        )
    if spec.backend == "torch" and spec.devices != found.size:
        if found.size == 1:
            raise UserError(
                f"devices = {spec.devices}: PyTorch takes a process for each; python -m scripts.run starts them, or "
                f"torchrun --nproc-per-node {spec.devices} -m scripts.run"
            )
        raise UserError(
            f"devices = {spec.devices}, but {found.size} processes were started; add --devices {found.size}"
        )
    if spec.devices % found.size:
        raise UserError(f"devices = {spec.devices}: not a multiple of the {found.size} processes that were started")
    return found


def local_devices(spec: ExperimentSpec) -> int:
    """How many of an experiment's devices this process drives."""
    return spec.devices // world_of(spec).size


def share(count: int, world: World, devices: int) -> slice:
    """The part of a batch of `count` images that a process computes: contiguous, in the order of the ranks, or all of
    it where the devices cannot share it evenly."""
    if count % devices:
        return slice(0, count)
    each = count // world.size
    return slice(world.rank * each, (world.rank + 1) * each)


def share_to_train(batch: Sequence[Item], devices: int) -> Sequence[Item]:
    """What this process loads of a training batch; its labels it needs all."""
    return batch[share(len(batch), world(), devices)]


def share_to_test(batch: Sequence[Item], devices: int) -> Sequence[Item]:
    """What this process loads of a batch to evaluate.

    Several processes share it always, for which the last sample is repeated until it divides: in evaluation an image
    knows nothing of the others, so the rows that are too many are cut off in the end.
    """
    here = world()
    if here.size == 1:
        return batch
    padded = [*batch, *([batch[-1]] * (-len(batch) % devices))]
    return padded[share(len(padded), here, devices)]
