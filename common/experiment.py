"""One run from spec to record: data, models, training, and what is written where."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

import backends
from common import (
    auto,
    datasets,
    decoded,
    description,
    features,
    fit,
    groups,
    parallel,
    pipeline,
    precision,
    record,
    resident,
    resnet,
    schedules,
    selection,
    source_classes,
    weights,
)  # fmt: skip
from common.errors import RunError, UserError
from common.fit import EpochMetrics, ForwardingWatch, History, Predictions, Watch
from common.folder import ImageData
from common.record import RunRecord
from common.spec import ExperimentSpec
from common.tensorboard import TensorBoardWatch

if TYPE_CHECKING:
    from backends.contract import Backend


class RecordingWatch(ForwardingWatch):
    """Writes the record after every epoch, and passes everything on to another watch."""

    def __init__(self, folder: Path, run: RunRecord, shown: Watch) -> None:
        super().__init__(shown)
        self.folder, self.run = folder, run

    def on_epoch(self, metrics: EpochMetrics, predictions: Predictions) -> None:
        self.run.epochs.append(metrics)
        record.write_record(self.folder, self.run)
        super().on_epoch(metrics, predictions)


def load_data(spec: ExperimentSpec) -> ImageData:
    """The data of an experiment, its validation images held back; raises UserError as `common.datasets.load` and
    `common.selection.split` do."""
    data = datasets.load(
        spec.data,
        url=spec.data_url,
        sha1=spec.data_sha1,
        bad_images=spec.bad_images,
        train_limit=spec.train_limit,
        test_limit=spec.test_limit,
    )
    return selection.split(data, spec)


def check_output(spec: ExperimentSpec, folder: Path, overwrite: bool) -> None:
    """Raise UserError where a run must not be written: over another record or its own source weights, or where no
    folder can be made. Makes none."""
    if (folder / record.RECORD).exists() and not overwrite:
        raise UserError(f"--output {folder}: there is a record already; choose another folder, or add --overwrite")
    if Path(spec.weights).resolve() == (folder / record.MODEL).resolve():
        raise UserError(f"--output {folder}: the run would replace its own --weights; choose another folder")
    above = folder
    while not above.exists() and above != above.parent:
        above = above.parent
    if not above.is_dir():
        raise UserError(f"--output {folder}: {above} is no folder")
    if not os.access(above, os.W_OK | os.X_OK):
        raise UserError(f"--output {folder}: {above} cannot be written to")


@contextmanager
def reserved(folder: Path) -> Iterator[None]:
    """Make the folder and keep other runs out of it; raises UserError where one is at work in it already."""
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise UserError(f"--output {folder}: another run is writing there; choose another folder") from error
    except OSError as error:
        raise UserError(f"--output {folder}: cannot be written to: {error.strerror}") from error
    try:
        yield
    finally:
        (folder / ".lock").unlink(missing_ok=True)
        lock.release()


def run(
    spec: ExperimentSpec,
    folder: Path,
    watch: Watch,
    command: Sequence[str] = (),
    overwrite: bool = False,
    given: Collection[str] = (),
    tensorboard: bool = False,
) -> RunRecord:
    """Run one experiment and leave `record.json`, `predictions.npz` and `model.safetensors` in `folder`; the strategy
    `zero-shot` leaves no model, since it is the source's.

    tensorboard: whether to leave a folder `tensorboard` with its events, too.
    given: the fields of the spec that the user has named, which the strategy `auto` leaves alone.
    Of several processes (common.parallel) only the first writes, and tells `watch`.
    Raises UserError before anything is written when the input is bad, common.fit.Diverged, other RunErrors and
    KeyboardInterrupt after the record was marked with it.
    """
    start = time.perf_counter()
    world = parallel.world_of(spec)
    watch = watch if world.leads else fit.Silent()
    weights.read_for(spec)
    if spec.strategy != "auto":
        groups.phases(spec)
    if world.leads:
        check_output(spec, folder, overwrite)
    data = load_data(spec)
    if spec.classes not in (ExperimentSpec.classes, len(data.classes)):
        raise UserError(f"classes = {spec.classes}: the data has {len(data.classes)}; leave the option away")
    spec, choice = settle(spec.replace(classes=len(data.classes)), data, given)
    notes = [choice.why] if choice else []
    for note in notes + features.notes(spec):
        watch.on_note(note)
    backend = backends.load(spec.backend)
    device = backend.prepare(spec)
    asked = spec
    spec, reason = precision.resolve(spec, device)
    models = backend.build_models(spec)
    if source_head_wanted(spec):
        head = source_classes.mean_head(
            backend.to_arrays(models.pretrained), source_classes.rows_for(spec, data.classes)
        )
        backend.load_arrays(models.fine_tune, head)
    data, kept = decoded.attach(spec, data)
    run_record = description.describe_run(spec, data, backend, device, models, command)
    run_record.spec = asked
    run_record.resolved |= {
        "precision": spec.precision, "precision_reason": reason, "decoded_images": kept, "devices": spec.devices,
        "processes": world.size,
    }  # fmt: skip
    if spec.pipeline == "resident":
        run_record.resolved["resident_images"] = resident.describe(spec, data)
    if choice is not None:
        run_record.resolved["auto"] = asdict(choice)
    run_record.timing["preparation_seconds"] = time.perf_counter() - start
    model = description.model_of(spec, models)
    if not world.leads:
        note_results(run_record, train(spec, watch, data, backend, model))
        finish(run_record, backend, start)
        return run_record
    with reserved(folder):
        # Another run may have ended in this folder meanwhile.
        check_output(spec, folder, overwrite)
        with TensorBoardWatch(folder, spec, watch) if tensorboard else nullcontext(watch) as watch:
            train_and_record(spec, folder, watch, data, backend, model, run_record, start)
    return run_record


def settle(
    spec: ExperimentSpec, data: ImageData, given: Collection[str] = ()
) -> tuple[ExperimentSpec, auto.Choice | None]:
    """The experiment as the data make it, and what `auto` came to; raises UserError where they do not go together."""
    choice = None
    if spec.strategy == "auto":
        spec, choice = auto.resolve(spec, data, given)
    if spec.strategy == "zero-shot":
        spec = spec.replace(epochs=0)
    if spec.strategy == "zero-shot" or source_head_wanted(spec):
        source_classes.rows_for(spec, data.classes)
    check_last_batch(spec, data)
    for phase in groups.phases(spec):
        if phase.epochs:
            schedules.check(
                spec, phase.name, phase.epochs * math.ceil(fit.counted_images(spec, len(data.train)) / spec.batch_size)
            )
    return spec, choice


def source_head_wanted(spec: ExperimentSpec) -> bool:
    """Whether the network to train gets rows of the source's head."""
    return spec.head_init == "source-class" and spec.strategy not in ("scratch", "zero-shot")


