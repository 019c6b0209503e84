"""Show the data: write the first images of the first class and the last of the last class as one PNG file."""

from __future__ import annotations

from scripts.cli.command import start

COLUMNS = 8


def main(arguments: list[str]) -> int:
    """Write the picture, print the sizes and classes of the data, and return the exit code."""
    from scripts.cli.arguments import parse
    from scripts.cli.options import ShowOptions

    options = parse(ShowOptions, "show", arguments)
    from common.runs.experiment import load_data
    from scripts.cli.display import console, write_grid

    data = load_data(options.spec)
    first = [sample for sample in data.train if sample.label == 0][:COLUMNS]
    last = [sample for sample in data.train if sample.label == len(data.classes) - 1][::-1][:COLUMNS]
    write_grid(options.output, [(data.classes[0], first), (data.classes[-1], last)])
    console.print(f"{data.name}: {data.summary}", soft_wrap=True)
    console.print(f"class_to_idx: {data.class_to_idx}")
    console.print(f"picture: {options.output}", soft_wrap=True)
    return 0


if __name__ == "__main__":
    start("show", main)
