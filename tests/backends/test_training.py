"""Training: updates by stage, freezing, statistics, sums, and the whole loop."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from common.batches.shared import SharedBatches
from common.contract.results import Predictions
from common.contract.watch import Quiet, Watch
from common.data import splits
from common.method import phases
from common.method.phases import Phase
from common.network import imagenet, resnet, source_classes, stages
from common.network.stages import STAGES, stage_of
from common.spec.experiment import StageMultiples
from common.training import evaluation, loop, selection
from tests.backends.conftest import largest_difference, only_phase
from tests.run_experiment import make_experiment


def train(backend, model, spec, batch, steps: int = 1, **changes):
    """Train for some steps; the sums over them."""
    changed = spec.replace(**changes)
    trainer = backend.Trainer(model, changed, only_phase(changed))
    for _ in range(steps):
        trainer.train_step(*batch)
    return trainer.read_sums()


@pytest.mark.parametrize(
    ("strategy", "loss_reduction"),
    [
        ("fine-tune", "sum"),
        ("fine-tune", "mean"),
        ("discriminative", "mean"),
        ("partial", "sum"),
        ("feature-extraction", "mean"),
        ("scratch", "sum"),
    ],
)
def test_sgd_moves_each_stage_by_its_own_rate(backend, models, spec, batch, strategy, loss_reduction) -> None:
    changed = spec.replace(strategy=strategy, loss_reduction=loss_reduction, weight_decay=0.1, learning_rate=1e-3)
    phase = only_phase(changed)
    model = models.scratch if strategy == "scratch" else models.fine_tune
    before = backend.to_arrays(model)
    gradients = backend.gradients(model, changed, phase, batch)
    train(backend, model, changed, batch)
    after = backend.to_arrays(model)
    for name in before:
        multiple = phase.multiples[stage_of(name)]
        if resnet.is_statistic(name):
            continue
        assert (name in gradients) == (multiple > 0), name
        if multiple == 0:
            np.testing.assert_array_equal(after[name], before[name], err_msg=name)
            continue
        update = 1e-3 * multiple * (gradients[name] + 0.1 * before[name])
        # float32 parameters resolve an update only to 6e-8 of their own size.
        tolerance = 1e-4 * np.linalg.norm(update) + 2e-7 * np.linalg.norm(before[name])
        assert np.linalg.norm(before[name] - after[name] - update) <= tolerance, name


def test_param_group_false_trains_everything_at_one_rate(spec) -> None:
    (phase,) = phases.phases(spec, param_group=False)
    assert set(phase.multiples.values()) == {1.0}


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_optimizers_follow_the_definitions(backend, models, spec, batch, optimizer) -> None:
    """Three steps at falling rates against the formulas in NumPy, float64, with the backend's own gradients."""
    changed = spec.replace(optimizer=optimizer, weight_decay=0.1, learning_rate=1e-4, batch_norm="frozen")
    phase = only_phase(changed)
    model = models.fine_tune
    names = ("fc.weight", "layer4.1.conv2.weight", "layer1.0.bn1.weight", "bn1.bias")
    trainer = backend.Trainer(model, changed, phase)
    first = dict.fromkeys(names, 0.0)
    second = dict.fromkeys(names, 0.0)
    for step, factor in enumerate((1.0, 0.5, 0.1), start=1):
        before = backend.to_arrays(model)
        gradients = backend.gradients(model, changed, phase, batch)
        trainer.train_step(*batch, factor)
        after = backend.to_arrays(model)
        for name in names:
            rate = factor * 1e-4 * phase.multiples[stage_of(name)]
            gradient = gradients[name].astype(np.float64) + 0.1 * before[name]
            if optimizer == "momentum":
                first[name] = 0.9 * first[name] + gradient
                update = rate * first[name]
            else:
                first[name] = 0.9 * first[name] + 0.1 * gradient
                second[name] = 0.999 * second[name] + 0.001 * gradient**2
                update = rate * (first[name] / (1 - 0.9**step))
                update /= np.sqrt(second[name] / (1 - 0.999**step)) + 1e-8
            tolerance = 1e-4 * np.linalg.norm(update) + 2e-7 * np.linalg.norm(before[name])
            assert np.linalg.norm(before[name] - after[name] - update) <= tolerance, (name, step)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
