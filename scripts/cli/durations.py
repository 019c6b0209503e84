"""Times as people write them on a command line."""

from __future__ import annotations

import re

from common.system.errors import UserError

NUMBER = r"\d+(?:\.\d+)?"
DURATION = re.compile(rf"(?:({NUMBER})h)?(?:({NUMBER})m)?(?:({NUMBER})s)?")


def seconds_of(option: str, text: str | None) -> float | None:
    """Return the seconds of a time such as 90s, 10m, 1h or 1h30m.

    >>> seconds_of("--time-limit", "1h30m")
    5400.0

    Args:
        option: The option, for messages.
        text: Its value; None if it was not given.

    Returns:
        The seconds, above 0; None without a text.

    Raises:
        UserError: The text is no time, or one of no length.
    """
    if text is None:
        return None
    parts = DURATION.fullmatch(text.strip())
    hours, minutes, seconds = (float(part or 0) for part in parts.groups()) if parts else (0.0, 0.0, 0.0)
    total = 3600 * hours + 60 * minutes + seconds
    if not total:
        raise UserError(f"{option} {text}: expected a time above 0 with its unit, such as 90s, 10m or 1h30m")
    return total
