"""The kind of a file by its content."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from common.network.conversion import kinds
from common.network.conversion.stored import StoredTensors, read_exchange, read_safetensors, write_exchange
from common.system.errors import UserError


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.bin", b"\x05\0\0\0\0\0\0\0{}   ", kinds.SAFETENSORS),
        ("a.safetensors", b"rubbish", kinds.SAFETENSORS),
        ("a.weights.h5", b"\x89HDF\r\n\x1a\ndownsample\0", kinds.KERAS),
        ("a.h5", b"\x89HDF\r\n\x1a\n" + b"." * 99 + b"downsample\0", kinds.FLAXMODELS),
        ("a.hdf5", b"\x89HDF\r\n\x1a\nlayer_names", kinds.KERAS),
        ("a.anything", b"\x12\x01\0\0\0\0\0\0....", kinds.GLUON),
        ("a.pth", b"\x80\x02}q\x00.", kinds.TORCH),
        ("a.pth", b"PK\x03\x04 cut off", kinds.TORCH),
        ("a.keras", b"PK\x03\x04 cut off", kinds.KERAS),
        ("a.msgpack", b"\x82\xa6params", kinds.FLAX),
    ],
)
def test_the_content_decides(tmp_path: Path, name: str, content: bytes, kind: kinds.Kind) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert kinds.kind_of(path) == kind


@pytest.mark.parametrize(("inside", "kind"), [("model/data.pkl", kinds.TORCH), ("model.weights.h5", kinds.KERAS)])
def test_a_zip_is_known_by_what_it_holds(tmp_path: Path, inside: str, kind: kinds.Kind) -> None:
    path = tmp_path / "model.download"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(inside, "")
    assert kinds.kind_of(path) == kind


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"<html>404</html>", "begins with b'<html>404</html>'"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        (None, "No such file"),
    ],
)
def test_what_is_no_weights_file_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "model.pth"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        kinds.kind_of(path)
    with pytest.raises(UserError, match="is a folder"):
        kinds.kind_of(tmp_path)


def test_tensors_travel_between_environments(tmp_path: Path) -> None:
    tensors = {"α/b.c": np.arange(6, dtype="f4").reshape(2, 3).T, "n": np.array(3), "h": np.ones(2, "f2")}
    write_exchange(tmp_path / "exchange", StoredTensors(tensors, ({"own": "conv1.weight"},), {"source": "somewhere"}))
    read = read_exchange(tmp_path / "exchange")
    assert (read.tables, read.metadata) == (({"own": "conv1.weight"},), {"source": "somewhere"})
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(read.tensors[name], tensor)
    (tmp_path / "cut").write_bytes((tmp_path / "exchange").read_bytes()[:-1])
    with pytest.raises(UserError, match="cut off"):
        read_safetensors(tmp_path / "cut")
