"""Say of what kind a file is that cannot be used as a picture."""

from __future__ import annotations

from pathlib import Path

from common.data.folder import Skipped
from common.data.formats import IMAGE_SUFFIXES, content_of, first_bytes

CLASSLESS = "lies beside the class folders, so it has no class"
OTHER_NAME = "no picture by its name"
# Words of the reader's reason, and the kind that they mean.
_REASONS = (
    ("truncated", "cut short"),
    ("incomplete", "cut short"),
    ("broken data stream", "cut short"),
    ("unexpected end", "cut short"),
    ("times the other", "too long and narrow"),
    ("pixels", "too many pixels"),
    ("fixed range", "values without a fixed range"),
    ("known format", "no format of pictures that is known"),
)


def kind_of(found: Skipped, root: Path) -> str:
    """Return what a file that was left out is, in words that many files share.

    Args:
        found: The file, and the reason that the reader gives.
        root: The folder of the data.

    Returns:
        The kind of the file, such as "empty file", "a web page" or "cut short".
    """
    if "class folders" in found.reason:
        return CLASSLESS
    path = root / found.name
    try:
        start = first_bytes(path)
    except OSError as error:
        return f"cannot be opened: {error.strerror or error}"
    content = content_of(start)
    if content is None and path.suffix.lower() not in IMAGE_SUFFIXES:
        return OTHER_NAME
    return content or next((kind for word, kind in _REASONS if word in found.reason.lower()), "damaged")
