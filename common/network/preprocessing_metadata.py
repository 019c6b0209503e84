"""What an image goes through before a network sees it, and how the metadata of a weights file say it: all as text."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_origin, get_type_hints

from pydantic import Field, ModelWrapValidatorHandler, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from common.spec.experiment import STRICT
from common.spec.names import ResizeWay
from common.system.errors import UserError

_Size = Annotated[int, Field(ge=32, le=4096, description="a whole number from 32 to 4096")]
# In proportion to the largest image_size.
_ResizeSize = Annotated[int, Field(ge=32, le=16384, description="a whole number from 32 to 16384")]
_Mean = Annotated[float, Field(ge=-1e6, le=1e6)]
_Scale = Annotated[float, Field(ge=1e-6, le=1e6, description="a number from 1e-6 to 1e6")]
# A longer value is cut in messages.
_SHOWN = 60


@dataclass(frozen=True, config=STRICT)
class Preprocessing:
    """What an image must go through before a network with these weights sees it.

    The upright RGB image is resized as `resize` says and cropped at the centre to `image_size` pixels a side. A pixel
    of channel c with value v (0 to 255) becomes (v * scale - mean[c]) / std[c], the channels in `channel_order`. With
    `letterbox` the whole image is resized so that its long side is `image_size`, and 0 is added around it afterwards,
    which is the mean colour. With `presized_side` a larger image is first reduced to about that short side. A value
    that is not allowed raises UserError.

    Every field is an entry of the metadata, by its name; a file that lacks the entry has the default.
    """

    image_size: _Size = 224
    resize_size: _ResizeSize = 256
    interpolation: Annotated[Literal["bilinear"], Field(description="bilinear")] = "bilinear"
    channel_order: Annotated[Literal["RGB", "BGR"], Field(description="RGB or BGR")] = "RGB"
    scale: _Scale = 1 / 255
    mean: Annotated[
        tuple[_Mean, _Mean, _Mean], Field(description="three numbers from -1e6 to 1e6, such as [0.5, 0.5, 0.5]")
    ] = (0.485, 0.456, 0.406)
    std: Annotated[
        tuple[_Scale, _Scale, _Scale], Field(description="three numbers from 1e-6 to 1e6, such as [0.2, 0.2, 0.2]")
    ] = (0.229, 0.224, 0.225)
    resize: Annotated[ResizeWay, Field(description="short_side, squash or letterbox")] = "short_side"
    antialias: Annotated[bool, Field(description="true or false")] = True
    letterbox_fill: Annotated[Literal["mean"], Field(description="mean")] = "mean"
    presized_side: Annotated[
        int | None, Field(ge=32, le=65536, description="a whole number from 32 to 65536, or null")
    ] = None

    @model_validator(mode="wrap")
    @classmethod
    def _check(cls, values: Any, validate: ModelWrapValidatorHandler[Preprocessing]) -> Preprocessing:
        try:
            made = validate(values)
        except ValidationError as error:
            name, value = str(error.errors()[0]["loc"][0]), error.errors()[0]["input"]
            raise UserError(f"{name} = {value!r}: expected {_expected(name)}") from None
        if made.resize_size < made.image_size:
            raise UserError(f"resize_size = {made.resize_size}: expected at least image_size = {made.image_size}")
        return made


def read(metadata: Mapping[str, str], where: object) -> tuple[Preprocessing, frozenset[str]]:
    """Read what the metadata of a weights file say of preprocessing.

    Args:
        metadata: All entries.
        where: The file, for messages.

    Returns:
        The preprocessing, and the names of the fields that the metadata have; the others have their defaults.

    Raises:
        UserError: An entry has another type than the field, or a value that is not allowed.
    """
    found = {name: _value(name, metadata[name], where) for name in _hints() if name in metadata}
    # The default must not be smaller than the crop.
    resize_size = max(Preprocessing.resize_size, found.get("image_size", 0))
    try:
        return Preprocessing(**{"resize_size": resize_size, **found}), frozenset(found)
    except UserError as error:
        raise UserError(f"{where}: the metadata contradict themselves: {error}") from error


def entries(preprocessing: Preprocessing) -> dict[str, str]:
    """Return the metadata of a preprocessing, an entry for each field.

    >>> entries(Preprocessing(resize="squash"))["resize"]
    'squash'

    Args:
        preprocessing: The preprocessing.

    Returns:
        Name -> text: a word as it is, everything else as JSON, None left out.
    """
    values = dataclasses.asdict(preprocessing)
    return {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in values.items()
        if value is not None
    }


def _value(name: str, text: str, where: object) -> Any:
    """Return the value of an entry, strictly of its field's type; `where` names the file in messages."""
    adapter: TypeAdapter[Any] = TypeAdapter(_hints()[name], config=STRICT)
    try:
        return adapter.validate_python(text) if _is_word(name) else adapter.validate_json(text)
    except ValidationError:
        shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
        raise UserError(f"{where}: the metadata entry {name} is {shown!r}: expected {_expected(name)}") from None


def _hints() -> dict[str, Any]:
    return get_type_hints(Preprocessing, include_extras=True)


def _is_word(name: str) -> bool:
    """Return whether an entry is one of a few words, which stand in the metadata as they are."""
    return get_origin(_hints()[name].__origin__) is Literal


def _expected(name: str) -> str:
    """Return what an entry may be, in words."""
    limits = _hints()[name].__metadata__[0]
    return str(limits.description)
