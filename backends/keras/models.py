"""The source network, the network to fine-tune and the network to train from scratch, from KerasHub and
keras.applications."""

from __future__ import annotations

from contextlib import AbstractContextManager

import keras
import keras_hub
import tensorflow as tf
from numpy.typing import NDArray

from backends.keras.runtime import dtype_policy, placement
from backends.keras.weights import HEAD, load_arrays, to_arrays
from common.contract.backend import Models
from common.network import lora, resnet, sources, weights
from common.spec.experiment import ExperimentSpec
from common.system.errors import UserError

# KerasHub's ImageNet weights for the ResNet-18: timm's a1_in1k, other numbers than torchvision's.
HUB_PRESET = "resnet_18_imagenet"


def build_models(spec: ExperimentSpec) -> Models:
    """See `common.contract.backend.Backend.build_models`."""
    architecture = resnet.architecture(spec.backend, spec.model)
    with placement(spec):
        backbone = build_backbone(architecture)
        pretrained = fine_tune = None
        if spec.weights != "none":
            source = read_source(spec)
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
    """The layers from the image to the feature vector."""
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
    """A new head on a copy of `backbone` with initial values of its own; its name is the architecture."""
    copied = keras.models.clone_model(backbone, clone_function=lambda layer: convert_layer(layer, spec))
    head = keras.layers.Dense(classes, dtype=dtype_policy(spec), name="fc")
    network = keras.Model(copied.input, head(copied.output), name=backbone.name)
    # XLA would be compiled anew for every batch size, and its CPU convolutions are slower.
    network.jit_compile = False
    return network


def convert_layer(layer: keras.Layer, spec: ExperimentSpec) -> keras.Layer:
    """The same layer, not yet built, in the precision of `spec` and with torch's running statistics."""
    config = {**layer.get_config(), "dtype": dtype_policy(spec)}
    if isinstance(layer, keras.layers.BatchNormalization):
        return BatchNormalization.from_config(config)
    return type(layer).from_config(config)


def add_adapters(model: keras.Model, spec: ExperimentSpec) -> None:
    """Put an adapter beside every convolution: Keras' own (those of `common.network.lora`), always float32."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            layer.enable_lora(spec.lora_rank, spec.lora_alpha)
    load_arrays(model, lora.initial(model.name, spec.lora_rank, spec.seed))


class BatchNormalization(keras.layers.BatchNormalization):
    """Keras' layer, whose running variance takes the unbiased batch variance as torch's does.

    As in Keras, `trainable = False` makes the layer use its running statistics and leave them as they are, and where
    it is `synchronized`, the statistics of a batch are those of all replicas.
    """

    def call(self, inputs: tf.Tensor, training: bool | None = None, mask: None = None) -> tf.Tensor:
        if training and self.trainable and self.synchronized:
            return self.learn_together(inputs)
        if training and self.trainable and inputs.dtype != tf.float64:
            return self.learn(inputs)
        before = tf.identity(self.moving_variance)
        outputs = super().call(inputs, training, mask)
        if training and self.trainable:
            # Values a channel; of one alone there is no unbiased variance.
            count = tf.cast(tf.maximum(tf.size(inputs) // inputs.shape[-1], 2), before.dtype)
            from_batch = self.moving_variance - self.momentum * before
            self.moving_variance.assign_add(from_batch / (count - 1))
        return outputs

    def learn(self, inputs: tf.Tensor) -> tf.Tensor:
        """Normalise by the batch in one operation of TensorFlow, which Keras makes of many; its variance is unbiased,
        and for bfloat16 images, too, statistics and parameters are float32. There is none for float64."""
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs, scale=self.gamma.value, offset=self.beta.value, mean=[], variance=[], epsilon=self.epsilon,
            is_training=True,
        )  # fmt: skip
        self.move(mean, variance)
        return outputs

    def learn_together(self, inputs: tf.Tensor) -> tf.Tensor:
        """Normalise by the whole batch, of which each replica has an equal share. Keras takes the mean of the squares
        minus the square of the mean, which loses digits; this is the mean of the centred squares."""
        replicas = tf.distribute.get_replica_context()

        def mean_of(values: tf.Tensor) -> tf.Tensor:
            return replicas.all_reduce(tf.distribute.ReduceOp.MEAN, tf.reduce_mean(values, axis=self._reduction_axes))

        values = tf.cast(inputs, self.moving_mean.dtype)
        mean = mean_of(values)
        variance = mean_of(tf.square(values - mean))
        count = tf.cast(replicas.num_replicas_in_sync * (tf.size(inputs) // inputs.shape[-1]), variance.dtype)
        self.move(mean, variance * count / (count - 1))
        outputs = tf.nn.batch_normalization(values, mean, variance, self.beta.value, self.gamma.value, self.epsilon)
        return tf.cast(outputs, inputs.dtype)

    def move(self, mean: tf.Tensor, variance: tf.Tensor) -> None:
        """Give a batch its share of the running statistics."""
        share = 1 - self.momentum
        self.moving_mean.assign((1 - share) * self.moving_mean.value + share * mean)
        self.moving_variance.assign((1 - share) * self.moving_variance.value + share * variance)


def read_source(spec: ExperimentSpec) -> weights.Arrays:
    """The numbers of the source network by torchvision's names."""
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


def head_shape(model: keras.Model) -> tuple[int, ...]:
    """See `common.contract.backend.Backend.head_shape`: (features, classes) in Keras."""
    return tuple(model.layers[-1].kernel.shape)


def class_weight(model: keras.Model, index: int) -> NDArray:
    """See `common.contract.backend.Backend.class_weight`."""
    return model.layers[-1].kernel.numpy()[:, index].astype("float32")


def head_of(model: keras.Model) -> keras.Model:
    """See `common.contract.backend.Backend.head_of`."""
    layer = model.layers[-1]
    with placement_of(model):
        inputs, copied = keras.Input(layer.kernel.shape[:1]), type(layer).from_config(layer.get_config())
        head = keras.Model(inputs, copied(inputs), name=HEAD)
        head.set_weights(model.get_weights()[-2:])
    head.jit_compile = False
    return head


def placement_of(model: keras.Model) -> AbstractContextManager:
    """`backends.keras.runtime.placement` where the variables of a model are."""
    strategy = model.distribute_strategy
    return strategy.scope() if strategy.num_replicas_in_sync > 1 else tf.device(device_of(model))


def device_of(model: keras.Model) -> str:
    """Where the model's variables are, and so where it computes; the first device, if there are several."""
    return model.layers[-1].kernel.value.device
