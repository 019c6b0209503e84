"""The processes of an experiment, and the part of each batch that this one computes.

PyTorch has one process per device, JAX one per machine, Keras and MXNet one in all. `spec.devices` counts the devices
of all processes. The devices share a batch evenly. Where its images cannot be divided (an epoch's last batch), every
device computes the whole batch, so that no image is lost and none weighs more than another.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from common.spec.experiment import ExperimentSpec
from common.system.errors import UserError

Item = TypeVar("Item")

# The backends whose processes can work together.
SEVERAL_PROCESSES = ("torch", "jax")


@dataclass(frozen=True)
class World:
    """The processes that train one model together, and this one's place among them."""

    rank: int = 0
    """Number of this process, counted from 0."""
    size: int = 1
    """Number of processes in all."""
    local_rank: int = 0
    """Number of this process among those of its machine."""
    local_size: int = 1
    """Number of processes on its machine."""
    coordinator: str = ""
    """host:port of the first process, at which the others find it; empty for a process alone."""

    @property
    def leads(self) -> bool:
        """Whether this process shows progress and writes files; the others compute the same."""
        return self.rank == 0

    def variables(self) -> dict[str, str]:
        """Return the environment variables that describe this world, as torchrun sets them.

        >>> World(rank=1, size=2, coordinator="localhost:29500").variables()["MASTER_PORT"]
        '29500'

        Returns:
            Name -> value.
        """
        host, port = self.coordinator.rsplit(":", 1)
        numbers = {"RANK": self.rank, "WORLD_SIZE": self.size}
        numbers |= {"LOCAL_RANK": self.local_rank, "LOCAL_WORLD_SIZE": self.local_size}
        return {**{name: str(number) for name, number in numbers.items()}, "MASTER_ADDR": host, "MASTER_PORT": port}


ALONE = World()


def world() -> World:
    """Read the world from torchrun's environment variables.

    Returns:
        The world that they describe, or this process alone where they are not set.

    Raises:
        UserError: Some variables are missing or make no sense, or they contradict each other.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return ALONE
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    # A launcher that sets no local rank starts one process on each machine.
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
    """Return the world of an experiment; raise UserError where its processes do not fit its backend and devices."""
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
    """Return how many of an experiment's devices this process drives."""
    return spec.devices // world_of(spec).size


def share(count: int, world: World, devices: int) -> slice:
    """Return the part of a batch that a process computes.

    >>> share(8, World(rank=1, size=2), devices=2)
    slice(4, 8, None)
    >>> share(7, World(rank=1, size=2), devices=2)
    slice(0, 7, None)

    Args:
        count: Number of images in the batch.
        world: The process and its place among the others.
        devices: Number of devices of all processes.

    Returns:
        A contiguous part, in the order of the ranks, or the whole batch where the devices cannot share it evenly.
    """
    if count % devices:
        return slice(0, count)
    each = count // world.size
    return slice(world.rank * each, (world.rank + 1) * each)


def share_to_train(batch: Sequence[Item], devices: int) -> Sequence[Item]:
    """Return the samples of a training batch that this process loads; it needs the labels of all."""
    return batch[share(len(batch), world(), devices)]


def share_to_test(batch: Sequence[Item], devices: int) -> Sequence[Item]:
    """Return the samples of a batch that this process loads to evaluate the model on.

    Several processes always share the batch. The last sample is repeated until the devices can share it evenly: in
    evaluation no image influences another, so the rows beyond the batch's own are cut off in the end.

    Args:
        batch: The samples of the whole batch.
        devices: Number of devices of all processes.

    Returns:
        The samples of this process, in order.
    """
    here = world()
    if here.size == 1:
        return batch
    padded = [*batch, *([batch[-1]] * (-len(batch) % devices))]
    return padded[share(len(padded), here, devices)]
