"""The presets: experiments of the texts, as TOML files in this folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common.spec.experiment import ExperimentSpec
from common.system.errors import UserError


def preset_names() -> list[str]:
    """The names that `load_preset` takes, sorted."""
    return sorted(path.stem for path in _preset_folder().glob("*.toml"))


def load_preset(name: str, strategy: str | None = None) -> ExperimentSpec:
    """The spec of a preset, for one strategy.

    A preset is a TOML file: `[spec]` with fields of ExperimentSpec, `[strategy.<name>]` with fields that differ for
    that strategy, and for people `description`, `source` (the text it comes from), `command`, `strategies` (what the
    command runs), `expected` (the accuracies that the text reports) and `notes`. `extends` names a preset that it
    takes over what it does not say. Raises UserError for an unknown name or an invalid value.
    """
    values = read_preset(name)
    chosen = strategy or values["spec"].get("strategy", "fine-tune")
    overrides = values.get("strategy", {}).get(chosen, {})
    try:
        return ExperimentSpec.from_dict({**values["spec"], **overrides, "strategy": chosen})
    except UserError as error:
        raise UserError(f"preset {name}: {error}") from error


def read_preset(name: str) -> dict[str, Any]:
    """The tables of a preset's TOML file over those of the preset it extends; raises UserError for an unknown name."""
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