def test_a_rate_factor_is_a_factor_of_every_learning_rate(backend, models, spec, batch, optimizer) -> None:
    changed = spec.replace(optimizer=optimizer, weight_decay=0.1)
    start = backend.to_arrays(models.fine_tune)
    ends = []
    for learning_rate, factor in ((1e-4, 0.5), (5e-5, 1.0)):
        backend.load_arrays(models.fine_tune, start)
        halved = changed.replace(learning_rate=learning_rate)
        backend.Trainer(models.fine_tune, halved, only_phase(halved)).train_step(*batch, factor)
        ends.append(backend.to_arrays(models.fine_tune))
    for name, array in start.items():
        # Halving is exact in floating point.
        np.testing.assert_array_equal(ends[0][name], ends[1][name], err_msg=name)
        assert not np.array_equal(ends[0][name], array), name


def test_another_rate_compiles_nothing(backend, backend_name, models, spec, batch) -> None:
    trainer = backend.Trainer(models.fine_tune, spec, only_phase(spec))
    trainer.train_step(*batch)
    if backend_name == "jax":
        from backends.jax.training import update

        compiled = update._cache_size
    elif backend_name == "keras":
        compiled = trainer.compiled_step.experimental_get_tracing_count
    else:
        pytest.skip("compiles no step")
    before = compiled()
    for factor in (0.5, 0.25, 0.0):
        trainer.train_step(*batch, factor)
    assert compiled() == before


@pytest.mark.parametrize("loss_reduction", ["sum", "mean"])
def test_weighted_and_smoothed_gradient_of_the_heads_bias(
    backend, models, spec, numpy_batch, batch, loss_reduction
) -> None:
    """In closed form: the sum over examples of weight * (probability - smoothed target)."""
    changed = spec.replace(
        batch_norm="frozen", class_weights="balanced", label_smoothing=0.2, loss_reduction=loss_reduction
    )  # fmt: skip
    gradient = backend.gradients(models.fine_tune, changed, only_phase(changed), batch, class_counts=[3, 9])
    logits = backend.logits(models.fine_tune, batch[0]).astype(np.float64)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    weights, targets = np.array([2.0, 2 / 3])[numpy_batch[1]], np.array([[0.9, 0.1], [0.1, 0.9]])[numpy_batch[1]]
    expected = (weights[:, None] * (probabilities - targets)).sum(axis=0)
    expected /= 8 if loss_reduction == "mean" else 1
    # Float32 logits of 18 layers are 1e-6 off.
    np.testing.assert_allclose(gradient["fc.bias"], expected, rtol=1e-5)


def test_weights_and_smoothing_change_the_step_and_not_the_reported_loss(backend, models, spec, batch) -> None:
    start = backend.to_arrays(models.fine_tune)
    sums, biases = [], []
    for changes in ({}, {"class_weights": "balanced", "label_smoothing": 0.2}):
        backend.load_arrays(models.fine_tune, start)
        changed = spec.replace(**changes)
        trainer = backend.Trainer(models.fine_tune, changed, only_phase(changed), class_counts=[3, 9])
        trainer.train_step(*batch)
        sums.append(trainer.read_sums())
        biases.append(backend.to_arrays(models.fine_tune)["fc.bias"])
    assert sums[0] == sums[1]
    assert not np.allclose(biases[0], biases[1], rtol=1e-3)


