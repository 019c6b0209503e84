"""Where things are kept that can be made again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Where downloads, unpacked zips and the drawn images go: $FINE_TUNING_CACHE, or `cache/` beside this package."""
    named = os.environ.get("FINE_TUNING_CACHE")
    return Path(named).expanduser() if named else Path(__file__).resolve().parents[2] / "cache"
