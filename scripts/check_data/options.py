"""The command-line options of `scripts.check_data`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from common.audit.findings import Limits
from common.spec.names import BackendName


@dataclass
class CheckDataOptions:
    """Say what is wrong with a folder of photographs before anything is trained on it.

    Found are files that cannot be read, pictures that are there twice (between train and test above all), pictures with
    two labels, labels that are likely wrong, classes out of balance, and odd sizes. A page shows the pictures. Nothing
    is changed or deleted.
    """

    data: Annotated[str, tyro.conf.Positional]
    """Data set, folder or .zip, as --data of scripts.run takes it."""
    labels: bool = True
    """Look for wrong labels, which takes the features of a network; --no-labels leaves the network out."""
    backend: BackendName = "torch"
    """Framework that computes the features."""
    weights: str = "distilled"
    """Source weights of the network, as for scripts.run."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """Where the features are computed."""
    min_side: int = Limits.min_side
    """A picture whose shorter side has fewer pixels is tiny."""
    max_ratio: float = Limits.max_ratio
    """A picture whose longer side is more than so many times the shorter is extreme in shape."""
    write_clean: Path | None = None
    """Write what to keep: FILE.csv gets a table of file name, label and split, any other name becomes a folder of links
    to the pictures, in the layout that --data reads. There must be nothing of that name yet."""
    output: Path | None = None
    """Folder for check.html and check.json; by default a new one under runs/."""
    overwrite: bool = False
    """Replace a check that is in the output folder already."""
    workers: int | None = None
    """Threads that decode pictures; by default one a core."""