@pytest.mark.parametrize(
    ("changes", "still"),
    [
        ({"batch_norm": "train"}, set()),
        ({"batch_norm": "frozen"}, set(STAGES)),
        ({"batch_norm": "frozen_early"}, {"stem", "layer1", "layer2"}),
        ({"strategy": "feature-extraction"}, set(STAGES)),
        ({"strategy": "partial", "partial_stages": 1}, {"stem", "layer1", "layer2", "layer3"}),
        # A frozen parameter does not freeze its stage's statistics.
        ({"stage_multiples": StageMultiples(0, 0, 0, 0, 0)}, set()),
    ],
)
def test_statistics_move_only_where_they_should(backend, models, spec, batch, changes, still) -> None:
    before = backend.to_arrays(models.fine_tune)
    train(backend, models.fine_tune, spec, batch, **changes)
    after = backend.to_arrays(models.fine_tune)
    for name in filter(resnet.is_statistic, before):
        moved = not np.array_equal(before[name], after[name])
        assert moved == (stage_of(name) not in still), name


@pytest.mark.parametrize("share", [0.1, 0.9, 0.01])
def test_running_statistics_follow_torch(backend, models, spec, numpy_batch, batch, share) -> None:
    """The first BatchNorm layer's statistics against NumPy: so much of the batch, with the unbiased variance."""
    images = numpy_batch[0].astype(np.float64)
    before = backend.to_arrays(models.fine_tune)
    kernel = before["conv1.weight"].astype(np.float64)
    padded = np.pad(images, ((0, 0), (3, 3), (3, 3), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (7, 7), axis=(1, 2))[:, ::2, ::2]
    outputs = np.einsum("nhwcij,ocij->nhwo", windows, kernel, optimize=True)
    train(backend, models.fine_tune, spec, batch, batch_norm_momentum=share)
    after = backend.to_arrays(models.fine_tune)
    batch_statistics = {"running_mean": outputs.mean((0, 1, 2)), "running_var": outputs.var((0, 1, 2), ddof=1)}
    for name, value in batch_statistics.items():
        expected = (1 - share) * before[f"bn1.{name}"] + share * value
        # The biased variance would be 1e-4 times the share away here (n = 8 * 36 * 36).
        assert largest_difference(after[f"bn1.{name}"], expected) < (1e-5 if share >= 0.1 else 1e-6), name


def test_gradients_leave_the_model_alone(backend, models, spec, batch) -> None:
    before = backend.to_arrays(models.fine_tune)
    backend.gradients(models.fine_tune, spec, only_phase(spec), batch)
    for name, array in backend.to_arrays(models.fine_tune).items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)


def test_gradient_matches_finite_differences(backend, models, spec, batch) -> None:
    """Along the gradient itself, with frozen statistics, where the loss is smooth enough for float32."""
    changed = spec.replace(batch_norm="frozen", loss_reduction="mean")
    phase = only_phase(changed)
    gradient = backend.gradients(models.fine_tune, changed, phase, batch)["fc.weight"]
    before = backend.to_arrays(models.fine_tune)["fc.weight"]
    labels = np.asarray(batch[1]) if not hasattr(batch[1], "asnumpy") else batch[1].asnumpy()
    step = 1e-2 / np.linalg.norm(gradient)
    losses = []
    for sign in (-1, 1):
        backend.load_arrays(models.fine_tune, {"fc.weight": before + np.float32(sign * step) * gradient})
        losses.append(Predictions(backend.logits(models.fine_tune, batch[0]), labels.astype(np.int64)).loss)
    slope = (losses[1] - losses[0]) / (2 * step)
    assert slope == pytest.approx(np.sum(gradient.astype(np.float64) ** 2), rel=1e-2)


