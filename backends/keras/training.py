"""Fine-tuning in Keras: an optimizer a stage, one step, gradients, logits."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

import backends.keras
from backends.keras.weights import keras_name, named_variables, torchvision_names
from common import fit, groups, resnet
from common.fit import History, Watch
from common.folder import ImageData
from common.groups import Phase
from common.spec import ExperimentSpec
from common.weights import to_channels_first


def train_fine_tuning(
    model: keras.Model, spec: ExperimentSpec, data: ImageData, param_group: bool = True, watch: Watch | None = None
) -> History:
    """See `backends.contract.Backend.train_fine_tuning`."""
    return fit.fit(backends.keras, model, spec, data, param_group, watch)


class Trainer:
    """See `backends.contract.Trainer`."""

    def __init__(self, model: keras.Model, spec: ExperimentSpec, phase: Phase) -> None:
        self.model, self.spec, self.phase = model, spec, phase
        self.device = device_of(model)
        with tf.device(self.device):
            self.trained = trained_variables(model, phase)
            self.optimizers = make_optimizers(model, spec, phase)
            self.loss_sum = tf.Variable(0, dtype=tf.float64, trainable=False)
            self.correct = tf.Variable(0, dtype=tf.int64, trainable=False)
        # One graph for all batch and image sizes.
        images, labels = tf.TensorSpec(model.inputs[0].shape, tf.float32), tf.TensorSpec((None,), tf.int64)
        self.compiled_step = tf.function(self.step, input_signature=(images, labels), autograph=False)

    def train_step(self, images: tf.Tensor, labels: tf.Tensor) -> None:
        """See `backends.contract.Trainer.train_step`."""
        set_mode(self.model, self.phase)
        with tf.device(self.device):
            self.compiled_step(images, labels)

    def step(self, images: tf.Tensor, labels: tf.Tensor) -> None:
        """What TensorFlow compiles: forward pass, backward pass, and the update of each group by its optimizer."""
        names, variables = list(self.trained), list(self.trained.values())
        values, losses, logits = differentiate(self.model, self.spec, variables, images, labels)
        # Keras' own weight_decay changes the parameters outside momentum and Adam; torch's is part of the gradient.
        decayed = (g + self.spec.weight_decay * v.value for g, v in zip(values, variables, strict=True))
        by_name = dict(zip(names, decayed, strict=True))
        for stage, stage_names in groups.by_stage(names).items():
            if stage in self.optimizers:
                self.optimizers[stage].apply([by_name[n] for n in stage_names], [self.trained[n] for n in stage_names])
        self.loss_sum.assign_add(tf.cast(tf.reduce_sum(losses), tf.float64))
        self.correct.assign_add(tf.math.count_nonzero(tf.argmax(logits, axis=1) == labels))

    def read_sums(self) -> tuple[float, int]:
        """See `backends.contract.Trainer.read_sums`."""
        sums = float(self.loss_sum.numpy()), int(self.correct.numpy())
        self.loss_sum.assign(0)
        self.correct.assign(0)
        return sums


def make_optimizers(model: keras.Model, spec: ExperimentSpec, phase: Phase) -> dict[str, keras.optimizers.Optimizer]:
    """An optimizer for each trained stage; raises RuntimeError for a trained parameter in no group or in two."""
    trained = trained_variables(model, phase)
    stages = groups.by_stage(trained)
    grouped = [name for stage in phase.trained_stages for name in stages[stage]]
    strays = [name for name in trained if grouped.count(name) != 1]
    if strays:
        raise RuntimeError(f"each trained parameter must be in exactly one group; these are not: {', '.join(strays)}")
    optimizers = {}
    for stage in phase.trained_stages:
        learning_rate = spec.learning_rate * phase.multiples[stage]
        if spec.optimizer == "adam":
            optimizers[stage] = Adam(learning_rate, epsilon=1e-8)
        else:
            # Keras' momentum buffer is torch's times -learning_rate: the same while that rate is constant. A plain
            # 0.9 would be rounded to float32 even where parameters are float64.
            momentum = np.float64(0.9) if spec.optimizer == "momentum" else 0.0
            optimizers[stage] = keras.optimizers.SGD(learning_rate, momentum=momentum)
        optimizers[stage].build([trained[name] for name in stages[stage]])
    return optimizers


class Adam(keras.optimizers.Adam):
    """Keras' Adam, which adds epsilon after the correction of the second moment's bias, as torch and the paper do."""

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> None:
        index = self._get_variable_index(variable)
        first, second = self._momentums[index].value, self._velocities[index].value
        first.assign_add((gradient - first) * (1 - self.beta_1))
        second.assign_add((tf.square(gradient) - second) * (1 - self.beta_2))
        # In float32, 1 - 0.999 is off by 1e-5 of its value.
        count = tf.cast(self.iterations + 1, tf.float64)
        rate = tf.cast(learning_rate, tf.float64) / (1 - self.beta_1**count)
        correction = tf.cast(tf.sqrt(1 - self.beta_2**count), variable.dtype)
        variable.assign_sub(tf.cast(rate, variable.dtype) * first / (tf.sqrt(second) / correction + self.epsilon))


def trained_variables(model: keras.Model, phase: Phase) -> dict[str, keras.Variable]:
    """What a phase trains, by torchvision's name."""
    return {name: variable for name, variable in named_variables(model).items() if phase.trains(name)}


