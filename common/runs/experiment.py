"""Run one experiment from its spec to its record: read data, build models, train, and write the results."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common.batches import resident
from common.contract.backend import Backend, Models
from common.contract.experiment import Experiment
from common.contract.results import EpochMetrics, History, Predictions
from common.contract.watch import ForwardingWatch, Silent, Stopped, Watch
from common.data import datasets, decoded, splits
from common.data.folder import ImageData
from common.devices import precision, processes
from common.method import auto, feature_reuse, phases, schedules
from common.method.plan import Plan, make_plan
from common.network import resnet, source_classes, sources, weights
from common.preprocessing import transforms
from common.runs import description, record
from common.runs.predictions import write_predictions
from common.runs.record import RunRecord
from common.runs.run_folder import check_output, reserved
from common.runs.tensorboard import TensorBoardWatch
from common.spec.experiment import ExperimentSpec
from common.system.errors import RunError, UserError
from common.system.machine import now, peak_memory
from common.training import loop, zero_shot


class RecordingWatch(ForwardingWatch):
    """A watch that writes the record after every epoch and passes everything on to another watch."""

    def __init__(self, folder: Path, run: RunRecord, shown: Watch) -> None:
        super().__init__(shown)
        self.folder, self.run = folder, run

    def on_epoch(self, metrics: EpochMetrics, predictions: Predictions) -> None:
        """Add the epoch to the record and write it, then pass the epoch on."""
        self.run.epochs.append(metrics)
        record.write_record(self.folder, self.run)
        super().on_epoch(metrics, predictions)


def load_data(spec: ExperimentSpec) -> ImageData:
    """Read the data of an experiment and hold its validation images back.

    A UserError of `common.data.datasets.load` or `common.data.splits.split` passes through.

    Args:
        spec: What the user chose.

    Returns:
        The data, its training images divided into those to train on and those to validate on.
    """
    data = datasets.load(
        spec.data,
        url=spec.data_url,
        sha1=spec.data_sha1,
        bad_images=spec.bad_images,
        train_limit=spec.train_limit,
        test_limit=spec.test_limit,
    )
    return splits.split(data, spec)


@dataclass(frozen=True)
class Request:
    """The options of a run that are not part of its spec."""

    command: Sequence[str] = ()
    """The command line, for the record."""
    overwrite: bool = False
    """Whether a complete record may be replaced."""
    given: Collection[str] = ()
    """Fields of the spec that the user has named, which the strategy `auto` leaves alone."""
    tensorboard: bool = False
    """Whether to leave a folder `tensorboard` with the run's events, too."""


def run(
    spec: ExperimentSpec,
    folder: Path,
    watch: Watch,
    load_backend: Callable[[str], Backend],
    request: Request = Request(),
) -> RunRecord:
    """Run one experiment and leave `record.json`, `predictions.npz` and `model.safetensors` in `folder`.

    The strategy `zero-shot` leaves no model, since it is the source's. Of several processes
    (`common.devices.processes`) only the first writes and tells `watch` anything.

    A UserError for bad input is raised before anything is written. `common.training.loop.Diverged`, other RunErrors and
    KeyboardInterrupt pass through after the record was marked with them.

    Args:
        spec: What the user chose.
        folder: The folder for the run's files.
        watch: Is told how the run goes on.
        load_backend: Imports a backend by its name.
        request: The options of the run that are not part of its spec.

    Returns:
        The finished record, with the results of the run.
    """
    start = time.perf_counter()
    world = processes.world_of(spec)
    watch = watch if world.leads else Silent()
    if world.leads:
        check_output(spec, folder, request.overwrite)
    plan, data, choice = prepare(spec, request.given)
    for note in ([choice.why] if choice else []) + feature_reuse.notes(plan.spec, plan.phases):
        watch.on_note(note)
    backend = load_backend(plan.spec.backend)
    device = backend.prepare(plan.spec)
    asked = plan.spec
    resolved, reason = precision.resolve(asked, device)
    models = build_models(backend, resolved, data)
    data, kept = decoded.attach(resolved, data)
    experiment = Experiment(backend, dataclasses.replace(plan, spec=resolved), data, watch)
    run_record = description.describe_run(experiment, device, models, request.command)
    run_record.spec = asked
    run_record.resolved |= {
        "precision": resolved.precision, "precision_reason": reason, "decoded_images": kept,
        "devices": resolved.devices, "processes": world.size,
    }  # fmt: skip
    if resolved.pipeline == "resident":
        run_record.resolved["resident_images"] = resident.describe(experiment.plan, data)
    if choice is not None:
        run_record.resolved["auto"] = asdict(choice)
    run_record.timing["preparation_seconds"] = time.perf_counter() - start
    model = description.model_of(resolved, models)
    if not world.leads:
        note_results(run_record, train(experiment, model))
        finish(run_record, backend, start)
        return run_record
    with reserved(folder):
        # Another run may have ended in this folder meanwhile.
        check_output(resolved, folder, request.overwrite)
        with (
            TensorBoardWatch(folder, resolved, watch) if request.tensorboard else nullcontext(watch) as shown,
            recorded(folder, run_record, lambda: finish(run_record, backend, start)),
        ):
            history = train(experiment.replace(watch=RecordingWatch(folder, run_record, shown)), model)
            write_results(folder, experiment, model, history)
            note_results(run_record, history)
    return run_record


