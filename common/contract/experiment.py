"""An experiment ready to run: what every function of a run needs, in one object."""

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
    """One experiment: who computes, what the spec means, on which data, and who is told."""

    backend: Backend
    plan: Plan
    data: ImageData
    watch: Watch

    @property
    def spec(self) -> ExperimentSpec:
        """What the user chose."""
        return self.plan.spec

    def replace(self, **changes: Any) -> Experiment:
        """Return a copy with `changes`."""
        return dataclasses.replace(self, **changes)
