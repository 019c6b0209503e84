"""Command-line options of the commands; those of an experiment are the fields of ExperimentSpec over a preset."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from common.spec.experiment import ExperimentSpec
from common.spec.names import BackendName, ResizeWay
from common.spec.presets import load_preset

# The preset where none is named: of the pictures that the project draws itself, and of anybody's.
IMPLICIT_PRESET, PRESET_OF_PHOTOGRAPHS = "demo", "photos"
# At most so many characters of the data's name go into the name of a folder.
LONGEST_NAME = 60


@dataclass
class SpecOptions:
    """The options that all commands on an experiment share: the experiment and the preset it starts from."""

    spec: Annotated[ExperimentSpec, tyro.conf.arg(name="")]
    preset: str = IMPLICIT_PRESET
    """Named experiment to start from; the options below change single fields of it."""


@dataclass
class RunOptions(SpecOptions):
    """Run one experiment in one framework.

    Without --strategy the strategies of the preset run one after the other (fine-tune, then scratch), each with the
    options given, and each leaves a record of its own.
    """

    output: Path | None = None
    """Folder for record.json, predictions.npz and model.safetensors; by default a new one under runs/. Several
    strategies get a folder each inside it."""
    overwrite: bool = False
    """Replace a record that is in the output folder already."""
    tensorboard: bool = False
    """Also write events for TensorBoard, beside the record."""
    time_limit: str | None = None
    """Longest time of each run, such as 90s, 10m or 1h, from reading the data to the last file written: as many of
    the epochs are planned as fit into it, with a schedule that ends with the last of them."""
    progress: Literal["bar", "json"] = "bar"
    """How to show progress: to people, or to a program as a JSON object a line."""
    list_presets: bool = False
    """Show the presets and stop."""
    machines: int = 1
    """Machines that the devices are on, as many on each (torch, jax). Each is given the same command but for
    --machine."""
    machine: int = 0
    """Which of the machines this is, counted from 0; the first shows progress and writes the record."""
    coordinator: str = ""
    """Where the other machines find the first: its address and a free port, such as 10.0.0.5:29500."""


@dataclass
class ShowOptions(SpecOptions):
    """Show the data: the first images of the first class above the last images of the last class."""

    output: Path = Path("show.png")
    """PNG file to write."""


@dataclass
class InspectOptions(SpecOptions):
    """Look at the networks of an experiment before training: heads, parameters by stage, the hot-dog row."""

    json: bool = False
    """Print JSON instead of tables."""


@dataclass
class SweepOptions(SpecOptions):
    """Run an experiment many times with some of its fields varied, and choose by validation accuracy.

    This is the accuracy on held-out training images; the test images take no part in the choice. A diverged run is a
    result like any other. A second start continues the study; several at once share the work.
    """

    vary: tuple[str, ...] = ()
    """What to vary: a list (head_multiple=1,5,10), a range (weight_decay=0..0.01) or a logarithmic range
    (learning_rate=1e-5..1e-1:log); after a range, :9 gives a grid 9 points along it instead of 5."""
    trials: int | None = None
    """Stop when the study has this many trials; by default after the whole grid, or 20."""
    sampler: Literal["grid", "random", "tpe"] | None = None
    """How values are chosen: every combination, at random, or where earlier trials look best (Bergstra et al. 2011).
    By default a grid if everything varied is a list, else tpe."""
    pruner: Literal["median", "none"] = "none"
    """Whether to end a trial whose accuracy after an epoch is below the median of the earlier ones."""
    study: Path | None = None
    """File of the study; the records are in the folder of its name beside it. By default runs/sweep-<preset>-<backend>-
    <what is varied>.journal. Commands for other backends may share it."""
    show: Path | None = None
    """Show a study instead: its trials as a table and as a picture beside it."""


@dataclass
class ExperimentOfCrosscheck:
    """The experiment in which `scripts.crosscheck` compares the backends."""

    data: str = "demo"
    """Data set, folder or .zip, as for scripts.run."""
    weights: str = "distilled"
    """Source weights, as for scripts.run."""
    image_size: int = 96
    """Side of the images, in pixels."""
    batch_size: int = 32
    """Images a step."""
    steps: int = 20
    """Training steps in lockstep."""
    short: bool = False
    """Only the few ways to train that together touch every definition."""
    train_limit: int | None = 200
    """Training images of the epoch that is compared; a batch stays incomplete."""
    test_limit: int | None = 200
    """Test images of the epoch that is compared."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """Where to run."""

    def probe_arguments(self) -> list[str]:
        """Return these options as a command line of `scripts.probe`."""
        names = ("data", "weights", "image_size", "batch_size", "steps", "train_limit", "test_limit", "device")
        arguments = [part for name in names for part in (f"--{name.replace('_', '-')}", str(getattr(self, name)))]
        return [*arguments, *(["--short"] if self.short else [])]


@dataclass
class CrosscheckOptions(ExperimentOfCrosscheck):
    """Check that the backends agree: facts, logits, gradients, training in lockstep, and a whole epoch.

    Exits with 1 if a check fails.
    """

    backends: tuple[str, ...] = ()
    """The backends to compare; by default those whose environments are built."""
    output: Path = Path("runs/crosscheck")
    """Folder for the probes and crosscheck.json."""


@dataclass
class ProbeOptions(ExperimentOfCrosscheck):
    """Write a probe file, one backend's part of crosscheck."""

    backend: BackendName = "torch"
    """The backend to probe."""
    precision: Literal["fp32", "fp64"] = "fp32"
    """Arithmetic of the probe."""
    output: Path = Path("probe.npz")
    """File to write."""

    def spec(self) -> ExperimentSpec:
        """Return the experiment of these options, with the book's hyper-parameters."""
        names = ("data", "weights", "image_size", "batch_size", "train_limit", "test_limit", "device")
        return ExperimentSpec(
            backend=self.backend, precision=self.precision, **{name: getattr(self, name) for name in names}
        )


