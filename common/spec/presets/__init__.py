"""The presets: experiments of the texts, as TOML files in this folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common.spec.experiment import ExperimentSpec
from common.system.errors import UserError


def preset_names() -> list[str]:
    """Return the names that `load_preset` takes, sorted."""
    return sorted(path.stem for path in _preset_folder().glob("*.toml"))


def load_preset(name: str, strategy: str | None = None) -> ExperimentSpec:
    """Read the spec of a preset, for one strategy.

    A preset is a TOML file. Its table `[spec]` has fields of ExperimentSpec, and `[strategy.<name>]` has fields that
    differ for that strategy. For people there are `description`, `source` (the text it comes from), `command`,
    `strategies` (those that the command runs), `expected` (the accuracies that the text reports) and `notes`. `extends`
    names another preset, whose values hold wherever this one has none.

    Args:
        name: One of `preset_names`.
        strategy: The strategy; None for that of `[spec]`, or `fine-tune` where it names none.

    Returns:
        The spec.

    Raises:
        UserError: There is no such preset, or a value in it is invalid.
    """
    values = read_preset(name)
    chosen = strategy or values["spec"].get("strategy", "fine-tune")
    overrides = values.get("strategy", {}).get(chosen, {})
    try:
        return ExperimentSpec.from_dict({**values["spec"], **overrides, "strategy": chosen})
    except UserError as error:
        raise UserError(f"preset {name}: {error}") from error


def read_preset(name: str) -> dict[str, Any]:
    """Read the tables of a preset's TOML file, laid over those of the preset that it extends.

    Args:
        name: One of `preset_names`.

    Returns:
        The tables of the file; those of both presets are merged key by key.

    Raises:
        UserError: There is no such preset.
    """
    import tomllib

    if name not in preset_names():
        raise UserError(f"there is no preset {name!r}; the presets are {', '.join(preset_names())}")
    values = tomllib.loads((_preset_folder() / f"{name}.toml").read_text())
    return _merged(read_preset(values.pop("extends")), values) if "extends" in values else values


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    tables = {
        name: _merged(base[name], value)
        for name, value in changes.items()
        if isinstance(value, dict) and isinstance(base.get(name), dict)
    }
    return {**base, **changes, **tables}


def _preset_folder() -> Path:
    return Path(__file__).parent
