"""Hold records side by side: `python -m scripts.compare runs/*/*/record.json`."""

from __future__ import annotations

from scripts.command import start


def main(arguments: list[str]) -> int:
    """Print one line a record; return the exit code."""
    import tyro

    from common.record import find_records, read_record
    from scripts.display import console, show_comparison
    from scripts.options import CompareOptions

    options = tyro.cli(CompareOptions, prog="python -m scripts.compare", args=arguments)
    records = {str(path): read_record(path) for path in find_records(options.records)}
    show_comparison(records, console)
    return 0


if __name__ == "__main__":
    start("compare", main)
