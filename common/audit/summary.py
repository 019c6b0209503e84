"""Say in a few lines what was found, the most important first; terminal and page show the same."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from common.audit.findings import Audit


@dataclass(frozen=True)
class Line:
    """One kind of finding: its section on the page, how often it was found, what it is, and what to do."""

    key: str
    count: int
    what: str
    advice: str


def lines(audit: Audit) -> list[Line]:
    """Return a line for every kind of finding, also for those that were not found."""
    kinds = Counter(found.kind for found in audit.unreadable).most_common()
    size = audit.limits
    return [
        Line(
            "leaks", len(audit.leaks), _between(audit.splits),
            "A test picture that was trained on tests nothing: keep each in one split.",
        ),
        Line(
            "contradictions", len(audit.contradictions), "with different labels",
            "The same picture, or nearly the same, in two classes: at least one of the labels is wrong.",
        ),
        Line(
            "unreadable", len(audit.unreadable),
            "that cannot be used: " + ", ".join(f"{kind} ({count})" for kind, count in kinds) if kinds
            else "that cannot be used",
            "Mend or remove them; --bad-images skip leaves them out of a run.",
        ),
        Line(
            "labels", len(audit.suspects), _labels(audit),
            "Look at each, the first ones before the others: a head that never saw the picture answers otherwise.",
        ),
        Line(
            "repeats", len(audit.repeats), "more than once in one split" if audit.splits[1:] else "more than once",
            "A picture that is there twice counts twice.",
        ),
        Line("balance", len(audit.balance), "about the balance of classes", " ".join(audit.balance)),
        Line(
            "tiny", len(audit.tiny), f"whose shorter side is under {size.min_side} px",
            "Enlarged for the network they are blurs.",
        ),
        Line(
            "extreme", len(audit.extreme), f"more than {size.max_ratio:g} times as long as wide",
            "The crop that the network sees leaves most of them out.",
        ),
    ]  # fmt: skip


def count_with_noun(line: Line) -> str:
    """Return the count and what is counted, such as `3 pictures` or `1 file`.

    >>> count_with_noun(Line("unreadable", 1, "", ""))
    '1 file'
    """
    nouns = {"unreadable": "file", "labels": "label", "balance": "remark"}
    return f"{line.count:,} {nouns.get(line.key, 'picture')}{'s' * (line.count != 1)}"


def about(audit: Audit) -> str:
    """Return what was looked at, such as `5 classes, 640 train and 160 test pictures`."""
    counts = [f"{sum(audit.counts(split)):,} {split}".strip() for split in audit.splits]
    return f"{len(audit.data.classes)} classes, {_listed(counts)} pictures"


def _between(splits: list[str]) -> str:
    if len(splits) < 2:
        return "in more than one split"
    return f"in more than one of {_listed(splits)}" if len(splits) > 2 else f"both in {_listed(splits)}"


def _labels(audit: Audit) -> str:
    if audit.unchecked is not None:
        return f"checked: {audit.unchecked}"
    share = 100 * len(audit.suspects) / len(audit.pictures)
    return f"likely wrong ({share:.1f} % of all)"


def _listed(words: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))
