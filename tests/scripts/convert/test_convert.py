"""The command as a user meets it; a worker of this very Python stands for the frameworks' environments."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import backends
import scripts.convert
from common.network import resnet, sources, weights
from common.spec.experiment import ExperimentSpec
from common.system.errors import UserError
from scripts.cli import command
from scripts.convert import account, worker
from scripts.environments import definitions, use


@pytest.fixture(autouse=True)
def work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty working folder, and no change of environment."""
    monkeypatch.setattr(command, "hand_over", lambda *arguments: None)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Run the command in this process; its exit code."""
    monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        command.start("convert", scripts.convert.main)
    return int(ended.value.code or 0)


@pytest.fixture
def foreign(work: Path) -> Path:
    """A safetensors file of a Lightning module with a head of three classes."""
    tensors = resnet.initial_network("resnet18", 3, 0)
    save_file(
        {f"model.{name.replace('fc.', 'fc.1.')}": tensor for name, tensor in tensors.items()}, "model.safetensors"
    )
    return work / "model.safetensors"


def test_a_file_of_other_names_becomes_usable_as_weights(monkeypatch, capsys, foreign: Path) -> None:
    Path("names.txt").write_text("rose\ntulip\ndaisy\n")
    options = [
        "--output",
        "new/w.safetensors",
        "--class-names",
        "names.txt",
        "--image-size",
        "96",
        "--mean",
        "0",
        "0",
        "-1",
    ]
    assert call(monkeypatch, foreign, *options) == 0
    printed = capsys.readouterr().out
    for said in (
        "safetensors, 102 tensors", "network: resnet18, 102 tensors behind 'model.'",
        "head: 3 classes, from model.fc.1.weight",
        "preprocessing: 96 px of 110", "class names: from names.txt", "--weights new/w.safetensors",
    ):  # fmt: skip
        assert said in printed
    checkpoint = sources.read_for(ExperimentSpec(weights="new/w.safetensors"))
    assert checkpoint is not None
    assert checkpoint.header.class_names == ("rose", "tulip", "daisy")
    assert checkpoint.header.preprocessing == weights.Preprocessing(96, 110, mean=(0.0, 0.0, -1.0))
    assert [path.name for path in Path("new").iterdir()] == ["w.safetensors"]


def test_what_is_there_already_stays(monkeypatch, capsys, foreign: Path) -> None:
    Path("weights.safetensors").write_text("precious")
    assert call(monkeypatch, foreign) == 2
    assert "--overwrite replaces it" in capsys.readouterr().err
    # A conversion that fails leaves it too.
    Path("bad.safetensors").write_bytes(foreign.read_bytes()[:-1])
    assert call(monkeypatch, "bad.safetensors", "--overwrite") == 2
    assert Path("weights.safetensors").read_text() == "precious"
    assert call(monkeypatch, foreign, "--overwrite") == 0
    assert weights.read(Path("weights.safetensors")).header.class_names == ("class_0", "class_1", "class_2")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model.safetensors", "--output", "model.safetensors", "--overwrite"], "is the file to convert"),
        (["model.safetensors", "--output", "model.pth"], "ends in .safetensors, or --to torch"),
        (["model.safetensors", "--to", "keras", "--output", "model.pth"], "ends in .weights.h5, or --to torch"),
        (["model.safetensors", "--output", "folder.safetensors"], "is a folder"),
        (["model.safetensors", "--output", "names.txt/w.safetensors"], "cannot be written"),
        (["model.safetensors", "--prefix", "other."], "--prefix 'other.' stands before no network"),
        (["model.safetensors", "--class-names", "names.txt"], "1 names for a head of 3 classes"),
        (["model.safetensors", "--class-names", "nowhere.txt"], "nowhere.txt: cannot be read"),
        (["model.safetensors", "--metadata-from", "names.txt"], "names.txt: not a safetensors file"),
        (["model.safetensors", "--image-size", "-3"], "image_size = -3: expected a whole number"),
        (["nowhere.pth"], "No such file"),
        (["folder.safetensors"], "is a folder"),
        (["names.txt"], "no weights file"),
        (["~nobody-here/model.pth"], "not a path that can be used"),
        (["a" * 300], "not a path that can be used"),
        (["model.safetensors", "--output", "a" * 300 + ".safetensors"], "not a path that can be used"),
    ],
)
def test_bad_input_ends_in_one_message(monkeypatch, capsys, foreign: Path, arguments: list[str], message: str) -> None:
    Path("folder.safetensors").mkdir()
    Path("names.txt").write_text("rose\n")
    before = sorted(Path().iterdir())
    assert call(monkeypatch, *arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert sorted(Path().iterdir()) == before


@pytest.fixture
def framework(monkeypatch: pytest.MonkeyPatch, work: Path) -> Path:
    """The place of a module `backends.torch` that reads text and writes a line, for the worker's process."""
    monkeypatch.setattr(use, "ensure", lambda name: Path(sys.executable))
    startup = work.parent / "startup"
    startup.mkdir()
    (startup / "sitecustomize.py").write_text(FAKE.format(root=str(definitions.ROOT)))
    monkeypatch.setenv("PYTHONPATH", str(startup))
    return startup


