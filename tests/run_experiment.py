"""`common.runs.experiment.run` as the commands call it, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import backends
from common.contract.watch import Watch
from common.runs import experiment
from common.runs.record import RunRecord
from common.spec.experiment import ExperimentSpec


def run_experiment(spec: ExperimentSpec, folder: Path, watch: Watch, **request: Any) -> RunRecord:
    """Run `spec` with the backend that `backends.load` gives; `request` holds fields of `experiment.Request`."""
    return experiment.run(spec, folder, watch, backends.load, experiment.Request(**request))
