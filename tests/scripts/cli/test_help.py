"""Help pages, closed pipes, and the environment that a command chooses."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import backends
import scripts.run
from scripts.cli import command, help_pages, lookup, options
from scripts.cli.arguments import flat, parse

ROOT = Path(scripts.run.__file__).parents[2]


@pytest.mark.parametrize("name", ["run", "show", "inspect", "crosscheck", "sweep"])
def test_help_needs_no_framework(name: str) -> None:
    frameworks = {module for modules in backends.REQUIRED_MODULES.values() for module in modules}
    code = (
        "import sys, runpy; sys.argv = ['x', '--help']\n"
        f"try: runpy.run_module('scripts.{name}', run_name='__main__')\n"
        f"except SystemExit as ended: assert not {frameworks!r} & set(sys.modules); sys.exit(ended.code)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    assert f"python -m scripts.{name}" in result.stdout


COMMANDS = {
    "run": options.RunOptions, "show": options.ShowOptions, "inspect": options.InspectOptions,
    "sweep": options.SweepOptions, "compare": options.CompareOptions,
}  # fmt: skip


def shown(monkeypatch: pytest.MonkeyPatch, capsys, name: str, *arguments: str) -> str:
    """What a command prints about its options at 100 columns."""
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as ended:
        parse(COMMANDS[name], name, [*arguments])
    assert ended.value.code == 0
    return re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)


def options_in(page: str) -> list[str]:
    # tyro draws its boxes with other characters where the output's encoding lacks the lines.
    return re.findall(r"^[│ ] (?:-h, )?--([a-z][\w.-]*)", page, re.MULTILINE)


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_is_short_and_names_the_rest(monkeypatch, capsys, name: str, option: str) -> None:
    page = shown(monkeypatch, capsys, name, option)
    assert len(page.splitlines()) < 60
    assert "--help-all shows all" in page
    assert {"preset", "backend", "data", "strategy", "epochs"} <= set(options_in(page))
    assert set(options_in(page)) < {*options_in(shown(monkeypatch, capsys, name, "--help-all"))}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_all_has_every_option_once_and_in_groups(monkeypatch, capsys, name: str) -> None:
    page = shown(monkeypatch, capsys, name, "--help-all")
    own = {f.name for f in dataclasses.fields(COMMANDS[name])} - {"spec", "records"}
    of_experiment = set(flat(options.ExperimentSpec()))
    assert sorted(options_in(page)) == sorted(
        ["help", *(option.replace("_", "-") for option in own | of_experiment)]
    )  # fmt: skip
    _, *boxes = re.split(r"^[^\w\n]*(\w+) options[^\w\n]*$", page, flags=re.MULTILINE)
    in_groups = {
        title: {option.replace("-", "_") for option in options_in(box)}
        for title, box in zip(boxes[::2], boxes[1::2], strict=True)
    }
    for group, names in help_pages.groups().items():
        assert in_groups[group] == set(names) - {"stage_multiples"}


def test_help_has_the_presets_values(monkeypatch, capsys) -> None:
    page = shown(monkeypatch, capsys, "run", "--preset", "d2l", "--help")
    assert "(default: hotdog)" in page


def into_a_closed_pipe(*command_line: str) -> subprocess.CompletedProcess[str]:
    """Run Python with a standard output that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        return subprocess.run(
            [sys.executable, *command_line], stdout=writer, stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False
        )
    finally:
        os.close(writer)


@pytest.mark.parametrize(
    "arguments", ["run --list-presets", "run --help", "show --help-all", "crosscheck --help"]
)  # fmt: skip
def test_a_closed_pipe_ends_a_command_quietly(arguments: str) -> None:
    name, option = arguments.split()
    result = into_a_closed_pipe("-m", f"scripts.{name}", option)
    assert (result.returncode, result.stderr) == (1, "")


def test_another_broken_pipe_is_not_taken_for_the_output(monkeypatch) -> None:
    def main(arguments: list[str]) -> int:
        raise BrokenPipeError("a worker's")

    monkeypatch.setattr(sys, "argv", ["command"])
    with pytest.raises(BrokenPipeError, match="a worker's"):
        command.start("run", main)


@pytest.mark.parametrize(
    ("arguments", "backend"),
    [
        ([], "torch"), (["--backend", "jax"], "jax"), (["--backend=keras"], "keras"), (["--help"], None),
        (["--help-all"], None),
        (["--backend", "jax", "-h"], None), (["--list-presets"], None), (["--preset", "d2l"], "torch"),
    ],
)  # fmt: skip
def test_the_environment_follows_from_the_arguments(arguments: list[str], backend: str | None) -> None:
    assert lookup.backend_wanted(arguments) == backend
