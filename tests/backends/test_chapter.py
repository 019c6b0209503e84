"""The chapter's tab in its own process."""

from __future__ import annotations

import numpy as np
import pytest

import backends
from common.bench.chapter import Chapter, ChapterProcess, load
from common.bench.temporary_data import link_images


def test_the_tab_trains_and_evaluates(backend_name, pictures, tmp_path) -> None:
    linked = link_images(pictures, tmp_path / "images", steps=2, batch_size=8)
    with ChapterProcess(backends.chapter_file(backend_name)) as tab:
        tab.configure(linked.root, 72, 8, 2)
        for _ in range(2):
            images, seconds = tab.train()
            assert images == 16
            assert seconds > 0
            assert tab.test()[0] == 8
        assert tab.peak_memory() > 0


def parameters(backend_name: str, network) -> list[np.ndarray]:
    """Copies of all that the tab's optimizer could change."""
    if backend_name == "torch":
        return [parameter.detach().numpy().copy() for parameter in network.parameters()]
    if backend_name == "keras":
        return [variable.numpy() for variable in network.variables]
    if backend_name == "jax":
        import jax

        return [np.array(leaf) for leaf in jax.tree.leaves(network.params)]
    found = network.collect_params().values()
    return [parameter.data().asnumpy() for parameter in found if "running" not in parameter.name]


# TensorFlow takes the number of its threads once, which the backend sets.
@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("frozen", [True, False])
def test_a_frozen_tab_trains_its_head_alone(backend_name, pictures, tmp_path, frozen) -> None:
    linked = link_images(pictures, tmp_path / "images", steps=1, batch_size=8)
    tab = Chapter(load(backends.chapter_file(backend_name)))
    tab.configure(linked.root, 72, 8, 2, frozen)
    if backend_name == "mxnet":
        # Gluon gives parameters their shapes when it sees the first images.
        tab.test()
    before = parameters(backend_name, tab.network)
    tab.train()
    after = parameters(backend_name, tab.network)
    changed = [not np.array_equal(one, two) for one, two in zip(before, after, strict=True)]
    assert changed[-2:] == [True, True] if backend_name != "jax" else any(changed)
    assert (sum(changed) == 2) == frozen
