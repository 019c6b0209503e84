"""What holds the project's shape: four backends alike, and common free of frameworks."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import backends
from common.contract import backend

ROOT = Path(backends.__file__).parent.parent
FILES = (
    "__init__.py", "chapter.py", "inputs.py", "layers.py", "models.py", "optimizer.py", "resident.py", "runtime.py",
    "training.py", "weights.py",
)  # fmt: skip
# What is not of the contract and yet has one name and one place in all four.
SHARED = {
    "layers.py": ["BatchNorm"],
    "models.py": ["read_source", "build_network"],
    "optimizer.py": ["make_optimizer"],
    "resident.py": ["coefficients", "resize_rows"],
    "runtime.py": ["find_device"],
    "training.py": ["reduced_loss", "shard_batch"],
}


def public_functions(path: Path) -> list[str]:
    """Names of the public functions and classes of a file that the contract knows, in their order."""
    tree = ast.parse(path.read_text())
    names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    return [name for name in names if name in vars(backend.Backend) or name == "Trainer"]


@pytest.mark.parametrize("name", backends.NAMES)
def test_every_backend_has_the_same_files_and_functions_in_the_same_order(name: str) -> None:
    folder = ROOT / "backends" / name
    assert sorted(path.name for path in folder.glob("*.py")) == sorted(FILES)
    for file in FILES:
        assert public_functions(folder / file) == public_functions(ROOT / "backends" / "torch" / file), file


@pytest.mark.parametrize("name", backends.NAMES)
@pytest.mark.parametrize("file", SHARED)
def test_what_all_backends_do_has_one_name_and_one_place(name: str, file: str) -> None:
    tree = ast.parse((ROOT / "backends" / name / file).read_text())
    defined = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    assert [shared for shared in SHARED[file] if shared not in defined] == []


@pytest.mark.parametrize("name", backends.NAMES)
def test_every_chapter_has_the_same_functions_and_imports_nothing_of_this_project(name: str) -> None:
    """What it imported would change the settings of the framework that it is there to show."""
    tree = ast.parse((ROOT / "backends" / name / "chapter.py").read_text())
    functions = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    shared = ["make_network", "make_optimizer", "train_batches", "test_batches", "train_epoch", "evaluate"]
    assert functions[: len(shared)] == shared
    imported = [
        module
        for node in ast.walk(tree)
        for module in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in getattr(node, "names", []) if isinstance(node, ast.Import)]
        )
    ]
    assert not [module for module in imported if module.split(".")[0] in ("", "backends", "common", "scripts")]


@pytest.mark.parametrize("name", backends.NAMES)
def test_every_backend_exports_the_whole_contract(name: str) -> None:
    wanted = {member for member in vars(backend.Backend) if not member.startswith("_")} | {"Trainer"}
    tree = ast.parse((ROOT / "backends" / name / "__init__.py").read_text())
    exported = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__"
    )
    assert set(exported) == wanted


def test_common_imports_no_framework() -> None:
    modules = sorted(
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for folder in ("common", "scripts")
        for path in (ROOT / folder).rglob("*.py")
        if path.name != "__main__.py"
    )
    code = f"import importlib, sys\nfor name in {modules!r}: importlib.import_module(name)\nprint(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    frameworks = {name for required in backends.REQUIRED_MODULES.values() for name in required}
    assert not frameworks & set(result.stdout.split())


def test_files_stay_short_enough_to_read() -> None:
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()
    for name in listed:
        path = ROOT / name
        if path.suffix == ".py" and path.exists():
            assert path.read_text().count("\n") <= 400, name


@pytest.mark.parametrize(
    ("file", "planted", "broken"),
    [
        ("common/spec/names.py", "import backends", "scripts -> backends -> common"),
        ("common/network/stages.py", "import common.training.loop", "Each room of common uses rooms below it only"),
        ("backends/torch/weights.py", "import backends.jax.weights", "No backend knows another"),
        ("scripts/cli/messages.py", "import scripts.run.launch", "Commands use what all share, never one another"),
        ("common/spec/names.py", "import common.spec.presets", "No cycles"),
    ],
)
def test_an_import_that_points_up_breaks_a_contract(tmp_path: Path, file: str, planted: str, broken: str) -> None:
    for package in ("common", "backends", "scripts"):
        ignored = shutil.ignore_patterns("__pycache__", "*.safetensors")
        shutil.copytree(ROOT / package, tmp_path / package, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    path = tmp_path / file
    path.write_text(path.read_text() + f"\nif False:\n    {planted}\n")
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert result.returncode == 1
    assert re.search(rf"{re.escape(broken)} BROKEN", result.stdout), result.stdout
