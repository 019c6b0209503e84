"""The comparison of probes, on probes made up here; tests/backends/test_crosscheck.py has real ones."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from common.crosscheck import compare, probe, scenarios
from common.crosscheck.compare import Check, Probe
from common.crosscheck.scenarios import Scenario

SCENARIO = Scenario("sgd", {})


@pytest.fixture
def yardstick() -> Probe:
    generator = np.random.default_rng(0)
    facts = {
        "parameters_by_stage": {"stem": 9536},
        "class_to_idx": {"hotdog": 0, "not-hotdog": 1},
        "hotdog_index": 934,
        "hotdog_name": "hotdog",
        "pixels": "ab",
        "head_shapes": {"source": [1000, 512], "fine-tune": [2, 512]},
    }
    arrays = {
        "hotdog row": generator.standard_normal(512).astype(np.float32),
        "zero-shot": generator.standard_normal((8, 1000)),
        "logits": generator.standard_normal((8, 2)),
        "gradient, train/fc.weight": generator.standard_normal((2, 512)),
        "gradient, train/bn1.bias": 1e-3 * generator.standard_normal(64),
        "gradient, frozen/fc.weight": generator.standard_normal((2, 512)),
        "sgd/losses": 1 + generator.random(20),
        "sgd/parameters/fc.weight": generator.standard_normal((2, 512)),
        "sgd/statistics/bn1.running_var": 1 + generator.random(64),
        "epoch/logits": generator.standard_normal((30, 2)),
        "epoch/labels": generator.integers(0, 2, 30),
    }
    return Probe(facts, arrays)


def rounded(yardstick: Probe, seed: int, size: float = 1e-7) -> Probe:
    """A probe that differs from the yardstick by relative noise."""
    generator = np.random.default_rng(seed)
    arrays = {
        name: array * (1 + size * generator.standard_normal(array.shape)) if array.dtype == np.float64 else array
        for name, array in yardstick.arrays.items()
    }
    return Probe(copy.deepcopy(yardstick.facts), arrays)


def failures(yardstick: Probe, changed: Probe) -> list[str]:
    checks = compare.compare({"torch": rounded(yardstick, 1), "jax": changed}, yardstick, (SCENARIO,))
    return [check.name for check in checks if not check.passed]


def test_rounding_passes(yardstick: Probe) -> None:
    assert failures(yardstick, rounded(yardstick, 2)) == []


@pytest.mark.parametrize(
    ("key", "relative", "name"),
    [
        ("logits", 1e-4, "logits"),
        ("gradient, train/fc.weight", 1e-2, "gradients, train statistics"),
        ("gradient, train/bn1.bias", 1e-2, "gradients, train statistics"),
        ("gradient, frozen/fc.weight", 1e-2, "gradients, frozen statistics"),
        ("sgd/losses", 1e-4, "sgd: losses"),
        ("sgd/parameters/fc.weight", 1e-4, "sgd: parameters"),
        ("sgd/statistics/bn1.running_var", 1e-4, "sgd: statistics"),
    ],
)
def test_a_distance_is_found_in_its_place(yardstick: Probe, key: str, relative: float, name: str) -> None:
    changed = rounded(yardstick, 2)
    changed.arrays[key] = changed.arrays[key] * (1 + relative)
    assert failures(yardstick, changed) == [name]


@pytest.mark.parametrize("key", ["logits", "sgd/losses", "sgd/parameters/fc.weight", "gradient, frozen/fc.weight"])
def test_nan_fails(yardstick: Probe, key: str) -> None:
    changed = rounded(yardstick, 2)
    changed.arrays[key].reshape(-1)[3] = np.nan
    assert failures(yardstick, changed)


def test_a_target_that_is_not_binding_is_noted(yardstick: Probe) -> None:
    changed = rounded(yardstick, 2)
    changed.arrays["gradient, train/fc.weight"] *= 1 + 1e-3
    checks = compare.compare({"torch": rounded(yardstick, 1), "jax": changed}, yardstick, (SCENARIO,))
    check = next(check for check in checks if check.name == "gradients, train statistics")
    assert check.passed
    assert "target of 1e-05 is missed" in check.note


def test_the_target_holds_even_where_torch_is_far_from_the_yardstick(yardstick: Probe) -> None:
    torch, jax = rounded(yardstick, 1, 1e-3), rounded(yardstick, 2, 1e-3)
    checks = compare.compare({"torch": torch, "jax": jax}, yardstick, (SCENARIO,))
    failed = {check.name: check for check in checks if not check.passed}
    assert "target" in failed["sgd: losses"].note
    assert failed["sgd: losses"].farthest is not None


def test_a_missing_tensor_fails(yardstick: Probe) -> None:
    changed = rounded(yardstick, 2)
    del changed.arrays["gradient, train/bn1.bias"]
    assert "gradients, train statistics" in failures(yardstick, changed)


@pytest.mark.parametrize(
    ("fact", "value", "name"),
    [
        ("hotdog_index", 713, "hotdog index"),
        ("hotdog_name", "photocopier", "hotdog name"),
        ("class_to_idx", {"hotdog": 1, "not-hotdog": 0}, "class to idx"),
        ("parameters_by_stage", {"stem": 9537}, "parameters by stage"),
        ("pixels", "cd", "pixels"),
        ("head_shapes", {"source": [1000, 512], "fine-tune": [3, 512]}, "head shapes, as (classes, features)"),
    ],
)
def test_facts_must_be_equal(yardstick: Probe, fact: str, value: object, name: str) -> None:
    changed = rounded(yardstick, 2)
    changed.facts[fact] = value
    assert failures(yardstick, changed) == [name]


def test_transposed_heads_are_the_same(yardstick: Probe) -> None:
    changed = rounded(yardstick, 2)
    changed.facts["head_shapes"] = {"source": [512, 1000], "fine-tune": [512, 2]}
    assert failures(yardstick, changed) == []


def test_another_hotdog_row_fails(yardstick: Probe) -> None:
    changed = rounded(yardstick, 2)
    changed.arrays["hotdog row"] = changed.arrays["hotdog row"][::-1]
    assert failures(yardstick, changed) == ["hot-dog row of the source head"]


def predictions(yardstick: Probe, margin: float) -> Check:
    """The check of predictions when one image's two logits, `margin` apart, come out the other way round."""
    yardstick.arrays["epoch/logits"][4] = [0.5, 0.5 + margin]
    changed = rounded(yardstick, 2)
    changed.arrays["epoch/logits"][4] = [0.5 + margin, 0.5]
    checks = compare.compare({"torch": rounded(yardstick, 1), "jax": changed}, yardstick, (SCENARIO,))
    return next(check for check in checks if check.name == "epoch: test predictions")


