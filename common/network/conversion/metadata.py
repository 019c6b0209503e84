"""What a converted file says of itself: preprocessing, class names, source."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from common.network import imagenet, preprocessing_metadata, resnet, sources, weights
from common.network.conversion.convert import Conversion
from common.network.conversion.stored import StoredTensors
from common.network.preprocessing_metadata import Preprocessing
from common.network.weights import Header
from common.system.errors import UserError


@dataclasses.dataclass(frozen=True)
class Wishes:
    """What the user says of a file that does not say it itself."""

    fields: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Fields of `Preprocessing` -> values."""
    metadata_from: Path | None = None
    """A safetensors file with the preprocessing, and the class names where it has as many."""
    class_names: Path | None = None
    """A file with the class names."""


def describe(conversion: Conversion, stored: StoredTensors, path: Path, wishes: Wishes) -> tuple[Header, list[str]]:
    """Make the header of a converted file.

    Args:
        conversion: The network.
        stored: The tensors that it was made of.
        path: The file that they were read from.
        wishes: What the user says of it.

    Returns:
        The header, and sentences on where preprocessing and class names come from.

    Raises:
        UserError: A value is not allowed, a file cannot be read, or the class names are not as many as the head's rows.
    """
    other = weights.read_header(wishes.metadata_from) if wishes.metadata_from else None
    preprocessing, from_where = _preprocessing(conversion, stored, path, wishes, other)
    names, named_by = _class_names(conversion, stored, path, wishes, other)
    source = stored.metadata.get("source")
    source = f"{source}, converted from {path.name}" if source else f"converted from {path.name}"
    return Header(conversion.architecture, names, preprocessing, source), [from_where, named_by]


def _preprocessing(
    conversion: Conversion, stored: StoredTensors, path: Path, wishes: Wishes, other: Header | None
) -> tuple[Preprocessing, str]:
    if other is not None:
        base, said = other.preprocessing, f"as {wishes.metadata_from} says"
    elif set(Preprocessing.__dataclass_fields__) & set(stored.metadata):
        base, said = preprocessing_metadata.read(stored.metadata, path)[0], "as the file says"
    elif conversion.architecture == "resnet50_keras":
        base, said = sources.CAFFE, "that of keras.applications, as the file does not say"
    else:
        base, said = Preprocessing(), "ImageNet's usual, as the file does not say"
    given = dict(wishes.fields)
    if "image_size" in given and "resize_size" not in given:
        given["resize_size"] = round(base.resize_size * given["image_size"] / base.image_size)
    result = dataclasses.replace(base, **given)
    chosen = ", ".join(f"--{name.replace('_', '-')}" for name in wishes.fields)
    said += f", but for {chosen}" if chosen else ""
    return result, f"preprocessing: {_in_words(result)} ({said})"


def _in_words(preprocessing: Preprocessing) -> str:
    mean, std = (" ".join(f"{value:g}" for value in values) for values in (preprocessing.mean, preprocessing.std))
    return (
        f"{preprocessing.image_size} px of {preprocessing.resize_size} ({preprocessing.resize}), "
        f"{preprocessing.channel_order}, scale "
        f"{preprocessing.scale:.4g}, mean {mean}, std {std}"
    )


def _class_names(
    conversion: Conversion, stored: StoredTensors, path: Path, wishes: Wishes, other: Header | None
) -> tuple[tuple[str, ...], str]:
    count = conversion.classes
    if not count:
        if wishes.class_names:
            raise UserError(f"--class-names {wishes.class_names}: {path} has no head, whose rows they could name")
        return (), "no head: enough to fine-tune from; zero-shot and --head-init source-class need one"
    if wishes.class_names:
        names = read_class_names(wishes.class_names)
        if len(names) != count:
            raise UserError(f"--class-names {wishes.class_names}: {len(names)} names for a head of {count} classes")
        return names, f"class names: from {wishes.class_names}"
    own = _own_names(stored.metadata)
    if len(own) == count:
        return own, "class names: as the file says"
    if other is not None and len(other.class_names) == count:
        return other.class_names, f"class names: as {wishes.metadata_from} says"
    if count == resnet.SOURCE_CLASSES:
        return (
            imagenet.class_names(),
            "class names: ImageNet-1k's, as the head has 1000 rows; --class-names FILE if not",
        )
    numbered = tuple(f"class_{number}" for number in range(count))
    return numbered, f"class names: class_0 to class_{count - 1}, as the file has none; --class-names FILE names them"


def _own_names(metadata: dict[str, str]) -> tuple[str, ...]:
    try:
        return tuple(map(str, json.loads(metadata.get("class_names", "[]"))))
    except (ValueError, TypeError):
        return ()


def read_class_names(path: Path) -> tuple[str, ...]:
    """Read class names in the order of the head's rows.

    Args:
        path: A text file with a name a line; or JSON: a list, or Hugging Face's config.json with its `id2label`.

    Returns:
        The names.

    Raises:
        UserError: The file cannot be read, or is no list of names.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        content = json.loads(text) if path.suffix == ".json" else [line for line in text.splitlines() if line.strip()]
        if isinstance(content, dict):
            table = content.get("id2label", content)
            content = [table[key] for key in sorted(table, key=int)]
    except OSError as error:
        raise UserError(f"--class-names {path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"--class-names {path}: no list of names: {error}") from error
    if not isinstance(content, list) or not all(isinstance(name, str) for name in content):
        raise UserError(f"--class-names {path}: expected a list of names, each of them text")
    return tuple(name.strip() for name in content)
