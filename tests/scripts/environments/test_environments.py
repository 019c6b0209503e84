"""The environments: when one is rebuilt, what a failed build leaves, and how a command moves into one. No network."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from scripts.environments import build, definitions, use
from tests.scripts.environments.conftest import PYPROJECT

CHECKOUT = Path(__file__).resolve().parents[3]
FAKE_BUILD = """
import sys, time
from scripts.environments import build, definitions, use
def create(interpreter, folder):
    python = definitions.environment_python(folder.name)
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
build._create = create
"""


def run_python(code, root, **variables):
    """Start a Python on `code` in which the checkout is `root`; its stderr and stdout are pipes."""
    setup = (
        "from pathlib import Path\nfrom scripts.environments import build, definitions, use\n"
        f"definitions.ROOT = Path({str(root)!r})\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), **variables}
    return subprocess.Popen(
        [sys.executable, "-c", setup + textwrap.dedent(code)],
        env=environment, cwd=root, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def write_fake_python(name, script):
    """Make environment `name` of the patched checkout look complete; its interpreter is the shell script `script`."""
    python = definitions.environment_python(name)
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    definitions.write_stamp(name, definitions.make_stamp(name, cuda=False))
    return python


@pytest.mark.parametrize(
    "file",
    [
        "noxfile.py",
        "scripts/environments/definitions.py",
        "scripts/environments/use.py",
        "scripts/__init__.py",
        "backends/__init__.py",
    ],
)
def test_an_older_python_can_read_what_tells_it_that_it_is_too_old(file):
    ast.parse((CHECKOUT / file).read_text(encoding="utf-8"), feature_version=(3, 8))


def test_environments_need_nothing_but_the_standard_library():
    modules = "sys, scripts.environments.use, scripts.environments.build"
    code = f"import {modules}; print(*{{m.split('.')[0] for m in sys.modules}})"
    command = [sys.executable, "-S", "-c", code]
    loaded = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout.split()
    assert set(loaded) - sys.stdlib_module_names <= {"__main__", "backends", "common", "scripts"}


def test_requirements_are_the_base_the_tests_and_the_backend(root):
    assert definitions.requirements("jax") == ["numpy>=1.23", "pytest", "jax"]
    assert definitions.requirements("jax", cuda=True) == ["numpy>=1.23", "pytest", "jax[cuda13]"]
    assert definitions.requirements("torch", cuda=True) == definitions.requirements("torch")


def test_every_environment_of_this_checkout_has_its_extras():
    for name in definitions.ENVIRONMENTS:
        for cuda in (False, True):
            packages = definitions.requirements(name, cuda)
            assert len(packages) == len(set(packages))
            assert any(package.startswith("pillow") for package in packages)


def test_a_folder_without_pyproject_is_reported(root):
    (root / "pyproject.toml").unlink()
    with pytest.raises(definitions.EnvironmentFailed, match="no pyproject.toml"):
        definitions.requirements("jax")


def test_a_ready_environment_is_built_once(builds):
    assert definitions.ready_python("jax") is None
    python = use.ensure("jax")
    assert python == definitions.environment_python("jax")
    assert use.ensure("jax") == definitions.ready_python("jax") == python
    assert builds == [("jax", ["numpy>=1.23", "pytest", "jax"])]


@pytest.mark.parametrize(("old", "new"), [('["jax"]', '["jax>=1"]'), ("numpy>=1.23", "numpy>=2")])
def test_changed_requirements_replace_the_environment(root, builds, old, new):
    use.ensure("jax")
    leftover = definitions.environment_folder("jax") / "leftover"
    leftover.touch()
    (root / "pyproject.toml").write_text(PYPROJECT.replace(old, new))
    use.ensure("jax")
    assert len(builds) == 2
    assert not leftover.exists()


def test_another_backends_requirements_change_nothing(root, builds):
    use.ensure("jax")
    (root / "pyproject.toml").write_text(PYPROJECT.replace('["torch"]', '["torch>=3"]'))
    use.ensure("jax")
    assert len(builds) == 1


def test_another_base_interpreter_replaces_the_environment(builds, tmp_path):
    use.ensure("jax")
    python = definitions.environment_python("jax")
    (tmp_path / "python3.99").touch()
    python.unlink()
    python.symlink_to(tmp_path / "python3.99")
    assert definitions.ready_python("jax") is None
    definitions.write_stamp("jax", definitions.make_stamp("jax", cuda=False))
    assert definitions.ready_python("jax") == python
    (tmp_path / "python3.99").unlink()
    assert definitions.ready_python("jax") is None, "the Python under it was removed"


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}", '{"cuda": false}'])
def test_a_damaged_stamp_is_no_stamp(builds, damage):
    use.ensure("jax")
    definitions.stamp_file("jax").write_text(damage)
    use.ensure("jax")
    assert len(builds) == 2


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), OSError(28, "No space left on device"), definitions.EnvironmentFailed("pip")]
)
def test_a_build_that_stops_leaves_nothing_that_looks_ready(builds, monkeypatch, error):
    def stop(name, packages):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(build, "_install", stop)
        with pytest.raises((KeyboardInterrupt, definitions.EnvironmentFailed)):
            use.ensure("jax", cuda=True)
    assert definitions.ready_python("jax") is None
    assert not definitions.environment_python("jax").exists()
    use.ensure("jax")
    assert builds == [("jax", ["numpy>=1.23", "pytest", "jax[cuda13]"])], "the choice of the variant was lost"


def test_an_environment_is_not_replaced_from_inside(builds, monkeypatch):
    monkeypatch.setattr(sys, "prefix", str(definitions.environment_folder("jax")))
    with pytest.raises(definitions.EnvironmentFailed, match="runs in it"):
        use.ensure("jax")
    assert builds == []


def test_a_killed_build_is_begun_anew_and_its_lock_is_free(root, builds):
    code = """
        build._install = lambda name, packages: print("installing", flush=True) or time.sleep(60)
        use.ensure("jax")
        """
    process = run_python(FAKE_BUILD + textwrap.dedent(code), root)
    assert process.stdout.readline() == "installing\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert definitions.environment_python("jax").exists()
    assert definitions.ready_python("jax") is None
    use.ensure("jax")
    assert len(builds) == 1


def test_of_two_processes_one_builds_and_the_other_waits(root):
    code = FAKE_BUILD + textwrap.dedent("""
        build._install = lambda name, packages: print("built", flush=True) or time.sleep(1)
        print(use.ensure("jax").name)
        """)
    first = run_python(code, root)
    assert first.stdout.readline() == "built\n"
    second = run_python(code, root)
    python = definitions.environment_python("jax").name
    (output, messages), (first_output, first_messages) = second.communicate(timeout=20), first.communicate(timeout=20)
    assert (first_output, output) == (f"{python}\n", f"{python}\n")
    assert "waiting for it" in messages
    assert "waiting" not in first_messages


def test_a_python_that_is_too_old_is_told_so(monkeypatch, capsys):
    monkeypatch.setattr(sys, "version_info", (3, 8, 18))
    monkeypatch.setattr(use, "missing_modules", lambda backend: [])
    with pytest.raises(SystemExit) as exit_info:
        use.hand_over("run", "torch", [])
    assert exit_info.value.code == 1
    assert "this is Python 3.8" in capsys.readouterr().err


def test_a_newer_python_looks_for_the_one_that_mxnet_needs(root, monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 13, 0))
    monkeypatch.setattr(build, "_candidates", lambda version: iter([["broken-shim"], [f"python{version}"]]))
    answers = {"broken-shim": "", "python3.11": "3.11"}
    monkeypatch.setattr(build, "_output", lambda command: answers[command[0]])
    assert build.find_interpreter("mxnet") == ["python3.11"]
    assert build.find_interpreter("jax") == [sys.executable]
    answers["python3.11"] = "3.12"
    with pytest.raises(definitions.InterpreterMissing, match=r"needs Python 3\.11.*this is 3\.13"):
        build.find_interpreter("mxnet")


@pytest.mark.parametrize(
    ("available", "expected"),
    [("ensurepip virtualenv pip", "-m venv"), ("virtualenv pip", "-m virtualenv"), ("pip", "--target")],
)
def test_an_environment_is_created_with_what_the_interpreter_has(monkeypatch, tmp_path, available, expected):
    commands = []
    monkeypatch.setattr(build, "_can_run", lambda _, statements: statements.split()[1].strip(";") in available.split())
    monkeypatch.setattr(build, "_run", lambda command, *rest: commands.append(" ".join(command)))
    build._create(["python3"], tmp_path)
    assert expected in commands[0]
    assert commands[-1].endswith(str(tmp_path))


def test_an_interpreter_that_can_create_nothing_is_told_the_package(monkeypatch, tmp_path):
    monkeypatch.setattr(build, "_can_run", lambda *_: False)
    with pytest.raises(definitions.EnvironmentFailed, match="apt install python3-venv"):
        build._create(["python3"], tmp_path)


def test_what_an_interpreter_can_run_is_asked_of_it(monkeypatch):
    assert build._can_run([sys.executable], "import json")
    assert not build._can_run([sys.executable], "import no_such_module")
    assert not build._can_run(["no-such-python"], "import json")


def test_a_failing_pip_shows_the_end_of_its_log(root):
    write_fake_python(
        "jax", 'shift 5; echo "2026-01-02T03:04:05,678 ERROR: No matching distribution for jax" > "$2"; exit 3'
    )
    with pytest.raises(definitions.EnvironmentFailed) as failed:
        build._install("jax", ["jax"])
    assert "\n  ERROR: No matching distribution for jax\n" in str(failed.value)
    assert "python3 noxfile.py -s environment-jax" in str(failed.value)


def test_pip_is_not_misled_by_the_users_variables(root, monkeypatch, capfd):
    for variable in build.MISLEADING_VARIABLES:
        monkeypatch.setenv(variable, "elsewhere")
    monkeypatch.setenv("PIP_INDEX_URL", "kept")
    write_fake_python("jax", "env")
    build._install("jax", ["jax"])
    printed = capfd.readouterr()
    assert "elsewhere" not in printed.err
    assert "PIP_INDEX_URL=kept" in printed.err
    assert printed.out == ""


def test_a_command_stays_where_everything_is_installed(monkeypatch):
    monkeypatch.setenv(use.HANDED_OVER, "jax")
    monkeypatch.setattr(use, "missing_modules", lambda backend: [])
    use.hand_over("run", "jax", [])
    assert use.HANDED_OVER not in os.environ, "a command it starts could not hand over to the same environment"


def test_a_command_goes_on_in_its_environment_from_the_same_folder(root):
    write_fake_python("jax", 'printf "%s\\n" "$PWD" "$PYTHONPATH" "$@"; exit 7')
    process = run_python(
        """
        use.missing_modules = lambda backend: ["jax"]
        use.hand_over("run", "jax", ["--backend", "jax", "two words"])
        """,
        root,
        PYTHONPATH=os.pathsep.join([str(CHECKOUT), str(root), "theirs"]),
    )
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 7
    folder, path, *arguments = output.splitlines()
    assert folder == str(root)
    assert path.split(os.pathsep) == [str(root), str(CHECKOUT), "theirs"]
    assert arguments == ["-P", "-m", "scripts.run", "--backend", "jax", "two words"]


def test_an_environment_that_lacks_something_does_not_hand_over_to_itself(root):
    write_fake_python("jax", f'exec "{sys.executable}" handed_over.py')
    code = """
        import sys; from pathlib import Path; from scripts.environments import definitions, use
        definitions.ROOT = Path.cwd()
        use.missing_modules = lambda backend: ["flax"]
        use.hand_over("run", "jax", [])
        """
    (root / "handed_over.py").write_text(textwrap.dedent(code))
    process = run_python(code, root, PYTHONPATH=str(CHECKOUT))
    try:
        _, messages = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 1
    assert "lacks flax" in messages
    assert messages.count("error:") == 1


def test_an_unknown_backend_is_bad_input(capsys):
    with pytest.raises(SystemExit) as exit_info:
        use.hand_over("run", "caffe", [])
    assert exit_info.value.code == 2
    assert "torch, keras, jax, mxnet" in capsys.readouterr().err


@pytest.mark.parametrize(("error", "code"), [(definitions.EnvironmentFailed("why"), 1), (KeyboardInterrupt(), 130)])
def test_a_failed_build_ends_the_command(monkeypatch, capsys, error, code):
    def fail(name):
        raise error

    monkeypatch.setattr(use, "missing_modules", lambda backend: ["jax"])
    monkeypatch.setattr(use, "ensure", fail)
    with pytest.raises(SystemExit) as exit_info:
        use.hand_over("run", "jax", [])
    assert exit_info.value.code == code
    assert capsys.readouterr().err


def test_a_ready_environment_costs_nothing(builds, monkeypatch):
    use.ensure("jax")
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **kwargs: pytest.fail("started a process"))
    started = time.perf_counter()
    use.ensure("jax")
    assert time.perf_counter() - started < 0.05
