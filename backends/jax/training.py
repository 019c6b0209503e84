"""Fine-tuning in JAX: parameter groups, one step, gradients, logits; each is a pure function that XLA compiles."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from flaxmodels.resnet import ops
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec
from numpy.typing import NDArray

import backends.jax
from backends.jax.models import Model
from backends.jax.runtime import COMPILER_OPTIONS
from backends.jax.weights import flax_paths, to_torchvision
from common.contract.results import History
from common.contract.watch import Watch
from common.data.folder import ImageData
from common.method.loss import target_table
from common.method.phases import Phase
from common.network import resnet
from common.network.stages import STAGES, by_stage, stage_of
from common.spec.experiment import ExperimentSpec
from common.system.errors import UserError
from common.training import loop

Tree = dict[str, Any]
# The group of parameters that do not learn.
FROZEN = "frozen"


def train_fine_tuning(
    model: Model, spec: ExperimentSpec, data: ImageData, param_group: bool = True, watch: Watch | None = None
) -> History:
    """See `common.contract.backend.Backend.train_fine_tuning`."""
    return loop.fit(backends.jax, model, spec, data, param_group, watch)


@dataclass(frozen=True)
class Recipe:
    """What a step is compiled for. Experiments with equal recipes share it; learning rates and decay may differ."""

    optimizer: str
    loss_reduction: str
    trained: tuple[str, ...]
    """The parameters that learn, by torchvision's name."""
    frozen_statistics: frozenset[str]
    batch_norm_momentum: float


class Rates(NamedTuple):
    """The numbers of the optimizer."""

    learning_rates: dict[str, float | Array]
    """By trained stage."""
    weight_decay: float | Array


class State(NamedTuple):
    """All that a step changes."""

    params: Tree
    batch_stats: Tree
    optimizer_state: optax.OptState
    loss_sum: Array
    correct: Array


class Trainer:
    """See `common.contract.backend.Trainer`."""

    def __init__(
        self, model: Model, spec: ExperimentSpec, phase: Phase, class_counts: Sequence[int] | None = None
    ) -> None:
        self.model = model
        self.recipe = Recipe(
            spec.optimizer, spec.loss_reduction, trained_names(model, phase), phase.frozen_statistics,
            spec.batch_norm_momentum,
        )  # fmt: skip
        learning_rates = {stage: spec.learning_rate * phase.multiples[stage] for stage in phase.trained_stages}
        self.rates = Rates(learning_rates, spec.weight_decay)
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
        images, labels = on_devices(model, images, len(labels)), on_devices(model, labels)
        state = State(model.params, model.batch_stats, self.optimizer_state, self.loss_sum, self.correct)
        learning_rates = {stage: rate_factor * rate for stage, rate in self.rates.learning_rates.items()}
        rates = self.rates._replace(learning_rates=learning_rates)
        state = update(model.module, self.recipe, state, rates, self.targets, images, labels)
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
def update(
    module: nn.Module, recipe: Recipe, state: State, rates: Rates, targets: Array, images: Array, labels: Array
) -> State:
    """One step: the state after it. Compiled once for each recipe and each shape of `images`."""
    differentiated = jax.grad(loss_of, has_aux=True)
    gradient, (logits, batch_stats) = differentiated(
        state.params, state.batch_stats, module, recipe.loss_reduction, recipe.frozen_statistics, images,
        targets[labels], recipe.batch_norm_momentum,
    )  # fmt: skip
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    optimizer = make_optimizer(recipe, rates, module.architecture)
    changes, optimizer_state = optimizer.update(gradient, state.optimizer_state, state.params)
    # A relu that XLA on a CPU fuses with a sum makes 0 of NaN: of a divergence the loss alone may show nothing.
    finite = jnp.isfinite(optax.tree.norm(changes))
    return State(
        optax.apply_updates(state.params, changes),
        batch_stats,
        optimizer_state,
        state.loss_sum + jnp.where(finite, losses.sum(), jnp.nan),
        state.correct + (logits.argmax(axis=1) == labels).sum(),
    )


