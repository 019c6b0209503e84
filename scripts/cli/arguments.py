"""From the arguments of a command to its options, and from an experiment back to arguments."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields
from typing import TypeVar, get_args

import tyro

from common.spec.experiment import ExperimentSpec, Strategy
from common.spec.presets import load_preset, preset_names, read_preset
from common.system.errors import UserError
from scripts.cli import help_pages
from scripts.cli.lookup import value_of, wants_help
from scripts.cli.options import IMPLICIT_PRESET, PRESET_OF_PHOTOGRAPHS, SpecOptions

# Commands that train, and choose how, on data of the user's. A comparison holds the demo's two strategies side by side.
COMMANDS_ON_PHOTOGRAPHS = ("run", "sweep")

Options = TypeVar("Options", bound=SpecOptions)


def parse(kind: type[Options], command: str, arguments: list[str], strategy: str | None = None) -> Options:
    """Parse the arguments of a command, over the values of the preset that they name.

    Args:
        kind: The class of the command's options.
        command: The name of the command, `run` for `python -m scripts.run`.
        arguments: The arguments.
        strategy: The strategy that the preset is loaded for; by default the one that the arguments name, else the
            preset's own.

    Returns:
        The options.

    Raises:
        UserError: The preset does not exist, or a value is not allowed.
        SystemExit: With code 2 for options that do not exist, and with 0 after --help and --help-all.
    """
    named = value_of(arguments, "--preset")
    preset = implicit_preset(command, arguments) if named is None else named
    if preset not in preset_names():
        raise UserError(f"--preset {preset}: the presets are {', '.join(preset_names())}")
    given = value_of(arguments, "--strategy")
    spec = load_preset(preset, strategy or (given if given in get_args(Strategy) else None))
    if named is None:
        spec = prepared_as_weights_say(spec, value_of(arguments, "--weights"))
    defaults = kind(spec=spec, preset=preset)
    prog = f"python -m scripts.{command}"
    if wants_help(arguments):
        help_pages.show_page(defaults, prog, help_pages.HELP_ALL in arguments)
    return tyro.cli(kind, prog=prog, args=arguments, default=defaults)


def prepared_as_weights_say(spec: ExperimentSpec, weights: str | None) -> ExperimentSpec:
    """Leave the way images are resized to the weights, where these are a file of the user's.

    Args:
        spec: The spec of a preset that the user did not ask for.
        weights: The value of --weights, None without it.

    Returns:
        The spec without its own sizes and way of resizing; unchanged for weights that have a name.
    """
    from common.network.sources import NAMED_SOURCES

    if weights is None or weights in NAMED_SOURCES:
        return spec
    return spec.replace(image_size=None, resize_size=None, test_resize=None)


def implicit_preset(command: str, arguments: list[str]) -> str:
    """Return the preset of arguments that name none.

    >>> implicit_preset("run", ["--data", "my-photos"]), implicit_preset("run", [])
    ('photos', 'demo')

    Args:
        command: The name of the command.
        arguments: Its arguments.

    Returns:
        The preset of photographs where the command trains on data that the arguments name, else that of the demo.
    """
    photographs = value_of(arguments, "--data") not in (None, "demo")
    return PRESET_OF_PHOTOGRAPHS if photographs and command in COMMANDS_ON_PHOTOGRAPHS else IMPLICIT_PRESET


def parse_strategies(kind: type[Options], command: str, arguments: list[str]) -> list[Options]:
    """Parse the arguments once for each strategy that they ask for.

    Args:
        kind: The class of the command's options.
        command: The name of the command, `run` for `python -m scripts.run`.
        arguments: The arguments.

    Returns:
        The options for the strategy that the arguments name, or for each strategy of the preset. With --weights none
        and no --strategy it is `scratch` alone.

    Raises:
        UserError: As for `parse`.
        SystemExit: As for `parse`.
    """
    # Without source weights the only strategy is training from scratch.
    sourceless = value_of(arguments, "--weights") == "none" and value_of(arguments, "--strategy") is None
    first = parse(kind, command, arguments, "scratch" if sourceless else None)
    if sourceless or value_of(arguments, "--strategy"):
        return [first]
    strategies = read_preset(first.preset).get("strategies", [first.spec.strategy])
    return [parse(kind, command, arguments, strategy) for strategy in strategies]


def given_fields(arguments: list[str]) -> frozenset[str]:
    """Return the fields of the spec that the arguments name.

    >>> sorted(given_fields(["--epochs", "3", "--no-flip"]))
    ['epochs', 'flip']

    Args:
        arguments: The arguments of a command.

    Returns:
        The names of the fields, with underscores.
    """
    options = {argument.split("=")[0][2:].replace("-", "_") for argument in arguments if argument.startswith("--")}
    named = {option.removeprefix("no_").split(".")[0] for option in options}
    return frozenset(f.name for f in fields(ExperimentSpec) if f.name in named)


def options_of(
    spec: ExperimentSpec, preset: str, always: Collection[str] = (), left_out: Collection[str] = ()
) -> list[str]:
    """Return the shortest options that give a spec from a preset.

    Args:
        spec: The experiment.
        preset: The preset to start from.
        always: Fields that are named even where they are the preset's; backend and strategy always are.
        left_out: Fields that are not named.
    """
    base = {**flat(load_preset(preset, spec.strategy)), **dict.fromkeys(("backend", "strategy", *always))}
    options = ["--preset", preset]
    for name, value in flat(spec).items():
        if value == base[name] or name in left_out:
            continue
        option = name.replace("_", "-")
        if isinstance(value, bool):
            options.append(f"--{option}" if value else f"--no-{option}")
        else:
            options += [f"--{option}", *map(str, value if isinstance(value, list | tuple) else [value])]
    return options


def flat(spec: ExperimentSpec) -> dict[str, object]:
    """The fields of a spec by the names of their options."""
    values = spec.to_dict()
    stages = values.pop("stage_multiples")
    return {**values, **{f"stage_multiples.{stage}": multiple for stage, multiple in stages.items()}}
