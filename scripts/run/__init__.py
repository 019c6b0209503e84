"""Run one experiment in one framework: `python -m scripts.run --backend jax`."""

from __future__ import annotations

from scripts.cli.lookup import value_of

# What is said of the presets that are taken where none is named.
IMPLICIT_PRESETS = {
    "demo": "hot dogs and other food that this project draws itself",
    "photos": "how to train follows the number of images, and a fifth of them chooses the epoch that is kept",
}


def main(arguments: list[str]) -> int:
    """Run each strategy that the arguments ask for, with a record of its own, and return the exit code."""
    import time

    # The time limit of the first run counts from here, before the framework is imported.
    start = time.perf_counter()
    from scripts.cli.arguments import given_fields, parse_strategies
    from scripts.cli.durations import seconds_of
    from scripts.cli.options import IMPLICIT_PRESET, RunOptions, run_name

    # Parse before the imports below, so that --help need not wait for them.
    runs = parse_strategies(RunOptions, "run", arguments)
    seconds = seconds_of("--time-limit", runs[0].time_limit)
    from pathlib import Path

    import backends
    from common.devices import processes
    from common.runs import experiment
    from common.runs.record import RECORD, RunRecord
    from common.runs.run_folder import check_output, free_folder
    from common.training.time_limit import TimeLimit
    from scripts.cli.display import JsonWatch, RichWatch, console, show_presets, show_runs
    from scripts.cli.weights import with_weights
    from scripts.run import launch

    if runs[0].list_presets:
        show_presets()
        return 0
    preset = runs[0].preset
    output = runs[0].output or free_folder(Path("runs"), run_name(runs[0]))
    folders = [output / run.spec.strategy if len(runs) > 1 else output for run in runs]
    launch.check(runs[0])
    launch.join(runs[0])
    # Only the first process of the first machine writes records and shows progress.
    if processes.world().leads and runs[0].machine == 0:
        for run, folder in zip(runs, folders, strict=True):
            check_output(run.spec, folder, run.overwrite)
    if launch.wants_processes(runs[0]):
        # The processes must not choose each for itself.
        (chosen,) = with_weights([runs[0].spec])
        return launch.launch(runs[0], [*arguments, "--weights", chosen.weights])
    console.quiet = not processes.world().leads
    if value_of(arguments, "--preset") is None:
        console.print(f"No --preset given, so this is {preset}: {IMPLICIT_PRESETS[preset]}.", soft_wrap=True)
        if preset == IMPLICIT_PRESET:
            console.print("The book's experiment, on photographs: python -m scripts.run --preset d2l")
    records: dict[str, RunRecord] = {}
    for run, folder in zip(runs, folders, strict=True):
        spec = run.spec
        limit = TimeLimit(seconds, time.perf_counter() if records else start) if seconds else None
        start_from = "random values" if spec.strategy == "scratch" else f"weights {spec.weights}"
        console.print(f"\n{spec.strategy}: {spec.backend}, {spec.model}, {start_from}", style="bold", soft_wrap=True)
        command = ["python", "-m", "scripts.run", *arguments]
        with JsonWatch() if run.progress == "json" else RichWatch() as watch:
            given = given_fields(arguments)
            request = experiment.Request(command, run.overwrite, given, run.tensorboard, bool(records), limit)
            records[str(folder / RECORD)] = experiment.run(spec, folder, watch, backends.load, request)
    show_runs(records)
    return 0
