"""The source network, the network to fine-tune and the network to train from scratch, from flaxmodels."""

from __future__ import annotations

import tempfile

import flax.linen as nn
import flaxmodels
import h5py
import jax
import numpy as np
from flaxmodels.resnet.resnet import URLS

from backends.jax.layers import Adapted
from backends.jax.runtime import compute_type, dtype_of, placement
from backends.jax.weights import Model, read_flaxmodels_file, to_arrays, to_torchvision, to_variables
from common.contract.backend import Models
from common.network import lora, resnet, sources, weights
from common.network.weights import Arrays
from common.spec.experiment import ExperimentSpec
from common.system.errors import UserError

BUILDERS = {"resnet18": flaxmodels.ResNet18, "resnet50": flaxmodels.ResNet50}


def build_models(spec: ExperimentSpec) -> Models:
    """Build the three networks from flaxmodels, on the device of `spec`, or with the same numbers on each of several.

    All values are first gathered by torchvision's name in NumPy, and each network gets a copy of its own; so training
    one changes no other. With `initial_values` = shared the new values are those of every backend; otherwise
    flaxmodels' and JAX's initialisers draw them. Weights that do not fit end in a UserError.

    Args:
        spec: The experiment.

    Returns:
        The source network, the network to fine-tune and the one to train from scratch; the first two are None without
        weights.
    """
    shared = spec.initial_values == "shared"
    pretrained = fine_tune = None
    if spec.weights != "none":
        source = read_source(spec)
        head = resnet.initial_head(spec.model, spec.classes, spec.seed) if shared else native_head(spec)
        pretrained = build_network(spec, source) if sources.has_head(source) else None
        adapters = lora.initial(spec.model, spec.lora_rank, spec.seed) if spec.strategy == "lora" else {}
        fine_tune = build_network(spec, {**source, **head, **adapters})
    scratch = resnet.initial_network(spec.model, spec.classes, spec.seed) if shared else native_network(spec)
    return Models(pretrained, fine_tune, build_network(spec, scratch))


def build_network(spec: ExperimentSpec, arrays: Arrays) -> Model:
    """Build the network of `spec` with the values `arrays`, by torchvision's name, where `placement` puts it."""
    module = make_module(spec, len(arrays["fc.bias"]))
    if any(map(lora.is_adapter, arrays)):
        module = Adapted(module, spec.lora_scale)
    variables = jax.device_put(to_variables(spec.model, arrays, dtype_of(spec)), placement(spec))
    return Model(module, variables["params"], variables["batch_stats"])


def make_module(spec: ExperimentSpec, classes: int) -> nn.Module:
    """Return the Flax module of the network, which holds no parameters."""
    # With pretrained="imagenet" flaxmodels opens its weights file anew each time the module is applied.
    return BUILDERS[spec.model](
        output="logits", pretrained=None, normalize=False, num_classes=classes, dtype=compute_type(spec)
    )


def read_source(spec: ExperimentSpec) -> Arrays:
    """Return the source network's arrays by torchvision's name, of flaxmodels or of a weights file."""
    if spec.weights == "imagenet":
        return zoo_arrays(spec)
    checkpoint = sources.read_for(spec)
    assert checkpoint is not None
    return checkpoint.arrays


def zoo_arrays(spec: ExperimentSpec) -> Arrays:
    """Return flaxmodels' ImageNet weights by torchvision's name.

    They are downloaded once, into flaxmodels' default folder: `flaxmodels` in the temporary folder.

    Args:
        spec: The experiment, whose `model` is the architecture.

    Returns:
        All parameters and running statistics in torchvision's layout, float32.

    Raises:
        UserError: The file cannot be downloaded or is damaged.
    """
    url = URLS[spec.model]
    path = f"{tempfile.gettempdir()}/flaxmodels/{spec.model}_weights.h5"
    try:
        with h5py.File(flaxmodels.utils.download(None, url), "r") as file:
            arrays = read_flaxmodels_file(file, spec.model)
    # flaxmodels stores whatever the server answers, so damage is noticed only when the file is read.
    except (OSError, KeyError) as error:
        raise UserError(
            f"weights = 'imagenet': flaxmodels could not download and read {spec.model} ({type(error).__name__}). "
            f"Where there is no network, use --weights distilled, or put the file behind {url} at {path} (delete a "
            "damaged one there)"
        ) from error
    weights.check(arrays, resnet.shapes(spec.model), path)
    return arrays


def native_head(spec: ExperimentSpec) -> Arrays:
    """Draw a new head with JAX as the chapter does: Glorot-uniform weight and zero bias."""
    key = jax.random.fold_in(jax.random.key(spec.seed), 1)
    kernel = nn.initializers.glorot_uniform()(key, (resnet.features(spec.model), spec.classes))
    return {"fc.weight": to_torchvision(kernel), "fc.bias": np.zeros(spec.classes, np.float32)}


def native_network(spec: ExperimentSpec) -> Arrays:
    """Draw a network with flaxmodels' own initialisers (LeCun-normal convolutions), under a new head."""
    module = make_module(spec, spec.classes)
    # lazy_init draws the parameters without running the network; their shapes do not depend on the image's size.
    variables = module.lazy_init(jax.random.key(spec.seed), jax.ShapeDtypeStruct((1, 32, 32, 3), module.dtype))
    return {**to_arrays(Model(module, variables["params"], variables["batch_stats"])), **native_head(spec)}
