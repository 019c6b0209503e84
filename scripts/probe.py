"""Write the probe file of one backend, its part of `scripts.crosscheck`."""

from __future__ import annotations

from scripts.cli.command import start
from scripts.cli.lookup import value_of


def backend_of(arguments: list[str]) -> str | None:
    """Return the backend that --backend names, or None without that option."""
    return value_of(arguments, "--backend")


def main(arguments: list[str]) -> int:
    """Write the probe and return the exit code."""
    import tyro

    import backends
    from common.crosscheck import probe, scenarios
    from common.runs.experiment import load_data
    from scripts.cli.options import ProbeOptions

    options = tyro.cli(ProbeOptions, prog="python -m scripts.probe", args=arguments)
    spec = options.spec()
    backend = backends.load(spec.backend)
    facts, arrays = probe.probe(backend, spec, load_data(spec), options.steps, scenarios.chosen(options.short))
    probe.write(options.output, facts, arrays)
    return 0


if __name__ == "__main__":
    start("probe", main, backend_of)
