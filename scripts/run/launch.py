"""Start several processes that train one model, and tell the process that started them how they end.

PyTorch takes one process for each device; torch's own launcher starts them, the one behind `torchrun`. JAX takes one
process for each machine. Starting `scripts.run` with torchrun by hand has the same effect.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.devices import processes
from common.system.errors import RunError, UserError
from scripts.cli.messages import LAUNCHED
from scripts.environments.definitions import say
from scripts.environments.use import project_variables

if TYPE_CHECKING:
    from scripts.cli.options import RunOptions

# Exit codes of a process that was told to end by a signal.
ENDED = (130, -signal.SIGINT, -signal.SIGTERM)
SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT")


def check(options: RunOptions) -> None:
    """Raise UserError where the options for several machines contradict each other or the spec."""
    spec, machines = options.spec, options.machines
    several = machines > 1 or processes.world().size > 1
    if options.time_limit is not None and (several or wants_processes(options)):
        raise UserError("--time-limit: only for a run of one process, as each would measure a pace of its own")
    if spec.weights == "auto" and several:
        raise UserError("weights = 'auto': each process would choose for itself; name --weights distilled or tv_in1k")
    if machines < 1:
        raise UserError(f"--machines {machines}: expected at least 1")
    if not 0 <= options.machine < machines:
        raise UserError(f"--machines {machines} --machine {options.machine}: machines are counted from 0")
    if machines == 1:
        return
    if spec.backend not in processes.SEVERAL_PROCESSES:
        able = " or ".join(processes.SEVERAL_PROCESSES)
        raise UserError(f"--machines: {spec.backend} trains on one machine; choose --backend {able}")
    if spec.devices % machines:
        raise UserError(
            f"--machines {machines}: as many devices are on each, and --devices {spec.devices}, which counts them all, "
            "is no multiple"
        )
    host, _, port = options.coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UserError(
            f"--coordinator {options.coordinator!r}: expected the first machine's address and a free port of it, such "
            "as 10.0.0.5:29500"
        )


def wants_processes(options: RunOptions) -> bool:
    """Return whether this process is to start others: torch on several devices, and not itself one of those."""
    return options.spec.backend == "torch" and options.spec.devices > 1 and processes.world().size == 1


def join(options: RunOptions) -> None:
    """Where a machine has one process, set the environment variables that say which one it is, as a launcher does."""
    if options.machines > 1 and processes.world().size == 1 and not wants_processes(options):
        joined = processes.World(options.machine, options.machines, coordinator=options.coordinator)
        os.environ.update(joined.variables())


def launch(options: RunOptions, arguments: list[str]) -> int:
    """Run `scripts.run` in one process for each device of this machine.

    The first process shows progress. A message of any process is shown once, when all have ended.

    Args:
        options: The options of the run, with the number of devices of all machines.
        arguments: The arguments that they were parsed from, which the processes get too.

    Returns:
        The exit code: 0, or the one that `report` chooses.

    Raises:
        KeyboardInterrupt: A signal told the launcher to end.
        RunError: The processes did not find each other.
    """
    import logging
    import tempfile

    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # The launcher would log each process that it ends.
    logging.disable(logging.CRITICAL)
    os.environ.update({**project_variables(), LAUNCHED: "1"})
    here = options.spec.devices // options.machines
    meeting: dict[str, Any] = {"rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0", "local_addr": "localhost"}
    if options.machines > 1:
        meeting = {
            "rdzv_backend": "static",
            "rdzv_endpoint": options.coordinator,
            "rdzv_configs": {"rank": options.machine},
        }
    # Signals that are ignored stay so: Ctrl-C by a shell's background job, a closed terminal by what nohup starts.
    heeded = [name for name in SIGNALS if signal.getsignal(getattr(signal, name)) is not signal.SIG_IGN]
    with tempfile.TemporaryDirectory(prefix="fine-tuning-processes-") as folder:
        quiet = dict.fromkeys(range(1, here), Std.ALL)
        config = LaunchConfig(
            min_nodes=options.machines, max_nodes=options.machines, nproc_per_node=here, max_restarts=0,
            run_id="fine-tuning", logs_specs=DefaultLogsSpecs(folder, redirects=quiet), monitor_interval=0.5,
            signals_to_handle=",".join(heeded), **meeting,
        )  # fmt: skip
        try:
            elastic_launch(config, sys.executable)("-P", "-m", "scripts.run", *arguments)
        except ChildFailedError as error:
            return report({failure.local_rank: failure for failure in error.failures.values()}, Path(folder))
        except SignalException:
            raise KeyboardInterrupt from None
        except (RuntimeError, ConnectionError) as error:
            where = options.coordinator or "this machine"
            raise RunError(f"the processes did not find each other at {where}: {error}") from error
    return 0


def report(failures: dict[int, Any], folder: Path) -> int:
    """Show why the processes of this machine ended, and choose the exit code.

    A process that failed by itself counts before those that were then ended, one that left a message before those that
    left none, and the first of these before the rest. Without a message, the stderr of the process is shown.

    Args:
        failures: Number of a process on this machine -> its failure, from torch's launcher.
        folder: The launcher's folder of logs.

    Returns:
        The exit code of the process if it left a message, else 1.
    """
    own = {rank: failure for rank, failure in failures.items() if failure.exitcode not in ENDED}
    told = {rank: message for rank in own or failures if (message := read_message(failures[rank].error_file))}
    rank = min(told or own or failures)
    code: int = failures[rank].exitcode
    if rank in told:
        say(told[rank])
        return code
    # Without a message it is a traceback; that of the first process is on the terminal already.
    for log in folder.rglob(f"{rank}/stderr.log"):
        say(log.read_text(errors="replace").rstrip())
    if code < 0:
        say(f"error: process {rank} was ended from outside, with exit code {code}; perhaps memory was short")
    return 1


def read_message(path: str) -> str | None:
    """Return the last message of a process, or None if it has left none."""
    try:
        return str(json.loads(Path(path).read_text())["message"])
    except (OSError, ValueError, KeyError):
        return None