def train_and_record(
    spec: ExperimentSpec,
    folder: Path,
    watch: Watch,
    data: ImageData,
    backend: Backend,
    model: Any,
    run_record: RunRecord,
    start: float,
) -> None:
    """The part of a run that writes into its folder."""
    for stale in (record.PREDICTIONS, record.MODEL):
        (folder / stale).unlink(missing_ok=True)
    record.write_record(folder, run_record)
    try:
        history = train(spec, RecordingWatch(folder, run_record, watch), data, backend, model)
        write_results(folder, spec, data, backend, model, history)
        note_results(run_record, history)
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
        finish(run_record, backend, start)
        record.write_record(folder, run_record)


def train(spec: ExperimentSpec, watch: Watch, data: ImageData, backend: Backend, model: Any) -> History:
    """Train, or only evaluate where the strategy says so."""
    if spec.strategy == "zero-shot":
        return source_classes.evaluate(backend, model, spec, data, watch)
    return backend.train_fine_tuning(model, spec, data, watch=watch)


def note_results(run_record: RunRecord, history: History) -> None:
    """Add to the record what the kept model reached."""
    assert history.test is not None
    run_record.final = {"test_loss": history.test.loss, "test_accuracy": history.test.accuracy}
    if history.validation is not None:
        run_record.final["validation_loss"] = history.validation.loss
        run_record.final["validation_accuracy"] = history.validation.accuracy
    run_record.resolved["features"] = history.features
    run_record.kept_epoch, run_record.stopped_early = history.kept_epoch, history.stopped_early


def check_last_batch(spec: ExperimentSpec, data: ImageData) -> None:
    """Raise UserError where BatchNorm would have to learn from a single value, one image whose last map is 1 x 1, or
    where dropping the last batch leaves none."""
    if spec.last_batch == "drop":
        for split, samples in (("training", data.train), ("test", data.test)):
            if (spec.epochs or split == "test") and len(samples) < spec.batch_size:
                raise UserError(
                    f"last_batch = drop leaves out all {len(samples)} {split} images; choose a --batch-size of at "
                    "most that, or --last-batch keep"
                )
        return
    transform = pipeline.transform_for(spec)
    single = spec.batch_size == 1 or len(data.train) % spec.batch_size == 1
    learns = any("layer4" not in phase.frozen_statistics for phase in groups.phases(spec) if phase.epochs)
    if transform.image_size <= 32 and single and learns:
        raise UserError(
            f"batch_size = {spec.batch_size} leaves a batch of one image of {transform.image_size} px, from which "
            "BatchNorm learns nothing; choose another --batch-size, a larger --image-size or --batch-norm frozen"
        )


def status_of(error: BaseException) -> record.Status:
    """How a run that ended with `error` is marked."""
    if isinstance(error, KeyboardInterrupt | fit.Stopped):
        return "interrupted"
    return "diverged" if isinstance(error, fit.Diverged) else "failed"


def finish(run_record: RunRecord, backend: Backend, start: float) -> None:
    """Add what is only known at the end: times in seconds, memory in bytes."""
    run_record.finished = record.now()
    training = sum(metrics.seconds for metrics in run_record.epochs)
    run_record.timing["training_seconds"] = training
    run_record.timing["total_seconds"] = time.perf_counter() - start
    images = len(run_record.epochs) * run_record.data["trained_images"]
    if training:
        run_record.timing["images_per_second"] = images / training
    run_record.environment["peak_memory_bytes"] = record.peak_memory()
    run_record.environment["peak_gpu_memory_bytes"] = backend.peak_gpu_memory()


def write_results(
    folder: Path, spec: ExperimentSpec, data: ImageData, backend: Backend, model: Any, history: History
) -> None:
    """Write the predictions and the trained model, if any was trained."""
    if history.test is None:
        raise RunError("training ended without an evaluation")
    record.write_predictions(folder, history.test, data)
    if spec.strategy == "zero-shot":
        return
    header = weights.Header(
        resnet.architecture(spec.backend, spec.model),
        data.classes,
        pipeline.preprocessing(pipeline.transform_for(spec)),
        f"{spec.strategy} on {data.name} with {spec.backend}, starting from {spec.weights}",
    )
    weights.write(folder / record.MODEL, weights.Checkpoint(header, backend.to_arrays(model)))


def free_folder(parent: Path, name: str) -> Path:
    """A folder in `parent` that does not exist yet, called `name` with the time of day."""
    stamp = time.strftime("%Y-%m-%d-%H%M%S")
    folder, count = parent / f"{stamp}-{name}", 1
    while folder.exists():
        count += 1
        folder = parent / f"{stamp}-{name}-{count}"
    return folder
