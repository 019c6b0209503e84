"""Measure how fast an experiment runs, against the chapter's tab, ready batches and the machine's matrix products.

A machine's speed varies over time. So everything is measured in short slices, round after round, and every ratio is
the median over the rounds of the ratio within a round.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from common.batches.pipelines import image_batches
from common.bench.chapter import ChapterProcess
from common.bench.results import Case, Result
from common.bench.slices import Slice, input_slices, our_slices
from common.contract.backend import Backend
from common.contract.experiment import Experiment
from common.contract.watch import Quiet
from common.data import decoded
from common.data.folder import ImageData
from common.method import feature_reuse, phases
from common.method.plan import make_plan
from common.network import resnet
from common.preprocessing.transforms import transform_for
from common.spec.experiment import ExperimentSpec


@dataclass(frozen=True)
class Contenders:
    """What is held against each other."""

    backend: Backend
    tab: ChapterProcess
    """The process of the chapter's tab, which has fp32 only."""
    precisions: Sequence[str] = ("fp32",)
    """The precisions in which slices of the backend are measured."""


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
    contenders: Contenders,
    spec: ExperimentSpec,
    data: ImageData,
    repeats: int,
    watch: Callable[[str], None] = lambda text: None,
) -> Result:
    """Measure one image size and batch size.

    Args:
        contenders: The backend, its precisions and the tab.
        spec: The tab's job (`common.bench.chapter.same_job`) with weights of its architecture.
        data: The images of one slice.
        repeats: The number of rounds.
        watch: Called with what is about to run.

    Returns:
        The measurements.
    """
    assert spec.image_size is not None
    tab = contenders.tab
    tab.configure(data.root, spec.image_size, spec.batch_size, len(data.classes))
    slices: dict[str, Slice] = {"train tab fp32": tab.train, "test tab fp32": tab.test}
    plan = make_plan(spec, data)
    data, _ = decoded.attach(spec, data, short_side=plan.transform.presized_side)
    experiment = Experiment(contenders.backend, plan, data, Quiet())
    batches = image_batches(experiment)
    for precision in contenders.precisions:
        changed = dataclasses.replace(experiment.plan, spec=spec.replace(precision=precision))
        slices.update(our_slices(experiment.replace(plan=changed), batches))
    slices.update(input_slices(experiment, batches))
    cases = []
    for name, rates in measure(slices, repeats, watch).items():
        job, way, precision = name.split(" ")
        cases.append(Case(job, way, precision, rates))
    flops = resnet.forward_flops(resnet.architecture(spec.backend, spec.model), spec.image_size, spec.classes)
    return Result(spec.image_size, spec.batch_size, len(data.train), len(data.test), flops, cases)


def whole_job(
    contenders: Contenders,
    spec: ExperimentSpec,
    data: ImageData,
    watch: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Time a whole training with an evaluation after each epoch, by the chapter's code and by this project.

    What is made once a run counts too: networks, compiled steps, decoded images. For feature extraction the tab's
    backbone is frozen, as in the chapter's exercise.

    Args:
        contenders: The backend and the tab.
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
    tab, backend = contenders.tab, contenders.backend
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
        attached, _ = decoded.attach(spec, data, short_side=transform_for(spec).presized_side)
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
