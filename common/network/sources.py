"""Find and read source weights: the embedded file, the Hugging Face Hub's, or a file of the user's."""

from __future__ import annotations

import functools
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.network import hub, imagenet, resnet
from common.network.preprocessing_metadata import Preprocessing
from common.network.weights import Arrays, Checkpoint, check, expected_shapes, read, read_header
from common.spec.experiment import ExperimentSpec
from common.system.errors import UserError
from common.system.files import user_path

DISTILLED = Path(__file__).parent / "weights_data" / "resnet18-distilled.safetensors"
# Ends of the names of files that `scripts.convert` reads.
CONVERTIBLE = (".pth", ".pt", ".bin", ".ckpt", ".h5", ".hdf5", ".keras", ".params", ".msgpack")
NAMED_SOURCES = ("auto", "distilled", "tv_in1k", "imagenet", "none")


# keras.applications' ResNet50 was trained on Caffe's convention: BGR from 0 to 255, less the channel's mean.
CAFFE = Preprocessing(channel_order="BGR", scale=1.0, mean=(103.939, 116.779, 123.68), std=(1.0, 1.0, 1.0))


@dataclass(frozen=True)
class Choice:
    """The source weights that `auto` has chosen, and the reason."""

    weights: str
    """`tv_in1k` or `distilled`."""
    why: str
    """The reason in one line, for the user."""


def resolve(spec: ExperimentSpec) -> tuple[ExperimentSpec, Choice | None]:
    """Replace the weights `auto` by `tv_in1k`, where the Hugging Face Hub or its cache has them, else by `distilled`.

    The answer is the same for as long as the process lives. It takes seconds at most, unless weights are downloaded.

    Args:
        spec: What the user chose.

    Returns:
        The experiment with other weights in the place of `auto`, and the choice; None where they were not `auto`.
    """
    if spec.weights != "auto":
        return spec, None
    choice = _choose(resnet.architecture(spec.backend, spec.model), f"{spec.model} of the {spec.backend} backend")
    return spec.replace(weights=choice.weights), choice


@functools.cache
def _choose(architecture: str, network: str) -> Choice:
    """Choose the weights of an architecture.

    Args:
        architecture: The architecture, by this project's name.
        network: What to call it in messages.

    Returns:
        The choice.

    Raises:
        UserError: The Hub cannot be had, or has nothing for it, and neither has this project.
    """
    repository = hub.REPOSITORIES.get(architecture)
    if repository is None:
        raise UserError(f"weights = 'auto' know none for {network}; choose --weights imagenet")
    try:
        where = "the Hugging Face Hub's cache"
        if hub.cached(repository) is None:
            where = "the Hugging Face Hub"
            hub.check_reachable(repository)
            hub.download(repository)
    except hub.HubError as error:
        if architecture != "resnet18":
            raise UserError(f"weights = 'auto': {_no_hub(repository, error)}; choose --weights imagenet") from error
        return Choice(
            "distilled",
            "weights auto: distilled, a part of this project, for 128 px; tv_in1k, torchvision's better ones for 224 "
            f"px, would need the Hugging Face Hub ({error}), or {hub.FILE} of {repository} as --weights",
        )
    return Choice(
        "tv_in1k",
        f"weights auto: tv_in1k, torchvision's for 224 px, from {where}; --weights distilled, for 128 px, is a part of "
        "this project, weaker and faster",
    )


def _no_hub(repository: str, error: hub.HubError) -> str:
    """Say that a repository could not be had from the Hub, and why."""
    return f"{repository} could not be downloaded from the Hugging Face Hub ({error})"


def locate(spec: ExperimentSpec) -> Path | None:
    """Return the weights file of an experiment, downloaded if need be.

    Args:
        spec: What the user chose.

    Returns:
        The file; None for the weights `none`, and for `imagenet`, which the backend's own model zoo loads.

    Raises:
        UserError: There is no such file, its name has one of the ends CONVERTIBLE, it cannot be downloaded, or these
            weights do not exist for the architecture.
    """
    spec, _ = resolve(spec)
    architecture = resnet.architecture(spec.backend, spec.model)
    if spec.weights in ("none", "imagenet"):
        return None
    if spec.weights == "distilled":
        if architecture != "resnet18":
            raise UserError(
                f"weights = 'distilled' are for resnet18, not for {spec.model} of the {spec.backend} backend; "
                "choose --weights imagenet, or --model resnet18"
            )
        return DISTILLED
    if spec.weights == "tv_in1k":
        return _download_from_hub(architecture, spec)
    path = user_path("--weights", spec.weights)
    if path.suffix.lower() in CONVERTIBLE:
        stem = path.stem.removesuffix(".weights")
        raise UserError(
            f"--weights {path}: expected a .safetensors file, whose reading cannot run code; this makes one: "
            f"python -m scripts.convert {shlex.quote(str(path))} --output {shlex.quote(stem)}.safetensors"
        )
    if not path.is_file():
        named = ", ".join(NAMED_SOURCES)
        raise UserError(f"--weights {spec.weights}: there is no such file; the named sources are {named}")
    return path