FAKE = """
import sys
sys.path.insert(0, {root!r})
import backends
from scripts.environments import use
use.missing_modules = lambda backend: []

class Fake:
    def read_file(self, path):
        import os, numpy as np
        from common.network import resnet
        from common.network.conversion.stored import StoredTensors
        from common.system.errors import UserError
        text = path.read_bytes()
        if b"killed" in text: os.kill(os.getpid(), 9)
        if b"user" in text: raise UserError(f"{{path}}: holds code")
        if b"broken" in text: raise ValueError("Traceback (most recent call last):\\n  x\\nit is broken")
        tensors = resnet.initial_network("resnet18", 3, 0)
        return StoredTensors({{"n_" + name: t for name, t in tensors.items()}})

    def prepare(self, spec): self.spec = spec
    def build_models(self, spec):
        from types import SimpleNamespace
        from common.network import sources
        return SimpleNamespace(pretrained=sources.read_for(spec).arrays)
    def write_file(self, model, path): path.write_text(" ".join([self.spec.model, *model][:3]))

backends.load = lambda name: Fake()
"""


def test_a_framework_reads_its_file_in_a_process_of_its_own(monkeypatch, capsys, framework: Path) -> None:
    Path("my model.pth").write_bytes(b"\x80\x02")
    assert call(monkeypatch, "my model.pth") == 0
    assert "PyTorch, 102 tensors" in capsys.readouterr().out
    np.testing.assert_array_equal(
        weights.read(Path("weights.safetensors")).arrays["conv1.weight"],
        resnet.initial_network("resnet18", 3, 0)["conv1.weight"],
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x80\x02 user", "my.pth: holds code"),
        (b"\x80\x02 broken", r"my.pth: cannot be read, or is damaged (ValueError: it is broken)"),
        (b"\x80\x02 killed", "my.pth: torch was ended by signal 9"),
    ],
)
def test_what_a_framework_says_of_a_file_is_said(monkeypatch, capsys, framework, content: bytes, message: str) -> None:
    Path("my.pth").write_bytes(content)
    assert call(monkeypatch, "my.pth") == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")
    assert [path.name for path in Path().iterdir()] == ["my.pth"]


@pytest.mark.parametrize(
    ("to", "suffix"), [("torch", ".pth"), ("keras", ".weights.h5"), ("flax", ".msgpack"), ("gluon", ".params")]
)
def test_the_reverse(monkeypatch, capsys, foreign: Path, framework: Path, to: str, suffix: str) -> None:
    assert call(monkeypatch, foreign, "--to", to) == 0
    assert Path(f"weights{suffix}").read_text() == "resnet18 bn1.bias bn1.running_mean"
    assert sorted(path.name for path in Path().iterdir()) == ["model.safetensors", f"weights{suffix}"]


def test_what_a_framework_cannot_hold_is_refused(monkeypatch, capsys, work: Path) -> None:
    arrays = resnet.initial_network("resnet18_v2", 3, 0)
    save_file(arrays, "v2.safetensors")
    assert call(monkeypatch, "v2.safetensors", "--to", "torch") == 2
    assert "--to torch: has no resnet18_v2; its networks are resnet18, resnet50" in capsys.readouterr().err
    save_file({name: array for name, array in arrays.items() if name not in resnet.HEAD}, "v2.safetensors")
    assert call(monkeypatch, "v2.safetensors", "--to", "gluon") == 2
    assert "has no head" in capsys.readouterr().err


def test_every_architecture_has_a_way_to_use_it() -> None:
    assert [account.model_option(architecture) for architecture in resnet.ARCHITECTURES] == [
        "", " --backend mxnet --model resnet18_v2", " --model resnet50", " --backend keras --model resnet50",
    ]  # fmt: skip


def test_the_worker_reads_in_this_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Fails:
        def read_file(self, path: Path) -> Any:
            raise MemoryError

    monkeypatch.setattr(backends, "load", lambda name: Fails())
    with pytest.raises(UserError, match=r"a: cannot be read, or is damaged \(MemoryError\)"):
        worker.main(["read", "torch", "a", "b"])
    assert worker.backend_of(["read", "torch", "a", "b"]) == "torch"


def test_an_environment_that_cannot_be_had_is_no_mistake_of_the_user(monkeypatch, capsys, work: Path) -> None:
    def refuse(name: str) -> Path:
        raise definitions.EnvironmentFailed("no room")

    monkeypatch.setattr(use, "ensure", refuse)
    Path("a.pth").write_bytes(b"\x80\x02")
    assert call(monkeypatch, "a.pth") == 1
    assert capsys.readouterr().err == "error: no room\n"