def prepare(spec: ExperimentSpec, given: Collection[str]) -> tuple[Plan, ImageData, auto.Choice | None]:
    """Read data and source weights, and work out what the spec means on them, before anything is built or written.

    Args:
        spec: What the user chose.
        given: Fields of the spec that the user has named, which the strategy `auto` leaves alone.

    Returns:
        The plan, the data with validation images held back, and the choice of the strategy `auto`, None without it.

    Raises:
        UserError: Data, weights and spec do not go together, or something cannot be read.
    """
    sources.read_for(spec)
    if spec.strategy != "auto":
        phases.phases(spec)
    data = load_data(spec)
    if spec.classes not in (ExperimentSpec.classes, len(data.classes)):
        raise UserError(f"classes = {spec.classes}: the data has {len(data.classes)}; leave the option away")
    plan, choice = resolve(spec, data, given)
    return plan, data, choice


def resolve(spec: ExperimentSpec, data: ImageData, given: Collection[str] = ()) -> tuple[Plan, auto.Choice | None]:
    """Work out what a spec means on its data, and what the strategy `auto` chooses there if it is asked.

    A UserError of the checks that it calls says where data and spec do not go together.

    Args:
        spec: What the user chose.
        data: The data of the experiment.
        given: Fields of the spec that the user has named, which the strategy `auto` leaves alone.

    Returns:
        The plan, and the choice of the strategy `auto`, None without it.
    """
    spec = spec.replace(classes=len(data.classes))
    choice = None
    if spec.strategy == "auto":
        spec, choice = auto.resolve(spec, data, given)
    if spec.strategy == "zero-shot":
        spec = spec.replace(epochs=0)
    if spec.strategy == "zero-shot" or source_head_wanted(spec):
        source_classes.rows_for(spec, data.classes)
    plan = make_plan(spec, data)
    check_last_batch(plan)
    for phase in plan.active_phases:
        schedules.check(spec, phase.name, phase.epochs * plan.steps_an_epoch)
    return plan, choice


def build_models(backend: Backend, spec: ExperimentSpec, data: ImageData) -> Models:
    """Build the three networks of an experiment.

    Where `source_head_wanted` says so, the network to fine-tune starts with rows of the source's head: for each class
    of the data the mean of the source's rows that belong to it.

    Args:
        backend: The backend that builds them.
        spec: What the user chose.
        data: The data, for the names of its classes.

    Returns:
        The source, the network to fine-tune and the one to train from scratch.
    """
    models = backend.build_models(spec)
    if source_head_wanted(spec):
        rows = source_classes.rows_for(spec, data.classes)
        backend.load_arrays(models.fine_tune, source_classes.mean_head(backend.to_arrays(models.pretrained), rows))
    return models


def source_head_wanted(spec: ExperimentSpec) -> bool:
    """Return whether the network to train starts with rows of the source's head."""
    return spec.head_init == "source-class" and spec.strategy not in ("scratch", "zero-shot")


@contextmanager
def recorded(folder: Path, run_record: RunRecord, finish: Callable[[], None]) -> Iterator[None]:
    """Keep the record true however the work inside ends: complete, or marked with the error that ended it.

    Args:
        folder: The run's folder, whose predictions and model of an earlier run are deleted.
        run_record: The record, written at the start and at the end.
        finish: Adds to the record the facts that are known at the end only.
    """
    for stale in (record.PREDICTIONS, record.MODEL):
        (folder / stale).unlink(missing_ok=True)
    record.write_record(folder, run_record)
    try:
        yield
    except BaseException as error:
        run_record.status = status_of(error)
        run_record.error = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise
    else:
        run_record.status = "complete"
    finally:
        # Ctrl-C may come while another error is handled, such as that of a process whose partner was interrupted.
        if run_record.status == "running":
            run_record.status, run_record.error = "interrupted", KeyboardInterrupt.__name__
        finish()
        record.write_record(folder, run_record)


