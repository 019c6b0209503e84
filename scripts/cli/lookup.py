"""Look options up in the arguments as they were typed, before the environment that can parse them is entered.

This runs in a bare interpreter, so it imports only the standard library at the top.
"""

from __future__ import annotations


def value_of(arguments: list[str], option: str) -> str | None:
    """Return the value of an option, given as `--option value` or `--option=value`.

    >>> value_of(["--backend", "jax", "--epochs=3"], "--epochs")
    '3'

    Args:
        arguments: The arguments of a command.
        option: The option, with its dashes.

    Returns:
        The last value if there are several, or None if there is none.
    """
    value = None
    for position, argument in enumerate(arguments):
        if argument == option and position + 1 < len(arguments):
            value = arguments[position + 1]
        elif argument.startswith(f"{option}="):
            value = argument.split("=", 1)[1]
    return value


def wants_help(arguments: list[str]) -> bool:
    """Return whether the arguments ask only for the list of options."""
    return any(option in arguments for option in ("-h", "--help", "--help-all"))


def backend_wanted(arguments: list[str]) -> str | None:
    """Return the backend that a command needs.

    >>> backend_wanted(["--backend", "jax"])
    'jax'
    >>> backend_wanted(["--help"]) is None
    True

    Args:
        arguments: The arguments of the command.

    Returns:
        The backend that --backend names, else the preset's, else torch; None for --help and --list-presets, which need
        no framework.
    """
    from common.spec.presets import preset_names, read_preset

    if wants_help(arguments) or "--list-presets" in arguments:
        return None
    preset = value_of(arguments, "--preset")
    in_preset = read_preset(preset)["spec"] if preset in preset_names() else {}
    backend = value_of(arguments, "--backend")
    return in_preset.get("backend", "torch") if backend is None else backend