def make_optimizer(recipe: Recipe, rates: Rates, architecture: str) -> optax.GradientTransformation:
    """One optimizer a trained stage; raises RuntimeError for a trained parameter in no stage or in two.

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
    for stage, names in by_stage(trained).items():
        for name in names:
            if labels.get(paths[name][1:]) != FROZEN:
                raise RuntimeError("each trained parameter must be in exactly one parameter group")
            labels[paths[name][1:]] = stage
    return unflatten_dict(labels)


def trained_names(model: Model, phase: Phase) -> tuple[str, ...]:
    """The parameters of a model that a phase trains, in the order of the forward pass."""
    leaves = flatten_dict(model.variables)
    paths = flax_paths(model.module.architecture).items()
    return tuple(name for name, path in paths if path in leaves and phase.trains(name))


def loss_of(
    params: Tree,
    batch_stats: Tree,
    module: nn.Module,
    reduction: str,
    frozen_statistics: frozenset[str],
    images: Array,
    targets: Array,
    momentum: float = 0.0,
) -> tuple[Array, tuple[Array, Tree]]:
    """The loss that is differentiated, against each image's row of targets, and with it the logits and running
    statistics of the batch."""
    logits, batch_stats = forward(module, params, batch_stats, frozen_statistics, images, momentum)
    losses = optax.softmax_cross_entropy(logits, targets)
    return (losses.sum() if reduction == "sum" else losses.mean()), (logits, batch_stats)


def forward(
    module: nn.Module,
    params: Tree,
    batch_stats: Tree,
    frozen_statistics: frozenset[str],
    images: Array,
    momentum: float = 0.0,
) -> tuple[Array, Tree]:
    """Logits, in the type of the parameters, and new running statistics, in which the batch has the share `momentum`.

    Evaluation mode is nothing but frozen statistics in every stage.
    """
    variables = {"params": params, "batch_stats": batch_stats}
    with (
        nn.intercept_methods(batch_norm(module.architecture, frozen_statistics, momentum)),
        nn.intercept_methods(strided_product),
    ):
        logits, changed = module.apply(variables, images.astype(module.dtype), mutable=["batch_stats"])
    return logits.astype(params["Dense_0"]["kernel"].dtype), changed.get("batch_stats", {})


def batch_norm(architecture: str, frozen_statistics: frozenset[str], momentum: float) -> Callable[..., Any]:
    """An interceptor that puts torch's BatchNorm in the place of flaxmodels'.

    flaxmodels' own lets a batch replace nine tenths of the running statistics, keeps the biased variance, computes it
    as a difference of large numbers, in float32 only, and has one mode for the whole network.
    """
    stages = {path[1:-1]: stage_of(name) for name, path in flax_paths(architecture).items()}

    def intercept(original: Callable[..., Any], arguments: tuple, keywords: dict, context: Any) -> Any:
        layer = context.module
        if not isinstance(layer, ops.BatchNorm):
            return original(*arguments, **keywords)
        (inputs,) = arguments
        # In bfloat16 a mean over many values would be off by more than training can bear.
        values = inputs.astype(layer.get_variable("batch_stats", "mean").dtype)
        mean, variance = (layer.get_variable("batch_stats", name) for name in ("mean", "var"))
        if stages[layer.path] not in frozen_statistics:
            new_mean, new_variance = values.mean(axis=(0, 1, 2)), values.var(axis=(0, 1, 2))
            count = values.size // values.shape[-1]
            keep_statistics(layer, momentum, mean, new_mean, variance, new_variance, count)
            mean, variance = new_mean, new_variance
        scale = layer.get_variable("params", "scale") * jax.lax.rsqrt(variance + resnet.BATCH_NORM_EPSILON)
        return ((values - mean) * scale + layer.get_variable("params", "bias")).astype(inputs.dtype)

    return intercept


def strided_product(original: Callable[..., Any], arguments: tuple, keywords: dict, context: Any) -> Any:
    """An interceptor that makes a matrix product of a 1x1 convolution with a stride, such as a block's projection.

    The gradient of such a kernel runs at a few GFLOP/s in XLA on a CPU, twenty times slower than the product's.
    """
    layer = context.module
    if not isinstance(layer, nn.Conv) or tuple(layer.kernel_size) != (1, 1) or layer.strides in (1, (1, 1)):
        return original(*arguments, **keywords)
    (images,) = arguments
    down, across = layer.strides
    kernel = layer.get_variable("params", "kernel").astype(images.dtype)
    return images[:, ::down, ::across] @ kernel[0, 0]


def keep_statistics(
    layer: nn.Module, share: float, mean: Array, new_mean: Array, variance: Array, new_variance: Array, count: int
) -> None:
    """Move a layer's running statistics by `share` of the way to those of a batch of `count` values a channel."""
    if count == 1:
        raise UserError("BatchNorm has one value a channel in this batch; choose another --batch-size or larger images")
    unbiased = new_variance * (count / (count - 1))
    layer.put_variable("batch_stats", "mean", (1 - share) * mean + share * new_mean)
    layer.put_variable("batch_stats", "var", (1 - share) * variance + share * unbiased)


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
    images, labels = on_devices(model, images, len(labels)), on_devices(model, labels)
    tree = compiled_gradients(
        model.module, spec.loss_reduction, trained_names(model, phase), phase.frozen_statistics, model.params,
        model.batch_stats, images, targets[labels],
    )  # fmt: skip
    # jit returns a dictionary in the order of its sorted keys; this is the order of the forward pass.
    return {name: to_torchvision(tree[name]) for name in flax_paths(model.module.architecture) if name in tree}


