"""The optimizer in Gluon: one for all parameters, each of which has its own multiple of the learning rate."""

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
    """SGD with momentum 0.9 and the learning rate outside the buffer, as in torch.

    With the gradient g, the weight decay d and the learning rate r: v <- 0.9 v + g + d w, then w <- w - r v. MXNet's
    own SGD has r inside the buffer, v <- 0.9 v - r (g + d w), so that a rate which changes acts on later steps too.
    """

    def create_state(self, index: int, weight: np.ndarray) -> np.ndarray:
        """Return the buffer v of a parameter, zeros at first."""
        return weight.zeros_like()

    def update(self, index: int, weight: np.ndarray, grad: np.ndarray, state: np.ndarray) -> None:
        """Update the buffer and the parameter in place; `rescale_grad` divides the gradient by the batch's size."""
        self._update_count(index)
        state *= 0.9
        state += self.rescale_grad * grad + self._get_wd(index) * weight
        weight -= self._get_lr(index) * state


class Adam(mx.optimizer.Adam):
    """Adam with epsilon beside the square root of the corrected second moment: w <- w - r m' / (sqrt(v') + 1e-8).

    m' = m / (1 - beta1^t) and v' = v / (1 - beta2^t) in step t. MXNet's own Adam has epsilon beside the square root of
    the uncorrected v; it becomes the one above with epsilon = 1e-8 * sqrt(1 - beta2^t).
    """

    def __init__(self, **options: float) -> None:
        # The kernel rounds beta to float32, and the bias correction must use the same number.
        super().__init__(beta1=float(numpy.float32(0.9)), beta2=float(numpy.float32(0.999)), **options)

    def update(self, index: int, weight: np.ndarray, grad: np.ndarray, state: tuple[np.ndarray, np.ndarray]) -> None:
        """Set epsilon for this step of the parameter, and let MXNet update it."""
        step = self._index_update_count.get(index, self.begin_num_update) + 1
        self.epsilon = 1e-8 * math.sqrt(1 - self.beta2**step)
        super().update(index, weight, grad, state)


def make_optimizer(model: HybridBlock, spec: ExperimentSpec, phase: Phase) -> gluon.Trainer:
    """Make one Gluon Trainer in which each parameter has the learning-rate multiple of its stage (`lr_mult`).

    On several devices a key-value store adds the gradients: `local` on CPUs, `device` on GPUs. `Phase.assign` and
    `Phase.check_held` raise RuntimeError if a trained parameter is in no group or in two.

    Args:
        model: The network, whose parameters' `lr_mult` is set.
        spec: The experiment: the kind of optimizer and the weight decay.
        phase: The phase: what trains, the learning rate and its multiples.

    Returns:
        The trainer of the parameters that the phase trains.
    """
    parameters = trainable_parameters(model)
    groups = phase.assign(parameters)
    # A stage is `head` or one of the backbone's.
    for stage, names in groups.items():
        for name in names:
            parameters[name].lr_mult = phase.multiples[stage]
    grouped = [name for names in groups.values() for name in names]
    options = {"learning_rate": phase.learning_rate, "wd": spec.weight_decay}
    optimizers = {"sgd": mx.optimizer.SGD, "momentum": Momentum, "adam": Adam}
    optimizer = optimizers[spec.optimizer](**options)
    devices = model.output.weight.list_ctx()
    store = None if len(devices) == 1 else "local" if devices[0].device_type == "cpu" else "device"
    # Not in the store, because optimizers that are written in Python compute beside the parameters.
    trainer = gluon.Trainer([parameters[name] for name in grouped], optimizer, kvstore=store, update_on_kvstore=False)
    phase.check_held(held_names(trainer, parameters), parameters)
    return trainer


def held_names(trainer: gluon.Trainer, parameters: Mapping[str, Parameter]) -> list[str]:
    """Return torchvision's names of the parameters that a Gluon Trainer updates."""
    names = {parameter.name: name for name, parameter in parameters.items()}
    return [names[parameter.name] for parameter in trainer._params]


def trainable_parameters(model: HybridBlock) -> dict[str, Parameter]:
    """Return the parameters that can learn, by torchvision's name.

    bn0.weight and bn0.bias are not among them: Gluon holds them at 1 and 0.
    """
    fixed = ("bn0.weight", "bn0.bias")
    parameters = named_parameters(model).items()
    return {name: p for name, p in parameters if not resnet.is_statistic(name) and name not in fixed}


def set_trained(model: HybridBlock, phase: Phase) -> None:
    """Set `grad_req` of each parameter: "write" where the phase trains it, "null" where it is frozen.

    The gamma of a BatchNorm layer whose running statistics move keeps its gradient even if it is frozen.
    """
    # MXNet updates running statistics in the backward pass, which therefore has to reach gamma even if it is frozen.
    moving = [f"{name}.weight" for name in batch_norms(model) if stage_of(name) not in phase.frozen_statistics]
    for name, parameter in trainable_parameters(model).items():
        parameter.grad_req = "write" if phase.trains(name) or name in moving else "null"
