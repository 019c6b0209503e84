"""Training steps, gradients, logits and features in Keras on TensorFlow."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from backends.keras.layers import set_mode, set_momentum
from backends.keras.optimizer import make_optimizer, trained_variables
from backends.keras.runtime import device_of, placement_of
from backends.keras.weights import named_variables
from common.method.loss import target_table
from common.method.phases import Phase
from common.network import resnet
from common.network.stages import by_stage
from common.network.weights import to_channels_first
from common.spec.experiment import ExperimentSpec


class Trainer:
    """Train one model through one phase, with a gradient tape and one Keras optimizer for each trained stage.

    A step is compiled to one TensorFlow graph for all batch and image sizes. With several devices one process drives
    them all: each has a replica of the model, and the optimizers add the replicas' gradients (an all-reduce).

    Args:
        model: The network, or a head alone; trained in place.
        spec: The experiment.
        phase: Which stages train, at which learning rates, and whose BatchNorm statistics are frozen.
        class_counts: Training images of each class, for `common.method.loss.target_table`.
    """

    def __init__(
        self, model: keras.Model, spec: ExperimentSpec, phase: Phase, class_counts: Sequence[int] | None = None
    ) -> None:
        self.model, self.spec, self.phase = model, spec, phase
        self.device = device_of(model)
        self.strategy = model.distribute_strategy
        self.replicas = self.strategy.num_replicas_in_sync
        with placement_of(model):
            self.trained = trained_variables(model, phase)
            set_momentum(model, spec)
            self.optimizers = make_optimizer(model, spec, phase)
            self.targets = tf.constant(target_table(spec, class_counts), model.layers[-1].kernel.dtype)
            self.loss_sum = tf.Variable(0, dtype=tf.float64, trainable=False)
            self.correct = tf.Variable(0, dtype=tf.int64, trainable=False)
        # One graph for all batch and image sizes.
        images, labels = tf.TensorSpec(model.inputs[0].shape, tf.float32), tf.TensorSpec((None,), tf.int64)
        compiled = functools.partial(tf.function, input_signature=(images, labels), autograph=False)
        self.compiled_step = compiled(self.step if self.replicas == 1 else self.step_together)
        self.compiled_step_of_the_whole = compiled(self.step_of_the_whole)

    def train_step(self, images: tf.Tensor, labels: tf.Tensor, rate_factor: float = 1.0) -> None:
        """Set each stage's learning rate, then run the compiled step on one batch.

        With several devices the replicas share the batch evenly, or, where it does not divide, each computes all of it.

        Args:
            images: (N, H, W, 3) float32, or feature vectors (N, features): the whole batch.
            labels: (N,) int64.
            rate_factor: Multiple of all learning rates in this step.
        """
        together = self.replicas > 1 and len(labels) % self.replicas == 0
        set_mode(self.model, self.phase, together)
        compiled_step = self.compiled_step if together or self.replicas == 1 else self.compiled_step_of_the_whole
        with tf.device(self.device):
            for stage, optimizer in self.optimizers.items():
                # The rate is a variable in the graph, so that a new one compiles no new graph.
                optimizer.learning_rate = rate_factor * self.phase.learning_rates[stage]
            compiled_step(images, labels)

    def step(self, images: tf.Tensor, labels: tf.Tensor) -> None:
        """Update the model on one device and add to the sums; TensorFlow compiles this function."""
        loss_sum, correct = self.update(images, labels)
        self.loss_sum.assign_add(loss_sum)
        self.correct.assign_add(correct)

    def step_together(self, images: tf.Tensor, labels: tf.Tensor) -> None:
        """Update the model on several devices, each with an equal share of the batch, and add all replicas' sums."""
        parts = self.replicas if self.spec.loss_reduction == "mean" else 1
        sums = self.strategy.run(self.update, (shard_batch(self.model, images), shard_batch(self.model, labels), parts))
        loss_sum, correct = (self.strategy.reduce("SUM", value, axis=None) for value in sums)
        self.loss_sum.assign_add(loss_sum)
        self.correct.assign_add(correct)

    def step_of_the_whole(self, images: tf.Tensor, labels: tf.Tensor) -> None:
        """Update the model on several devices, each with the whole batch, and add the sums of one of them."""
        sums = self.strategy.run(self.update, (images, labels, self.replicas))
        loss_sum, correct = (self.strategy.experimental_local_results(value)[0] for value in sums)
        self.loss_sum.assign_add(loss_sum)
        self.correct.assign_add(correct)

    def update(self, images: tf.Tensor, labels: tf.Tensor, parts: int = 1) -> tuple[tf.Tensor, tf.Tensor]:
        """Run forward pass and backward pass on a gradient tape, and apply each stage's gradients by its optimizer.

        On several devices each replica runs this. Keras' optimizers add the gradients of all replicas, so the loss is
        divided by `parts`, and the weight decay by the number of replicas.

        Args:
            images: (n, H, W, 3) float32, or feature vectors (n, features).
            labels: (n,) int64.
            parts: The replicas' losses, added and divided by this, are the batch's loss.

        Returns:
            Two scalars of this replica: sum of the losses (plain cross-entropy, float64), correct answers (int64).
        """
        names, variables = list(self.trained), list(self.trained.values())
        # The loss is linear in the targets, so this divides it by `parts`.
        targets = tf.gather(self.targets / parts, labels)
        values, logits = differentiate(self.model, self.spec, variables, images, targets)
        losses = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
        # Keras' own weight_decay changes the parameters outside momentum and Adam; torch's is part of the gradient.
        decay = self.spec.weight_decay / self.replicas
        decayed = (g + decay * v.value for g, v in zip(values, variables, strict=True))
        by_name = dict(zip(names, decayed, strict=True))
        for stage, stage_names in by_stage(names).items():
            if stage in self.optimizers:
                self.optimizers[stage].apply([by_name[n] for n in stage_names], [self.trained[n] for n in stage_names])
        correct = tf.math.count_nonzero(tf.argmax(logits, axis=1) == labels)
        return tf.cast(tf.reduce_sum(losses), tf.float64), correct

    def read_sums(self) -> tuple[float, int]:
        """Return the sum of the losses and the number of correct answers since the last call, and set both to zero."""
        sums = float(self.loss_sum.numpy()), int(self.correct.numpy())
        self.loss_sum.assign(0)
        self.correct.assign(0)
        return sums


