"""Vary an experiment, choose by validation accuracy: `python -m scripts.sweep --vary learning_rate=1e-5..1e-1:log`."""

from __future__ import annotations

from scripts.cli.lookup import backend_wanted, value_of


def main(arguments: list[str]) -> int:
    """Run the trials that are still missing, or show a study with --show, and return the exit code."""
    from scripts.cli.arguments import parse
    from scripts.cli.options import SweepOptions

    options = parse(SweepOptions, "sweep", arguments)
    from pathlib import Path

    from common.sweep import vary
    from common.sweep.study import Study
    from scripts.cli.display import console
    from scripts.sweep import trials

    if options.show is not None:
        trials.show(options.show)
        return 0
    variables = vary.parse_all(options.vary)
    search = trials.find_search(options, variables)
    bases = trials.find_bases(options, variables, arguments)
    trials.check(bases, variables)
    names = "-".join(variable.name for variable in variables)
    file = options.study or Path("runs", f"sweep-{options.preset}-{options.spec.backend}-{names}.journal")
    study = Study.create(file, bases, variables)
    console.print(f"study {file}; the same command continues it", style="dim", soft_wrap=True)
    trials.run_trials(study, bases, search, arguments)
    trials.finish(study, options, bases)
    return 0


def environment_wanted(arguments: list[str]) -> str | None:
    """Return the backend of the trials, or None to show a study, which needs the tools' matplotlib."""
    return backend_wanted(arguments) if value_of(arguments, "--show") is None else None
