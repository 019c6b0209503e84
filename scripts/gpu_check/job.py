"""One job of the GPU check: a command of this project in this very interpreter, or a probe of the crosscheck."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path


def main(arguments: list[str]) -> int:
    """Run `scripts.<name>`, or the probe, and return the exit code; an error for people has no traceback."""
    from common.system.errors import RunError, UserError

    name, *rest = arguments
    try:
        if name == "probe":
            return probe(**json.loads(rest[0]))
        return int(importlib.import_module(f"scripts.{name}").main(rest))
    except (UserError, RunError) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def probe(output: str, steps: int, scenarios: list[str], **spec: object) -> int:
    """Write the probe of one backend.

    Args:
        output: The file.
        steps: The number of batches of each scenario.
        scenarios: The names of the scenarios.
        **spec: Fields of the experiment.

    Returns:
        The exit code, 0.
    """
    import backends
    from common.crosscheck import probe
    from common.crosscheck.scenarios import SCENARIOS
    from common.runs.experiment import load_data
    from common.spec.experiment import ExperimentSpec

    chosen = ExperimentSpec().replace(**spec)
    wanted = [scenario for scenario in SCENARIOS if scenario.name in scenarios]
    facts, arrays = probe.probe(backends.load(chosen.backend), chosen, load_data(chosen), steps, wanted)
    probe.write(Path(output), facts, arrays)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
