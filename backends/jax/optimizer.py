"""Optimizers in Optax: `multi_transform` sends each parameter to the optimizer of its stage."""

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

# The group of parameters that do not learn.
FROZEN = "frozen"


@dataclass(frozen=True)
class Recipe:
    """What a step is compiled for. Experiments with equal recipes share it; learning rates and decay may differ."""

    optimizer: str
    loss_reduction: str
    trained: tuple[str, ...]
    """The parameters that learn, by torchvision's name."""
    frozen_statistics: frozenset[str]
    batch_norm_momentum: float


def make_recipe(model: Model, spec: ExperimentSpec, phase: Phase) -> Recipe:
    """Return what the steps of a phase are compiled for; raises RuntimeError as `trained_names` does."""
    return Recipe(
        spec.optimizer, spec.loss_reduction, trained_names(model, phase), phase.frozen_statistics,
        spec.batch_norm_momentum,
    )  # fmt: skip


class Rates(NamedTuple):
    """The numbers of the optimizer."""

    learning_rates: dict[str, float | Array]
    """By trained stage."""
    weight_decay: float | Array


def make_optimizer(recipe: Recipe, rates: Rates, architecture: str) -> optax.GradientTransformation:
    """Make an optimizer for each trained stage, joined into one.

    Frozen parameters' changes are set to zero, and XLA leaves out the gradients that nothing reads any more.
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
    """The tree of parameters with its stage in the place of each that is trained, and FROZEN in that of the others."""
    paths = flax_paths(architecture)
    labels = dict.fromkeys(flatten_dict(params), FROZEN)
    for name in trained:
        labels[paths[name][1:]] = stage_of(name)
    return unflatten_dict(labels)


def held_names(architecture: str, trained: tuple[str, ...], params: Tree) -> list[str]:
    """Return the names of the parameters that `make_optimizer` labels with a stage."""
    names = {path[1:]: name for name, path in flax_paths(architecture).items()}
    labels = flatten_dict(group_labels(architecture, trained, params))
    return [names[path] for path, label in labels.items() if label != FROZEN]


def trained_names(model: Model, phase: Phase) -> tuple[str, ...]:
    """Return the parameters that a phase trains, in the order of the forward pass.

    Raises:
        RuntimeError: A trained parameter is in no group, or in two.
    """
    leaves, architecture = flatten_dict(model.params), model.module.architecture
    paths = {name: path[1:] for name, path in flax_paths(architecture).items() if path[0] == "params"}
    names = [name for name, path in paths.items() if path in leaves]
    groups = phase.assign(names)
    chosen = {name for group in groups.values() for name in group}
    trained = tuple(name for name in names if name in chosen)
    phase.check_held(held_names(architecture, trained, model.params), names)
    return trained
