"""The named experiments: each is valid, says where it comes from, and is what its text has."""

from __future__ import annotations

import shlex
from typing import get_args

import pytest

from common.method import phases
from common.network import imagenet
from common.spec.experiment import ExperimentSpec, Strategy
from common.spec.presets import load_preset, preset_names, read_preset
from scripts.cli.arguments import parse_strategies
from scripts.cli.options import RunOptions

TABS = ("d2l-torch", "d2l-keras", "d2l-jax", "d2l-mxnet")


def changed(name: str, strategy: str, base: ExperimentSpec) -> dict[str, object]:
    """The fields of a preset that differ from those of `base`."""
    own, other = load_preset(name, strategy).to_dict(), base.to_dict()
    return {field: value for field, value in own.items() if value != other[field]}


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_is_valid_for_every_strategy(name: str) -> None:
    values = read_preset(name)
    assert set(values["strategies"]) <= set(get_args(Strategy))
    for strategy in get_args(Strategy):
        spec = load_preset(name, strategy)
        assert spec.strategy == strategy
        assert strategy in ("auto", "zero-shot") or phases.phases(spec)


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_says_what_it_is(name: str) -> None:
    values = read_preset(name)
    assert set(values) - {"notes", "strategy", "seeds"} == {
        "description", "source", "command", "strategies", "expected", "spec",
    }  # fmt: skip
    assert values["description"]
    assert values["source"]
    for expected in values["expected"]:
        assert expected["strategy"] in values["strategies"]
        assert 0.5 < expected["accuracy"] < 1
        assert expected["source"]
        assert "deviation" not in expected or expected["runs"] > 1
        assert expected.get("by_epoch", [expected["accuracy"]])[-1] == expected["accuracy"]
    assert values["expected"] or values["notes"]


@pytest.mark.parametrize("name", preset_names())
def test_its_command_runs_it(name: str) -> None:
    values = read_preset(name)
    program, *arguments = shlex.split(values["command"])
    assert [program, *arguments[:2]] == ["python", "-m", "scripts.run"]
    runs = parse_strategies(RunOptions, "run", arguments[2:])
    assert [run.preset for run in runs] == [name] * len(values["strategies"])
    assert [run.spec for run in runs] == [load_preset(name, strategy) for strategy in values["strategies"]]


@pytest.mark.parametrize(
    ("name", "rate", "scratch_rate", "mean_rate"),
    [
        ("d2l-torch", 5e-5, 5e-4, 6.4e-3),
        ("d2l-keras", 5e-5, 5e-4, 5e-5),
        ("d2l-jax", 1e-4, 5e-4, 1e-4),
        ("d2l-mxnet", 7.8125e-5, 7.8125e-4, 1e-2),
    ],
)
def test_each_tab_has_its_rates(name: str, rate: float, scratch_rate: float, mean_rate: float) -> None:
    spec = load_preset(name)
    assert spec.backend == name.removeprefix("d2l-")
    assert (spec.learning_rate, spec.head_multiple, spec.weight_decay) == (rate, 10, 1e-3)
    assert load_preset(name, "scratch").learning_rate == scratch_rate
    assert spec.mean_learning_rate == pytest.approx(mean_rate)
    assert (spec.weights, spec.pipeline, spec.initial_values) == ("imagenet", "native", "native")
    assert (spec.optimizer, spec.batch_size, spec.epochs, spec.test_resize) == ("sgd", 128, 5, "squash")


def test_the_tabs_differ_in_network_crop_and_statistics() -> None:
    specs = {name: load_preset(name) for name in TABS}
    assert [spec.model for spec in specs.values()] == ["resnet18", "resnet50", "resnet18", "resnet18_v2"]
    assert [spec.train_crop for spec in specs.values()] == [
        "random_resized_crop", "resize_random_crop", "resize_random_crop", "random_resized_crop",
    ]  # fmt: skip
    assert [spec.batch_norm for spec in specs.values()] == ["train", "train", "frozen", "train"]
    assert load_preset("d2l-jax", "scratch").batch_norm == "train"


@pytest.mark.parametrize("strategy", ["fine-tune", "scratch"])
@pytest.mark.parametrize(
    ("name", "defects"),
    [
        ("d2l-keras", {"last_batch": "drop", "batch_norm_momentum": 0.01}),
        ("d2l-jax", {"last_batch": "drop", "batch_norm_momentum": 0.9}),
        ("d2l-mxnet", {"hotdog_index": 713}),
    ],
)
def test_as_printed_is_the_tab_with_its_defects(name: str, strategy: str, defects: dict[str, object]) -> None:
    tab = load_preset(name, strategy)
    assert changed(f"{name}-as-printed", strategy, tab) == defects
    # The corrected values are the defaults.
    assert all(getattr(tab, field) == getattr(ExperimentSpec(), field) for field in defects)


def test_the_printed_row_is_a_photocopier() -> None:
    spec = load_preset("d2l-mxnet-as-printed")
    names = imagenet.class_names()
    assert names[imagenet.reported_index(spec, names)] == "photocopier"
    assert imagenet.reported_index(load_preset("d2l-mxnet"), names) == 934


def test_transfer_learning_has_the_rates_of_its_text() -> None:
    rates = {}
    for strategy in read_preset("transfer-learning")["strategies"]:
        spec = load_preset("transfer-learning", strategy)
        rates[strategy] = [
            sorted({spec.mean_learning_rate * phase.multiples[stage] for stage in phase.trained_stages})
            for phase in phases.phases(spec)
        ]
        assert (spec.optimizer, spec.batch_size, spec.epochs, spec.test_resize) == ("adam", 32, 5, "short_side")
    assert rates == {
        "zero-shot": [],
        "feature-extraction": [pytest.approx([1e-3])],
        "lora": [pytest.approx([1e-3])],
        "fine-tune": [pytest.approx([1e-4, 1e-3])],
        "warm-up": [pytest.approx([1e-3]), pytest.approx([1e-4, 1e-3])],
        "partial": [pytest.approx([1e-4, 1e-3])],
        "discriminative": [pytest.approx([1e-5, 1e-4, 1e-3])],
        "scratch": [pytest.approx([1e-3])],
    }
    warm_up = phases.phases(load_preset("transfer-learning", "warm-up"))
    assert [phase.epochs for phase in warm_up] == [2, 3]
    base = load_preset("transfer-learning")
    assert changed("transfer-learning-frozen", "fine-tune", base) == {"batch_norm": "frozen"}
    assert changed("transfer-learning-frozen-early", "fine-tune", base) == {"batch_norm": "frozen_early"}
