"""What starts several processes, and what it makes of their end."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from common.devices import processes
from common.system.errors import UserError
from scripts.cli import messages
from scripts.cli.arguments import parse
from scripts.cli.options import RunOptions
from scripts.run import launch


def options(*arguments: str) -> RunOptions:
    return parse(RunOptions, "run", ["--batch-size", "32", *arguments])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--machines 2 --machine 2", "counted from 0"),
        ("--machines 0", "expected at least 1"),
        ("--machine 1", "counted from 0"),
        ("--machines 2 --devices 2 --backend keras --coordinator a:1", "--backend torch or jax"),
        ("--machines 2 --devices 2 --backend mxnet --coordinator a:1", "--backend torch or jax"),
        ("--machines 2 --backend jax --coordinator a:1", "no multiple"),
        ("--machines 2 --devices 2", "--coordinator ''"),
        ("--machines 2 --devices 2 --coordinator somewhere", "--coordinator 'somewhere'"),
        ("--machines 2 --devices 2 --coordinator host:99999", "--coordinator"),
        ("--machines 2 --devices 2 --coordinator host:1 --time-limit 5m", "only for a run of one process"),
        ("--devices 2 --time-limit 5m", "only for a run of one process"),
        ("--machines 2 --devices 2 --coordinator host:1 --weights auto", "--weights distilled or tv_in1k"),
    ],
)
def test_machines_that_do_not_go_together_are_refused(arguments: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        launch.check(options(*arguments.split()))


def test_torch_alone_is_given_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert launch.wants_processes(options("--backend", "torch", "--devices", "2"))
    assert not launch.wants_processes(options("--backend", "torch"))
    assert not launch.wants_processes(options("--backend", "jax", "--devices", "2"))
    for name, value in processes.World(1, 2, 1, 2, "a:1").variables().items():
        monkeypatch.setenv(name, value)
    assert not launch.wants_processes(options("--backend", "torch", "--devices", "2"))


def test_a_machine_joins_as_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in processes.World(coordinator="a:1").variables():
        # So that the test leaves none behind.
        monkeypatch.setenv(name, "1")
    place = ["--machines", "2", "--machine", "1", "--coordinator", "10.0.0.5:29500"]
    chosen = options("--backend", "jax", "--devices", "4", *place)
    launch.check(chosen)
    launch.join(chosen)
    assert processes.world() == processes.World(1, 2, 0, 1, "10.0.0.5:29500")
    assert processes.local_devices(chosen.spec) == 2


@dataclass
class Failure:
    """As torch's launcher describes the end of a process."""

    exitcode: int
    error_file: str = ""


def message(folder: Path, rank: int, text: str) -> str:
    file = folder / f"{rank}.json"
    file.write_text(json.dumps({"message": text, "timestamp": "0"}))
    return str(file)


def test_a_mistake_that_all_have_noticed_is_said_once(tmp_path, capsys) -> None:
    failures = {rank: Failure(2, message(tmp_path, rank, "error: no GPU")) for rank in (0, 1)}
    assert launch.report(failures, tmp_path) == 2
    assert capsys.readouterr().err == "error: no GPU\n"


def test_what_one_process_tells_is_said_and_not_that_the_others_were_ended(tmp_path, capsys) -> None:
    for ended in (Failure(130, message(tmp_path, 0, "Interrupted.")), Failure(-15)):
        failures = {0: ended, 1: Failure(1, message(tmp_path, 1, "error: diverged"))}
        assert launch.report(failures, tmp_path) == 1
        assert capsys.readouterr().err == "error: diverged\n"


def test_another_process_traceback_is_shown(tmp_path, capsys) -> None:
    log = tmp_path / "attempt_0" / "1" / "stderr.log"
    log.parent.mkdir(parents=True)
    log.write_text("Traceback: out of memory\n")
    assert launch.report({0: Failure(-15), 1: Failure(1)}, tmp_path) == 1
    assert capsys.readouterr().err == "Traceback: out of memory\n"
    assert launch.report({0: Failure(-9)}, tmp_path) == 1
    assert "exit code -9" in capsys.readouterr().err


def test_a_process_tells_the_one_that_started_it(tmp_path, monkeypatch, capsys) -> None:
    messages.tell("error: alone")
    assert capsys.readouterr().err == "error: alone\n"
    file = tmp_path / "error.json"
    monkeypatch.setenv(messages.MESSAGE_FILE, str(file))
    messages.tell("error: of torchrun")
    assert capsys.readouterr().err == "error: of torchrun\n"
    monkeypatch.setenv(messages.LAUNCHED, "1")
    messages.tell("error: of ours")
    assert capsys.readouterr().err == ""
    assert launch.read_message(str(file)) == "error: of ours"