def train(experiment: Experiment, model: Any) -> History:
    """Train a model, or only evaluate it where the strategy is `zero-shot`, and return the history."""
    return (zero_shot.evaluate if experiment.spec.strategy == "zero-shot" else loop.fit)(experiment, model)


def note_results(run_record: RunRecord, history: History) -> None:
    """Add to the record the results of the kept model.

    These are its loss and accuracy on test and validation images, its epoch, whether training stopped early, and the
    counts of reused features.
    """
    assert history.test is not None
    run_record.final = {"test_loss": history.test.loss, "test_accuracy": history.test.accuracy}
    if history.validation is not None:
        run_record.final["validation_loss"] = history.validation.loss
        run_record.final["validation_accuracy"] = history.validation.accuracy
    run_record.resolved["features"] = history.features
    run_record.kept_epoch, run_record.stopped_early = history.kept_epoch, history.stopped_early


def check_last_batch(plan: Plan) -> None:
    """Check that every batch can be trained on, and that dropping the last one leaves any.

    BatchNorm cannot learn from a single value in a channel: a batch of one image whose last map is 1 x 1, which is that
    of an image of at most 32 px.

    Args:
        plan: The plan of the experiment.

    Raises:
        UserError: A batch has a single such image while statistics of layer4 are learned, or `last_batch = drop` leaves
            no batch to train on or to test on.
    """
    spec = plan.spec
    if spec.last_batch == "drop":
        for split, images in (("training", plan.train_images), ("test", plan.test_images)):
            if (spec.epochs or split == "test") and images < spec.batch_size:
                raise UserError(
                    f"last_batch = drop leaves out all {images} {split} images; choose a --batch-size of at "
                    "most that, or --last-batch keep"
                )
        return
    single = spec.batch_size == 1 or plan.train_images % spec.batch_size == 1
    learns = any("layer4" not in phase.frozen_statistics for phase in plan.active_phases)
    if plan.transform.image_size <= 32 and single and learns:
        raise UserError(
            f"batch_size = {spec.batch_size} leaves a batch of one image of {plan.transform.image_size} px, from which "
            "BatchNorm learns nothing; choose another --batch-size, a larger --image-size or --batch-norm frozen"
        )


def status_of(error: BaseException) -> record.Status:
    """Return the status that the record gets when `error` ended the run."""
    if isinstance(error, KeyboardInterrupt | Stopped):
        return "interrupted"
    return "diverged" if isinstance(error, loop.Diverged) else "failed"


def finish(run_record: RunRecord, backend: Backend, start: float) -> None:
    """Add to the record the facts that are known at the end only: times in seconds, memory in bytes."""
    run_record.finished = now()
    training = sum(metrics.seconds for metrics in run_record.epochs)
    run_record.timing["training_seconds"] = training
    run_record.timing["total_seconds"] = time.perf_counter() - start
    images = len(run_record.epochs) * run_record.data["trained_images"]
    if training:
        run_record.timing["images_per_second"] = images / training
    run_record.environment["peak_memory_bytes"] = peak_memory()
    run_record.environment["peak_gpu_memory_bytes"] = backend.peak_gpu_memory()


def write_results(folder: Path, experiment: Experiment, model: Any, history: History) -> None:
    """Write the predictions and, unless the strategy is `zero-shot`, the trained model.

    Args:
        folder: The run's folder.
        experiment: The experiment, for names of classes and files and for the model's header.
        model: The trained model.
        history: Its predictions of the test images.

    Raises:
        RunError: The history has no predictions.
    """
    spec, data = experiment.spec, experiment.data
    if history.test is None:
        raise RunError("training ended without an evaluation")
    write_predictions(folder, history.test, data)
    if spec.strategy == "zero-shot":
        return
    header = weights.Header(
        resnet.architecture(spec.backend, spec.model),
        data.classes,
        transforms.preprocessing(experiment.plan.transform),
        f"{spec.strategy} on {data.name} with {spec.backend}, starting from {spec.weights}",
    )
    weights.write(folder / record.MODEL, weights.Checkpoint(header, experiment.backend.to_arrays(model)))
