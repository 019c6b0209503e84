"""Measure how fast an experiment runs, against the chapter's tab, ready batches and the machine's matrix products.

A machine's speed varies over time. So everything is measured in short slices, round after round, and every ratio is
the median over the rounds of the ratio within a round.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.batches.pipelines import image_batches
from common.batches.source import Batches
from common.bench.chapter import ChapterProcess
from common.contract.backend import Backend
from common.contract.experiment import Experiment
from common.contract.watch import Quiet
from common.data import decoded
from common.data.folder import ImageData, Sample, read_folder
from common.method import feature_reuse, phases
from common.method.plan import make_plan
from common.network import resnet, sources, weights
from common.spec.experiment import ExperimentSpec
from common.system.errors import UserError
from common.training import evaluation, loop

PRODUCT_SIDE = 2048
# Backward passes form two products where the forward pass forms one.
PASSES = {"train": 3, "test": 1}

Slice = Callable[[], tuple[int, float]]
"""A function that does a piece of work and returns its amount (images, or matrix products) and the seconds."""


@dataclass
class Case:
    """One job, done in one way and precision, with its measured rates."""

    job: str
    """One of `train`, `test` and `product`, a matrix product."""
    way: str
    """One of `tab`, `ours`, `ready` (ours on ready batches), `input` (our input pipeline alone) and `product`."""
    precision: str
    rates: list[float] = field(default_factory=list)
    """Images (or products) per second, one value for each round."""

    @property
    def name(self) -> str:
        """Job, way and precision, separated by spaces."""
        return f"{self.job} {self.way} {self.precision}"

    @property
    def rate(self) -> float:
        """The median of the rates."""
        return statistics.median(self.rates)


@dataclass
class Result:
    """The measurements of one image size and batch size."""

    image_size: int
    batch_size: int
    train_images: int
    test_images: int
    flops: int
    """Floating-point operations of one image's forward pass."""
    cases: list[Case]

    def case(self, job: str, way: str, precision: str = "fp32") -> Case | None:
        """Return the case of this job, way and precision, or None if it was not measured."""
        return next(
            (case for case in self.cases if (case.job, case.way, case.precision) == (job, way, precision)), None
        )

    def ratio(self, case: Case, way: str) -> float | None:
        """Return how many times as fast a case is as another way of doing the same job.

        The ratio is the median over the rounds of rate(case) / rate(other). The tab is measured in fp32 only; other
        ways are compared in the precision of the case.

        Args:
            case: The case.
            way: The other way.

        Returns:
            The ratio; None if the other way was not measured, or is the case itself.
        """
        other = self.case(case.job, way, "fp32" if way == "tab" else case.precision)
        if other is None or other is case:
            return None
        return statistics.median(one / two for one, two in zip(case.rates, other.rates, strict=True))

    def share_of_peak(self, case: Case) -> float | None:
        """Return the fraction of the arithmetic rate of a large matrix product in the same framework and precision.

        With n = PRODUCT_SIDE it is the median over the rounds of

            (images/s * flops * PASSES[job]) / (products/s * 2 * n^3)

        Args:
            case: The case.

        Returns:
            The fraction; None for the product itself, for input pipelines, and where no product was measured.
        """
        product = self.case("product", "product", case.precision)
        if product is None or case.job not in PASSES or case.way == "input":
            return None
        work = self.flops * PASSES[case.job]
        pairs = zip(case.rates, product.rates, strict=True)
        return statistics.median(images * work / (products * 2 * PRODUCT_SIDE**3) for images, products in pairs)

    def to_dict(self) -> dict[str, Any]:
        """Return the measurements as plain values for JSON."""
        return {
            "image_size": self.image_size,
            "batch_size": self.batch_size,
            "train_images": self.train_images,
            "test_images": self.test_images,
            "forward_flops_per_image": self.flops,
            "cases": [
                {
                    "job": case.job,
                    "way": case.way,
                    "precision": case.precision,
                    "per_second": case.rate,
                    "per_second_by_round": case.rates,
                    "times_tab": self.ratio(case, "tab"),
                    "times_ready": self.ratio(case, "ready"),
                    "share_of_peak": self.share_of_peak(case),
                }
                for case in self.cases
            ],
        }


