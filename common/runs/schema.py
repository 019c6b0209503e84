"""The types of `record.json`, from which `record.schema.json` is made: `python -m common.runs.schema`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

from pydantic import ConfigDict, Field, TypeAdapter, with_config
from typing_extensions import TypedDict

from common.contract.results import EpochMetrics
from common.runs.record import RECORD, Status
from common.spec.experiment import ExperimentSpec
from common.system.files import write_atomically

SCHEMA = Path(__file__).parent / "record.schema.json"
OPEN = ConfigDict(use_attribute_docstrings=True)
CLOSED = ConfigDict(use_attribute_docstrings=True, extra="forbid")
Fraction = Annotated[float, Field(ge=0, le=1)]


@with_config(OPEN)
class Auto(TypedDict):
    """What the strategy `auto` came to."""

    domain: Literal["similar", "different"]
    images_per_class: int
    """Training images by classes, rounded down."""
    strategy: str
    why: str
    set: dict[str, Any]
    """The fields of the spec that were set, with their values."""


@with_config(OPEN)
class PhaseRecord(TypedDict):
    """A phase of training."""

    name: str
    epochs: int
    multiples: dict[str, float]
    """Stage -> multiple of the learning rate; 0 freezes it."""
    frozen_statistics: list[str]
    """Stages whose BatchNorm statistics stay."""
    adapters: NotRequired[bool]
    """Whether the backbone's multiples are those of its low-rank adapters, and everything else of it is frozen."""
    reused_features: NotRequired[bool]
    """Whether the features of each image were computed once, and the head trained on them."""


@with_config(OPEN)
class DecodedImages(TypedDict):
    """Whether images were decoded once and kept, and if not, why."""

    kept: bool
    reason: str | None
    bytes: int


@with_config(OPEN)
class Features(TypedDict):
    """Images whose features were computed once, and whose features an earlier run had left."""

    computed: int
    read: int


@with_config(OPEN)
class ResidentImages(TypedDict):
    """With the resident pipeline, the images in the device's memory and the bytes of their pixels."""

    images: int
    bytes: int


@with_config(OPEN)
class Weights(TypedDict):
    """What the source weights `auto` came to."""

    weights: Literal["tv_in1k", "distilled"]
    why: str


@with_config(OPEN)
class TimeLimitRecord(TypedDict):
    """What the epochs of a run with a time limit were to take, and took; times in seconds from the run's begin."""

    seconds: float
    """The limit."""
    asked_epochs: int
    planned_epochs: int
    """Those that were to fit, as measured before training."""
    planned_seconds: float
    seconds_an_epoch: dict[str, float]
    """Phase -> seconds of an epoch, evaluation included, as measured."""
    epochs: NotRequired[int]
    """Those that the schedules ended with; --epochs of so many repeats the run."""
    actual_epochs: NotRequired[int]
    """Those that were trained: fewer where training stopped early."""
    actual_seconds: NotRequired[float]


@with_config(OPEN)
class Resolved(TypedDict):
    """What the spec left to the weights, the data and the machine."""

    image_size: int
    resize_size: int
    train_crop: str
    test_resize: str
    flip: bool
    channel_order: Literal["RGB", "BGR"]
    scale: float
    mean: list[float]
    std: list[float]
    antialias: NotRequired[bool]
    """Whether the pipeline smooths an image that it makes smaller."""
    presized_side: NotRequired[int | None]
    """Short side in pixels to which larger images were reduced as they were decoded; null where none was."""
    mean_learning_rate: float
    """The learning rate that does the same with the loss averaged over a full batch."""
    phases: list[PhaseRecord]
    precision: NotRequired[Literal["fp32", "tf32", "bf16", "fp64"]]
    """The arithmetic of the run; what `auto` in the spec came to."""
    precision_reason: NotRequired[str]
    devices: NotRequired[int]
    """Devices that shared each batch."""
    processes: NotRequired[int]
    """Processes that they were driven by."""
    decoded_images: NotRequired[DecodedImages]
    features: NotRequired[Features | None]
    """None where features were not reused."""
    resident_images: NotRequired[ResidentImages]
    auto: NotRequired[Auto]
    weights: NotRequired[Weights]
    time_limit: NotRequired[TimeLimitRecord]


@with_config(OPEN)
class SkippedImage(TypedDict):
    """A file that was left out, and why."""

    name: str
    reason: str


