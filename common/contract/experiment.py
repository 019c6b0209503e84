"""An experiment ready to run: everything that the functions of a run need, in one object."""

from __future__ import annotations

import dataclasses
from typing import Any

from common.contract.backend import Backend
from common.contract.watch import Watch
from common.data.folder import ImageData
from common.method.plan import Plan
from common.spec.experiment import ExperimentSpec


@dataclasses.dataclass(frozen=True)
class Experiment:
    """An experiment ready to run."""

    backend: Backend
    """The framework that computes."""
    plan: Plan
    """The spec, applied to the data."""
    data: ImageData
    watch: Watch
    """The receiver of progress and results."""

    @property
    def spec(self) -> ExperimentSpec:
        """The choices that the plan was made from."""
        return self.plan.spec

    def replace(self, **changes: Any) -> Experiment:
        """Return a copy in which the fields named by `changes` have new values."""
        return dataclasses.replace(self, **changes)
