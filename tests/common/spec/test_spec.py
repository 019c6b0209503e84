"""ExperimentSpec: validation, JSON, presets."""

from __future__ import annotations

import pytest

from common.spec.experiment import ExperimentSpec, StageMultiples
from common.spec.presets import load_preset
from common.system.errors import UserError


def test_json_round_trip_loses_nothing() -> None:
    spec = ExperimentSpec(
        backend="jax", learning_rate=0.1 + 0.2, stage_multiples=StageMultiples(stem=0, layer1=1e-3), image_size=64,
        head_init="source-class", head_init_classes=("pizza", "bagel"),
    )  # fmt: skip
    assert ExperimentSpec.from_json(spec.to_json()) == spec
    assert ExperimentSpec.from_json(ExperimentSpec().to_json()) == ExperimentSpec()


def test_it_is_frozen() -> None:
    with pytest.raises(AttributeError):
        ExperimentSpec().epochs = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("backend", "theano", "torch"),
        ("model", "resnet34", "resnet18"),
        ("strategy", "finetune", "fine-tune"),
        ("batch_size", 0, "at least 1"),
        ("batch_size", 2.5, "a whole number"),
        ("batch_size", True, "a whole number"),
        ("epochs", -1, "at least 0"),
        ("epochs", "5", "a whole number"),
        ("learning_rate", float("nan"), "a finite number"),
        ("learning_rate", float("inf"), "a finite number"),
        ("learning_rate", -1e-3, "at least 0"),
        ("head_multiple", -1, "at least 0"),
        ("weight_decay", -1, "at least 0"),
        ("image_size", 8, "at least 32"),
        ("image_size", 100_000, "at most 4096"),
        ("presize", 0.9, "at least 1"),
        ("presize", 0, "at least 1"),
        ("presize", "twice", "a finite number or nothing"),
        ("seed", -1, "at least 0"),
        ("seed", 2**32, "at most"),
        ("loss_reduction", "none", "sum, mean"),
        ("batch_norm", "eval", "train, frozen, frozen_early"),
        ("optimizer", "lion", "sgd, momentum, adam"),
        ("precision", "fp8", "fp32"),
        ("device", "tpu", "auto, cpu, gpu"),
        ("pipeline", "dali", "shared, native"),
        ("train_crop", "five", "random_resized_crop"),
        ("test_resize", "stretch", "short_side, squash, letterbox"),
        ("reuse_features", "always", "auto, never"),
        ("flip", "yes", "true or false"),
        ("weights", "", "distilled"),
        ("weights", None, "text"),
        ("bad_images", "ignore", "error, skip"),
        ("train_limit", 1, "at least 2"),
        ("workers", -1, "at least 0"),
        ("classes", 1, "at least 2"),
        ("partial_stages", 5, "at most 4"),
        ("last_batch", "pad", "keep, drop"),
        ("batch_norm_momentum", 1.5, "at most 1"),
        ("batch_norm_momentum", -0.1, "at least 0"),
        ("hotdog_index", -1, "at least 0"),
        ("validation", -0.1, "at least 0"),
        ("validation", 1.0, "less than 1"),
        ("label_smoothing", 1, "less than 1"),
        ("early_stopping", 0, "at least 1"),
        ("keep", "first", "last, best"),
        ("schedule", "linear", "constant, cosine, one-cycle"),
        ("schedule_warm_up_steps", -1, "at least 0"),
        ("class_weights", "equal", "none, balanced"),
        ("head_init_classes", "pizza", "a list, each of it text"),
        ("head_init_classes", [1], "a list, each of it text"),
        ("domain", "other", "similar, different"),
        ("lora_rank", 0, "at least 1"),
        ("lora_rank", 65, "at most 64"),
        ("lora_alpha", 0, "above 0"),
        ("stage_multiples", {"stem": -1}, "at least 0"),
        ("stage_multiples", {"stem": "x"}, "a finite number"),
        ("stage_multiples", {"layer5": 1}, "layer4"),
        ("stage_multiples", 3, "a table"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(field: str, value: object, allowed: str) -> None:
    with pytest.raises(UserError) as caught:
        ExperimentSpec.from_dict({field: value})
    assert field in str(caught.value)
    assert allowed in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backend": "mxnet", "precision": "tf32"}, "MXNet trains in float32 only"),
        ({"precision": "tf32", "device": "cpu"}, "--precision fp32, or --device gpu"),
        ({"backend": "mxnet", "model": "resnet50"}, "mxnet backend offers resnet18, resnet18_v2"),
        ({"backend": "torch", "model": "resnet18_v2"}, "torch backend offers"),
        ({"image_size": 128, "resize_size": 100}, "at least image_size = 128"),
        ({"test_resize": "letterbox", "train_crop": "resize_random_crop"}, "--train-crop random_resized_crop or none"),
        ({"test_resize": "letterbox", "resize_size": 80}, "leave the option away"),
        ({"strategy": "warm-up", "epochs": 2, "warm_up_epochs": 2}, "fewer than epochs"),
        ({"data_url": "http://x/y.zip", "data": "hotdog"}, "data_sha1"),
        ({"data_sha1": "0" * 40, "data": "hotdog"}, "data_url"),
        ({"data_url": "http://x/y.zip", "data_sha1": "0" * 40}, "only the data set hotdog"),
        ({"weights": "none"}, "--strategy scratch"),
        ({"weights": "none", "strategy": "zero-shot"}, "--strategy scratch"),
        ({"early_stopping": 2}, "--validation"),
        ({"keep": "best"}, "--validation"),
        ({"schedule": "one-cycle", "schedule_warm_up_steps": 5}, "warms up by itself"),
        ({"head_init_classes": ("pizza",)}, "--head-init source-class"),
        ({"learning_rat": 1}, "learning_rate"),
    ],
)
def test_contradictions_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ExperimentSpec().replace(**changes)


def test_equivalent_mean_learning_rate() -> None:
    book = ExperimentSpec(batch_size=128, learning_rate=5e-5, loss_reduction="sum")
    assert book.mean_learning_rate == pytest.approx(6.4e-3)
    assert book.replace(loss_reduction="mean").mean_learning_rate == 5e-5


def test_a_strategy_has_its_own_values_in_a_preset() -> None:
    assert load_preset("d2l").learning_rate == 5e-5
    assert load_preset("d2l", "scratch").learning_rate == 5e-4


def test_an_unknown_preset_is_answered_with_the_known() -> None:
    with pytest.raises(UserError, match="d2l, .*, demo"):
        load_preset("demos")
