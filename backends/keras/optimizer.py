"""Optimizers in Keras: one for each trained stage, to which a step routes the stage's gradients."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf

from backends.keras.weights import named_variables
from common.method.phases import Phase
from common.network import resnet
from common.spec.experiment import ExperimentSpec


def make_optimizer(model: keras.Model, spec: ExperimentSpec, phase: Phase) -> dict[str, keras.optimizers.Optimizer]:
    """Make an optimizer for each trained stage, as a Keras optimizer has one learning rate for all its variables.

    None of them has weight decay: `Trainer.update` adds it to the gradient, as torch does.

    Args:
        model: The network, or a head alone.
        spec: Names the optimizer: `adam`, or SGD with momentum 0.9 or 0.
        phase: Says which stages train, and their learning rates.

    Returns:
        Trained stage -> its optimizer, built for the stage's variables. A trained parameter that is in no optimizer or
        in two raises RuntimeError.
    """
    variables = {name: v for name, v in named_variables(model).items() if not resnet.is_statistic(name)}
    optimizers = {}
    for stage, names in phase.assign(variables).items():
        if spec.optimizer == "adam":
            optimizers[stage] = Adam(phase.learning_rates[stage], epsilon=1e-8)
        else:
            # A plain 0.9 would be rounded to float32 even where parameters are float64.
            momentum = np.float64(0.9) if spec.optimizer == "momentum" else 0.0
            optimizers[stage] = SGD(phase.learning_rates[stage], momentum=momentum)
        optimizers[stage].build([variables[name] for name in names])
    phase.check_held(held_names(optimizers, variables), variables)
    return optimizers


def held_names(
    optimizers: Mapping[str, keras.optimizers.Optimizer], variables: Mapping[str, keras.Variable]
) -> list[str]:
    """Return the names of the variables that the optimizers were built for, as read back from them."""
    names = {id(variable): name for name, variable in variables.items()}
    return [names[id(variable)] for optimizer in optimizers.values() for variable in optimizer._trainable_variables]


class SGD(keras.optimizers.SGD):
    """Keras' SGD with the learning rate outside the momentum buffer, as in torch.

        buffer = momentum * buffer + gradient
        variable = variable - rate * buffer

    Keras has the rate inside the buffer, where a rate that changes acts on later steps too.
    """

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> None:
        """Update one variable, and its buffer where there is momentum."""
        if self.momentum:
            buffer = self.momentums[self._get_variable_index(variable)].value
            gradient = buffer.assign(self.momentum * buffer + gradient)
        variable.assign_sub(tf.cast(learning_rate, variable.dtype) * gradient)


class Adam(keras.optimizers.Adam):
    """Keras' Adam with epsilon added after the correction of the second moment's bias, as in torch and the paper.

        first = first + (1 - beta_1) (gradient - first)
        second = second + (1 - beta_2) (gradient^2 - second)
        variable = variable - rate / (1 - beta_1^t) * first / (sqrt(second) / sqrt(1 - beta_2^t) + epsilon)

    t counts the steps from 1. Source: Kingma and Ba 2015, "Adam: A Method for Stochastic Optimization".
    """

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> None:
        """Update one variable and its two moments."""
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
    """Return the variables that a phase trains, by torchvision's name."""
    return {name: variable for name, variable in named_variables(model).items() if phase.trains(name)}
