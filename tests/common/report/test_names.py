"""Names and pictures in the report: names are only ever text, pictures only those of the data on this machine."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pooch
import pytest

from common.data.folder import read_folder
from common.report import pictures as thumbnails
from common.report import predictions
from common.system.errors import UserError
from tests.common.report.report_runs import Page, Runs, add_grid, built, made_up_data, write_photographs

HOSTILE = ("</script><img src=x onerror=alert(1)>", r"$\alpha$ `a|b`", "寿司\nزيتون", "*_[x](http://y)")


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path / "runs")


def test_names_are_only_ever_text(tmp_path: Path) -> None:
    runs = Runs(tmp_path / "runs", made_up_data(HOSTILE, test=40, name="<b>data</b> | `x`"))
    for number, backend in enumerate(("torch", "jax")):
        runs.add(runs.logits(0.5, number), backend=backend, weights="</svg><script>alert(2)</script>$x$")
        runs.add(runs.logits(0.5, number), backend=backend, weights="$\\frac{$")
    crosscheck = tmp_path / "crosscheck.json"
    check = {"name": "<i>logits</i>", "passed": False, "distances": {"torch": 1e-6}, "allowed": None}
    crosscheck.write_text(
        json.dumps(
            {
                "options": {"data": "<u>x</u>"},
                "backends": {"torch": {}, "<s>": {}},
                "checks": [{**check, "farthest": ["torch", "<s>", 1e-6], "note": "a | b <img>"}],
            }
        )
    )
    files = built(runs, crosscheck=crosscheck, failures={"<img src=y>": "</pre><script>alert(3)</script>"})
    page = Page(files["html"])
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"img", "b", "i", "u", "s"} - {"b"}
    assert [attributes for tag, attributes in page.tags if tag == "script"] == [{}]
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    for name in HOSTILE:
        assert name in page.text
    assert "</svg><script>alert(2)</script>$x$" in page.text
    tables = re.findall(r"(?:^\|.*\n)+", files["md"], re.MULTILINE)
    assert len(tables) > 8
    for table in tables:
        cells = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(cells) == 1, table
    outside = re.sub(r"^(`{3,})\n.*?\n\1$", "", files["md"], flags=re.MULTILINE | re.DOTALL)
    assert not re.search(r"<(?!\s)", outside)


def test_names_that_utf8_lacks_are_shown_with_a_replacement(tmp_path: Path) -> None:
    data = made_up_data(test=4)
    samples = tuple(replace(sample, name=f"test/\udcff\x01{index}.jpg") for index, sample in enumerate(data.test))
    runs = Runs(tmp_path / "runs", replace(data, test=samples))
    runs.add(np.eye(2)[[1, 1, 1, 1]].astype(np.float32))
    assert "test/\ufffd\ufffd0.jpg" in built(runs)["html"]


def test_a_file_that_is_no_crosscheck_is_refused(runs: Runs, tmp_path: Path) -> None:
    runs.add()
    for content in ("{", "[]", '{"checks": [{}]}', '{"checks": 3, "options": {}, "backends": []}'):
        (tmp_path / "no.json").write_text(content)
        with pytest.raises(UserError, match=r"scripts\.crosscheck"):
            built(runs, crosscheck=tmp_path / "no.json")
    with pytest.raises(UserError, match="no such"):
        built(runs, crosscheck=tmp_path / "absent.json")
    assert not (tmp_path / "report" / "report.html").exists()


def test_pictures_are_those_of_the_data_and_few(tmp_path: Path) -> None:
    root = tmp_path / "photographs"
    write_photographs(root, ("hotdog", "not-hotdog"), test=80)
    runs = Runs(tmp_path / "runs", read_folder(root, progress=False))
    runs.add(runs.logits(0.0, 1), backend="torch")
    runs.add(runs.logits(0.0, 2), backend="jax")
    images = [attributes for tag, attributes in Page(built(runs)["html"]).tags if tag == "img"]
    assert 0 < len(images) <= predictions.SHOWN_DISAGREEMENTS + predictions.SHOWN_MISTAKES
    assert all((image["src"] or "").startswith("data:image/webp;base64,") for image in images)
    # Another picture of one of the names is other data: none is shown.
    (root / "test" / "hotdog" / "0000.png").write_bytes(
        (root / "test" / "hotdog" / "0001.png").read_bytes() + bytes(99)
    )
    html = built(runs)["html"]
    assert "<img" not in html
    assert "not on this machine" in html


def test_nothing_is_downloaded_for_pictures(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pooch, "retrieve", lambda *a, **k: pytest.fail("a download was started"))
    runs.add(runs.logits(0.0, 1), data="hotdog")
    assert thumbnails.find_data(list(runs.records.values())) is None
    assert "not on this machine" in built(runs)["html"]


def test_ids_of_the_page_are_unique(runs: Runs) -> None:
    add_grid(runs, ["torch", "jax"], [0, 1])
    ids = [attributes["id"] for _, attributes in Page(built(runs)["html"]).tags if "id" in attributes]
    assert len(ids) == len(set(ids)) > 100