def source_class_names(spec: ExperimentSpec) -> tuple[str, ...]:
    """Return the class names of an experiment's source weights.

    A UserError of `locate` or `read_header` passes through.

    Args:
        spec: What the user chose.

    Returns:
        The names in the order of the head rows, from the header of the weights file, none where it has no head;
        ImageNet-1k's where there is no file.
    """
    path = locate(spec)
    return read_header(path).class_names if path else imagenet.class_names()


def preprocessing_of(spec: ExperimentSpec) -> Preprocessing:
    """Return the preprocessing that an experiment's source weights expect.

    A UserError of `locate` or `read_header` passes through.

    Args:
        spec: What the user chose.

    Returns:
        That of the weights file's header. Without a file it is Caffe's for keras.applications' ResNet50, and
        torchvision's for every other network.
    """
    path = locate(spec)
    if path is not None:
        return read_header(path).preprocessing
    if resnet.architecture(spec.backend, spec.model) == "resnet50_keras":
        return CAFFE
    return Preprocessing()


def stated_preprocessing(spec: ExperimentSpec) -> dict[str, Any]:
    """Return what the file of an experiment's source weights itself says of preprocessing.

    A UserError of `locate` or `read_header` passes through.

    Args:
        spec: What the user chose.

    Returns:
        Fields of `Preprocessing` -> values; nothing where there is no file.
    """
    path = locate(spec)
    header = read_header(path) if path else None
    return {name: getattr(header.preprocessing, name) for name in sorted(header.stated)} if header else {}


@functools.lru_cache(maxsize=1)
def _read_once(path: Path, changed: int, size: int) -> Checkpoint:
    """Read a weights file, unless it is the one that was read last and has not changed since.

    Args:
        path: The file.
        changed: Its time of change in nanoseconds, so that a changed file is read again.
        size: Its size in bytes, to the same end.

    Returns:
        The checkpoint. Its arrays are shared by all callers, which must not change them.
    """
    return read(path)


def read_for(spec: ExperimentSpec) -> Checkpoint | None:
    """Read the source weights of an experiment and check them against its architecture.

    Args:
        spec: What the user chose.

    Returns:
        The checkpoint, with or without a head; None for the weights `none` and `imagenet`.

    Raises:
        UserError: The file is damaged or is not a network of the experiment's architecture.
    """
    path = locate(spec)
    if path is None:
        return None
    state = path.stat()
    checkpoint = _read_once(path, state.st_mtime_ns, state.st_size)
    architecture = resnet.architecture(spec.backend, spec.model)
    if checkpoint.header.architecture not in ("", architecture):
        raise UserError(
            f"--weights {spec.weights}: made for {checkpoint.header.architecture}, "
            f"but the {spec.backend} backend's {spec.model} is {architecture}"
        )
    if "conv1.weight" not in checkpoint.arrays:
        raise UserError(
            f"{path}: the tensor conv1.weight is missing; if this is a ResNet under other names, "
            f"python -m scripts.convert {shlex.quote(str(path))} --output NEW.safetensors renames them"
        )
    check(checkpoint.arrays, expected_shapes(architecture, len(checkpoint.header.class_names)), path)
    return checkpoint


def has_head(arrays: Arrays) -> bool:
    """Return whether the arrays of a source network have a head, which a file of a backbone alone has not."""
    return all(name in arrays for name in resnet.HEAD)


def _download_from_hub(architecture: str, spec: ExperimentSpec) -> Path:
    repository = hub.REPOSITORIES.get(architecture)
    if repository is None:
        offered = ", ".join(hub.REPOSITORIES)
        raise UserError(
            f"weights = 'tv_in1k' exist for {offered}, not for {spec.model} of the {spec.backend} backend; "
            "choose --weights imagenet"
        )
    try:
        return hub.cached(repository) or hub.download(repository)
    except hub.HubError as error:
        raise UserError(
            f"weights = 'tv_in1k': {_no_hub(repository, error)}. Where there is no network, use --weights distilled, "
            f"or download {hub.FILE} of {repository} elsewhere and give its path as --weights"
        ) from error