def test_near_ties_are_counted_and_excused(yardstick: Probe) -> None:
    check = predictions(yardstick, 1e-6)
    assert check.passed
    assert "1 near-ties differ" in check.note


def test_other_predictions_are_not(yardstick: Probe) -> None:
    check = predictions(yardstick, 1e-2)
    assert not check.passed
    assert "jax: 1 of 30 differ" in check.note


def test_a_dropped_test_batch_fails(yardstick: Probe) -> None:
    changed = rounded(yardstick, 2)
    changed.arrays["epoch/logits"] = changed.arrays["epoch/logits"][:-2]
    changed.arrays["epoch/labels"] = changed.arrays["epoch/labels"][:-2]
    assert failures(yardstick, changed) == ["epoch: test labels", "epoch: test predictions"]


def test_probe_files_keep_everything(yardstick: Probe, tmp_path) -> None:
    probe.write(tmp_path / "probe.npz", yardstick.facts, yardstick.arrays)
    facts, arrays = probe.read(tmp_path / "probe.npz")
    assert facts == yardstick.facts
    assert arrays.keys() == yardstick.arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, yardstick.arrays[name])


def test_samples_are_the_same_choice_everywhere_and_small_arrays_whole() -> None:
    small, large = np.arange(100), np.arange(100_000).reshape(10, 10_000)
    np.testing.assert_array_equal(scenarios.sample(small), small)
    assert scenarios.sample(large).shape == (scenarios.SAMPLED_ENTRIES,)
    np.testing.assert_array_equal(scenarios.sample(large), scenarios.sample(large.copy()))
    # Any change of layout moves other entries to the sampled places.
    assert not np.array_equal(scenarios.sample(large), scenarios.sample(np.asfortranarray(large).T))


def test_every_scenario_is_valid_in_every_backend() -> None:
    from common.method import phases
    from common.spec.experiment import ExperimentSpec
    from common.spec.names import MODELS_BY_BACKEND

    for backend in MODELS_BY_BACKEND:
        for scenario in scenarios.SCENARIOS:
            assert phases.phases(scenario.spec(ExperimentSpec(backend=backend)))
    assert {scenario.name for scenario in scenarios.chosen(True)} == set(scenarios.SHORT)
