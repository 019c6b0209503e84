"""The weights format: reading, writing, and refusing what does not fit."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from common.network import imagenet, resnet, sources, weights
from common.network.preprocessing_metadata import Preprocessing
from common.spec.experiment import ExperimentSpec
from common.system import files
from common.system.errors import UserError


@pytest.fixture
def arrays() -> weights.Arrays:
    return resnet.initial_network("resnet18", 3, 0)


@pytest.fixture
def header() -> weights.Header:
    return weights.Header("resnet18", ("a", "b", "c"), Preprocessing(96, 110), "a test")


ROOT = Path(__file__).resolve().parents[3]


def test_round_trip(tmp_path: Path, arrays: weights.Arrays, header: weights.Header) -> None:
    weights.write(tmp_path / "new" / "model.safetensors", weights.Checkpoint(header, arrays))
    again = weights.read(tmp_path / "new" / "model.safetensors")
    assert again.header == header
    assert list(again.arrays) == sorted(arrays)
    for name, array in again.arrays.items():
        np.testing.assert_array_equal(array, arrays[name])
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["model.safetensors"]


def test_distilled_weights_bring_their_preprocessing() -> None:
    checkpoint = sources.read_for(ExperimentSpec())
    assert checkpoint is not None
    assert checkpoint.header.preprocessing == Preprocessing(128, 146)
    assert len(checkpoint.header.class_names) == 1000
    assert {array.dtype for array in checkpoint.arrays.values()} == {np.dtype(np.float32)}


def test_hotdog_is_found_by_name() -> None:
    names = imagenet.class_names()
    assert imagenet.hotdog_index(names) == imagenet.HOTDOG == 934
    assert names[713] == "photocopier"
    with pytest.raises(UserError, match="hotdog"):
        imagenet.hotdog_index(["cat", "dog"])
    with pytest.raises(UserError, match="934"):
        imagenet.hotdog_index([*names[1:935], "x", *names[935:]])


def test_layouts_are_each_others_inverse() -> None:
    kernel = np.arange(2 * 3 * 5 * 7).reshape(2, 3, 5, 7)
    assert weights.to_channels_last(kernel).shape == (5, 7, 3, 2)
    np.testing.assert_array_equal(weights.to_channels_first(weights.to_channels_last(kernel)), kernel)
    dense = np.arange(6).reshape(2, 3)
    assert weights.to_channels_last(dense).shape == (3, 2)
    np.testing.assert_array_equal(weights.to_channels_first(weights.to_channels_last(dense)), dense)


def spec_for(path: Path) -> ExperimentSpec:
    return ExperimentSpec(weights=str(path))


def test_a_head_without_a_shape_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"fc.weight": np.array(1.0, np.float32)}, path)
    with pytest.raises(UserError, match="fc.weight has no shape"):
        sources.read_for(spec_for(path))


def test_torchs_batch_counters_are_ignored(tmp_path: Path, arrays: weights.Arrays) -> None:
    path = tmp_path / "timm.safetensors"
    thousand = resnet.initial_network("resnet18", 1000, 0)
    save_file({**thousand, "bn1.num_batches_tracked": np.array(3)}, path)
    checkpoint = sources.read_for(spec_for(path))
    assert checkpoint is not None
    assert "bn1.num_batches_tracked" not in checkpoint.arrays
    assert checkpoint.header.preprocessing == Preprocessing()
    assert checkpoint.header.class_names[934] == "hotdog"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("layer3.1.bn2.bias"), "layer3.1.bn2.bias is missing"),
        (lambda a: a.update({"extra": np.zeros(3, np.float32)}), "extra belongs to no parameter"),
        (
            lambda a: a.update({"bn1.weight": np.zeros(65, np.float32)}),
            r"bn1.weight has shape \(65,\), expected \(64,\)",
        ),
        (lambda a: a.update({"bn1.weight": np.zeros(64, np.int32)}), "bn1.weight has dtype I32"),
        (lambda a: a.update({"bn1.weight": np.full(64, np.nan, np.float32)}), "bn1.weight holds values that are not"),
        (lambda a: a.update({"conv1.weight": a["conv1.weight"].transpose(2, 3, 1, 0)}), "conv1.weight has shape"),
    ],
)
def test_the_tensor_that_does_not_fit_is_named(tmp_path, arrays, header, change, message) -> None:
    path = tmp_path / "model.safetensors"
    change(arrays)
    metadata = {"architecture": "resnet18", "class_names": json.dumps(header.class_names)}
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path, metadata)
    with pytest.raises(UserError, match=message) as caught:
        sources.read_for(spec_for(path))
    assert str(path) in str(caught.value)


def test_a_backbone_without_a_head_is_read(tmp_path: Path, arrays: weights.Arrays) -> None:
    path = tmp_path / "backbone.safetensors"
    backbone = {name: array for name, array in arrays.items() if not name.startswith("fc.")}
    header = weights.Header("resnet18", (), weights.Preprocessing(96, 110), "a test")
    weights.write(path, weights.Checkpoint(header, backbone))
    checkpoint = sources.read_for(spec_for(path))
    assert checkpoint is not None
    assert checkpoint.header == header
    assert not sources.has_head(checkpoint.arrays)
    assert sources.source_class_names(spec_for(path)) == ()
    # Half a head is none, and is not passed over.
    save_file({**backbone, "fc.bias": np.zeros(3, np.float32)}, path)
    with pytest.raises(UserError, match="fc.bias belongs to no parameter"):
        sources.read_for(spec_for(path))


def test_other_names_are_sent_to_the_command_that_renames(tmp_path: Path, arrays: weights.Arrays) -> None:
    path = tmp_path / "other.safetensors"
    save_file({f"module.{name}": array for name, array in arrays.items()}, path)
    with pytest.raises(UserError, match=rf"python -m scripts.convert {path} --output"):
        sources.read_for(spec_for(path))


@pytest.mark.parametrize("keep", [0, 4, 8, 500, 100_000, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "cut.safetensors"
    path.write_bytes(sources.DISTILLED.read_bytes()[:keep])
    with pytest.raises(UserError, match="cut") as caught:
        sources.read_for(spec_for(path))
    if keep in (100_000, -1):
        assert "the tensor" in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"<!DOCTYPE html><html>404</html>",
        b"\x80\x04\x95" + b"pickle" * 20,
        struct.pack("<Q", 9) + b"{not json" + b" " * 9,
        struct.pack("<Q", 9) + b'{"a": 12}' + b" " * 9,
        struct.pack("<Q", 4) + b"1234" + b" " * 9,
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match="not a safetensors file"):
        sources.read_for(spec_for(path))


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"image_size": "big"}, "metadata"),
        ({"image_size": "-3"}, "image_size"),
        ({"mean": "[1, 2]"}, "mean"),
        ({"channel_order": "GBR"}, "channel_order"),
        ({"class_names": "[1"}, "metadata"),
        ({"class_names": '["a"]'}, "names 1 classes, but fc.weight has 3 rows"),
        ({}, "no class_names for its 3 classes"),
        ({"architecture": "resnet50", "class_names": '["a", "b", "c"]'}, "made for resnet50"),
    ],
)
def test_wrong_metadata_is_refused(tmp_path: Path, arrays: weights.Arrays, metadata, message: str) -> None:
    path = tmp_path / "model.safetensors"
    save_file(arrays, path, metadata)
    with pytest.raises(UserError, match=message):
        sources.read_for(spec_for(path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": "nowhere.safetensors"}, "there is no such file"),
        ({"weights": "imagenett"}, "distilled, tv_in1k, imagenet, none"),
        *(
            ({"weights": f"my.model{end}"}, f"python -m scripts.convert my.model{end} --output my.model.safetensors")
            for end in (*sources.CONVERTIBLE, ".weights.h5", ".PTH")
        ),
        ({"model": "resnet50"}, "--weights imagenet"),
        ({"model": "resnet18_v2", "backend": "mxnet", "weights": "tv_in1k"}, "--weights imagenet"),
    ],
)
def test_sources_that_do_not_exist_are_refused(changes: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        sources.read_for(ExperimentSpec(**changes))  # type: ignore[arg-type]


def test_a_hub_that_cannot_be_reached_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def refuse(*arguments: object) -> str:
        raise huggingface_hub.errors.LocalEntryNotFoundError("no network")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    with pytest.raises(UserError, match="--weights distilled"):
        sources.read_for(ExperimentSpec(weights="tv_in1k"))


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    files.write_atomically(path, b"old")

    def fail(*arguments: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        files.write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_the_same_checkpoint_is_the_same_file(tmp_path: Path, arrays: weights.Arrays, header: weights.Header) -> None:
    """safetensors writes its metadata in an order that differs between processes."""
    code = (
        "import sys, pathlib; from common.network import weights; path = pathlib.Path(sys.argv[1]); "
        "weights.write(pathlib.Path(sys.argv[2]), weights.read(path))"
    )
    weights.write(tmp_path / "one", weights.Checkpoint(header, arrays))
    for name in ("two", "three"):
        subprocess.run([sys.executable, "-c", code, tmp_path / "one", tmp_path / name], check=True, cwd=ROOT)
        assert (tmp_path / name).read_bytes() == (tmp_path / "one").read_bytes()
    with safe_open(tmp_path / "one", framework="numpy") as file:
        np.testing.assert_array_equal(file.get_tensor("fc.weight"), arrays["fc.weight"])


def test_bfloat16_is_read(tmp_path: Path, arrays: weights.Arrays, header: weights.Header) -> None:
    exact = {name: (array.view(np.uint32) & 0xFFFF0000).view(np.float32) for name, array in arrays.items()}
    table, content = {"__metadata__": {"class_names": json.dumps(header.class_names)}}, b""
    for name, array in exact.items():
        halves = (array.view(np.uint32) >> 16).astype("<u2").tobytes()
        table[name] = {
            "dtype": "BF16",
            "shape": array.shape,
            "data_offsets": [len(content), len(content) + len(halves)],
        }
        content += halves
    text = json.dumps(table).encode()
    path = tmp_path / "half.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + content)
    for name, array in weights.read(path).arrays.items():
        np.testing.assert_array_equal(array, exact[name], err_msg=name)
