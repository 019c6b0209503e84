"""Optimizers in Optax: `multi_transform` gives each stage an optimizer of its own, with its learning rate."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import NamedTuple

import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array

from backends.jax.weights import Model, Tree, flax_paths
from common.method.phases import Phase
from common.network.stages import stage_of
from common.spec.experiment import ExperimentSpec

# Label of the parameters that do not learn.
FROZEN = "frozen"


@dataclass(frozen=True)
class Recipe:
    """Hold the settings that a step is compiled for.

    It is a static argument of the compiled functions: experiments with equal recipes share the compiled step. Learning
    rates and weight decay are not part of it, so they may change without a compilation.
    """

    optimizer: str
    loss_reduction: str
    trained: tuple[str, ...]
    """torchvision's names of the parameters that learn."""
    frozen_statistics: frozenset[str]
    """Stages whose BatchNorm layers use their running statistics and leave them unchanged."""
    batch_norm_momentum: float
    """Share of a batch in BatchNorm's running statistics."""


def make_recipe(model: Model, spec: ExperimentSpec, phase: Phase) -> Recipe:
    """Return the settings that the steps of a phase are compiled for; RuntimeErrors are as in `trained_names`."""
    return Recipe(
        spec.optimizer, spec.loss_reduction, trained_names(model, phase), phase.frozen_statistics,
        spec.batch_norm_momentum,
    )  # fmt: skip


class Rates(NamedTuple):
    """Hold the optimizer's numbers, which are arguments of the compiled step."""

    learning_rates: dict[str, float | Array]
    """Trained stage -> its learning rate."""
    weight_decay: float | Array


def make_optimizer(recipe: Recipe, rates: Rates, architecture: str) -> optax.GradientTransformation:
    """Make one optimizer for each trained stage and join them with `optax.multi_transform`.

    Weight decay is added to the gradient before the optimizer, as in torch: g + weight_decay * w. The updates of frozen
    parameters are set to zero, and XLA leaves out the gradients that nothing reads any more.

    Args:
        recipe: The kind of optimizer and the parameters that learn.
        rates: The learning rates and the weight decay.
        architecture: Name of the network, such as `resnet18`.

    Returns:
        The Optax optimizer of the whole tree of parameters.
    """
    transforms = {FROZEN: optax.set_to_zero()}
    for stage, rate in rates.learning_rates.items():
        if recipe.optimizer == "adam":
            descent = optax.adam(rate)
        else:
            descent = optax.sgd(rate, momentum=0.9 if recipe.optimizer == "momentum" else None)
        transforms[stage] = optax.chain(optax.add_decayed_weights(rates.weight_decay), descent)
    return optax.multi_transform(transforms, functools.partial(group_labels, architecture, recipe.trained))


def group_labels(architecture: str, trained: tuple[str, ...], params: Tree) -> Tree:
    """Return the tree `params` with each trained parameter replaced by its stage, and each other by FROZEN."""
    paths = flax_paths(architecture)
    labels = dict.fromkeys(flatten_dict(params), FROZEN)
    for name in trained:
        labels[paths[name][1:]] = stage_of(name)
    return unflatten_dict(labels)


def held_names(architecture: str, trained: tuple[str, ...], params: Tree) -> list[str]:
    """Return torchvision's names of the parameters that `group_labels` labels with a stage."""
    names = {path[1:]: name for name, path in flax_paths(architecture).items()}
    labels = flatten_dict(group_labels(architecture, trained, params))
    return [names[path] for path, label in labels.items() if label != FROZEN]


def trained_names(model: Model, phase: Phase) -> tuple[str, ...]:
    """Return torchvision's names of the parameters that a phase trains, in the order of the forward pass.

    `Phase.assign` and `Phase.check_held` raise RuntimeError if a trained parameter is in no group or in two.
    """
    leaves, architecture = flatten_dict(model.params), model.module.architecture
    paths = {name: path[1:] for name, path in flax_paths(architecture).items() if path[0] == "params"}
    names = [name for name, path in paths.items() if path in leaves]
    groups = phase.assign(names)
    chosen = {name for group in groups.values() for name in group}
    trained = tuple(name for name in names if name in chosen)
    phase.check_held(held_names(architecture, trained, model.params), names)
    return trained
