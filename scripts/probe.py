"""One backend's part of crosscheck: write a probe file."""

from __future__ import annotations

from scripts.cli.command import start, value_of


def backend_of(arguments: list[str]) -> str | None:
    """The backend named in the arguments."""
    return value_of(arguments, "--backend")


def main(arguments: list[str]) -> int:
    """Write the probe; return the exit code."""
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
