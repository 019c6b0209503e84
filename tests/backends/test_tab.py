"""The chapter's tab in its own process."""

from __future__ import annotations

from common.bench import link_images
from common.tab import TabProcess


def test_the_tab_trains_and_evaluates(backend_name, pictures, tmp_path) -> None:
    linked = link_images(pictures, tmp_path / "images", steps=2, batch_size=8)
    with TabProcess(backend_name) as tab:
        tab.configure(linked.root, 72, 8, 2)
        for _ in range(2):
            images, seconds = tab.train()
            assert images == 16
            assert seconds > 0
            assert tab.test()[0] == 8
        assert tab.peak_memory() > 0
