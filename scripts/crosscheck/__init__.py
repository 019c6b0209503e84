"""Check that the backends agree: every backend writes a probe in its environment, and the probes are compared."""

from __future__ import annotations


def main(arguments: list[str]) -> int:
    """Run the probes, compare them, print and write the table, and return the exit code: 1 if a check failed."""
    import tyro

    from common.crosscheck import compare, probe, scenarios
    from common.crosscheck.scenarios import YARDSTICK_BACKEND
    from scripts.cli.options import CrosscheckOptions
    from scripts.crosscheck.probes import find_backends, run_probes, show, write_json

    options = tyro.cli(CrosscheckOptions, prog="python -m scripts.crosscheck", args=arguments)
    names = find_backends(options.backends)
    options.output.mkdir(parents=True, exist_ok=True)
    runs = [(YARDSTICK_BACKEND, "fp64"), *((name, "fp32") for name in names)]
    files = dict(zip(runs, run_probes(options, runs), strict=True))
    read = {run: compare.Probe(*probe.read(path)) for run, path in files.items()}
    yardstick = read.pop((YARDSTICK_BACKEND, "fp64"))
    probes = {name: found for (name, _), found in read.items()}
    checks = compare.compare(probes, yardstick, scenarios.chosen(options.short))
    show(checks, probes)
    write_json(options.output / "crosscheck.json", options, checks, probes)
    return 0 if all(check.passed for check in checks) else 1
