"""One step in JAX, gradients, logits; each is a pure function that XLA compiles."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec
from numpy.typing import NDArray

from backends.jax.layers import BatchNorm, strided_product, without_head
from backends.jax.optimizer import Rates, Recipe, make_optimizer, make_recipe
from backends.jax.runtime import COMPILER_OPTIONS
from backends.jax.weights import Model, Tree, flax_paths, to_torchvision
from common.method.loss import target_table
from common.method.phases import Phase
from common.network.stages import STAGES
from common.spec.experiment import ExperimentSpec


class State(NamedTuple):
    """All that a step changes."""

    params: Tree
    batch_stats: Tree
    optimizer_state: optax.OptState
    loss_sum: Array
    correct: Array


class Batch(NamedTuple):
    """What a step learns from."""

    images: Array
    """(N, H, W, 3)"""
    labels: Array
    """(N,)"""
    targets: Array
    """(classes, classes): the row of each class's targets."""


class Trainer:
    """See `common.contract.backend.Trainer`."""

    def __init__(
        self, model: Model, spec: ExperimentSpec, phase: Phase, class_counts: Sequence[int] | None = None
    ) -> None:
        self.model = model
        self.recipe = make_recipe(model, spec, phase)
        self.rates = Rates(phase.learning_rates, spec.weight_decay)
        optimizer = make_optimizer(self.recipe, self.rates, model.module.architecture)
        # Told their device like the outputs of a step, these need no second compilation at the second step.
        self.optimizer_state = jax.device_put(optimizer.init(model.params), model.placement)
        self.targets = jnp.array(
            target_table(spec, class_counts), model.params["Dense_0"]["kernel"].dtype, device=model.placement
        )
        self.loss_sum, self.correct = zero_sums(model)

    def train_step(self, images: Array, labels: Array, rate_factor: float = 1.0) -> None:
        """See `common.contract.backend.Trainer.train_step`."""
        model = self.model
        images, labels = shard_batch(model, images, len(labels)), shard_batch(model, labels)
        state = State(model.params, model.batch_stats, self.optimizer_state, self.loss_sum, self.correct)
        learning_rates = {stage: rate_factor * rate for stage, rate in self.rates.learning_rates.items()}
        rates = self.rates._replace(learning_rates=learning_rates)
        state = update(model.module, self.recipe, state, rates, Batch(images, labels, self.targets))
        model.params, model.batch_stats, self.optimizer_state, self.loss_sum, self.correct = state

    def read_sums(self) -> tuple[float, int]:
        """See `common.contract.backend.Trainer.read_sums`."""
        sums = float(self.loss_sum), int(self.correct)
        self.loss_sum, self.correct = zero_sums(self.model)
        return sums


# Donating the state lets XLA write the new parameters into the memory of the old ones.
@functools.partial(
    jax.jit, static_argnames=("module", "recipe"), donate_argnames=("state",), compiler_options=COMPILER_OPTIONS
)
def update(module: nn.Module, recipe: Recipe, state: State, rates: Rates, batch: Batch) -> State:
    """Return the state after one step. Compiled once for each recipe and each shape of the images."""
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    targets = batch.targets[batch.labels]
    gradient, (logits, batch_stats) = differentiate(module, recipe, variables, batch.images, targets)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels)
    optimizer = make_optimizer(recipe, rates, module.architecture)
    changes, optimizer_state = optimizer.update(gradient, state.optimizer_state, state.params)
    # A relu that XLA on a CPU fuses with a sum makes 0 of NaN: of a divergence the loss alone may show nothing.
    finite = jnp.isfinite(optax.tree.norm(changes))
    return State(
        optax.apply_updates(state.params, changes),
        batch_stats,
        optimizer_state,
        state.loss_sum + jnp.where(finite, losses.sum(), jnp.nan),
        state.correct + (logits.argmax(axis=1) == batch.labels).sum(),
    )


def differentiate(
    module: nn.Module, recipe: Recipe, variables: Tree, images: Array, targets: Array
) -> tuple[Tree, tuple[Array, Tree]]:
    """Return the gradient of the loss by parameter, and with it the logits and the new running statistics.

    Args:
        module: The network.
        recipe: What the step is compiled for.
        variables: The network's `params` and `batch_stats`.
        images: (N, H, W, 3).
        targets: (N, classes) target probabilities, or multiples of them.
    """
    batch_norm = BatchNorm(module.architecture, recipe.frozen_statistics, recipe.batch_norm_momentum)

    def loss_of(params: Tree) -> tuple[Array, tuple[Array, Tree]]:
        logits, batch_stats = forward(module, {**variables, "params": params}, batch_norm, images)
        return reduced_loss(logits, targets, recipe.loss_reduction), (logits, batch_stats)

    return jax.grad(loss_of, has_aux=True)(variables["params"])


