"""Times on a command line."""

from __future__ import annotations

import pytest

from common.system.errors import UserError
from scripts.cli.durations import seconds_of


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("10m", 600), ("1h", 3600), ("1h30m", 5400), ("1m30s", 90), ("0.5h", 1800), (" 2m ", 120)],
)
def test_a_time_has_its_units(text: str, seconds: float) -> None:
    assert seconds_of("--time-limit", text) == seconds


@pytest.mark.parametrize("text", ["0", "0s", "0h0m", "10", "10x", "-5m", "5m1h", "m", "", "ten minutes", "1e3s"])
def test_other_texts_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(UserError, match="--time-limit .*such as 90s, 10m or 1h30m"):
        seconds_of("--time-limit", text)


def test_no_text_is_no_limit() -> None:
    assert seconds_of("--time-limit", None) is None
