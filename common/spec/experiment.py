"""Every choice of one experiment, in one frozen, validated object."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from dataclasses import field, fields
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

from pydantic import ConfigDict, Field, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from common.spec.contradictions import check_contradictions
from common.spec.names import BackendName, ModelName, ResizeWay
from common.system.errors import UserError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Strategy = Literal[
    "fine-tune", "scratch", "feature-extraction", "warm-up", "partial", "discriminative", "lora", "zero-shot", "auto"
]

# No value is converted into another type, but for whole numbers where any number is allowed.
STRICT = ConfigDict(strict=True, allow_inf_nan=False, use_attribute_docstrings=True)

Multiple = Annotated[float, Field(ge=0)]


@dataclass(frozen=True, config=STRICT)
class StageMultiples:
    """Multiples of the learning rate for the stages of the backbone; 0 freezes a stage's parameters."""

    stem: Multiple = 1.0
    layer1: Multiple = 1.0
    layer2: Multiple = 1.0
    layer3: Multiple = 1.0
    layer4: Multiple = 1.0


@dataclass(frozen=True, config=STRICT)
class ExperimentSpec:
    """One experiment: one backend, one network, one strategy, one seed."""

    backend: BackendName = "torch"
    """Framework that runs the experiment."""
    model: ModelName = "resnet18"
    """Network. `resnet18` is the same network in all four backends."""
    weights: str = "distilled"
    """Source weights: `distilled` (part of this project), `tv_in1k` (torchvision's V1, from the Hugging Face Hub),
    `auto` (tv_in1k if the Hub has it, else distilled), `imagenet` (the framework's), `none`, or a .safetensors file."""
    hotdog_index: Annotated[int, Field(ge=0)] | None = None
    """Row of the source head to report as the hot dog's; by default the one that the weights call `hotdog`."""
    data: str = "demo"
    """`demo` (rendered here), `hotdog` (the chapter's photographs, downloaded), or a folder, .zip or table of your own,
    in most layouts (docs/data.md)."""
    data_url: str | None = None
    """Address to download `hotdog` from instead of the chapter's."""
    data_sha1: str | None = None
    """SHA-1 of the archive at `data_url`, as 40 hexadecimal digits."""
    zip_encoding: str | None = None
    """Encoding of the names in a .zip that are not UTF-8, such as `gbk` or `shift_jis`."""
    split_seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    """Seed by which a fifth of each class is held back to test on where the data has no test images; `seed` does not
    change this choice."""
    bad_images: Literal["error", "skip", "load"] = "error"
    """What to do with images that cannot be decoded: stop, or skip and count them in the record. `load` reads JPEGs
    that lack their end as far as they go, and skips the others."""
    max_pixels: Annotated[int, Field(ge=1)] = 80_000_000
    """Images of more pixels count as images that cannot be decoded; 200000000 reads the largest photographs."""
    image_range: Annotated[int, Field(ge=1, le=2**32 - 1)] | None = None
    """Value of white in images with more than 8 bits, such as 4095 for 12 bits kept in 16; larger values become
    white. By default that of 16 bits, 65535; images of 32 bits or floating-point numbers need it."""
    train_limit: Annotated[int, Field(ge=2)] | None = None
    """Use at most this many training images, evenly over the classes."""
    test_limit: Annotated[int, Field(ge=2)] | None = None
    """Use at most this many test images, evenly over the classes."""
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Fraction of the training images of each class that is held back to choose by: early stopping and the best epoch
    look at these, never at the test images. Data with train, val and test has its own, which are used instead."""
    classes: Annotated[int, Field(ge=2)] = 2
    """Number of classes of the new head; the commands set it from the data."""

    pipeline: Literal["shared", "native", "resident"] = "shared"
    """`shared` gives the same pixels to every framework (Pillow and NumPy); `native` uses the framework's own tools;
    `resident` keeps all images in the device's memory (up to $FINE_TUNING_RESIDENT_GIB, 8) and makes the same
    pixels as `shared` there."""
    image_size: Annotated[int, Field(ge=32, le=4096)] | None = None
    """Side of the square the network sees, in pixels; by default the size the weights were made for."""
    resize_size: Annotated[int, Field(ge=32, le=4096)] | None = None
    """Size the image is resized to before a crop of `image_size`; by default that of the weights, or in proportion
    to `image_size`."""
    presize: Annotated[float, Field(ge=1)] | None = None
    """Reduce larger images as they are decoded, once, to a short side of `presize` times `resize_size`, which makes
    large photographs fast; nothing is enlarged. None leaves every image at its size."""
    image_cache: bool = True
    """Keep the decoded images of the shared and resident pipelines in a file (under $FINE_TUNING_CACHE), up to
    $FINE_TUNING_IMAGE_CACHE_GIB (8) for all data sets, and features that are computed once for later runs; it changes
    no number."""
    train_crop: Literal["random_resized_crop", "resize_random_crop", "none"] = "random_resized_crop"
    """Training crop: of random area and aspect ratio, of fixed size at a random place of the resized image, or none:
    training images are resized and cropped as the test's are."""
    test_resize: ResizeWay | None = None
    """Resizing of a test image: the short side to `resize_size`, or both sides (squash: the chapter's way, which
    changes the aspect ratio), before a crop at the centre; or the long side to `image_size` with borders of the mean
    colour (letterbox), so that the whole image is seen. By default that of the weights, or else short_side."""
    flip: bool = True
    """Mirror half of the training images."""
    reuse_features: Literal["auto", "never"] = "auto"
    """Compute the features of each image once and train the head on them, wherever that gives the same numbers: the
    whole backbone is frozen, nothing is augmented (train_crop is none, flip is off) and the pipeline is not native."""

    strategy: Strategy = "fine-tune"
    """What is trained: everything with a faster head (fine-tune), everything from random values (scratch), the head
    alone (feature-extraction), first the head and then everything (warm-up), the last stages and the head (partial),
    early, late and head at three rates (discriminative), the head and low-rank adapters beside the backbone's
    convolutions, whose own weights stay like everything of BatchNorm (lora), or nothing (zero-shot: the source
    network's own classes of the data's names answer, and a class without a namesake has all the others). `auto`
    chooses one, with optimizer, rates and epochs, by the number of training images and `domain`."""
    domain: Literal["similar", "different"] = "similar"
    """Whether the images are of the kind that the source weights were trained on; the strategy `auto` asks for it."""
    warm_up_epochs: Annotated[int, Field(ge=1)] = 2
    """Epochs that the strategy `warm-up` trains the head alone, out of `epochs`."""
    partial_stages: Annotated[int, Field(ge=1, le=4)] = 2
    """Stages of the backbone, counted from the last, that the strategy `partial` trains."""
    lora_rank: Annotated[int, Field(ge=1, le=64)] = 4
    """Rank of the adapters of the strategy `lora`."""
    lora_alpha: Annotated[float, Field(gt=0)] = 16.0
    """What the strategy `lora` adds to a convolution's weight is `lora_alpha / lora_rank` times its adapter."""
    batch_size: Annotated[int, Field(ge=1)] = 128
    """Images a step."""
    last_batch: Literal["keep", "drop"] = "keep"
    """A last batch of fewer than `batch_size` images: it counts (keep), or is left out of training and testing (drop),
    as in two of the chapter's tabs."""
    epochs: Annotated[int, Field(ge=0)] = 5
    """Passes over the training images."""
    early_stopping: Annotated[int, Field(ge=1)] | None = None
    """End a phase after this many epochs without a lower validation loss; needs `validation`."""
    keep: Literal["last", "best"] = "last"
    """The model that a run leaves and reports at the end: that of the last epoch, or of the epoch with the lowest
    validation loss, which needs `validation`."""
    optimizer: Literal["sgd", "momentum", "adam"] = "sgd"
    """Stochastic gradient descent without and with momentum (0.9), or Adam (0.9, 0.999, 1e-8)."""
    learning_rate: Annotated[float, Field(ge=0)] = 5e-5
    """Learning rate of a group whose multiple is 1."""
    stage_multiples: StageMultiples = field(default_factory=StageMultiples)
    """Learning-rate multiples of the backbone's stages."""
    head_multiple: Annotated[float, Field(ge=0)] = 10.0
    """Learning-rate multiple of the new head."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-3
    """Added to the gradient as `weight_decay` times the parameter, for every trained parameter."""
    loss_reduction: Literal["sum", "mean"] = "sum"
    """Whether the loss that is differentiated is the sum or the mean over the batch."""
    schedule: Literal["constant", "cosine", "one-cycle"] = "constant"
    """Learning rate over the steps of a phase: constant, falling along half a cosine, or first rising and then falling
    (one-cycle)."""
    schedule_warm_up_steps: Annotated[int, Field(ge=0)] = 0
    """Steps at the start of each phase over which the learning rate rises linearly; not for one-cycle, which has its
    own. The strategy `warm-up` is something else: it trains the head first."""
    class_weights: Literal["none", "balanced"] = "none"
    """Weigh the losses of the classes alike (none), or by training images / (classes * training images of the class)
    (balanced). The weighted losses are summed, or averaged over the examples, as `loss_reduction` says."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of each target, below 1, that is spread evenly over all classes."""
    batch_norm: Literal["train", "frozen", "frozen_early"] = "train"
    """BatchNorm uses and updates batch statistics (train), keeps the source's (frozen), or keeps them in stem, layer1
    and layer2 only (frozen_early). gamma and beta train like other parameters."""
    batch_norm_momentum: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of a batch in BatchNorm's running statistics, at each step: torch's convention. flaxmodels has 0.9,
    keras.applications 0.01."""
    head_init: Literal["xavier_uniform", "source-class"] = "xavier_uniform"
    """How the new head of a source network starts: with random weights and zero biases, or with the source head's rows
    for the classes of the data's names (source-class); a class without a namesake starts with the mean of the other
    rows."""
    head_init_classes: tuple[str, ...] = ()
    """Source classes whose mean row starts the class without a namesake, instead of all others."""
    initial_values: Literal["shared", "native"] = "shared"
    """Who draws random initial values: this project with NumPy, the same for every framework, or the framework."""

    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    """Seed of every random draw."""
    precision: Literal["fp32", "tf32", "bf16", "auto", "fp64"] = "fp32"
    """Arithmetic: float32; float32 whose products NVIDIA's GPUs (Ampere and later) round to TF32's 10 bits (not in
    MXNet); bfloat16 in convolutions and the head, with parameters, BatchNorm statistics and losses in
    float32 (not in MXNet); `auto` takes bfloat16 where the hardware is faster with it, and the record says which it
    was; or float64, as a yardstick for the others."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """Where to run; `auto` takes a GPU if the framework sees one, and the record says which it was."""
    devices: Annotated[int, Field(ge=1, le=1024)] = 1
    """Devices that share the work on each batch: GPUs, or on a CPU processes (torch) or virtual devices (the others).
    The numbers are those of one device, to rounding; `batch_size` is the whole batch."""
    workers: Annotated[int, Field(ge=0, le=256)] = 2
    """Threads (shared and resident pipelines) or worker processes (native) that prepare images ahead."""

    @model_validator(mode="wrap")
    @classmethod
    def _check(cls, values: Any, validate: ModelWrapValidatorHandler[ExperimentSpec]) -> ExperimentSpec:
        try:
            spec = validate(values)
        except ValidationError as error:
            raise UserError(explain(error, get_type_hints(cls))) from None
        check_contradictions(spec)
        return spec

    @property
    def mean_learning_rate(self) -> float:
        """The learning rate that does the same with the loss averaged over a full batch."""
        return self.learning_rate * (self.batch_size if self.loss_reduction == "sum" else 1)

    @property
    def lora_scale(self) -> float:
        """What an adapter is multiplied by before it is added to its convolution's weight."""
        return self.lora_alpha / self.lora_rank

    @property
    def augments(self) -> bool:
        """Whether a training image differs from epoch to epoch."""
        return self.train_crop != "none" or self.flip

    def replace(self, **changes: Any) -> ExperimentSpec:
        """Return a copy with `changes`; raises UserError as the constructor does, and for a name that is no field."""
        known = [f.name for f in fields(self)]
        for name in changes:
            if name not in known:
                raise UserError(f"{name} is no field of an experiment; the fields are {', '.join(known)}")
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; `from_dict` gives the same spec back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ExperimentSpec:
        """Return the spec with `values` over the defaults.

        Args:
            values: Plain values, such as those of `to_dict` or of a TOML file.

        Returns:
            The spec.

        Raises:
            UserError: A name is no field, or a value is not allowed; the message says what is.
        """
        values = dict(values)
        multiples = values.get("stage_multiples")
        if isinstance(multiples, dict):
            stages = [f.name for f in fields(StageMultiples)]
            for stage in multiples:
                if stage not in stages:
                    raise UserError(f"stage_multiples.{stage}: no such stage; the stages are {', '.join(stages)}")
            try:
                values["stage_multiples"] = StageMultiples(**multiples)
            except ValidationError as error:
                raise UserError(f"stage_multiples.{explain(error, get_type_hints(StageMultiples))}") from None
        if isinstance(values.get("head_init_classes"), list):
            values["head_init_classes"] = tuple(values["head_init_classes"])
        return cls().replace(**values)

    def to_json(self) -> str:
        """Return the spec as JSON."""
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_json(cls, text: str) -> ExperimentSpec:
        """Return the spec of a JSON text; raises UserError as `from_dict` does."""
        return cls.from_dict(json.loads(text))


def explain(error: ValidationError, hints: dict[str, Any]) -> str:
    """Return what is wrong with the first wrong field, and what is allowed.

    Args:
        error: What pydantic found.
        hints: Field -> its type.
    """
    first = error.errors(include_url=False)[0]
    name = str(first["loc"][0])
    return f"{name} = {first['input']!r}: expected {_limit(first) or _describe(hints[name])}"


def _limit(found: ErrorDetails) -> str | None:
    words = {"ge": "at least", "le": "at most", "lt": "less than", "gt": "above"}
    return next((f"{words[key]} {value}" for key, value in found.get("ctx", {}).items() if key in words), None)


def _describe(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return "one of " + ", ".join(typing.get_args(hint))
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(_describe(option) for option in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        return "a list, each of it " + _describe(typing.get_args(hint)[0])
    names = {int: "a whole number", float: "a finite number", bool: "true or false", str: "text", type(None): "nothing"}
    return names.get(hint, "a table of multiples by stage")
