"""The source network, the one to fine-tune and the one to train from scratch, from KerasHub or keras.applications."""

from __future__ import annotations

import keras
import keras_hub

from backends.keras.layers import BatchNorm, add_adapters
from backends.keras.runtime import dtype_policy, placement
from backends.keras.weights import load_arrays, to_arrays
from common.contract.backend import Models
from common.network import resnet, sources, weights
from common.spec.experiment import ExperimentSpec
from common.system.errors import UserError

# KerasHub's ImageNet weights for the ResNet-18: timm's a1_in1k, other numbers than torchvision's.
HUB_PRESET = "resnet_18_imagenet"


def build_models(spec: ExperimentSpec) -> Models:
    """Build the networks of KerasHub (ResNet-18) or keras.applications (ResNet-50) on the devices of `spec`.

    All three are clones of one backbone. Where `spec.initial_values` is not `shared`, Keras' own initial values stay:
    Glorot-uniform kernels and zero biases.

    Args:
        spec: The experiment.

    Returns:
        The three networks; their `name` is their architecture. Weights that do not fit or cannot be read raise
        UserError.
    """
    architecture = resnet.architecture(spec.backend, spec.model)
    with placement(spec):
        backbone = build_backbone(architecture)
        pretrained = fine_tune = None
        if spec.weights != "none":
            source = read_source(spec)
            if sources.has_head(source):
                pretrained = build_network(backbone, spec, len(source["fc.bias"]))
                load_arrays(pretrained, source)
            fine_tune = build_network(backbone, spec, spec.classes)
            load_arrays(fine_tune, {name: array for name, array in source.items() if not name.startswith("fc.")})
            if spec.strategy == "lora":
                add_adapters(fine_tune, spec)
        scratch = build_network(backbone, spec, spec.classes)
        # Otherwise Keras' own initial values stay: Glorot-uniform kernels and zero biases.
        if spec.initial_values == "shared":
            load_arrays(scratch, resnet.initial_network(architecture, spec.classes, spec.seed))
            if fine_tune is not None:
                load_arrays(fine_tune, resnet.initial_head(architecture, spec.classes, spec.seed))
    return Models(pretrained, fine_tune, scratch)


def build_backbone(architecture: str) -> keras.Model:
    """Build the layers from the image to the feature vector.

    Args:
        architecture: `resnet18`, or `resnet50_keras`, that of keras.applications.

    Returns:
        A model of that name that takes images (N, H, W, 3) of any size.
    """
    if architecture == "resnet50_keras":
        return keras.applications.ResNet50(
            include_top=False, weights=None, input_shape=(None, None, 3), pooling="avg", name=architecture
        )
    # torchvision's ResNet-18 in KerasHub's words.
    backbone = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 128, 256, 512],
        stackwise_num_blocks=[2, 2, 2, 2],
        stackwise_num_strides=[1, 2, 2, 2],
        block_type="basic_block",
        image_shape=(None, None, 3),
    )
    features = keras.layers.GlobalAveragePooling2D(name="avg_pool")(backbone.output)
    return keras.Model(backbone.input, features, name=architecture)


def build_network(backbone: keras.Model, spec: ExperimentSpec, classes: int) -> keras.Model:
    """Put a new head on a clone of a backbone, both with initial values of their own.

    Args:
        backbone: The layers to clone.
        spec: Says the precision.
        classes: Outputs of the head.

    Returns:
        A network without XLA, with the name of the backbone, which is the architecture.
    """
    copied = keras.models.clone_model(backbone, clone_function=lambda layer: convert_layer(layer, spec))
    head = keras.layers.Dense(classes, dtype=dtype_policy(spec), name="fc")
    network = keras.Model(copied.input, head(copied.output), name=backbone.name)
    # XLA would be compiled anew for every batch size, and its CPU convolutions are slower.
    network.jit_compile = False
    return network


def convert_layer(layer: keras.Layer, spec: ExperimentSpec) -> keras.Layer:
    """Return the same layer, not yet built, in the precision of `spec`; BatchNorm with torch's running statistics."""
    config = {**layer.get_config(), "dtype": dtype_policy(spec)}
    if isinstance(layer, keras.layers.BatchNormalization):
        return BatchNorm.from_config(config)
    return type(layer).from_config(config)


def read_source(spec: ExperimentSpec) -> weights.Arrays:
    """Return the source network's arrays by torchvision's name, or raise UserError where they cannot be read."""
    if spec.weights != "imagenet":
        checkpoint = sources.read_for(spec)
        assert checkpoint is not None
        return checkpoint.arrays
    architecture = resnet.architecture(spec.backend, spec.model)
    try:
        if architecture == "resnet18":
            zoo = keras_hub.models.ImageClassifier.from_preset(HUB_PRESET, activation=None)
            # Where the file of the head's numbers is missing, KerasHub leaves a new head, whose bias is zero.
            if not zoo.output_dense.bias.numpy().any():
                raise FileNotFoundError("the preset has no weights for its head")
            backbone = zoo.backbone
            outputs = zoo.output_dense(zoo.pooler(backbone.output))
        else:
            backbone = zoo = keras.applications.ResNet50(weights="imagenet", classifier_activation=None)
            outputs = zoo.output
    except Exception as error:  # Kaggle's client, urllib and Keras each have their own
        cache = "~/.cache/kagglehub" if architecture == "resnet18" else "~/.keras/models"
        raise UserError(
            f"weights = 'imagenet': Keras could not download and read {spec.model} ({type(error).__name__}: {error}). "
            "Where there is no network, use --model resnet18 --weights distilled, or copy "
            f"{cache} from a machine that has it"
        ) from error
    return to_arrays(keras.Model(backbone.input, outputs, name=architecture))
