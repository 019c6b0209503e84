"""Make thumbnails of the photographs that a report shows, where they are on this machine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from common.data import datasets
from common.data.folder import ImageData
from common.data.images import Decoding
from common.data.thumbnails import thumbnail
from common.report.data import plain
from common.runs.record import RunRecord
from common.system import caches
from common.system.errors import UserError


def find_data(records: Sequence[RunRecord]) -> ImageData | None:
    """Return the data that the records share, or None if it is not on this machine; nothing is downloaded.

    Args:
        records: Records of one fingerprint of the data, whose specs may name different places for it.

    Returns:
        The data from the first place that can be read and has this fingerprint.
    """
    tried = set()
    for record in records:
        spec = record.spec
        where = (
            spec.data, spec.data_sha1, spec.zip_encoding, spec.split_seed, spec.bad_images, spec.train_limit,
            spec.test_limit, Decoding.of(spec),
        )  # fmt: skip
        if where in tried or spec.data == "hotdog" and not _downloaded(spec.data_sha1):
            continue
        tried.add(where)
        try:
            data = datasets.load(
                spec.data, url=spec.data_url, sha1=spec.data_sha1, bad_images=spec.bad_images,
                train_limit=spec.train_limit, test_limit=spec.test_limit, split_seed=spec.split_seed,
                zip_encoding=spec.zip_encoding, decoding=Decoding.of(spec),
            )  # fmt: skip
            if data.fingerprint == record.data.get("fingerprint"):
                return data
        except (UserError, OSError):
            # The data is gone, has moved, or is only on the machine of the run: the page says so.
            continue
    return None


def _downloaded(sha1: str | None) -> bool:
    """Return whether the hot-dog archive of this SHA-1 (None: the usual one) is unpacked in the cache."""
    return (caches.cache_folder() / "unpacked" / (sha1 or datasets.HOTDOG_SHA1).lower()).is_dir()


def thumbnails(data: ImageData, names: Iterable[str]) -> dict[str, str]:
    """Return the thumbnails of test images as data URIs, by name; images that cannot be read are left out.

    Args:
        data: The data with the test images.
        names: Names of test images as the report has them, without characters that cannot be shown.
    """
    samples = {plain(sample.name): sample for sample in data.test}
    return {name: uri for name in dict.fromkeys(names) if name in samples and (uri := thumbnail(samples[name]))}
