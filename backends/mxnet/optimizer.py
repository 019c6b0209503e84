"""One optimizer in Gluon, in which every parameter has its own multiple of the learning rate."""

from __future__ import annotations

import math
from collections.abc import Mapping

import mxnet as mx
import numpy
from mxnet import gluon, np
from mxnet.gluon import HybridBlock, Parameter

from backends.mxnet.layers import batch_norms
from backends.mxnet.weights import named_parameters
from common.method.phases import Phase
from common.network import resnet
from common.network.stages import stage_of
from common.spec.experiment import ExperimentSpec


class Momentum(mx.optimizer.Optimizer):
    """Descent with momentum 0.9 and the learning rate outside the buffer, as in torch; that of MXNet's SGD is inside,
    where a rate that changes acts on later steps too."""

    def create_state(self, index: int, weight: np.ndarray) -> np.ndarray:
        return weight.zeros_like()

    def update(self, index: int, weight: np.ndarray, grad: np.ndarray, state: np.ndarray) -> None:
        self._update_count(index)
        state *= 0.9
        state += self.rescale_grad * grad + self._get_wd(index) * weight
        weight -= self._get_lr(index) * state


class Adam(mx.optimizer.Adam):
    """Adam with epsilon beside the square root of the corrected second moment; MXNet's is beside the uncorrected."""

    def __init__(self, **options: float) -> None:
        # The kernel rounds beta to float32; the bias correction must use the number that the kernel uses.
        super().__init__(beta1=float(numpy.float32(0.9)), beta2=float(numpy.float32(0.999)), **options)

    def update(self, index: int, weight: np.ndarray, grad: np.ndarray, state: tuple[np.ndarray, np.ndarray]) -> None:
        step = self._index_update_count.get(index, self.begin_num_update) + 1
        self.epsilon = 1e-8 * math.sqrt(1 - self.beta2**step)
        super().update(index, weight, grad, state)


def make_optimizer(model: HybridBlock, spec: ExperimentSpec, phase: Phase) -> gluon.Trainer:
    """Make an optimizer in which the parameters of each trained stage have their multiple of the learning rate.

    Raises:
        RuntimeError: A trained parameter is in no group, or in two.
    """
    parameters = trainable_parameters(model)
    groups = phase.assign(parameters)
    for stage, names in groups.items():
        for name in names:
            parameters[name].lr_mult = phase.multiples[stage]
    grouped = [name for names in groups.values() for name in names]
    options = {"learning_rate": phase.learning_rate, "wd": spec.weight_decay}
    optimizers = {"sgd": mx.optimizer.SGD, "momentum": Momentum, "adam": Adam}
    optimizer = optimizers[spec.optimizer](**options)
    devices = model.output.weight.list_ctx()
    store = None if len(devices) == 1 else "local" if devices[0].device_type == "cpu" else "device"
    # The optimizers here are Python's, which compute beside the parameters and not in the store.
    trainer = gluon.Trainer([parameters[name] for name in grouped], optimizer, kvstore=store, update_on_kvstore=False)
    phase.check_held(held_names(trainer, parameters), parameters)
    return trainer


def held_names(trainer: gluon.Trainer, parameters: Mapping[str, Parameter]) -> list[str]:
    """Return the names of the parameters that a Gluon Trainer updates."""
    names = {parameter.name: name for name, parameter in parameters.items()}
    return [names[parameter.name] for parameter in trainer._params]


def trainable_parameters(model: HybridBlock) -> dict[str, Parameter]:
    """What can learn, by torchvision's name: not bn0.weight and bn0.bias, which Gluon holds at 1 and 0."""
    fixed = ("bn0.weight", "bn0.bias")
    parameters = named_parameters(model).items()
    return {name: p for name, p in parameters if not resnet.is_statistic(name) and name not in fixed}


def set_trained(model: HybridBlock, phase: Phase) -> None:
    """Freeze what does not train in a phase."""
    # MXNet moves statistics where the backward pass arrives, so it has to arrive at gamma even where gamma is frozen.
    moving = [f"{name}.weight" for name in batch_norms(model) if stage_of(name) not in phase.frozen_statistics]
    for name, parameter in trainable_parameters(model).items():
        parameter.grad_req = "write" if phase.trains(name) or name in moving else "null"