def test_sums_count_every_example_once(backend, models, spec, batch) -> None:
    """With frozen statistics training sees the same logits as evaluation does."""
    predictions = Predictions(backend.logits(models.fine_tune, batch[0]), np.array([0, 1, 1, 0, 1, 0, 0, 1]))
    changed = spec.replace(batch_norm="frozen")
    trainer = backend.Trainer(models.fine_tune, changed, only_phase(changed))
    trainer.train_step(*batch)
    loss_sum, correct = trainer.read_sums()
    assert loss_sum == pytest.approx(8 * predictions.loss, rel=1e-5)
    assert correct == round(8 * predictions.accuracy)
    assert trainer.read_sums() == (0.0, 0)


def test_incomplete_batches_train(backend, models, spec, numpy_batch) -> None:
    images, labels = numpy_batch
    trainer = backend.Trainer(models.fine_tune, spec, only_phase(spec))
    for count in (8, 3, 1):
        trainer.train_step(*backend.from_shared(images[:count], labels[:count]))
    loss_sum, correct = trainer.read_sums()
    assert np.isfinite(loss_sum)
    assert 0 <= correct <= 12
    assert all(np.isfinite(array).all() for array in backend.to_arrays(models.fine_tune).values())


@pytest.mark.parametrize("pipeline", ["shared", "native"])
def test_the_whole_loop_counts_everything_and_repeats(backend, spec, pictures, pipeline) -> None:
    changed = spec.replace(pipeline=pipeline)
    histories, arrays = [], []
    for _ in range(2):
        backend.prepare(changed)
        model = backend.build_models(changed).fine_tune
        histories.append(backend.train_fine_tuning(model, changed, pictures, watch=Quiet()))
        arrays.append(backend.to_arrays(model))
    first, second = histories
    assert [metrics.epoch for metrics in first.epochs] == [1, 2]
    assert first.test.logits.shape == (14, 2)
    assert first.test.labels.tolist() == [0] * 7 + [1] * 7
    # 22 training and 14 test images: accuracies are multiples of 1/22 and 1/14.
    assert round(first.epochs[0].train_accuracy * 22, 6).is_integer()
    assert round(first.epochs[0].test_accuracy * 14, 6).is_integer()
    np.testing.assert_array_equal(first.test.logits, second.test.logits)
    for name, array in arrays[0].items():
        np.testing.assert_array_equal(array, arrays[1][name], err_msg=name)


@pytest.mark.parametrize("pipeline", ["shared", "native"])
def test_dropped_last_batches_do_not_count(backend, models, spec, pictures, pipeline) -> None:
    """Of 22 training and 14 test images 16 and 8 are in full batches of 8."""
    changed = spec.replace(pipeline=pipeline, last_batch="drop", epochs=1)
    history = backend.train_fine_tuning(models.fine_tune, changed, pictures, watch=Quiet())
    assert history.test.labels.tolist() == [0] * 7 + [1]
    assert round(history.epochs[0].train_accuracy * 16, 6).is_integer()
    metrics = history.epochs[0]
    assert metrics.images_per_second == pytest.approx(16 / metrics.seconds)


def test_warm_up_trains_the_head_first(backend, models, spec, pictures) -> None:
    seen = []

    class Note(Watch):
        def on_epoch(self, metrics, predictions) -> None:
            seen.append(metrics.phase)
            arrays.append(backend.to_arrays(models.fine_tune))

    arrays = [backend.to_arrays(models.fine_tune)]
    changed = spec.replace(strategy="warm-up", warm_up_epochs=1)
    backend.train_fine_tuning(models.fine_tune, changed, pictures, watch=Note())
    assert seen == ["head", "everything"]
    start, head, everything = arrays
    for name in start:
        np.testing.assert_equal(np.array_equal(start[name], head[name]), not name.startswith("fc"), err_msg=name)
        assert not np.array_equal(head[name], everything[name]), name


