"""Run one experiment in one framework: `python -m scripts.run --backend jax`."""

from __future__ import annotations

from scripts.cli.lookup import value_of


def main(arguments: list[str]) -> int:
    """Run each strategy that the arguments ask for, with a record of its own, and return the exit code."""
    from scripts.cli.arguments import given_fields, parse_strategies
    from scripts.cli.options import RunOptions, run_name

    # Parse before the imports below, so that --help need not wait for them.
    runs = parse_strategies(RunOptions, "run", arguments)
    from pathlib import Path

    import backends
    from common.devices import processes
    from common.runs import experiment
    from common.runs.record import RECORD, RunRecord
    from common.runs.run_folder import check_output, free_folder
    from scripts.cli.display import JsonWatch, RichWatch, console, show_presets, show_runs
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
        return launch.launch(runs[0], arguments)
    console.quiet = not processes.world().leads
    if value_of(arguments, "--preset") is None:
        data = runs[0].spec.data
        what = "hot dogs and other food that this project draws itself" if data == "demo" else f"its rates, on {data}"
        console.print(f"No --preset given, so this is {preset}: {what}.")
        console.print("The book's experiment, on photographs: python -m scripts.run --preset d2l")
    records: dict[str, RunRecord] = {}
    for run, folder in zip(runs, folders, strict=True):
        spec = run.spec
        start_from = "random values" if spec.strategy == "scratch" else f"weights {spec.weights}"
        console.print(f"\n{spec.strategy}: {spec.backend}, {spec.model}, {start_from}", style="bold", soft_wrap=True)
        command = ["python", "-m", "scripts.run", *arguments]
        with JsonWatch() if run.progress == "json" else RichWatch() as watch:
            given = given_fields(arguments)
            request = experiment.Request(command, run.overwrite, given, run.tensorboard, data_shown=bool(records))
            records[str(folder / RECORD)] = experiment.run(spec, folder, watch, backends.load, request)
    show_runs(records)
    return 0
