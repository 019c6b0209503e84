"""Plant wrong labels and duplicates in a copy of a data set, to measure what `scripts.check_data` finds of them."""

from __future__ import annotations

from scripts.cli.command import start


def main(arguments: list[str]) -> int:
    """Write the planted folder and return the exit code."""
    from scripts.check_data import planted

    return planted.run(arguments)


if __name__ == "__main__":
    start("check_data.plant", main)
