"""The short pieces of work of this project that a benchmark times."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

from common.batches.source import Batches
from common.bench.results import PRODUCT_SIDE
from common.contract.experiment import Experiment
from common.training import evaluation, loop

Slice = Callable[[], tuple[int, float]]
"""A function that does a piece of work and returns its amount (images, or matrix products) and the seconds."""


def our_slices(experiment: Experiment, batches: Batches) -> dict[str, Slice]:
    """Return slices of training and evaluation by `common.training`, both on ready batches, and a matrix product."""
    backend, spec, data = experiment.backend, experiment.spec, experiment.data
    model = backend.build_models(spec).fine_tune
    (phase,) = experiment.plan.phases
    trainer = backend.Trainer(model, spec, phase)
    epochs, constant_rate = itertools.count(1), [1.0] * math.ceil(len(data.train) / spec.batch_size)
    ready_train, ready_test = list(batches.train(1)), list(batches.test(data.test))
    product = backend.matmul_benchmark(spec, PRODUCT_SIDE)

    def train() -> None:
        loop.train_epoch(experiment, trainer, batches, next(epochs), constant_rate)

    def test() -> None:
        evaluation.predict(experiment, model, data.test, batches)

    def train_ready() -> None:
        for images, labels in ready_train:
            trainer.train_step(images, labels)
        trainer.read_sums()

    def test_ready() -> None:
        for images, _ in ready_test:
            backend.logits(model, images)

    training, testing = len(data.train), len(data.test)
    return {
        f"train ours {spec.precision}": timed(train, training),
        f"train ready {spec.precision}": timed(train_ready, training),
        f"test ours {spec.precision}": timed(test, testing),
        f"test ready {spec.precision}": timed(test_ready, testing),
        f"product product {spec.precision}": timed(product, 1),
    }


def input_slices(experiment: Experiment, batches: Batches) -> dict[str, Slice]:
    """Return slices of the input pipeline alone, up to batches as the framework takes them."""
    data, epochs = experiment.data, itertools.count(1)
    product = experiment.backend.matmul_benchmark(experiment.spec, 8)

    def wait_for(made: Iterator[tuple[Any, Any]]) -> None:
        for images, _ in made:
            # Wait for arrays that are computed beside this thread: JAX's and MXNet's have a method for it. A GPU works
            # in order, so that the product below waits for it.
            for name in {"block_until_ready", "wait_to_read"} & set(dir(images)):
                getattr(images, name)()
        product()

    def train() -> None:
        wait_for(batches.train(next(epochs)))

    def test() -> None:
        wait_for(batches.test(data.test))

    return {"train input fp32": timed(train, len(data.train)), "test input fp32": timed(test, len(data.test))}


def timed(do: Callable[[], None], count: int) -> Slice:
    """Return a slice that does and times `do`, and counts it as `count` images or products."""

    def piece() -> tuple[int, float]:
        start = time.perf_counter()
        do()
        return count, time.perf_counter() - start

    return piece
