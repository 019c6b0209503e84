"""Small pictures of the photographs that a report shows, where they are on this machine."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import ImageOps

from common.data import datasets
from common.data.folder import ImageData
from common.data.images import UnreadableImage, open_rgb
from common.report.collect import plain
from common.runs.record import RunRecord
from common.system import caches
from common.system.errors import UserError

SIDE = 160
"""Pixels of a thumbnail's longer side, which the page shows smaller."""


def find_data(records: Sequence[RunRecord]) -> ImageData | None:
    """The data of the records, all of one fingerprint, if it is on this machine; nothing is downloaded."""
    tried = set()
    for record in records:
        spec = record.spec
        where = (spec.data, spec.data_sha1, spec.bad_images, spec.train_limit, spec.test_limit)
        if where in tried or spec.data == "hotdog" and not _downloaded(spec.data_sha1):
            continue
        tried.add(where)
        try:
            data = datasets.load(
                spec.data, url=spec.data_url, sha1=spec.data_sha1, bad_images=spec.bad_images,
                train_limit=spec.train_limit, test_limit=spec.test_limit,
            )  # fmt: skip
            if data.fingerprint == record.data.get("fingerprint"):
                return data
        except (UserError, OSError):
            # Gone, moved, or on the machine that ran it: the page says so.
            continue
    return None


def _downloaded(sha1: str | None) -> bool:
    return (caches.cache_folder() / "unpacked" / (sha1 or datasets.HOTDOG_SHA1).lower()).is_dir()


def thumbnails(data: ImageData, names: Iterable[str]) -> dict[str, str]:
    """Name of a test image, as the report has it -> its thumbnail as a data URI; without those that cannot be read."""
    paths = {plain(sample.name): sample.path for sample in data.test}
    return {name: uri for name in dict.fromkeys(names) if name in paths and (uri := thumbnail(paths[name]))}


def thumbnail(path: Path) -> str | None:
    """One picture as a WebP data URI; None if it cannot be read."""
    try:
        picture = ImageOps.contain(open_rgb(path), (SIDE, SIDE))
    except (UnreadableImage, OSError):
        return None
    stream = io.BytesIO()
    picture.save(stream, format="WEBP", quality=72, method=4)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
