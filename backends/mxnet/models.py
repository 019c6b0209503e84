"""The source network, the network to fine-tune and the network to train from scratch, from Gluon's model zoo."""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path
from zipfile import BadZipFile

import mxnet as mx
from mxnet.gluon import HybridBlock
from mxnet.gluon.model_zoo import model_store, vision

from backends.mxnet.layers import add_adapters, compile_network, synchronise
from backends.mxnet.runtime import find_devices
from backends.mxnet.weights import load_arrays, named_parameters, to_arrays
from common.contract.backend import Models
from common.devices import precision
from common.network import resnet, sources
from common.network.weights import Arrays
from common.spec.experiment import ExperimentSpec
from common.system.errors import UserError

# torchvision's ResNet-18 is Gluon's first version; the second, which the chapter uses, normalises before it convolves.
ZOO_NAMES = {"resnet18": "resnet18_v1", "resnet18_v2": "resnet18_v2"}


def build_models(spec: ExperimentSpec) -> Models:
    """Build the three networks from Gluon's model zoo, on the devices of `spec`.

    Gluon draws initial values for every network, on the CPU; loaded weights, and with `initial_values` = shared the
    values of every backend, then replace them. Each network is cast to the parameters' dtype, moved to the devices and
    compiled; with several devices its BatchNorm layers are synchronised. Weights that do not fit end in a UserError.

    Args:
        spec: The experiment.

    Returns:
        The source network, the network to fine-tune and the one to train from scratch; the first two are None without
        weights.
    """
    pretrained = fine_tune = None
    if spec.weights != "none":
        source = read_source(spec)
        if sources.has_head(source):
            pretrained = build_network(spec, len(source["fc.bias"]))
            load_arrays(pretrained, source)
        fine_tune = build_network(spec, spec.classes)
        # The chapter shares `features` between the two networks, so that training one trains the other: copy instead.
        load_arrays(fine_tune, {name: source[name] for name in source if not name.startswith("fc.")})
        if spec.initial_values == "shared":
            load_arrays(fine_tune, resnet.initial_head(spec.model, spec.classes, spec.seed))
        if spec.strategy == "lora":
            add_adapters(fine_tune, spec)
    scratch = build_network(spec, spec.classes)
    if spec.initial_values == "shared":
        load_arrays(scratch, resnet.initial_network(spec.model, spec.classes, spec.seed))
    for model in (pretrained, fine_tune, scratch):
        if model is not None:
            model.cast(precision.parameter_type(spec))
            devices = find_devices(spec)
            model.collect_params().reset_ctx(devices)
            if len(devices) > 1:
                synchronise(model, devices)
            compile_network(model)
    return Models(pretrained, fine_tune, scratch)


def build_network(spec: ExperimentSpec, classes: int) -> HybridBlock:
    """Build a network on the CPU with Gluon's initial values: Xavier's uniform ones for every weight."""
    model = vision.get_model(ZOO_NAMES[spec.model], classes=classes)
    # Gluon would infer the numbers of channels from the first batch; given the shapes, it need not wait for one.
    shapes = resnet.shapes(spec.model, classes)
    for name, parameter in named_parameters(model).items():
        parameter.shape = shapes[name]
    model.initialize(mx.init.Xavier())
    return model


def read_source(spec: ExperimentSpec) -> Arrays:
    """Return the source network's arrays by torchvision's name, from a weights file or from Gluon's model zoo.

    `sources.read_for` and `download` raise UserError if the file is missing or damaged, or the zoo cannot be reached.
    """
    if spec.weights != "imagenet":
        checkpoint = sources.read_for(spec)
        assert checkpoint is not None
        return checkpoint.arrays
    model = build_network(spec, resnet.SOURCE_CLASSES)
    model.load_parameters(str(download(ZOO_NAMES[spec.model])))
    return to_arrays(model)


def download(zoo_name: str) -> Path:
    """Return the path of a network's weights file of the model zoo, and download it if it is not there yet.

    Gluon checks the file's SHA-1.

    Args:
        zoo_name: Gluon's name of the network, such as `resnet18_v1`.

    Returns:
        The path, below MXNet's data directory.

    Raises:
        UserError: The file cannot be downloaded.
    """
    file = Path(mx.base.data_dir(), "models", f"{zoo_name}-{model_store.short_hash(zoo_name)}.params")
    if not file.exists():
        print(f"downloading {file.name} from Gluon's model zoo", file=sys.stderr)
    try:
        # Redirected, because Gluon prints every failed attempt in full.
        with contextlib.redirect_stdout(io.StringIO()):
            return Path(model_store.get_model_file(zoo_name, root=str(file.parent)))
    except (OSError, RuntimeError, ValueError, BadZipFile) as error:
        reason = error if isinstance(error, ValueError) else type(error).__name__
        raise UserError(
            f"weights = 'imagenet': Gluon could not download {zoo_name} ({reason}). Where there is no network, use "
            f"--weights distilled with --model resnet18, or put {file.name} into {file.parent}; "
            "the environment variable MXNET_GLUON_REPO names another server"
        ) from error
