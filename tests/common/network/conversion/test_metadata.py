"""What a converted file says of itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from common.network import imagenet, resnet, sources, weights
from common.network.conversion.convert import Conversion
from common.network.conversion.heads import Head
from common.network.conversion.metadata import Wishes, describe, read_class_names
from common.network.conversion.stored import StoredTensors
from common.system.errors import UserError


def conversion(classes: int, architecture: str = "resnet18") -> Conversion:
    arrays = resnet.initial_head(architecture, classes, 0) if classes else {}
    return Conversion(architecture, arrays, "", {}, Head("fc.weight" if classes else ""), {})


NOTHING = Wishes()


def header(classes: int, wishes: Wishes = NOTHING, metadata: dict[str, str] | None = None) -> weights.Header:
    return describe(conversion(classes), StoredTensors({}, metadata=metadata or {}), Path("a.pth"), wishes)[0]


def test_without_a_word_it_is_imagenets_preprocessing() -> None:
    assert header(1000) == weights.Header(
        "resnet18", imagenet.class_names(), weights.Preprocessing(), "converted from a.pth"
    )
    keras, _ = describe(conversion(3, "resnet50_keras"), StoredTensors({}), Path("a.h5"), Wishes())
    assert keras.preprocessing == sources.CAFFE


def test_the_classes_have_the_names_that_are_known() -> None:
    assert header(0).class_names == ()
    assert header(2).class_names == ("class_0", "class_1")
    assert header(2, metadata={"class_names": '["x", "y"]'}).class_names == ("x", "y")
    assert header(2, metadata={"class_names": '["x"]'}).class_names == ("class_0", "class_1")


def test_what_the_user_says_counts_before_the_file(tmp_path: Path) -> None:
    own = {"image_size": "64", "resize_size": "72", "mean": "[0.5, 0.5, 0.5]", "source": "elsewhere"}
    assert header(2, metadata=own).preprocessing == weights.Preprocessing(64, 72, mean=(0.5, 0.5, 0.5))
    assert header(2, metadata=own).source == "elsewhere, converted from a.pth"
    assert header(2, Wishes({"image_size": 128}), own).preprocessing.resize_size == 144
    other = tmp_path / "other.safetensors"
    arrays = resnet.initial_network("resnet18", 2, 0)
    kept = weights.Preprocessing(96, 110, channel_order="BGR")
    weights.write(other, weights.Checkpoint(weights.Header("resnet18", ("p", "q"), kept, "test"), arrays))
    taken = header(2, Wishes({"scale": 1.0}, metadata_from=other), own)
    assert taken.preprocessing == weights.Preprocessing(96, 110, channel_order="BGR", scale=1.0)
    assert taken.class_names == ("p", "q")
    assert header(3, Wishes(metadata_from=other)).class_names == ("class_0", "class_1", "class_2")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_size": 128, "resize_size": 100}, "resize_size = 100: expected at least"),
        ({"image_size": 0, "resize_size": 0}, "image_size = 0: expected"),
        ({"std": (1.0, 0.0, 1.0)}, "std = .*expected three numbers"),
        ({"mean": (float("nan"), 0.0, 0.0)}, "mean = .*expected three numbers"),
    ],
)
def test_wrong_preprocessing_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        header(2, Wishes(fields))


def test_wrong_metadata_is_refused() -> None:
    with pytest.raises(UserError, match="a.pth: the metadata entry image_size is 'huge'"):
        header(2, metadata={"image_size": "huge"})


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("names.txt", "\ufeffrose\n\n hot dog \n"),
        ("names.json", json.dumps(["rose", "hot dog"])),
        ("config.json", json.dumps({"id2label": {"1": "hot dog", "0": "rose"}, "hidden": 3})),
    ],
)
def test_class_names_are_read(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    assert header(2, Wishes(class_names=path)).class_names == ("rose", "hot dog")
    with pytest.raises(UserError, match="2 names for a head of 3 classes"):
        header(3, Wishes(class_names=path))
    with pytest.raises(UserError, match="has no head"):
        header(0, Wishes(class_names=path))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("n.json", b"[1, 2]"),
        ("n.json", b"{"),
        ("n.json", b'{"id2label": {"a": "b"}}'),
        ("n.json", b'"a"'),
        ("n.txt", b"\xff\xfe\xff"),
    ],
)
def test_what_is_no_list_of_names_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"--class-names {path}"):
        read_class_names(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_class_names(tmp_path)
