"""The entries of a weights file on preprocessing: written whole, read strictly."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from common.network import preprocessing_metadata, resnet, sources, weights
from common.network.preprocessing_metadata import Preprocessing
from common.spec.experiment import ExperimentSpec
from common.system.errors import UserError

OTHER = Preprocessing(
    96, 110, "bilinear", "BGR", 1.0, (103.939, 116.779, 123.68), (1.0, 1.5, 2.0), "squash", False, "mean", 220
)
CLASSES = {"class_names": '["a", "b", "c"]'}


@pytest.fixture(scope="module")
def arrays() -> weights.Arrays:
    return resnet.initial_network("resnet18", 3, 0)


def test_everything_is_in_the_file_and_comes_back(tmp_path: Path, arrays) -> None:
    path = tmp_path / "model.safetensors"
    weights.write(path, weights.Checkpoint(weights.Header("resnet18", ("a", "b", "c"), OTHER, "a test"), arrays))
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    assert {name: metadata[name] for name in Preprocessing.__dataclass_fields__} == {
        "image_size": "96", "resize_size": "110", "interpolation": "bilinear", "channel_order": "BGR", "scale": "1.0",
        "mean": "[103.939, 116.779, 123.68]", "std": "[1.0, 1.5, 2.0]", "resize": "squash", "antialias": "false",
        "letterbox_fill": "mean", "presized_side": "220",
    }  # fmt: skip
    header = weights.read_header(path)
    assert header.preprocessing == OTHER
    assert header.stated == frozenset(Preprocessing.__dataclass_fields__)


def test_a_file_without_entries_has_the_defaults_and_states_nothing(tmp_path: Path, arrays) -> None:
    path = tmp_path / "model.safetensors"
    save_file(arrays, path, CLASSES)
    assert weights.read_header(path).preprocessing == Preprocessing()
    assert weights.read_header(path).stated == frozenset()
    # The default of one entry gives way to another that is there.
    assert preprocessing_metadata.read({"image_size": "299"}, path)[0] == Preprocessing(299, 299)


def test_embedded_weights_say_how_they_are_resized() -> None:
    stated = sources.stated_preprocessing(ExperimentSpec())
    assert (stated["image_size"], stated["resize_size"], stated["resize"]) == (128, 146, "short_side")
    assert sources.stated_preprocessing(ExperimentSpec(weights="none", strategy="scratch")) == {}


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ("image_size", "0.5"), ("image_size", "128.0"), ("image_size", "true"), ("image_size", "[128]"),
        ("image_size", ""), ("image_size", "1" * 5000), ("image_size", "31"), ("image_size", "big"),
        ("resize_size", "1e8"), ("resize_size", "100000000"), ("resize_size", "-3"), ("resize_size", "null"),
        ("mean", "[NaN, 0, 0]"), ("mean", "NaN"), ("mean", "[0.5, 0.5]"), ("mean", '["0.5", "0.5", "0.5"]'),
        ("mean", "[1e300, 0, 0]"), ("mean", "[true, 0, 0]"), ("mean", "[" * 100_000), ("mean", "{}"),
        ("std", "[0, 0.2, 0.2]"), ("std", "[0.2, -0.2, 0.2]"), ("std", "[0.2, 0.2, Infinity]"), ("std", "0.2"),
        ("std", "[1e-300, 1, 1]"), ("scale", "Infinity"), ("scale", "-1"), ("scale", "0"), ("scale", '"1/255"'),
        ("scale", "1e400"), ("channel_order", "GBR"), ("channel_order", '"RGB"'), ("channel_order", ""),
        ("interpolation", "bicubic"), ("resize", "stretch"), ("resize", "Squash"), ("antialias", "yes"),
        ("antialias", "1"), ("antialias", "True"), ("letterbox_fill", "black"), ("class_names", '["a", null, "c"]'),
        ("class_names", "[1, 2, 3]"), ("class_names", '"abc"'), ("class_names", '{"a": 0, "b": 1, "c": 2}'),
        ("class_names", "[" * 100_000), ("class_names", '["a", "", "c"]'), ("class_names", "[1"),
        ("image_size", 128), ("mean", [0.5, 0.5, 0.5]), ("class_names", None), ("source", {"a": 1}),
    ],
)  # fmt: skip
def test_a_wrong_entry_is_named_with_its_file(tmp_path: Path, arrays, entry: str, text: object) -> None:
    path = tmp_path / "model.safetensors"
    save_file({name: arrays[name] for name in resnet.HEAD}, path, CLASSES)
    rewrite(path, {**CLASSES, entry: text})
    with pytest.raises(UserError, match=f"metadata entry {entry}") as caught:
        sources.read_for(ExperimentSpec(weights=str(path)))
    assert str(caught.value).startswith(str(path))
    assert len(str(caught.value)) < len(str(path)) + 200


def rewrite(path: Path, metadata: dict[str, object]) -> None:
    """Replace the metadata of a file, by texts or by what safetensors does not write."""
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    table = json.dumps({**json.loads(content[8:end]), "__metadata__": metadata}).encode()
    path.write_bytes(struct.pack("<Q", len(table)) + table + content[end:])


def test_entries_that_contradict_each_other_are_refused(tmp_path: Path, arrays) -> None:
    path = tmp_path / "model.safetensors"
    save_file(arrays, path, {**CLASSES, "image_size": "224", "resize_size": "100"})
    with pytest.raises(UserError, match=r"resize_size = 100: expected at least image_size = 224"):
        weights.read_header(path)


@pytest.mark.parametrize("nested", ["[", '{"a":'])
def test_a_header_nested_without_end_is_refused(tmp_path: Path, nested: str) -> None:
    path = tmp_path / "deep.safetensors"
    text = (nested * 100_000).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    with pytest.raises(UserError, match="not a safetensors file"):
        weights.read(path)


def test_a_negative_variance_is_refused(tmp_path: Path, arrays) -> None:
    path = tmp_path / "model.safetensors"
    wrong = np.where(np.arange(64) == 3, -1e-3, 1).astype(np.float32)
    save_file({**arrays, "bn1.running_var": wrong}, path, CLASSES)
    with pytest.raises(UserError, match=r"bn1\.running_var holds variances below 0"):
        sources.read_for(ExperimentSpec(weights=str(path)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"image_size": 0.5}, "image_size = 0.5: expected a whole number"), ({"std": (0.0, 1.0, 1.0)}, "std = 0.0: ")],
)
def test_no_such_preprocessing_can_be_made(changes, message) -> None:
    with pytest.raises(UserError, match=message):
        Preprocessing(**changes)
