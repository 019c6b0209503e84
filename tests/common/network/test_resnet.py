"""The tables of the networks and the shared initial values."""

from __future__ import annotations

import math

import numpy as np
import pytest

from common.network import resnet, sources, weights


@pytest.mark.parametrize(
    ("architecture", "parameters"), [("resnet18", 11_689_512), ("resnet50", 25_557_032), ("resnet50_keras", 25_583_592)]
)
def test_parameter_counts_are_the_published_ones(architecture: str, parameters: int) -> None:
    table = resnet.shapes(architecture)
    assert sum(math.prod(shape) for name, shape in table.items() if not resnet.is_statistic(name)) == parameters


def test_the_embedded_weights_are_a_resnet18() -> None:
    assert {k: v.shape for k, v in weights.read(sources.DISTILLED).arrays.items()} == resnet.shapes("resnet18")


def test_initial_values_depend_on_the_seed_only() -> None:
    first, again, other = (resnet.initial_network("resnet18", 2, seed) for seed in (0, 0, 1))
    for name in first:
        np.testing.assert_array_equal(first[name], again[name])
    assert not np.array_equal(first["conv1.weight"], other["conv1.weight"])


def test_initial_values_have_the_stated_spread() -> None:
    values = resnet.initial_network("resnet18", 2, 0)
    assert values["layer4.0.conv2.weight"].std() == pytest.approx(math.sqrt(2 / (512 * 9)), rel=1e-2)
    limit = math.sqrt(6 / 514)
    assert 0.98 * limit < np.abs(values["fc.weight"]).max() <= limit
    assert not values["fc.bias"].any()
    assert (values["bn1.running_var"] == 1).all()