def test_the_best_epoch_is_put_back(backend, models, spec, pictures, monkeypatch) -> None:
    """To the last bit: parameters, statistics and what the model says."""
    see, after = selection.Selection.see, []

    class Note(Quiet):
        def on_epoch(self, metrics, predictions) -> None:
            after.append(backend.to_arrays(models.fine_tune))

    def second_is_best(self, epoch, validation, test, to_arrays) -> None:
        see(self, epoch, SimpleNamespace(loss=(0.5, 0.1, 0.9)[epoch - 1]), test, to_arrays)

    monkeypatch.setattr(selection.Selection, "see", second_is_best)
    changed = spec.replace(keep="best", validation=0.3, epochs=3)
    data = splits.split(pictures, changed)
    history = backend.train_fine_tuning(models.fine_tune, changed, data, watch=Note())
    assert history.kept_epoch == 2
    for name, array in backend.to_arrays(models.fine_tune).items():
        np.testing.assert_array_equal(array, after[1][name], err_msg=name)
    assert not np.array_equal(after[1]["fc.weight"], after[2]["fc.weight"])
    experiment = make_experiment(backend, changed, data)
    again = evaluation.predict(experiment, models.fine_tune, data.test, SharedBatches(experiment))
    np.testing.assert_array_equal(again.logits, history.test.logits)


def test_a_head_of_source_rows_says_what_the_source_says(backend, models, spec, batch) -> None:
    rows = source_classes.rows_for(spec.replace(head_init="source-class"), ("hotdog", "not-hotdog"))
    source = backend.to_arrays(models.pretrained)
    backend.load_arrays(models.fine_tune, source_classes.mean_head(source, rows))
    row = backend.head_row(models.pretrained, imagenet.HOTDOG)
    np.testing.assert_array_equal(backend.head_row(models.fine_tune, 0), row)
    of_source, of_head = (backend.logits(model, batch[0]) for model in (models.pretrained, models.fine_tune))
    # A mean of logits is the logit of the mean row; float32 sums of 512 products are 1e-6 off.
    others = np.delete(of_source, imagenet.HOTDOG, axis=1).mean(axis=1)
    expected = np.stack([of_source[:, imagenet.HOTDOG], others], axis=1)
    np.testing.assert_allclose(of_head, expected, rtol=1e-4, atol=1e-4)


def test_divergence_is_said(backend, models, spec, pictures) -> None:
    with pytest.raises(loop.Diverged, match="learning-rate"):
        backend.train_fine_tuning(models.fine_tune, spec.replace(learning_rate=1e6), pictures, watch=Quiet())


def test_no_epochs_means_evaluation_only(backend, models, spec, pictures) -> None:
    before = backend.to_arrays(models.fine_tune)
    history = backend.train_fine_tuning(models.fine_tune, spec.replace(epochs=0), pictures, watch=Quiet())
    assert history.epochs == []
    assert history.test.logits.shape == (14, 2)
    for name, array in backend.to_arrays(models.fine_tune).items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)


@pytest.mark.parametrize(
    ("stage", "first_parts", "message"),
    [
        ("head", (), "fc.* belongs to none of the stages"),
        ("layer4", ("layer4", "fc"), "fc.* belongs to several stages"),
    ],
)
def test_a_parameter_that_no_stage_or_two_stages_claim_is_refused(
    backend, models, spec, monkeypatch, stage, first_parts, message
) -> None:
    phase = only_phase(spec)
    monkeypatch.setitem(stages.FIRST_PARTS, stage, first_parts)
    with pytest.raises((RuntimeError, ValueError), match=message):
        backend.Trainer(models.fine_tune, spec, phase)


def test_a_parameter_that_the_optimizer_does_not_hold_is_refused(backend, models, spec, monkeypatch) -> None:
    whole = Phase.assign

    def without_the_first(self: Phase, names) -> dict[str, list[str]]:
        groups = whole(self, names)
        return {**groups, "layer1": groups["layer1"][1:]}

    monkeypatch.setattr(Phase, "assign", without_the_first)
    with pytest.raises(RuntimeError, match="exactly one parameter group.*layer1.0.conv1.weight"):
        backend.Trainer(models.fine_tune, spec, only_phase(spec))