@functools.partial(
    jax.jit,
    static_argnames=("module", "reduction", "trained", "frozen_statistics"),
    compiler_options=COMPILER_OPTIONS,
)
def compiled_gradients(
    module: nn.Module,
    reduction: str,
    trained: tuple[str, ...],
    frozen_statistics: frozenset[str],
    params: Tree,
    batch_stats: Tree,
    images: Array,
    targets: Array,
) -> dict[str, Array]:
    """The gradient by name of the trained parameter; XLA leaves out the others."""
    gradient, _ = jax.grad(loss_of, has_aux=True)(
        params, batch_stats, module, reduction, frozen_statistics, images, targets
    )
    flat = flatten_dict(gradient)
    paths = flax_paths(module.architecture)
    return {name: flat[paths[name][1:]] for name in trained}


def logits(model: Model, images: Array) -> NDArray[np.floating]:
    """See `common.contract.backend.Backend.logits`."""
    images = on_devices(model, images, len(images) * jax.process_count())
    return of_all_devices(compiled_logits(model.module, model.params, model.batch_stats, images))


@functools.partial(jax.jit, static_argnames=("module",), compiler_options=COMPILER_OPTIONS)
def compiled_logits(module: nn.Module, params: Tree, batch_stats: Tree, images: Array) -> Array:
    """Logits in evaluation mode."""
    return forward(module, params, batch_stats, frozenset(STAGES), images)[0]


def feature_extractor(model: Model) -> Callable[[Array], NDArray[np.float32]]:
    """See `common.contract.backend.Backend.feature_extractor`."""

    def extract(images: Array) -> NDArray[np.float32]:
        images = on_devices(model, images, len(images) * jax.process_count())
        vectors = compiled_features(model.module, model.params, model.batch_stats, images)
        return of_all_devices(vectors).astype(np.float32)

    return extract


@functools.partial(jax.jit, static_argnames=("module",), compiler_options=COMPILER_OPTIONS)
def compiled_features(module: nn.Module, params: Tree, batch_stats: Tree, images: Array) -> Array:
    """What the head sees: the network's output when the head passes its input on."""
    with nn.intercept_methods(without_head):
        return forward(module, params, batch_stats, frozenset(STAGES), images)[0]


def without_head(original: Callable[..., Any], arguments: tuple, keywords: dict, context: Any) -> Any:
    """An interceptor in which dense layers do nothing."""
    return arguments[0] if isinstance(context.module, nn.Dense) else original(*arguments, **keywords)


def on_devices(model: Model, values: Array, count: int | None = None) -> Array:
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
