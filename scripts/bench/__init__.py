"""Measure how fast one framework trains here, against the chapter's tab: `python -m scripts.bench --backend jax`."""

from __future__ import annotations

from scripts.cli.lookup import value_of


def backend_of(arguments: list[str]) -> str | None:
    """Return the backend that --backend names (torch by default), or None where only help is wanted."""
    from scripts.cli.lookup import wants_help

    return None if wants_help(arguments) else value_of(arguments, "--backend") or "torch"


def main(arguments: list[str]) -> int:
    """Measure, print the tables, write the JSON file, and return the exit code."""
    import tyro

    from scripts.cli.options import BenchOptions

    options = tyro.cli(BenchOptions, prog="python -m scripts.bench", args=arguments)
    import json

    from common.system.files import write_atomically
    from scripts.bench.measurements import measure
    from scripts.cli.display import console

    found = measure(options)
    write_atomically(options.output, (json.dumps(found, indent=2) + "\n").encode())
    console.print(f"\n{options.output}", style="dim")
    return 0
