"""Look at the networks of an experiment before training: heads, parameters by stage, the hot-dog row."""

from __future__ import annotations

from scripts.cli.command import start
from scripts.cli.lookup import backend_wanted


def main(arguments: list[str]) -> int:
    """Print the tables, or JSON with --json, and return the exit code."""
    from scripts.cli.arguments import parse
    from scripts.cli.options import InspectOptions

    options = parse(InspectOptions, "inspect", arguments)
    import json

    import backends
    from common.devices import precision
    from common.runs import description
    from scripts.cli.display import console, show_inspection

    # The networks are the same on any number of devices.
    spec = options.spec.replace(devices=1)
    backend = backends.load(spec.backend)
    spec, _ = precision.resolve(spec, backend.prepare(spec))
    findings = description.inspect(spec, backend, backend.build_models(spec))
    if options.json:
        print(json.dumps(findings, indent=2))
    else:
        show_inspection(spec, findings, console)
    return 0


if __name__ == "__main__":
    start("inspect", main, backend_wanted)