def differentiate(
    model: keras.Model, spec: ExperimentSpec, variables: list[keras.Variable], images: tf.Tensor, targets: tf.Tensor
) -> tuple[list[tf.Tensor], tf.Tensor]:
    """Compute the gradients of the loss in training mode, with a tape that watches only `variables`.

    Args:
        model: The network, or a head alone.
        spec: The experiment; weight decay is left out.
        variables: What to differentiate with respect to.
        images: (N, H, W, 3) float32, or feature vectors (N, features).
        targets: (N, classes): each image's row of targets.

    Returns:
        A gradient for each variable, in their order, and the logits (N, classes).
    """
    # A tape that watches only what trains computes no other gradients, whatever Keras calls trainable.
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch([variable.value for variable in variables])
        # In mixed precision the head computes in bfloat16; the loss does not.
        logits = tf.cast(model(images, training=True), model.layers[-1].kernel.dtype)
        loss = reduced_loss(logits, targets, spec)
    return tape.gradient(loss, [variable.value for variable in variables]), logits


def reduced_loss(logits: tf.Tensor, targets: tf.Tensor, spec: ExperimentSpec) -> tf.Tensor:
    """Return the loss that is differentiated: the sum or the mean over the batch, as `spec.loss_reduction` says.

    Args:
        logits: (N, classes).
        targets: (N, classes) target probabilities, or multiples of them.
        spec: The experiment.

    Returns:
        The sum or mean of -sum_c(targets[n, c] * log_softmax(logits)[n, c]) over n: a scalar.
    """
    # TensorFlow's own cross-entropy takes it for granted that targets sum to 1; weighted ones do not.
    losses = -tf.reduce_sum(targets * tf.nn.log_softmax(logits), axis=1)
    return tf.reduce_sum(losses) if spec.loss_reduction == "sum" else tf.reduce_mean(losses)


