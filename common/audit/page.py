"""The page of a check: one HTML file with the pictures inside, which loads nothing and runs nothing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup

from common.audit import summary
from common.audit.duplicates import Group
from common.audit.findings import Audit
from common.data.thumbnails import thumbnail

FOLDER = Path(__file__).parent
# So many cards a section; the rest is in the JSON.
SHOWN = 60
SHOWN_LABELS = 150
# So many pictures of a group, and so many names of files.
SHOWN_MEMBERS = 8
SHOWN_NAMES = 100
# HTML has no place for these characters, nor UTF-8 for lone surrogates.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")


class Shown(NamedTuple):
    """A picture on the page."""

    uri: str | None
    """Its thumbnail as a data URI; None where it can no longer be read."""
    name: str
    split: str
    label: str
    width: int
    height: int


class Card(NamedTuple):
    """Pictures that belong together, and how they are alike."""

    pictures: list[Shown]
    more: int
    """How many pictures of the group are not shown."""
    kinds: str


def html(audit: Audit, facts: Mapping[str, Any]) -> str:
    """Render the findings as one HTML file.

    Args:
        audit: The findings.
        facts: `made`, `command`, `network` (how labels were checked, or None) and `clean` (what was written, or None).

    Returns:
        The text of check.html.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER), undefined=jinja2.StrictUndefined, autoescape=True,
        trim_blocks=True, lstrip_blocks=True, finalize=_plain,
    )  # fmt: skip
    environment.filters["counts_of"] = audit.counts
    lines = {line.key: line for line in summary.lines(audit)}
    return environment.get_template("page.html").render(
        audit=audit,
        facts=facts,
        # Markup, since the style is a file of this project.
        style=Markup((FOLDER / "page.css").read_text()),
        about=summary.about(audit),
        lines=lines,
        counted=summary.count_with_noun,
        groups={key: [_card(audit, group) for group in getattr(audit, key)[:SHOWN]] for key in GROUPS},
        suspects=[(found, _shown(audit, found.index)) for found in audit.suspects[:SHOWN_LABELS]],
        sizes={key: [_shown(audit, index) for index in getattr(audit, key)[:SHOWN]] for key in ("tiny", "extreme")},
        unreadable=_by_kind(audit),
        names_shown=SHOWN_NAMES,
    )


GROUPS = {
    "leaks": "Between the splits",
    "contradictions": "Different labels",
    "repeats": "Within a split",
}


def _plain(value: Any) -> Any:
    """Replace characters that cannot be shown, in the value of a template's expression."""
    return _UNPRINTABLE.sub("\ufffd", value) if type(value) is str else value


def _shown(audit: Audit, index: int) -> Shown:
    picture = audit.pictures[index]
    return Shown(
        thumbnail(picture.sample),
        picture.name,
        picture.split,
        audit.class_of(index),
        picture.width,
        picture.height,
    )  # fmt: skip


def _card(audit: Audit, group: Group) -> Card:
    kinds = Counter(pair.kind for pair in group.pairs)
    # A picture of every split and label comes before a second one of the same.
    seen: Counter[tuple[str, int]] = Counter()
    ranks = []
    for index in group.members:
        picture = audit.pictures[index]
        ranks.append((seen[picture.split, picture.sample.label], index))
        seen[picture.split, picture.sample.label] += 1
    chosen = [index for _, index in sorted(ranks)][:SHOWN_MEMBERS]
    return Card([_shown(audit, index) for index in chosen], len(group.members) - len(chosen), ", ".join(kinds))


def _by_kind(audit: Audit) -> dict[str, list[Any]]:
    """Return the files that cannot be used by their kind, the most frequent kind first."""
    found: dict[str, list[Any]] = {}
    for file in audit.unreadable:
        found.setdefault(file.kind, []).append(file)
    return dict(sorted(found.items(), key=lambda item: -len(item[1])))
