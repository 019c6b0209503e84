"""Layers in Keras: BatchNorm and its modes, adapters, the head."""

from __future__ import annotations

import keras
import tensorflow as tf
from numpy.typing import NDArray

from backends.keras.runtime import placement_of
from backends.keras.weights import HEAD, keras_name, load_arrays, torchvision_names
from common.method.phases import Phase
from common.network import lora
from common.network.stages import stage_of
from common.spec.experiment import ExperimentSpec


def add_adapters(model: keras.Model, spec: ExperimentSpec) -> None:
    """Put Keras' own adapter (that of `common.network.lora`), always float32, beside every convolution."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            layer.enable_lora(spec.lora_rank, spec.lora_alpha)
    load_arrays(model, lora.initial(model.name, spec.lora_rank, spec.seed))


class BatchNorm(keras.layers.BatchNormalization):
    """Keras' BatchNorm, whose running variance takes the unbiased batch variance as torch's does.

    As in Keras, a layer with `trainable = False` uses its running statistics and leaves them as they are. A layer that
    is `synchronized` is synchronised BatchNorm: the statistics of a batch are those of all replicas.
    """

    def call(self, inputs: tf.Tensor, training: bool | None = None, mask: None = None) -> tf.Tensor:
        """Normalise (n, H, W, channels), in training by the statistics of the batch."""
        if training and self.trainable and self.synchronized:
            return self.learn_together(inputs)
        if training and self.trainable and inputs.dtype != tf.float64:
            return self.learn_alone(inputs)
        before = tf.identity(self.moving_variance)
        outputs = super().call(inputs, training, mask)
        if training and self.trainable:
            # Unbiased: Keras has added the share of the biased variance; n / (n - 1) = 1 + 1 / (n - 1).
            # n is the number of values of a channel; a single one has no unbiased variance.
            count = tf.cast(tf.maximum(tf.size(inputs) // inputs.shape[-1], 2), before.dtype)
            from_batch = self.moving_variance - self.momentum * before
            self.moving_variance.assign_add(from_batch / (count - 1))
        return outputs

    def learn_alone(self, inputs: tf.Tensor) -> tf.Tensor:
        """Normalise by the batch in one operation of TensorFlow, where Keras uses many.

        Its variance is unbiased. Statistics and parameters are float32, for bfloat16 images too; it has no float64.

        Args:
            inputs: (n, H, W, channels) float32 or bfloat16.

        Returns:
            The normalised inputs, in their type.
        """
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs, scale=self.gamma.value, offset=self.beta.value, mean=[], variance=[], epsilon=self.epsilon,
            is_training=True,
        )  # fmt: skip
        # TensorFlow has made the variance unbiased.
        self.move_statistics(mean, variance)
        return outputs

    def learn_together(self, inputs: tf.Tensor) -> tf.Tensor:
        """Normalise by the whole batch, of which each replica has an equal share.

        Keras computes the variance as mean(x^2) - mean(x)^2, which loses digits; this is mean((x - mean(x))^2), with an
        all-reduce over the replicas for each mean.

        Args:
            inputs: (n, H, W, channels), this replica's share.

        Returns:
            The normalised inputs, in their type.
        """
        replicas = tf.distribute.get_replica_context()

        def mean_of(values: tf.Tensor) -> tf.Tensor:
            return replicas.all_reduce(tf.distribute.ReduceOp.MEAN, tf.reduce_mean(values, axis=self._reduction_axes))

        values = tf.cast(inputs, self.moving_mean.dtype)
        mean = mean_of(values)
        variance = mean_of(tf.square(values - mean))
        count = tf.cast(replicas.num_replicas_in_sync * (tf.size(inputs) // inputs.shape[-1]), variance.dtype)
        self.move_statistics(mean, variance * count / (count - 1))
        outputs = tf.nn.batch_normalization(values, mean, variance, self.beta.value, self.gamma.value, self.epsilon)
        return tf.cast(outputs, inputs.dtype)

    def move_statistics(self, mean: tf.Tensor, variance: tf.Tensor) -> None:
        """Set each running statistic to momentum * itself + (1 - momentum) * that of the batch."""
        share = 1 - self.momentum
        self.moving_mean.assign((1 - share) * self.moving_mean.value + share * mean)
        self.moving_variance.assign((1 - share) * self.moving_variance.value + share * variance)


def head_shape(model: keras.Model) -> tuple[int, ...]:
    """Return the shape of the head's kernel, in Keras (features, classes)."""
    return tuple(model.layers[-1].kernel.shape)


def head_row(model: keras.Model, index: int) -> NDArray:
    """Return the head row of class `index`, a column of Keras' kernel: (features,) float32."""
    return model.layers[-1].kernel.numpy()[:, index].astype("float32")


def extract_head(model: keras.Model) -> keras.Model:
    """Return a copy of the head as a model that takes feature vectors.

    Returns:
        A model of one Dense layer, named HEAD, by which `backends.keras.weights` knows that its variables are
        `fc.weight` and `fc.bias`. It is placed where `model` is, and computes without XLA.
    """
    layer = model.layers[-1]
    with placement_of(model):
        inputs, copied = keras.Input(layer.kernel.shape[:1]), type(layer).from_config(layer.get_config())
        head = keras.Model(inputs, copied(inputs), name=HEAD)
        head.set_weights(model.get_weights()[-2:])
    head.jit_compile = False
    return head


def set_momentum(model: keras.Model, spec: ExperimentSpec) -> None:
    """Set how much of each batch the running statistics take; Keras' momentum is what stays, 1 minus torch's."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            # keras.applications keeps 0.99, with which 80 steps hardly move the statistics.
            layer.momentum = 1 - spec.batch_norm_momentum


def set_mode(model: keras.Model, phase: Phase, together: bool = False) -> None:
    """Let BatchNorm layers with frozen statistics use these and leave them as they are.

    Args:
        model: The network, or a head alone.
        phase: Its `frozen_statistics` name the stages.
        together: Whether the other layers learn from the shares of all replicas (synchronised BatchNorm).
    """
    for name in torchvision_names(model):
        if name.endswith("running_var"):
            # Keras takes gamma and beta for frozen too; `differentiate` does not read `trainable`, so they train.
            layer = model.get_layer(keras_name(model.name, name.removesuffix(".running_var")))
            layer.trainable = stage_of(name) not in phase.frozen_statistics
            layer.synchronized = together
