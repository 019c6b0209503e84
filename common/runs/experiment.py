"""Run one experiment from its spec to its record: read data, build models, train, and write the results."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.batches import resident
from common.contract.backend import Backend, Models
from common.contract.experiment import Experiment
from common.contract.results import History
from common.contract.watch import Silent, Watch
from common.data import datasets, decoded, splits
from common.data.folder import ImageData
from common.data.images import Decoding
from common.data.notes import notes as data_notes
from common.devices import driver, precision, processes
from common.method import auto, feature_reuse, phases, schedules
from common.method.plan import Plan, make_plan
from common.network import source_classes, sources
from common.preprocessing import transforms
from common.preprocessing.transforms import transform_for
from common.runs import description
from common.runs.choices import Choices, note_epochs
from common.runs.record import RunRecord
from common.runs.results import RecordingWatch, finish, note_results, recorded, write_results
from common.runs.run_folder import check_output, reserved
from common.runs.tensorboard import TensorBoardWatch
from common.spec.experiment import ExperimentSpec
from common.system.errors import UserError
from common.training import loop, zero_shot
from common.training.time_limit import TimeLimit, fit_epochs


def load_data(spec: ExperimentSpec, short_side: int | None = None) -> ImageData:
    """Read the data of an experiment and hold its validation images back.

    A UserError of `common.data.datasets.load` or `common.data.splits.split` passes through.

    Args:
        spec: What the user chose.
        short_side: The short side in pixels to which larger images will be reduced, which makes checking them faster;
            None for images as they are.

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
        short_side=short_side,
        split_seed=spec.split_seed,
        zip_encoding=spec.zip_encoding,
        decoding=Decoding.of(spec),
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
    data_shown: bool = False
    """Whether the lines on the data were shown before, by an earlier run or by the command."""
    time_limit: TimeLimit | None = None
    """The longest time of the run, into which its epochs are fitted; only for a run of one process."""


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
    leads = processes.world_of(spec).leads
    watch = watch if leads else Silent()
    if leads:
        check_output(spec, folder, request.overwrite)
    plan, data, choices = prepare(spec, request.given)
    said = [*data.remarks, *transforms.notes(plan.spec, plan.transform)] + feature_reuse.notes(plan.spec, plan.phases)
    of_data = [] if request.data_shown else data_notes(spec, data)
    for note in of_data + choices.notes + said:
        watch.on_note(note)
    asked = Experiment(load_backend(plan.spec.backend), plan, data, watch)
    experiment, model, run_record = begin(asked, choices, request)
    run_record.timing["preparation_seconds"] = time.perf_counter() - start
    if not leads:
        note_results(run_record, train(experiment, model))
        finish(run_record, experiment.backend, start)
        return run_record
    with reserved(folder):
        check_output(experiment.spec, folder, request.overwrite)  # another run may have ended there meanwhile
        with (
            TensorBoardWatch(folder, experiment.spec, watch) if request.tensorboard else nullcontext(watch) as shown,
            recorded(folder, run_record, lambda: finish(run_record, experiment.backend, start)),
        ):
            recording = experiment.replace(watch=RecordingWatch(folder, run_record, shown))
            history = train(recording, model, request.time_limit)
            write_results(folder, experiment, model, history)
            note_results(run_record, history)
            if request.time_limit:
                note_epochs(run_record, history, time.perf_counter() - request.time_limit.start)
    return run_record


def prepare(spec: ExperimentSpec, given: Collection[str]) -> tuple[Plan, ImageData, Choices]:
    """Read data and source weights, and work out what the spec means on them, before anything is built or written.

    Args:
        spec: What the user chose.
        given: Fields of the spec that the user has named, which the strategy `auto` leaves alone.

    Returns:
        The plan, the data with validation images held back, and what was chosen for the user.

    Raises:
        UserError: Data, weights and spec do not go together, or something cannot be read.
    """
    spec, weights = sources.resolve(spec)
    sources.read_for(spec)
    if spec.strategy != "auto":
        phases.phases(spec)
    data = load_data(spec, transform_for(spec).presized_side)
    if spec.classes not in (ExperimentSpec.classes, len(data.classes)):
        raise UserError(f"classes = {spec.classes}: the data has {len(data.classes)}; leave the option away")
    plan, strategy = resolve(spec, data, given)
    return plan, data, Choices(weights, strategy)


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


def begin(experiment: Experiment, choices: Choices, request: Request) -> tuple[Experiment, Any, RunRecord]:
    """Prepare the device, build the networks and describe the run that is about to begin.

    A UserError of `fit_epochs` says where no epoch fits into the time limit.

    Args:
        experiment: The experiment as it was asked for.
        choices: What was chosen for the user.
        request: The options of the run, for its command line and its time limit.

    Returns:
        The experiment with the precision that `auto` means, with decoded images and the epochs that there is time for,
        the network that it is about, and the record without results.
    """
    backend, asked = experiment.backend, experiment.spec
    device = backend.prepare(asked)
    unused = driver.unused_gpu(asked, device)
    if unused is not None:
        experiment.watch.on_note(unused)
    resolved, reason = precision.resolve(asked, device)
    models = build_models(backend, resolved, experiment.data)
    data, kept = decoded.attach(resolved, experiment.data, short_side=experiment.plan.transform.presized_side)
    experiment = experiment.replace(plan=dataclasses.replace(experiment.plan, spec=resolved), data=data)
    if request.time_limit and experiment.plan.active_phases:
        experiment, forecast = fit_epochs(experiment, request.time_limit)
        experiment.watch.on_note(forecast.note)
        choices, resolved = choices.replace(epochs=forecast), experiment.spec
    run_record = description.describe_run(experiment, device, models, request.command)
    run_record.spec = resolved.replace(precision=asked.precision)
    run_record.resolved |= {
        "precision": resolved.precision, "precision_reason": reason, "decoded_images": kept,
        "devices": resolved.devices, "processes": processes.world().size,
    }  # fmt: skip
    if resolved.pipeline == "resident":
        run_record.resolved["resident_images"] = resident.describe(experiment.plan, data)
    run_record.resolved |= choices.entries
    return experiment, description.model_of(resolved, models), run_record


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


def train(experiment: Experiment, model: Any, limit: TimeLimit | None = None) -> History:
    """Train a model, or only evaluate it where the strategy is `zero-shot`, and return the history."""
    if experiment.spec.strategy == "zero-shot":
        return zero_shot.evaluate(experiment, model)
    return loop.fit(experiment, model, limit)


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