def measure(slices: dict[str, Slice], repeats: int, watch: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """Measure the rates of slices, round after round.

    Every slice first runs once unmeasured, which compiles and fills caches. Every second round goes backwards, so that
    no slice always follows the same one.

    Args:
        slices: The slices by name.
        repeats: The number of rounds.
        watch: Called with what is about to run.

    Returns:
        The rates of each slice, one for each round, in images (or products) per second.
    """
    names = list(slices)
    rates: dict[str, list[float]] = {name: [] for name in names}
    for name in names:
        watch(f"warming up: {name}")
        slices[name]()
    for number in range(repeats):
        for name in names if number % 2 == 0 else reversed(names):
            watch(f"round {number + 1} of {repeats}: {name}")
            count, seconds = slices[name]()
            rates[name].append(count / seconds)
    return rates


def run(
    backend: Backend,
    tab: ChapterProcess,
    spec: ExperimentSpec,
    precisions: Sequence[str],
    data: ImageData,
    repeats: int,
    watch: Callable[[str], None] = lambda text: None,
) -> Result:
    """Measure one image size and batch size.

    Args:
        backend: The backend.
        tab: The process of the chapter's tab.
        spec: The tab's job (`common.bench.chapter.same_job`) with weights of its architecture.
        precisions: The precisions in which our code is measured; the tab has fp32 only.
        data: The images of one slice.
        repeats: The number of rounds.
        watch: Called with what is about to run.

    Returns:
        The measurements.
    """
    assert spec.image_size is not None
    tab.configure(data.root, spec.image_size, spec.batch_size, len(data.classes))
    slices: dict[str, Slice] = {"train tab fp32": tab.train, "test tab fp32": tab.test}
    data, _ = decoded.attach(spec, data)
    experiment = Experiment(backend, make_plan(spec, data), data, Quiet())
    batches = image_batches(experiment)
    for precision in precisions:
        changed = dataclasses.replace(experiment.plan, spec=spec.replace(precision=precision))
        slices.update(our_slices(experiment.replace(plan=changed), batches))
    slices.update(input_slices(experiment, batches))
    measured = measure(slices, repeats, watch)
    cases = [Case(*_words(name), rates) for name, rates in measured.items()]
    flops = resnet.forward_flops(resnet.architecture(spec.backend, spec.model), spec.image_size, spec.classes)
    return Result(spec.image_size, spec.batch_size, len(data.train), len(data.test), flops, cases)


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


def whole_job(
    backend: Backend,
    tab: ChapterProcess,
    spec: ExperimentSpec,
    data: ImageData,
    watch: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Time a whole training with an evaluation after each epoch, by the chapter's code and by this project.

    What is made once a run counts too: networks, compiled steps, decoded images. For feature extraction the tab's
    backbone is frozen, as in the chapter's exercise.

    Args:
        backend: The backend.
        tab: The process of the chapter's tab.
        spec: The experiment, with its number of epochs.
        data: The images.
        watch: Called with what is about to run.

    Returns:
        Plain values: `tab_seconds`, our `seconds`, `times_tab` = tab_seconds / seconds, and `seconds_again`, those of
        a second training of ours that finds the features of the first, or None where no features are reused.
    """
    assert spec.image_size is not None
    watch(f"{spec.strategy}, {spec.epochs} epochs: the tab")
    start = time.perf_counter()
    frozen = spec.strategy == "feature-extraction"
    tab.configure(data.root, spec.image_size, spec.batch_size, len(data.classes), frozen)
    for _ in range(spec.epochs):
        tab.train()
        tab.test()
    tab_seconds = time.perf_counter() - start
    reused = any(feature_reuse.reused(spec, phase) for phase in phases.phases(spec))
    seconds = []
    for _ in range(2 if reused else 1):
        watch(f"{spec.strategy}, {spec.epochs} epochs: ours")
        start = time.perf_counter()
        attached, _ = decoded.attach(spec, data)
        backend.train_fine_tuning(backend.build_models(spec).fine_tune, spec, attached, watch=Quiet())
        seconds.append(time.perf_counter() - start)
    return {
        "strategy": spec.strategy,
        "precision": spec.precision,
        "epochs": spec.epochs,
        "tab_seconds": tab_seconds,
        "seconds": seconds[0],
        "times_tab": tab_seconds / seconds[0],
        "seconds_again": seconds[1] if reused else None,
    }


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield a temporary folder for weights and images, which is also the cache until it is deleted at the end."""
    before = os.environ.get("FINE_TUNING_CACHE")
    with tempfile.TemporaryDirectory(prefix="fine-tuning-bench-") as name:
        os.environ["FINE_TUNING_CACHE"] = name
        try:
            yield Path(name)
        finally:
            os.environ.pop("FINE_TUNING_CACHE")
            if before is not None:
                os.environ["FINE_TUNING_CACHE"] = before


def random_weights(folder: Path, spec: ExperimentSpec) -> Path:
    """Write random weights of a source network for `spec`: as fast as any others, and they need no download."""
    architecture = resnet.architecture(spec.backend, spec.model)
    classes = tuple(f"class {index}" for index in range(resnet.SOURCE_CLASSES))
    own = sources.CAFFE if architecture == "resnet50_keras" else weights.Preprocessing()
    header = weights.Header(architecture, classes, own, "random numbers")
    path = folder / f"{architecture}.safetensors"
    arrays = resnet.initial_network(architecture, len(classes), spec.seed)
    weights.write(path, weights.Checkpoint(header, arrays))
    return path


def link_images(data: ImageData, folder: Path, steps: int, batch_size: int) -> ImageData:
    """Make class folders with links to images of `data`, spread evenly over its list, which is sorted by class.

    Args:
        data: The images.
        folder: The folder that gets `train` and `test`.
        steps: The number of full batches for training and for testing each; fewer where the images run out.
        batch_size: Images of a batch.

    Returns:
        The linked images.

    Raises:
        UserError: There are fewer images than one batch.
    """
    for split, samples in (("train", data.train), ("test", data.test)):
        count = min(steps, len(samples) // batch_size) * batch_size
        if count == 0:
            raise UserError(f"--batch-size {batch_size}: there are only {len(samples)} {split} images in {data.name}")
        for number, sample in enumerate(spread(samples, count)):
            place = folder / split / data.classes[sample.label] / f"{number:05d}{sample.path.suffix}"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(sample.path.resolve())
    return read_folder(folder, progress=False)


def spread(samples: Sequence[Sample], count: int) -> list[Sample]:
    """Return `count` of the samples, evenly spread over their list, which is sorted by class."""
    return [samples[index * len(samples) // count] for index in range(count)]


def _words(name: str) -> tuple[str, str, str]:
    """Return job, way and precision from the name of a slice."""
    job, way, precision = name.split(" ")
    return job, way, precision
