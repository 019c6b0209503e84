"""Findings, what is kept, and the page, of data with planted faults."""

from __future__ import annotations

import csv
import dataclasses
import html
import json
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from common.audit import clean, page, summary
from common.audit.findings import Audit, Limits, look, to_dict
from common.audit.labels import Suspect
from common.audit.pictures import measure
from common.data.folder import read_folder
from common.system.errors import UserError
from tests.common.audit.photographs import scene, write_scenes

USUAL = Limits()


def audit_of(root: Path, limits: Limits = USUAL, **changes: object) -> Audit:
    data = read_folder(root, bad_images="skip", progress=False)
    return dataclasses.replace(look(data, *measure(data, workers=1), limits), **changes)  # type: ignore[arg-type]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A leak, a contradiction, a repeat, a damaged file, a tiny picture and one of extreme shape."""
    root = write_scenes(tmp_path / "data")
    shutil.copy(root / "train/cat/0.png", root / "test/cat/leak.png")
    shutil.copy(root / "train/cat/1.png", root / "train/dog/other.png")
    with Image.open(root / "train/dog/2.png") as image:
        image.save(root / "train/dog/larger.png")
        image.resize((60, 48)).save(root / "train/dog/repeat.png")
    (root / "train/cat/broken.jpg").write_bytes(b"")
    scene(900, (40, 40)).save(root / "train/cat/tiny.png")
    scene(901, (400, 80)).save(root / "train/cat/long.png")
    return root


def names(audit: Audit, groups: object) -> list[list[str]]:
    return [[audit.pictures[index].name for index in group.members] for group in groups]  # type: ignore[attr-defined]


def test_each_fault_is_found_where_it_belongs(root: Path) -> None:
    audit = audit_of(root)
    assert names(audit, audit.leaks) == [["train/cat/0.png", "test/cat/leak.png"]]
    assert names(audit, audit.contradictions) == [["train/cat/1.png", "train/dog/other.png"]]
    assert names(audit, audit.repeats) == [["train/dog/2.png", "train/dog/larger.png", "train/dog/repeat.png"]]
    assert [(found.name, found.kind) for found in audit.unreadable] == [("train/cat/broken.jpg", "an empty file")]
    tiny = [audit.pictures[index].name for index in audit.tiny]
    assert tiny == ["train/cat/tiny.png", "train/dog/repeat.png"]
    assert [audit.pictures[index].name for index in audit.extreme] == ["train/cat/long.png"]
    assert audit.splits == ["train", "test"]
    assert audit.counts("train") == [8, 9]


def test_without_a_split_of_its_own_the_data_is_one(root: Path, tmp_path: Path) -> None:
    """The project's own split is made anew in each run, so that nothing lies between its parts."""
    data = read_folder(root, bad_images="skip", progress=False)
    object.__setattr__(data, "held_back", "a split that the project has made")
    audit = look(data, *measure(data, workers=1), USUAL)
    assert (audit.splits, audit.leaks) == ([""], [])
    assert ["train/cat/0.png", "test/cat/leak.png"] in names(audit, audit.repeats)
    assert summary.about(audit) == "2 classes, 24 pictures"
    clean.write(audit, clean.choose(audit), tmp_path / "clean.csv")
    assert "data/train/dog/2.png,dog," in (tmp_path / "clean.csv").read_text().splitlines()
    assert "pictures</th>" in page.html(audit, FACTS)


def test_the_limits_decide_what_is_odd(root: Path) -> None:
    audit = audit_of(root, Limits(min_side=40, max_ratio=5))
    assert (audit.tiny, audit.extreme) == ((), ())


def test_classes_out_of_balance_are_said(tmp_path: Path) -> None:
    root = write_scenes(tmp_path / "data", train=2, test=2)
    for number in range(28):
        scene(500 + number).save(root / "train" / "dog" / f"more{number}.png")
    said = audit_of(root).balance
    assert "'dog' has 15 times as many training pictures as 'cat': 30 and 2" in said[0]
    assert said[1] == "Fewer than 20 training pictures: 'cat' (2)."
    assert said[2] == "'cat' is 6 % of train and 50 % of test."
    assert audit_of(write_scenes(tmp_path / "even", train=20, test=3)).balance == ()


def test_lines_come_with_the_most_important_first(root: Path) -> None:
    lines = summary.lines(audit_of(root))
    assert [(line.key, line.count) for line in lines if line.count] == [
        ("leaks", 1), ("contradictions", 1), ("unreadable", 1), ("repeats", 1), ("balance", 2), ("tiny", 2),
        ("extreme", 1),
    ]  # fmt: skip
    assert "an empty file (1)" in next(line.what for line in lines if line.key == "unreadable")


