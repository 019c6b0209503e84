"""Count what `scripts.check_data` found of what `scripts.check_data.plant` has planted."""

from __future__ import annotations

from scripts.cli.command import start


def main(arguments: list[str]) -> int:
    """Print the table and return the exit code."""
    from scripts.check_data import scores

    return scores.run(arguments)


if __name__ == "__main__":
    start("check_data.score", main)
