"""Low-rank adapters: names, initial values, merging."""

from __future__ import annotations

import numpy as np
import pytest

from common.method import phases
from common.network import lora, resnet
from common.network.stages import stage_of
from common.runs import description
from common.spec.experiment import ExperimentSpec
from tests.fake_backend import FakeBackend


@pytest.mark.parametrize("architecture", resnet.ARCHITECTURES)
def test_every_convolution_has_an_adapter_in_its_stage(architecture: str) -> None:
    shapes, adapters = resnet.shapes(architecture), lora.shapes(architecture, 4)
    convolutions = [name for name, shape in shapes.items() if len(shape) == 4]
    assert len(adapters) == 2 * len(convolutions)
    for name in convolutions:
        outputs, *inputs = shapes[name]
        layer = name.removesuffix(".weight")
        assert adapters[f"{layer}.lora_a"] == (4, *inputs)
        assert adapters[f"{layer}.lora_b"] == (outputs, 4)
        assert stage_of(f"{layer}.lora_a") == stage_of(f"{layer}.lora_b") == stage_of(name)
    assert all(map(lora.is_adapter, adapters))
    assert not any(map(lora.is_adapter, shapes))


def test_initial_values_are_kaiming_uniform_and_zero() -> None:
    values = lora.initial("resnet18", 4, seed=3)
    for name, array in values.items():
        assert array.dtype == np.float32
        if name.endswith("lora_b"):
            assert not array.any(), name
        else:
            limit = 1 / np.sqrt(np.prod(array.shape[1:]))
            assert 0.9 * limit < np.abs(array).max() <= limit, name
            assert abs(array.mean()) < 0.2 * limit, name
    for name, array in lora.initial("resnet18", 4, seed=3).items():
        np.testing.assert_array_equal(array, values[name])
    assert not np.array_equal(lora.initial("resnet18", 4, seed=4)["conv1.lora_a"], values["conv1.lora_a"])


def test_merging_is_the_papers_product() -> None:
    generator = np.random.default_rng(0)
    arrays = {
        name: generator.standard_normal(shape).astype(np.float32)
        for name, shape in {
            "conv1.weight": (6, 3, 2, 5), "conv1.lora_a": (2, 3, 2, 5), "conv1.lora_b": (6, 2), "bn1.weight": (6,)
        }.items()
    }  # fmt: skip
    merged = lora.merge(arrays, 0.5)
    assert list(merged) == ["conv1.weight", "bn1.weight"]
    # Hu et al. write W (out, n) and A (rank, n), n = in * height * width.
    product = arrays["conv1.lora_b"] @ arrays["conv1.lora_a"].reshape(2, 30)
    expected = arrays["conv1.weight"].reshape(6, 30) + 0.5 * product
    np.testing.assert_allclose(merged["conv1.weight"].reshape(6, 30), expected, rtol=1e-6)
    assert merged["conv1.weight"].dtype == np.float32
    np.testing.assert_array_equal(merged["bn1.weight"], arrays["bn1.weight"])


def test_loading_a_convolution_resets_its_adapter() -> None:
    weight, other = np.ones((6, 3, 2, 5), np.float32), np.ones((6, 2), np.float32)
    for shape in ((6, 2), (2, 6)):
        completed = lora.complete({"conv1.weight": weight, "bn1.weight": other}, {"conv1.lora_b": np.ones(shape)})
        assert list(completed) == ["conv1.weight", "bn1.weight", "conv1.lora_b"]
        np.testing.assert_array_equal(completed["conv1.lora_b"], np.zeros((6, 2)))
    assert list(lora.complete({"conv1.weight": weight}, {})) == ["conv1.weight"]
    both = {"conv1.weight": weight, "conv1.lora_b": other}
    assert lora.complete(both, {"conv1.lora_b": other})["conv1.lora_b"] is other


def test_trained_parameters_are_adapters_and_head() -> None:
    spec = ExperimentSpec(strategy="lora", lora_rank=4)
    backend = FakeBackend()
    counts = description.count_parameters(phases.phases(spec), spec, backend, backend.build_models(spec).fine_tune)
    adapters = sum(int(np.prod(shape)) for shape in lora.shapes("resnet18", 4).values())
    assert counts["trained_parameters"] == adapters + 2 * 512 + 2
    assert counts["parameters"] == sum(counts["parameters_by_stage"].values()) == 11_177_538
