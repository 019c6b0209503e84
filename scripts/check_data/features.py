"""Write the features of some pictures, the part of `scripts.check_data` that runs in a backend's environment."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.cli.command import start
from scripts.cli.lookup import value_of

if TYPE_CHECKING:
    from common.data.folder import Sample
    from common.spec.experiment import ExperimentSpec

COMMAND = "check_data.features"


def write_request(path: Path, spec: ExperimentSpec, samples: Sequence[Sample]) -> None:
    """Write what this command reads: the experiment, and the pictures whose features are wanted."""
    listed = [[str(sample.path), sample.label, sample.name, sample.mark] for sample in samples]
    # Names of files that are no UTF-8 come as surrogates, which JSON's escapes can carry.
    path.write_text(json.dumps({"spec": spec.to_dict(), "samples": listed}), encoding="ascii")


def backend_of(arguments: list[str]) -> str | None:
    """Return the backend that --backend names."""
    return value_of(arguments, "--backend")


def main(arguments: list[str]) -> int:
    """Read the request that --request names, write the features (N, features) to --output, return the exit code."""
    import numpy as np

    import backends
    from common.audit import features
    from common.data.folder import Sample
    from common.spec.experiment import ExperimentSpec
    from scripts.cli.display import RichWatch

    request = json.loads(Path(str(value_of(arguments, "--request"))).read_text(encoding="ascii"))
    spec = ExperimentSpec.from_dict(request["spec"])
    samples = [Sample(Path(path), *rest) for path, *rest in request["samples"]]
    with RichWatch() as watch:
        found = features.compute(backends.load(spec.backend), spec, samples, watch)
    np.save(str(value_of(arguments, "--output")), found)
    return 0


if __name__ == "__main__":
    start(COMMAND, main, backend_of)
