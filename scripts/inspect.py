"""Look at the networks of an experiment before training: heads, parameters by stage, the hot-dog row."""

from __future__ import annotations

from scripts.command import backend_wanted, start


def main(arguments: list[str]) -> int:
    """Print the tables; return the exit code."""
    from scripts.options import InspectOptions, parse

    options = parse(InspectOptions, "inspect", arguments)
    import json

    import backends
    from common import description, precision
    from scripts.display import console, show_inspection

    backend = backends.load(options.spec.backend)
    spec, _ = precision.resolve(options.spec, backend.prepare(options.spec))
    findings = description.inspect(spec, backend, backend.build_models(spec))
    if options.json:
        print(json.dumps(findings, indent=2))
    else:
        show_inspection(spec, findings, console)
    return 0


if __name__ == "__main__":
    start("inspect", main, backend_wanted)
