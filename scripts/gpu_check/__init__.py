"""Check everything on a GPU: `python -m scripts.gpu_check --output FOLDER`.

It runs in the interpreter that starts it, for a machine that has PyTorch and JAX already and perhaps no network; with
--environments in those of this project. Only the standard library is imported here.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import backends
from common.devices import driver
from scripts.cli.command import INTERRUPTED, interrupt_once
from scripts.cli.sharing import visible_gpus
from scripts.environments import definitions, use
from scripts.gpu_check import packages, parts
from scripts.gpu_check.settings import Settings

DEFAULT_OUTPUT = Path("runs/gpu")
# Without environments: the frameworks that live in one interpreter.
HERE = ("torch", "jax")
# The first compute capability that MXNet has no code for (`backends.mxnet.runtime`).
NO_MXNET = (9, 0)


def main(arguments: list[str]) -> int:
    """Run the parts, one after the other, and return the exit code: 1 if one failed, 2 if they cannot begin."""
    options = parser().parse_args(arguments)
    try:
        definitions.check_python_version()
        if options.device == "gpu" and not visible_gpus():
            definitions.say(
                "error: there is no NVIDIA GPU here (nvidia-smi lists none); --device cpu rehearses all parts"
            )
            return 2
        names = options.backends or default_backends(options.environments, options.device)
        pythons = {name: str(use.ensure(name)) if options.environments else sys.executable for name in names}
    except definitions.EnvironmentFailed as failed:
        definitions.say(f"error: {failed}")
        return 1
    missing = [] if options.environments else packages.missing(list(pythons))
    if missing:
        definitions.say(packages.how_to_bring(missing))
        return 2
    options.output.mkdir(parents=True, exist_ok=True)
    settings = Settings(str(options.output.resolve()), options.device, pythons)
    interrupt_once()
    try:
        results = parts.run_all(options.only or list(parts.PARTS), settings, options.total)
    except KeyboardInterrupt:
        definitions.say(f"\nInterrupted; what is done is in {options.output}.")
        return INTERRUPTED
    parts.show(results)
    return 0 if all(result.passed for result in results) else 1


def default_backends(environments: bool, device: str) -> list[str]:
    """Return the backends that are checked unless others are named; say which is left out, and why.

    Args:
        environments: Whether each has an environment of its own.
        device: `gpu`, or `cpu` for a rehearsal.

    Returns:
        The backends that live in one interpreter, or all that have code for the GPU that is here.
    """
    if not environments:
        return list(HERE)
    found = driver.compute_capability() if device == "gpu" else None
    if found is None or found < NO_MXNET:
        return list(backends.NAMES)
    definitions.say(f"mxnet is left out: it has no code for a GPU of compute capability {found[0]}.{found[1]}")
    return [name for name in backends.NAMES if name != "mxnet"]


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(prog="python -m scripts.gpu_check", description=__doc__)
    made.add_argument("--output", type=Path, default=DEFAULT_OUTPUT, help="folder for gpu-<part>.json and the logs")
    made.add_argument("--only", nargs="+", choices=list(parts.PARTS), help="the parts to run; by default all")
    made.add_argument("--device", choices=("gpu", "cpu"), default="gpu", help="cpu rehearses all parts on small sizes")
    made.add_argument("--backends", nargs="+", choices=backends.NAMES, default=None, help="by default torch and jax")
    made.add_argument("--environments", action="store_true", help="run in the project's environments, of all backends")
    made.add_argument("--total", type=float, default=480.0, help="seconds after which no further part begins")
    return made