def test_what_is_kept(root: Path) -> None:
    audit = audit_of(root)
    suspects = tuple(
        Suspect(index, 1 - picture.sample.label, 0.9, 0.1)
        for index, picture in enumerate(audit.pictures)
        if picture.name in ("train/cat/4.png", "test/dog/1.png")
    )
    kept = clean.choose(dataclasses.replace(audit, suspects=suspects))
    # The test picture stays, not the one to train on; the larger of two; neither of contradicting labels; and a test
    # picture with a doubtful label, but not one to train on.
    assert kept.left_out == {
        "train/cat/0.png": "the same picture as test/cat/leak.png",
        "train/cat/1.png": "the same picture has another label, too",
        "train/cat/4.png": "likely 'dog', not 'cat'",
        "train/dog/larger.png": "the same picture as train/dog/2.png",
        "train/dog/other.png": "the same picture has another label, too",
        "train/dog/repeat.png": "the same picture as train/dog/2.png",
    }
    assert len(kept.pictures) == len(audit.pictures) - 6


def test_a_table_names_files_from_its_own_folder(root: Path, tmp_path: Path) -> None:
    audit = audit_of(root)
    target = tmp_path / "new" / "clean.csv"
    clean.write(audit, clean.choose(audit), target)
    with open(target, newline="") as file:
        rows = list(csv.DictReader(file))
    assert target.read_text().splitlines()[0] == "file_name,label,split"
    assert {(target.parent / row["file_name"]).resolve() for row in rows} <= {p.resolve() for p in root.rglob("*.png")}
    assert {"file_name": "../data/test/cat/leak.png", "label": "cat", "split": "test"} in rows
    assert len(rows) == len(audit.pictures) - 5


def test_a_folder_of_links_is_data_that_checks_clean(root: Path, tmp_path: Path) -> None:
    (root / "train/cat/deep").mkdir()
    scene(77).save(root / "train/cat/deep/0.png")
    audit = audit_of(root)
    clean.write(audit, clean.choose(audit), tmp_path / "clean")
    again = audit_of(tmp_path / "clean", Limits(0, 100))
    assert (again.groups, again.unreadable) == ((), ())
    assert len(again.pictures) == len(audit.pictures) - 5
    link = tmp_path / "clean/train/cat/deep__0.png"
    assert link.is_symlink()
    assert link.resolve() == (root / "train/cat/deep/0.png").resolve()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clean", "data"]


def test_a_class_that_would_be_empty_is_refused(tmp_path: Path) -> None:
    root = write_scenes(tmp_path / "data", train=2, test=1)
    shutil.copy(root / "test/cat/0.png", root / "train/dog/same.png")
    audit = audit_of(root)
    with pytest.raises(UserError, match="'cat' would have no picture left in test"):
        clean.write(audit, clean.choose(audit), tmp_path / "clean.csv")
    assert not (tmp_path / "clean.csv").exists()


@pytest.mark.parametrize("target", ["there.csv", "folder", "clean.tsv", "clean.zip", "there.csv/below.csv", "link"])
def test_a_target_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path, target: str) -> None:
    (tmp_path / "there.csv").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(UserError, match="--write-clean"):
        clean.check_target(tmp_path / target)
    assert (tmp_path / "there.csv").read_text() == "mine"


FACTS = {
    "made": "2026-01-02T03:04:05+00:00",
    "command": "python -m scripts.check_data x",
    "network": "A head.",
    "clean": "",
}


def test_the_page_holds_everything_and_loads_nothing(root: Path) -> None:
    text = page.html(audit_of(root, suspects=(Suspect(0, 1, 0.91, 0.04),)), FACTS)
    for key in ("leaks", "contradictions", "unreadable", "labels", "repeats", "balance", "tiny", "extreme"):
        assert text.count(f'<section id="{key}" aria-labelledby="{key}-title">') == 1
        assert text.count(f'href="#{key}"') == 1
    assert text.count('src="data:image/webp;base64,') >= 10
    assert not re.search(r'(src|href)="(?!data:|#)', text)
    assert "<script" not in text
    assert text.count("<img") == len(re.findall(r'<img [^>]*alt="[^"]+"', text))
    assert "91%" in text


def test_nothing_found_is_said_and_unchecked_labels_are(tmp_path: Path) -> None:
    audit = audit_of(write_scenes(tmp_path / "data", train=20, test=3), unchecked="--no-labels was given")
    text = page.html(audit, FACTS)
    assert "Nothing was found: " in text
    assert "Labels were not checked: --no-labels was given" in text
    assert '<section id="leaks"' not in text


def test_names_are_text_on_the_page_and_in_the_json(tmp_path: Path) -> None:
    root = write_scenes(tmp_path / "data", train=2, test=1)
    name = "<img src=x onerror=alert(1)>\udcff\x1b&.png"
    shutil.copy(root / "train/cat/0.png", root / "train/cat" / name)
    audit = audit_of(root)
    text = page.html(audit, FACTS)
    assert "<img src=x" not in text
    assert html.escape("<img src=x onerror=alert(1)>") in text
    text.encode()
    content = json.loads(json.dumps(to_dict(audit, {})))
    assert content["duplicates"][0]["pictures"] == ["train/cat/0.png", f"train/cat/{name}"]


def test_a_long_list_is_cut_and_says_so(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "SHOWN", 1)
    text = page.html(audit_of(root), FACTS)
    assert "1 more are in <code>check.json</code>" in text
