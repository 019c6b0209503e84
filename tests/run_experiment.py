"""Experiments for tests: as the commands run them, and without a run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import backends
from common.contract.backend import Backend
from common.contract.experiment import Experiment
from common.contract.watch import Quiet, Watch
from common.data.folder import ImageData
from common.method.plan import make_plan
from common.runs import experiment
from common.runs.record import RunRecord
from common.spec.experiment import ExperimentSpec


def run_experiment(spec: ExperimentSpec, folder: Path, watch: Watch, **request: Any) -> RunRecord:
    """Run `spec` with the backend that `backends.load` gives; `request` holds fields of `experiment.Request`."""
    return experiment.run(spec, folder, watch, backends.load, experiment.Request(**request))


def make_experiment(
    backend: Backend, spec: ExperimentSpec, data: ImageData, watch: Watch | None = None, **changes: Any
) -> Experiment:
    """An experiment without a run; `changes` are fields of its plan."""
    plan = dataclasses.replace(make_plan(spec, data), **changes)
    return Experiment(backend, plan, data, watch or Quiet())