@dataclass
class CompareOptions(SpecOptions):
    """Run an experiment in several frameworks with several seeds, and hold the runs side by side on one page.

    Runs that are complete already are not repeated. With RECORD, nothing is run: the page is made of these records.
    """

    records: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Records of runs, or folders that are searched for them."""
    backends: tuple[str, ...] = ()
    """The backends to run; by default all four."""
    seeds: int | None = None
    """How many seeds, counted from --seed; by default as many as the preset says, else 3."""
    jobs: int | None = None
    """Runs at the same time, each with its share of the cores, and of the GPUs if there are several; by default one a
    GPU, or for every --devices of them, and without a GPU two."""
    output: Path | None = None
    """Folder of the runs and of report.html, report.md and report.json; by default runs/compare-<preset>, and
    runs/report for given records."""
    overwrite: bool = False
    """Repeat all runs, and replace what is in the output folder."""
    tensorboard: bool = False
    """Also write events for TensorBoard, beside each record."""
    crosscheck: Path = Path("runs/crosscheck/crosscheck.json")
    """The result of scripts.crosscheck to show on the page, if there is such a file."""


@dataclass
class BenchOptions:
    """Measure how fast one framework trains on this machine, against the chapter's tab.

    Measured in turns are the chapter's tab as it is written, this project, this project on ready batches, and the input
    pipeline alone. The measurements are written as JSON. The networks and choices are those of the framework's tab, the
    weights random.
    """

    backend: BackendName = "torch"
    """Framework to measure."""
    image_size: tuple[int, ...] = (224,)
    """Sides of the images, in pixels."""
    batch_size: tuple[int, ...] = (32,)
    """Images a step."""
    precision: tuple[Literal["fp32", "bf16", "auto"], ...] = ("auto",)
    """Precisions of this project beside float32, which is always measured."""
    pipeline: Literal["shared", "resident"] = "shared"
    """Input pipeline of this project, as for scripts.run; the tab has its own."""
    data: str = "demo"
    """Data set, folder or .zip, as for scripts.run."""
    presize: float | None = None
    """Reduction of large images as they are decoded, as for scripts.run; the tab has none."""
    steps: int = 4
    """Steps in a slice; fewer where there are not enough images."""
    repeats: int = 5
    """Rounds; of each rate the median counts."""
    jobs: tuple[str, ...] = ()
    """Whole trainings to measure too: fine-tune, feature-extraction."""
    epochs: int = 5
    """Epochs of a whole training."""
    workers: int = ExperimentSpec.workers
    """Threads that prepare images, as for scripts.run."""
    output: Path = Path("runs/bench.json")
    """File to write."""


@dataclass
class ConvertOptions:
    """Turn a weights file of another program into one for --weights, or the other way round.

    Read are PyTorch's .pth, .pt and .bin, Keras' .weights.h5, .keras and .h5, flaxmodels' .h5, Flax's .msgpack, Gluon's
    .params and .safetensors under other names; the networks are those of --model. A file without a head is enough to
    fine-tune from. What was found, and what was left out, is said.
    """

    file: tyro.conf.Positional[Path]
    """The file to convert."""
    output: Path | None = None
    """File to write; by default weights.safetensors, and with --to the framework's own ending."""
    overwrite: bool = False
    """Replace the output file if it is there already."""
    to: Literal["safetensors", "torch", "keras", "flax", "gluon"] = "safetensors"
    """Write for this project and everything that reads torchvision's names (safetensors), or in a framework's own
    format: .pth, .weights.h5, .msgpack or .params."""
    prefix: str | None = None
    """What stands before the names of the network, in a file that holds several; found by itself if there is one."""
    class_names: Path | None = None
    """File with the names of the classes in the order of the head's rows: one a line, a JSON list, or Hugging Face's
    config.json."""
    metadata_from: Path | None = None
    """A .safetensors file whose preprocessing, and class names if they are as many, hold for this one too."""
    image_size: int | None = None
    """Side of the images that the network was trained on, in pixels."""
    resize_size: int | None = None
    """Size that these were resized to before the crop; by default in proportion to the image size."""
    resize: ResizeWay | None = None
    """How they were resized: the short side (short_side), both sides (squash), or the whole image with a border
    (letterbox)."""
    channel_order: Literal["RGB", "BGR"] | None = None
    """Order of the channels that the network expects."""
    scale: float | None = None
    """Factor of a pixel's value of 0 to 255, before the mean is subtracted: 0.00392157 (1/255) or 1."""
    mean: tuple[float, float, float] | None = None
    """Mean of each channel, in the order of the channels, that is subtracted."""
    std: tuple[float, float, float] | None = None
    """Standard deviation of each channel that the difference is divided by."""


def run_name(options: SpecOptions) -> str:
    """Return the name of a run's default folder, without the time: `<preset>-<backend>`.

    Args:
        options: The options of the run.

    Returns:
        The name; where the data are not the preset's, their name stands in place of the preset's.
    """
    return f"{options.preset if has_data_of_preset(options) else name_of_data(options)}-{options.spec.backend}"


def has_data_of_preset(options: SpecOptions) -> bool:
    """Return whether the data are those of the preset."""
    return load_preset(options.preset, options.spec.strategy).data == options.spec.data


def name_of_data(options: SpecOptions) -> str:
    """Return the name of the data's folder or file, made fit for the name of a folder.

    Args:
        options: The options, whose `spec.data` is a name or a path.

    Returns:
        At most LONGEST_NAME letters, digits, underscores, dots and hyphens, and no extension of a file; the preset's
        name if nothing is left.
    """
    # os.path accepts any text, even one too long for a path.
    path = os.path.abspath(options.spec.data)
    name = Path(path).name if os.path.isdir(path) else Path(path).stem
    return re.sub(r"[^\w.]+", "-", name).strip("-.")[:LONGEST_NAME] or options.preset