@with_config(OPEN)
class HeldBack(TypedDict):
    """Test images that were held back because the data has none: a share of each class, drawn from a seed."""

    seed: int
    share: Fraction
    near_duplicates: int
    """Images that have another nearly like them, and were kept on one side with it."""
    test: list[str]
    """The test images, as paths below the folder of the data."""


@with_config(OPEN)
class Data(TypedDict):
    """The data of the run."""

    name: str
    summary: NotRequired[str]
    """The line that says how the data was understood."""
    held_back: NotRequired[HeldBack | None]
    """The split that the run made; null where the data has its own."""
    test_images_in_train: NotRequired[int]
    """Test images whose files are among the training or validation images too."""
    fingerprint: str
    """SHA-256 over the names and sizes of the files used."""
    class_to_idx: dict[str, int]
    train_images: int
    validation_images: NotRequired[int]
    """Held back from the training images, or the data's own."""
    test_images: int
    trained_images: NotRequired[int]
    """Those that an epoch trains on: fewer where last_batch is drop."""
    tested_images: NotRequired[int]
    """Those that loss, accuracy and predictions are of: fewer where last_batch is drop."""
    skipped_images: int
    """Unreadable images left out with --bad-images skip."""
    skipped: list[SkippedImage]
    remarks: NotRequired[list[str]]
    """Sentences on images that were read although there is something to say of their files."""


@with_config(OPEN)
class DeviceRecord(TypedDict):
    """Where the run computed."""

    kind: Literal["cpu", "gpu"]
    name: str


@with_config(OPEN)
class EnvironmentRecord(TypedDict):
    """The machine and the packages."""

    python: str
    platform: str
    processor: str
    cores: int
    versions: dict[str, str]
    device: DeviceRecord
    peak_memory_bytes: NotRequired[int]
    peak_gpu_memory_bytes: NotRequired[int | None]


@with_config(OPEN)
class Model(TypedDict):
    """The network."""

    file: NotRequired[str | None]
    """The trained model's file once the run is complete; null for zero-shot, whose model is the source's."""
    architecture: str
    head_shape: list[int]
    """In the framework's own layout."""
    source_head_shape: list[int] | None
    hotdog_index: int | None
    """The source class named hotdog, or the row that the spec names; null if there is neither."""
    parameters: int
    parameters_by_stage: dict[str, int]
    trained_parameters: int
    """In the last phase."""


@with_config(OPEN)
class Final(TypedDict, total=False):
    """Of the kept model, also of a run without epochs; empty unless complete."""

    test_loss: float
    test_accuracy: Fraction
    validation_loss: float
    validation_accuracy: Fraction


@with_config(OPEN)
class Timing(TypedDict, total=False):
    """Seconds, and training images per second over all epochs."""

    preparation_seconds: float
    """Data, weights, networks."""
    training_seconds: float
    total_seconds: float
    images_per_second: float


@with_config(CLOSED)
class Record(TypedDict):
    """One run of one strategy with one backend and one seed.

    Written after every epoch; beside it lie predictions.npz and model.safetensors once the run is complete.
    """

    schema_version: Literal[1]
    status: Status
    """`running` is a run that has not ended, or that a crash of the machine ended."""
    spec: ExperimentSpec
    """What the user chose."""
    started: str
    """UTC, ISO 8601."""
    finished: str | None
    """UTC, ISO 8601; null while running."""
    error: str | None
    """Why a run that is not complete ended."""
    command: list[str]
    """The command that was given."""
    resolved: Resolved
    data: Data
    environment: EnvironmentRecord
    model: Model
    epochs: list[EpochMetrics]
    final: Final
    kept_epoch: NotRequired[int | None]
    """The epoch whose model was kept; null without epochs or unless complete."""
    stopped_early: NotRequired[bool]
    """Whether early stopping ended a phase before its epochs were over."""
    timing: Timing


def record_schema() -> dict[str, Any]:
    """Return the JSON schema of a record."""
    schema = TypeAdapter(Record).json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": f"Run record ({RECORD})", **schema}


def schema_text() -> str:
    """Return the content of `record.schema.json`."""
    return json.dumps(record_schema(), indent=2) + "\n"


if __name__ == "__main__":
    write_atomically(SCHEMA, schema_text().encode())