def set_mode(model: keras.Model, phase: Phase) -> None:
    """Let the BatchNorm layers whose statistics are frozen use these and leave them as they are."""
    for name in torchvision_names(model):
        if name.endswith("running_var"):
            # In Keras this freezes gamma and beta too; `differentiate` doesn't ask for it, so they train.
            layer = model.get_layer(keras_name(model.name, name.removesuffix(".running_var")))
            layer.trainable = groups.stage_of(name) not in phase.frozen_statistics


def differentiate(
    model: keras.Model, spec: ExperimentSpec, variables: list[keras.Variable], images: tf.Tensor, labels: tf.Tensor
) -> tuple[list[tf.Tensor], tf.Tensor, tf.Tensor]:
    """The gradients of the loss, and each image's loss and logits, in training mode."""
    # A tape that watches only what trains computes no other gradients, whatever Keras calls trainable.
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch([variable.value for variable in variables])
        logits = model(images, training=True)
        losses = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
        loss = tf.reduce_sum(losses) if spec.loss_reduction == "sum" else tf.reduce_mean(losses)
    return tape.gradient(loss, [variable.value for variable in variables]), losses, logits


def gradients(
    model: keras.Model, spec: ExperimentSpec, phase: Phase, images: tf.Tensor, labels: tf.Tensor
) -> dict[str, NDArray]:
    """See `backends.contract.Backend.gradients`."""
    statistics = [v for name, v in named_variables(model).items() if resnet.is_statistic(name)]
    before = [variable.numpy() for variable in statistics]
    set_mode(model, phase)
    trained = trained_variables(model, phase)
    with tf.device(device_of(model)):
        values, _, _ = differentiate(model, spec, list(trained.values()), images, labels)
    for variable, value in zip(statistics, before, strict=True):
        variable.assign(value)
    return {name: to_channels_first(value.numpy()).copy() for name, value in zip(trained, values, strict=True)}


def logits(model: keras.Model, images: tf.Tensor) -> NDArray[np.floating]:
    """See `backends.contract.Backend.logits`."""
    with tf.device(device_of(model)):
        return model.predict_on_batch(images)


def features(model: keras.Model, images: tf.Tensor) -> NDArray[np.float32]:
    """See `backends.contract.Backend.features`."""
    backbone = keras.Model(model.inputs, model.layers[-1].input)
    with tf.device(device_of(model)):
        return backbone(images, training=False).numpy().astype("float32", copy=False)


def device_of(model: keras.Model) -> str:
    """Where the model's variables are, and so where it computes."""
    return model.layers[-1].kernel.value.device
