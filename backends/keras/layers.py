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
    """Put an adapter beside every convolution: Keras' own (those of `common.network.lora`), always float32."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            layer.enable_lora(spec.lora_rank, spec.lora_alpha)
    load_arrays(model, lora.initial(model.name, spec.lora_rank, spec.seed))


class BatchNorm(keras.layers.BatchNormalization):
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


def head_shape(model: keras.Model) -> tuple[int, ...]:
    """See `common.contract.backend.Backend.head_shape`: (features, classes) in Keras."""
    return tuple(model.layers[-1].kernel.shape)


def head_row(model: keras.Model, index: int) -> NDArray:
    """See `common.contract.backend.Backend.head_row`."""
    return model.layers[-1].kernel.numpy()[:, index].astype("float32")


def extract_head(model: keras.Model) -> keras.Model:
    """See `common.contract.backend.Backend.extract_head`."""
    layer = model.layers[-1]
    with placement_of(model):
        inputs, copied = keras.Input(layer.kernel.shape[:1]), type(layer).from_config(layer.get_config())
        head = keras.Model(inputs, copied(inputs), name=HEAD)
        head.set_weights(model.get_weights()[-2:])
    head.jit_compile = False
    return head


def set_momentum(model: keras.Model, spec: ExperimentSpec) -> None:
    """Give a batch the share of the running statistics that the spec says; Keras counts what stays."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            # keras.applications keeps 0.99, with which 80 steps hardly move the statistics.
            layer.momentum = 1 - spec.batch_norm_momentum


def set_mode(model: keras.Model, phase: Phase, together: bool = False) -> None:
    """Let the BatchNorm layers whose statistics are frozen use these and leave them as they are.

    together: whether the others learn from the shares of all replicas.
    """
    for name in torchvision_names(model):
        if name.endswith("running_var"):
            # In Keras this freezes gamma and beta too; `differentiate` doesn't ask for it, so they train.
            layer = model.get_layer(keras_name(model.name, name.removesuffix(".running_var")))
            layer.trainable = stage_of(name) not in phase.frozen_statistics
            layer.synchronized = together
