"""Say what is wrong with a folder of photographs before training: `python -m scripts.check_data my-photos`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scripts.check_data.options import CheckDataOptions


def main(arguments: list[str]) -> int:
    """Check the data, print the findings, write the page, and return the exit code."""
    import tyro

    from scripts.check_data.options import CheckDataOptions

    options = tyro.cli(CheckDataOptions, prog="python -m scripts.check_data", args=arguments)
    check_options(options)
    from common.audit import clean, findings
    from common.data import datasets
    from common.runs.run_folder import reserved
    from scripts.check_data import steps
    from scripts.cli.display import console

    spec = steps.source_network(options) if options.labels else None
    data = datasets.load(options.data, bad_images="skip")
    output = steps.output_folder(options, data)
    limits = findings.Limits(options.min_side, options.max_ratio)
    audit = findings.look(data, *steps.measure(data, options), limits)
    audit = steps.check_labels(audit, spec)
    kept = clean.choose(audit) if options.write_clean else None
    with reserved(output):
        written = steps.write_page(audit, kept, output, options, arguments)
    steps.show(audit, console)
    if options.write_clean and kept:
        clean.write(audit, kept, options.write_clean)
        console.print(f"\n{steps.clean_line(kept, options.write_clean)}", soft_wrap=True)
    console.print(f"\nThe page: {written['html']}", style="bold", soft_wrap=True)
    console.print(f"the same as data: {written['json']}", style="dim", soft_wrap=True)
    return 0


def check_options(options: CheckDataOptions) -> None:
    """Raise UserError for values that make no sense, before the data is read."""
    from common.audit import clean
    from common.system.errors import UserError

    if options.min_side < 0:
        raise UserError(f"--min-side {options.min_side}: expected a number of pixels, 0 or more")
    if not options.max_ratio >= 1:
        raise UserError(f"--max-ratio {options.max_ratio:g}: expected at least 1")
    if options.workers is not None and not 1 <= options.workers <= 256:
        raise UserError(f"--workers {options.workers}: expected 1 to 256")
    if options.write_clean is not None:
        clean.check_target(options.write_clean)
        if options.output is not None and options.output.resolve() == options.write_clean.resolve():
            raise UserError(f"--write-clean {options.write_clean}: this is the --output folder; choose another name")