def gradients(
    model: keras.Model,
    spec: ExperimentSpec,
    phase: Phase,
    batch: tuple[tf.Tensor, tf.Tensor],
    class_counts: Sequence[int] | None = None,
) -> dict[str, NDArray]:
    """Return the gradients of the loss, computed by a gradient tape outside any compiled graph.

    The forward pass in training mode moves the BatchNorm statistics; they are put back afterwards.

    Args:
        model: The network, or a head alone.
        spec: The experiment; weight decay is left out.
        phase: Which parameters train, and whose BatchNorm statistics are frozen.
        batch: Images (N, H, W, 3) float32, or feature vectors (N, features), and labels (N,) int64.
        class_counts: Training images of each class, for `common.method.loss.target_table`.

    Returns:
        torchvision's name of each trained parameter -> its gradient, in torchvision's layout.
    """
    images, labels = batch
    statistics = [v for name, v in named_variables(model).items() if resnet.is_statistic(name)]
    before = [variable.numpy() for variable in statistics]
    set_mode(model, phase)
    trained = trained_variables(model, phase)
    with tf.device(device_of(model)):
        targets = tf.gather(tf.constant(target_table(spec, class_counts), model.layers[-1].kernel.dtype), labels)
        values, _ = differentiate(model, spec, list(trained.values()), images, targets)
    for variable, value in zip(statistics, before, strict=True):
        variable.assign(value)
    return {name: to_channels_first(value.numpy()).copy() for name, value in zip(trained, values, strict=True)}


def logits(model: keras.Model, images: tf.Tensor) -> NDArray[np.floating]:
    """Return the logits (N, classes) of a batch in evaluation mode, by Keras' `predict_on_batch`.

    Args:
        model: The network, or a head alone.
        images: (N, H, W, 3) float32, or feature vectors (N, features); several replicas share them where they divide.

    Returns:
        float32, or float64 in a float64 experiment.
    """
    with tf.device(device_of(model)):
        outputs = model.predict_on_batch(shared(model, images))
        # A batch that does not divide comes back from every replica.
        return np.asarray(outputs, model.layers[-1].kernel.dtype)[: len(images)]


def feature_extractor(model: keras.Model) -> Callable[[tf.Tensor], NDArray[np.float32]]:
    """Return a function that computes what the head sees of a batch in evaluation mode.

    It calls a Keras model of the same layers without the head, which shares their variables.

    Args:
        model: The whole network.

    Returns:
        A function from images (N, H, W, 3) to features (N, features) float32.
    """
    with placement_of(model):
        backbone = keras.Model(model.inputs, model.layers[-1].input)
    backbone.jit_compile = False

    def extract(images: tf.Tensor) -> NDArray[np.float32]:
        with tf.device(device_of(model)):
            return np.asarray(backbone.predict_on_batch(shared(model, images)), np.float32)[: len(images)]

    return extract


def shared(model: keras.Model, images: tf.Tensor) -> tf.Tensor | tf.distribute.DistributedValues:
    """Return a share of the images for each replica, or all of them for one replica or where they do not divide."""
    replicas = model.distribute_strategy.num_replicas_in_sync
    return shard_batch(model, images) if replicas > 1 and len(images) % replicas == 0 else images


def shard_batch(model: keras.Model, batch: tf.Tensor) -> tf.distribute.DistributedValues:
    """Split a batch's images or labels into equal shares, one for each replica of a model.

    Args:
        model: Its strategy says how many replicas there are.
        batch: (N, ...), with N a multiple of the replicas.

    Returns:
        A value for `strategy.run`: the share of each replica, in the order of the batch.
    """
    strategy = model.distribute_strategy
    with tf.device("/CPU:0"):
        parts = tf.split(batch, strategy.num_replicas_in_sync)
    return strategy.experimental_distribute_values_from_function(
        lambda replica: parts[replica.replica_id_in_sync_group]
    )
