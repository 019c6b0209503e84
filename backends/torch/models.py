"""The source network, the network to fine-tune and the network to train from scratch, from torchvision."""

from __future__ import annotations

import copy
import pickle

import torch
import torchvision
from torch import nn

from backends.torch.layers import BatchNorm, add_adapters
from backends.torch.runtime import find_device, parameter_type
from backends.torch.weights import load_arrays, to_arrays
from common.contract.backend import Models
from common.network import resnet, sources
from common.network.weights import Arrays
from common.spec.experiment import ExperimentSpec
from common.system.errors import UserError

# torchvision's builders and the names of their first ImageNet weights, which the chapter uses.
BUILDERS = {"resnet18": torchvision.models.resnet18, "resnet50": torchvision.models.resnet50}
ZOO_WEIGHTS = "IMAGENET1K_V1"


def build_models(spec: ExperimentSpec) -> Models:
    """Build torchvision's networks with initial values, then copy them to the device of `spec`.

    `pretrained` is a deep copy of `fine_tune` before the latter's `fc` is replaced. Where `spec.initial_values` is not
    `shared`, the new head's weight is Xavier-uniform, and the other initial values are those of torchvision and
    PyTorch.

    Args:
        spec: The experiment.

    Returns:
        The three networks, channels-last in memory. Weights that do not fit or cannot be read raise UserError.
    """
    pretrained = fine_tune = None
    if spec.weights != "none":
        source = read_source(spec)
        fine_tune = build_network(spec, len(source["fc.bias"]) if sources.has_head(source) else spec.classes)
        load_arrays(fine_tune, source)
        pretrained = copy.deepcopy(fine_tune) if sources.has_head(source) else None
        fine_tune.fc = nn.Linear(fine_tune.fc.in_features, spec.classes)
        if spec.initial_values == "shared":
            load_arrays(fine_tune, resnet.initial_head(spec.model, spec.classes, spec.seed))
        else:
            nn.init.xavier_uniform_(fine_tune.fc.weight)
        if spec.strategy == "lora":
            add_adapters(fine_tune, spec)
    scratch = build_network(spec, spec.classes)
    if spec.initial_values == "shared":
        load_arrays(scratch, resnet.initial_network(spec.model, spec.classes, spec.seed))
    return Models(*(model and place(model, spec) for model in (pretrained, fine_tune, scratch)))


def place(model: nn.Module, spec: ExperimentSpec) -> nn.Module:
    """Move a network to its device, in its precision and in the layout that convolutions are fastest in."""
    # Read by `training.forward`: only products are computed in bfloat16; the parameters have another type.
    model.uses_bf16 = spec.precision == "bf16"
    return model.to(device=find_device(spec), dtype=parameter_type(spec), memory_format=torch.channels_last)


def read_source(spec: ExperimentSpec) -> Arrays:
    """Return the arrays of the source network by torchvision's name, from a file or from torchvision's model zoo.

    Args:
        spec: The experiment; its `weights` name the source.

    Returns:
        Every parameter and running statistic.

    Raises:
        UserError: The file is missing or damaged, or the zoo's weights cannot be downloaded and read.
    """
    if spec.weights != "imagenet":
        checkpoint = sources.read_for(spec)
        assert checkpoint is not None
        return checkpoint.arrays
    try:
        return to_arrays(BUILDERS[spec.model](weights=ZOO_WEIGHTS))
    # torch does not check the files in its cache, so a damaged one is noticed only when it is read.
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(
            f"weights = 'imagenet': torchvision could not download and read {spec.model} ({reason}). Where there "
            f"is no network, use --weights distilled, or put the file into {torch.hub.get_dir()}/checkpoints "
            "(delete a damaged one there)"
        ) from error


def build_network(spec: ExperimentSpec, classes: int) -> nn.Module:
    """Build torchvision's network with its initial values, with synchronised BatchNorm for several devices."""
    norm_layer = BatchNorm if spec.devices > 1 else nn.BatchNorm2d
    return BUILDERS[spec.model](num_classes=classes, norm_layer=norm_layer)
