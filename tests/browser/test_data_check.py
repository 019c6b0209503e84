"""The page of a check in a browser: nothing is loaded, nothing runs out of the page, and axe has no complaint."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.audit import page
from common.audit.findings import Limits, look
from common.audit.labels import Suspect
from common.audit.pictures import measure
from common.data.folder import read_folder
from tests.common.audit.photographs import scene, write_scenes

Show = Callable[..., Any]
FACTS = {"made": "2026-01-02T03:04:05+00:00", "command": "python -m scripts.check_data x", "network": "A.", "clean": ""}


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with every section, and names that are long."""
    folder = tmp_path_factory.mktemp("check")
    root = write_scenes(folder / "data")
    shutil.copy(root / "train/cat/0.png", root / "test/cat" / f"{'a-long-name-' * 12}.png")
    shutil.copy(root / "train/cat/1.png", root / "train/dog/other.png")
    shutil.copy(root / "train/cat/2.png", root / "train/cat/repeat.png")
    (root / "train/cat/<b>broken.jpg").write_bytes(b"")
    scene(900, (40, 40)).save(root / "train/cat/tiny.png")
    scene(901, (400, 80)).save(root / "train/cat/long.png")
    data = read_folder(root, bad_images="skip", progress=False)
    audit = look(data, *measure(data, workers=1), Limits())
    audit = dataclasses.replace(audit, suspects=(Suspect(3, 1, 0.9, 0.05), Suspect(4, 1, 0.7, 0.25)))
    (folder / "check.html").write_text(page.html(audit, FACTS), encoding="utf-8")
    return folder / "check.html"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_violation(checked: Path, show: Show, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="the environment tools has it").Axe()
    violations = axe.run(show(checked, color_scheme=scheme).page).response["violations"]
    serious = [v for v in violations if v["impact"] in ("moderate", "serious", "critical")]
    assert [(v["id"], [node["html"][:120] for node in v["nodes"][:3]]) for v in serious] == []


@pytest.mark.parametrize("width", [320, 640, 1280])
def test_nothing_is_loaded_and_nothing_is_wider_than_the_page(checked: Path, show: Show, width: int) -> None:
    shown = show(checked, viewport={"width": width, "height": 900})
    assert shown.page.evaluate("document.documentElement.scrollWidth") <= width
    assert (shown.problems, shown.requests) == ([], [])
    assert shown.page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")


def test_each_finding_is_a_link_that_the_keyboard_reaches(checked: Path, show: Show) -> None:
    tab = show(checked, reduced_motion="reduce").page
    for key in ("main", "leaks", "contradictions", "unreadable", "labels", "repeats"):
        tab.keyboard.press("Tab")
        assert tab.evaluate("document.activeElement.getAttribute('href')") == f"#{key}"
    tab.keyboard.press("Enter")
    assert tab.evaluate("Math.abs(document.querySelector('#repeats').getBoundingClientRect().top) < innerHeight")