def reduced_loss(logits: Array, targets: Array, reduction: str) -> Array:
    """Return the loss that is differentiated: the sum or the mean over the batch."""
    losses = optax.softmax_cross_entropy(logits, targets)
    return losses.sum() if reduction == "sum" else losses.mean()


def forward(module: nn.Module, variables: Tree, batch_norm: BatchNorm, images: Array) -> tuple[Array, Tree]:
    """Return logits, in the type of the parameters, and the new running statistics.

    Flax has no training mode: evaluation is nothing but frozen statistics in every stage.
    """
    with nn.intercept_methods(batch_norm), nn.intercept_methods(strided_product):
        logits, changed = module.apply(variables, images.astype(module.dtype), mutable=["batch_stats"])
    return logits.astype(variables["params"]["Dense_0"]["kernel"].dtype), changed.get("batch_stats", {})


def gradients(
    model: Model,
    spec: ExperimentSpec,
    phase: Phase,
    images: Array,
    labels: Array,
    class_counts: Sequence[int] | None = None,
) -> dict[str, NDArray]:
    """See `common.contract.backend.Backend.gradients`."""
    targets = jnp.array(
        target_table(spec, class_counts), model.params["Dense_0"]["kernel"].dtype, device=model.placement
    )
    images, labels = shard_batch(model, images, len(labels)), shard_batch(model, labels)
    recipe = make_recipe(model, spec, phase)
    tree = compiled_gradients(model.module, recipe, model.variables, images, targets[labels])
    # jit returns a dictionary in the order of its sorted keys; this is the order of the forward pass.
    return {name: to_torchvision(tree[name]) for name in flax_paths(model.module.architecture) if name in tree}


@functools.partial(jax.jit, static_argnames=("module", "recipe"), compiler_options=COMPILER_OPTIONS)
def compiled_gradients(
    module: nn.Module, recipe: Recipe, variables: Tree, images: Array, targets: Array
) -> dict[str, Array]:
    """Return the gradient by name of the trained parameter; XLA leaves out the others."""
    flat = flatten_dict(differentiate(module, recipe, variables, images, targets)[0])
    paths = flax_paths(module.architecture)
    return {name: flat[paths[name][1:]] for name in recipe.trained}


def logits(model: Model, images: Array) -> NDArray[np.floating]:
    """See `common.contract.backend.Backend.logits`."""
    images = shard_batch(model, images, len(images) * jax.process_count())
    return of_all_devices(compiled_logits(model.module, model.variables, images))


@functools.partial(jax.jit, static_argnames=("module",), compiler_options=COMPILER_OPTIONS)
def compiled_logits(module: nn.Module, variables: Tree, images: Array) -> Array:
    """Logits in evaluation mode."""
    return forward(module, variables, BatchNorm(module.architecture, frozenset(STAGES)), images)[0]


def feature_extractor(model: Model) -> Callable[[Array], NDArray[np.float32]]:
    """See `common.contract.backend.Backend.feature_extractor`."""

    def extract(images: Array) -> NDArray[np.float32]:
        images = shard_batch(model, images, len(images) * jax.process_count())
        vectors = compiled_features(model.module, model.variables, images)
        return of_all_devices(vectors).astype(np.float32)

    return extract


@functools.partial(jax.jit, static_argnames=("module",), compiler_options=COMPILER_OPTIONS)
def compiled_features(module: nn.Module, variables: Tree, images: Array) -> Array:
    """What the head sees: the network's output when the head passes its input on."""
    with nn.intercept_methods(without_head):
        return forward(module, variables, BatchNorm(module.architecture, frozenset(STAGES)), images)[0]


def shard_batch(model: Model, values: Array, count: int | None = None) -> Array:
    """Values that several devices compute with: those of a batch of `count` images shared by them where that is
    possible, all others on each of them. XLA then adds over the devices wherever a step sums over a batch, BatchNorm's
    means and the gradients included.
    """
    if not isinstance(model.placement, NamedSharding):
        return values
    mesh = model.placement.mesh
    shares = count is not None and count % mesh.size == 0
    sharding = NamedSharding(mesh, PartitionSpec(*(mesh.axis_names if shares else ())))
    return jax.make_array_from_process_local_data(sharding, np.asarray(values))


def of_all_devices(rows: Array) -> NDArray:
    """The rows that all devices computed, those of other processes too."""
    return np.array(rows if rows.is_fully_addressable else multihost_utils.process_allgather(rows, tiled=True))


def zero_sums(model: Model) -> tuple[Array, Array]:
    """A sum of losses and a number of correct answers, on the model's device."""
    return jnp.zeros((), device=model.placement), jnp.zeros((), int, device=model.placement)
