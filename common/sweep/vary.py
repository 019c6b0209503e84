"""Read which fields of the spec a sweep varies, as `head_multiple=1,5,10` or `learning_rate=1e-5..1e-1:log`."""

from __future__ import annotations

import itertools
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from common.spec.experiment import ExperimentSpec, StageMultiples
from common.system.errors import UserError

Value = str | int | float | bool
# How many points a grid has along a range that does not give a number.
RANGE_POINTS = 5
# Fields that cannot be varied; `reader_of` gives the reason for each.
FIXED = ("backend", "classes", "devices", "stage_multiples", "validation")
FORMS = "name=a,b,c for a list, name=low..high for a range, or name=low..high:log for a logarithmic one"


@dataclass(frozen=True)
class Variable:
    """One varied field, by its name in the spec, such as `learning_rate` or `stage_multiples.stem`."""

    name: str
    kind: Literal["list", "range", "log range"]
    values: tuple[Value, ...]
    """All values of a list; the lowest and the highest value of a range."""
    points: int = RANGE_POINTS
    """How many values a grid takes along a range."""

    @property
    def is_number(self) -> bool:
        """Whether all values are numbers, so that they have places on an axis."""
        return not any(isinstance(value, str | bool) for value in self.values)

    @property
    def grid(self) -> tuple[Value, ...]:
        """The values that a grid takes: all of a list; evenly spaced along a range, rounded to six digits.

        In a logarithmic range the exponents are evenly spaced. Whole numbers stay whole.

        >>> Variable("learning_rate", "log range", (0.001, 0.1), 3).grid
        (0.001, 0.01, 0.1)
        """
        if self.kind == "list":
            return self.values
        low, high = (float(value) for value in self.values)
        steps = [number / (self.points - 1) for number in range(1, self.points - 1)]
        if self.kind == "log range":
            inner = [low * (high / low) ** step for step in steps]
        else:
            inner = [low + (high - low) * step for step in steps]
        rounded: list[Value] = [float(f"{value:.6g}") for value in inner]
        if isinstance(self.values[0], int):
            rounded = [round(value) for value in rounded if not isinstance(value, str)]
        return tuple(dict.fromkeys([self.values[0], *rounded, self.values[1]]))


def parse(text: str) -> Variable:
    """Read the variable that a text describes.

    Whether a value fits together with the other fields, only `with_values` can tell.

    >>> parse("head_multiple=1,5,10").values
    (1.0, 5.0, 10.0)

    Args:
        text: A field of the spec with its values, in one of FORMS.

    Returns:
        The variable.

    Raises:
        UserError: The field cannot be varied, or a value or range is not valid for it.
    """
    name, separator, given = text.partition("=")
    name = name.replace("-", "_")
    read = reader_of(name)
    if not separator or not given:
        raise UserError(f"--vary {text}: expected {FORMS}")
    low, is_range, rest = given.partition("..")
    if not is_range:
        values = tuple(read(part, text) for part in given.split(","))
        if len(set(values)) < len(values):
            raise UserError(f"--vary {text}: a value is there twice")
        return Variable(name, "list", values)
    high, *forms = rest.split(":")
    logarithmic = forms[:1] == ["log"]
    points = forms[1:] if logarithmic else forms
    if len(points) > 1 or (points and not (points[0].isdecimal() and int(points[0]) >= 2)):
        raise UserError(f"--vary {text}: expected {FORMS}, and after it :N for N points of a grid, at least 2")
    ends = tuple(read(part, text) for part in (low, high))
    if any(isinstance(end, str | bool) for end in ends):
        raise UserError(f"--vary {text}: {name} has no range; list its values as {name}=a,b,c")
    if not ends[0] < ends[1]:  # type: ignore[operator]
        raise UserError(f"--vary {text}: expected a range from a lower to a higher value")
    if logarithmic and not ends[0] > 0:  # type: ignore[operator]
        raise UserError(f"--vary {text}: a logarithmic range starts above 0")
    kind: Literal["range", "log range"] = "log range" if logarithmic else "range"
    return Variable(name, kind, ends, int(points[0]) if points else RANGE_POINTS)


def parse_all(texts: Sequence[str]) -> tuple[Variable, ...]:
    """Read the variables of a sweep; raise UserError for none, for one given twice, and as `parse` does."""
    if not texts:
        raise UserError(f"--vary is missing: say what to vary, as {FORMS}")
    variables = tuple(parse(text) for text in texts)
    names = [variable.name for variable in variables]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"--vary {name}: given twice")
    return variables


def with_values(spec: ExperimentSpec, values: Mapping[str, Value]) -> ExperimentSpec:
    """Return the spec with these values of the varied fields; raise UserError where they do not fit together."""
    changes = {name: value for name, value in values.items() if "." not in name}
    stages = {name.split(".")[1]: value for name, value in values.items() if "." in name}
    if stages:
        changes["stage_multiples"] = StageMultiples(**{**asdict(spec.stage_multiples), **stages})  # type: ignore[assignment]
    return spec.replace(**changes)


def grid(variables: Sequence[Variable]) -> list[dict[str, Value]]:
    """Return every combination of the variables' grid values; the last variable changes fastest.

    >>> grid([Variable("flip", "list", (True, False)), Variable("seed", "list", (0, 1))])[:2]
    [{'flip': True, 'seed': 0}, {'flip': True, 'seed': 1}]
    """
    names = [variable.name for variable in variables]
    return [
        dict(zip(names, values, strict=True))
        for values in itertools.product(*(variable.grid for variable in variables))
    ]


def reader_of(name: str) -> typing.Callable[[str, str], Value]:
    """Return the function that reads a value of a field from its text.

    Args:
        name: The field, such as `learning_rate` or `stage_multiples.stem`.

    Returns:
        A function of the value's text and the whole argument, which its UserError quotes.

    Raises:
        UserError: There is no such field, or it cannot be varied.
    """
    stages = [f.name for f in fields(StageMultiples)]
    hints = typing.get_type_hints(ExperimentSpec)
    hints |= {f"stage_multiples.{stage}": float for stage in stages}
    if name not in hints:
        raise UserError(f"--vary {name}: no field of an experiment; the fields are {', '.join(hints)}")
    if name in FIXED:
        reason = {
            "backend": "a sweep runs in one framework; start it once for each --backend, with the same --study",
            "classes": "the classes come from the data",
            "devices": "they change no number; give --devices for all trials",
            "stage_multiples": f"vary one stage, such as stage_multiples.{stages[0]}",
            "validation": "the results would not be of the same images",
        }
        raise UserError(f"--vary {name}: {reason[name]}")
    hint = hints[name]
    optional = isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
    kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)] if optional else [hint]

    def read(part: str, text: str) -> Value:
        for kind in kinds:
            value = _converted(part, kind)
            if value is not None:
                return value
        raise UserError(f"--vary {text}: {part!r} is no value of {name}")

    return read


def _converted(part: str, kind: Any) -> Value | None:
    """Return the text as a value of a type, or None if it is none; numbers have to be finite."""
    if kind is bool:
        return {"true": True, "false": False}.get(part.lower())
    if kind in (int, float):
        try:
            number = kind(part)
        except ValueError:
            return None
        return typing.cast(Value, number) if math.isfinite(number) else None
    if typing.get_origin(kind) is Literal and part not in typing.get_args(kind):
        return None
    return part
