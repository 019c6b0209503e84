"""The training step, gradients and logits in JAX.

Each is a pure function that XLA compiles as a whole: it takes parameters, statistics and optimizer state as arguments
and returns new ones.
"""

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
    """Hold everything that a step changes."""

    params: Tree
    """Parameters, those that do not learn included."""
    batch_stats: Tree
    """BatchNorm's running means and variances."""
    optimizer_state: optax.OptState
    """State of `backends.jax.optimizer.make_optimizer`."""
    loss_sum: Array
    """() sum of the plain cross-entropies since the last `read_sums`."""
    correct: Array
    """() number of correct top-1 answers since the last `read_sums`."""


class Batch(NamedTuple):
    """Hold what a step learns from."""

    images: Array
    """(N, H, W, 3)"""
    labels: Array
    """(N,)"""
    targets: Array
    """(classes, classes): row k holds the targets of class k (`common.method.loss.target_table`)."""


class Trainer:
    """Train one model through one phase with one compiled function, `update`.

    A Trainer holds what JAX's pure functions cannot: the optimizer's state and the two sums. A trained parameter that
    is in no group or in two ends in a RuntimeError when the Trainer is made.
    """

    def __init__(
        self, model: Model, spec: ExperimentSpec, phase: Phase, class_counts: Sequence[int] | None = None
    ) -> None:
        self.model = model
        self.recipe = make_recipe(model, spec, phase)
        self.rates = Rates(phase.learning_rates, spec.weight_decay)
        optimizer = make_optimizer(self.recipe, self.rates, model.module.architecture)
        # Placed explicitly, as the outputs of a step are, so that the second step needs no second compilation.
        self.optimizer_state = jax.device_put(optimizer.init(model.params), model.placement)
        self.targets = jnp.array(
            target_table(spec, class_counts), model.params["Dense_0"]["kernel"].dtype, device=model.placement
        )
        self.loss_sum, self.correct = zero_sums(model)

    def train_step(self, images: Array, labels: Array, rate_factor: float = 1.0) -> None:
        """Call the compiled update and replace the model's arrays, the optimizer's state and the sums by its results.

        The call donates the old arrays, whose memory XLA reuses: nothing may read them afterwards. It returns before
        the device has computed. The learning rates are arguments of the compiled function, so a new rate needs no
        compilation.

        Args:
            images: (N, H, W, 3) float32; of several processes, this one's share of the batch.
            labels: (N,) int32 of the whole batch.
            rate_factor: Multiple of all learning rates in this step.
        """
        model = self.model
        images, labels = shard_batch(model, images, len(labels)), shard_batch(model, labels)
        state = State(model.params, model.batch_stats, self.optimizer_state, self.loss_sum, self.correct)
        learning_rates = {stage: rate_factor * rate for stage, rate in self.rates.learning_rates.items()}
        rates = self.rates._replace(learning_rates=learning_rates)
        state = update(model.module, self.recipe, state, rates, Batch(images, labels, self.targets))
        model.params, model.batch_stats, self.optimizer_state, self.loss_sum, self.correct = state

    def read_sums(self) -> tuple[float, int]:
        """Wait for the device, return the sum of losses and the number of correct answers, and set both to zero."""
        sums = float(self.loss_sum), int(self.correct)
        self.loss_sum, self.correct = zero_sums(self.model)
        return sums


# Donating the state lets XLA write the new parameters into the memory of the old ones.
@functools.partial(
    jax.jit, static_argnames=("module", "recipe"), donate_argnames=("state",), compiler_options=COMPILER_OPTIONS
)
def update(module: nn.Module, recipe: Recipe, state: State, rates: Rates, batch: Batch) -> State:
    """Return the state after one step: forward pass, gradient, Optax update and sums in one compiled function.

    It is compiled once for each module, recipe and shape of the images. `state` is donated. If an update is not finite,
    the loss sum becomes NaN.

    Args:
        module: The network; a static argument.
        recipe: The settings it is compiled for; a static argument.
        state: What the step changes.
        rates: Learning rates and weight decay.
        batch: Images, labels and the table of targets.

    Returns:
        The new state.
    """
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    targets = batch.targets[batch.labels]
    gradient, (logits, batch_stats) = differentiate(module, recipe, variables, batch.images, targets)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels)
    optimizer = make_optimizer(recipe, rates, module.architecture)
    changes, optimizer_state = optimizer.update(gradient, state.optimizer_state, state.params)
    # On a CPU, a ReLU that XLA fuses with a sum turns NaN into 0, so the loss alone may not show a divergence.
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

    `jax.grad` differentiates the loss as a function of the parameters.

    Args:
        module: The network.
        recipe: The settings that the step is compiled for.
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
    """Return the logits, in the dtype of the parameters, and the new running statistics.

    Flax's modules get no training mode here: evaluation mode means frozen statistics in every stage.
    """
    with nn.intercept_methods(batch_norm), nn.intercept_methods(strided_product):
        logits, changed = module.apply(variables, images.astype(module.dtype), mutable=["batch_stats"])
    return logits.astype(variables["params"]["Dense_0"]["kernel"].dtype), changed.get("batch_stats", {})


def gradients(
    model: Model,
    spec: ExperimentSpec,
    phase: Phase,
    batch: tuple[Array, Array],
    class_counts: Sequence[int] | None = None,
) -> dict[str, NDArray]:
    """Return the gradient of the loss, without weight decay, by torchvision's name of the trained parameter.

    The step is in training mode with `phase.frozen_statistics`. The function is pure: it drops the new running
    statistics and leaves the model as it is.

    Args:
        model: The network.
        spec: The experiment: loss, class weights and label smoothing.
        phase: The phase, which says what trains.
        batch: Images (N, H, W, 3) float32, of several processes this one's share, and labels (N,) int32, all of them.
        class_counts: Training images of each class, for balanced class weights.

    Returns:
        Arrays in torchvision's layout, in the order of the forward pass.
    """
    images, labels = batch
    targets = jnp.array(
        target_table(spec, class_counts), model.params["Dense_0"]["kernel"].dtype, device=model.placement
    )
    images, labels = shard_batch(model, images, len(labels)), shard_batch(model, labels)
    recipe = make_recipe(model, spec, phase)
    tree = compiled_gradients(model.module, recipe, model.variables, images, targets[labels])
    # jit sorts the keys of a dictionary it returns; this restores the order of the forward pass.
    return {name: to_torchvision(tree[name]) for name in flax_paths(model.module.architecture) if name in tree}


@functools.partial(jax.jit, static_argnames=("module", "recipe"), compiler_options=COMPILER_OPTIONS)
def compiled_gradients(
    module: nn.Module, recipe: Recipe, variables: Tree, images: Array, targets: Array
) -> dict[str, Array]:
    """Return the gradients of the trained parameters by torchvision's name, in Flax's layout; XLA omits the others."""
    flat = flatten_dict(differentiate(module, recipe, variables, images, targets)[0])
    paths = flax_paths(module.architecture)
    return {name: flat[paths[name][1:]] for name in recipe.trained}


def logits(model: Model, images: Array) -> NDArray[np.floating]:
    """Return the logits in evaluation mode, (N, classes), as a NumPy array.

    With several processes `images` is this one's equal share of the batch, and the rows of all processes are gathered.
    """
    images = shard_batch(model, images, len(images) * jax.process_count())
    return of_all_devices(compiled_logits(model.module, model.variables, images))


@functools.partial(jax.jit, static_argnames=("module",), compiler_options=COMPILER_OPTIONS)
def compiled_logits(module: nn.Module, variables: Tree, images: Array) -> Array:
    """Return the logits in evaluation mode, in which every stage has frozen statistics."""
    return forward(module, variables, BatchNorm(module.architecture, frozenset(STAGES)), images)[0]


def feature_extractor(model: Model) -> Callable[[Array], NDArray[np.float32]]:
    """Return a function that computes the head's input from a batch of images, (N, features) float32.

    It is the whole network in evaluation mode, with an interceptor that skips the head. It reads the model's arrays at
    each call and holds no copies.
    """

    def extract(images: Array) -> NDArray[np.float32]:
        images = shard_batch(model, images, len(images) * jax.process_count())
        vectors = compiled_features(model.module, model.variables, images)
        return of_all_devices(vectors).astype(np.float32)

    return extract


@functools.partial(jax.jit, static_argnames=("module",), compiler_options=COMPILER_OPTIONS)
def compiled_features(module: nn.Module, variables: Tree, images: Array) -> Array:
    """Return the head's input: the network's output when the head passes its input on."""
    with nn.intercept_methods(without_head):
        return forward(module, variables, BatchNorm(module.architecture, frozenset(STAGES)), images)[0]


def shard_batch(model: Model, values: Array, count: int | None = None) -> Array:
    """Place an array on the model's devices: split along the batch if it divides evenly, otherwise whole on each.

    From this sharding XLA derives the all-reduce wherever a step sums over a batch, in the gradients and in
    synchronised BatchNorm's means. With one device the array is returned as it is.

    Args:
        model: The network, which knows its devices.
        values: Images, or labels; of several processes, this one's part.
        count: Number of images in the whole batch, if the array is to be split; None to have all of it on each device.

    Returns:
        The array, sharded or replicated.
    """
    if not isinstance(model.placement, NamedSharding):
        return values
    mesh = model.placement.mesh
    shares = count is not None and count % mesh.size == 0
    sharding = NamedSharding(mesh, PartitionSpec(*(mesh.axis_names if shares else ())))
    return jax.make_array_from_process_local_data(sharding, np.asarray(values))


def of_all_devices(rows: Array) -> NDArray:
    """Return the rows that all devices computed, those of other processes included, as a NumPy array."""
    return np.array(rows if rows.is_fully_addressable else multihost_utils.process_allgather(rows, tiled=True))


def zero_sums(model: Model) -> tuple[Array, Array]:
    """Return a zero sum of losses and a zero number of correct answers, on the model's device."""
    return jnp.zeros((), device=model.placement), jnp.zeros((), int, device=model.placement)
