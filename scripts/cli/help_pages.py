"""The pages of --help and --help-all: the few options that people need most, or all of them in groups.

tyro writes the pages. It is given types that parse nothing: the options hidden from a page are fixed and suppressed,
and each group is an ExperimentSpec that shows only the fields of the group.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Protocol, get_type_hints

import tyro

from common.spec.experiment import ExperimentSpec

if TYPE_CHECKING:
    from collections.abc import Collection

HELP_ALL = "--help-all"
ESSENTIALS = (
    "backend", "model", "weights", "data", "image_size", "strategy", "batch_size", "epochs", "learning_rate", "device",
)  # fmt: skip
# The commands' own options that --help leaves out.
RARE = (
    "overwrite", "tensorboard", "progress", "machines", "machine", "coordinator", "crosscheck", "jobs", "sampler",
    "pruner",
)  # fmt: skip
# "method" gets every field that is in no other group.
GROUPS = {
    "data": (
        "data", "data_url", "data_sha1", "zip_encoding", "split_seed", "bad_images", "max_pixels", "image_range",
        "train_limit", "test_limit", "validation", "classes",
    ),
    "preprocessing": (
        "pipeline", "image_size", "resize_size", "presize", "image_cache", "train_crop", "test_resize", "flip",
        "reuse_features",
    ),
    "network": (
        "model", "weights", "hotdog_index", "batch_norm", "batch_norm_momentum", "head_init", "head_init_classes",
        "initial_values",
    ),
    "method": (),
    "run": ("backend", "seed", "precision", "device", "devices", "workers"),
}  # fmt: skip


class CommandOptions(Protocol):
    """The dataclass of a command's own options, with those of the experiment in one field."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def spec(self) -> ExperimentSpec:
        """The experiment."""


def show_page(options: CommandOptions, prog: str, everything: bool) -> None:
    """Print the options of a command and exit.

    Args:
        options: The options of the command; their values are shown as the defaults.
        prog: The command as the page names it, such as `python -m scripts.run`.
        everything: Whether to show all options in groups instead of those that people need most.

    Raises:
        SystemExit: Always, with code 0.
    """
    page = full_page(options) if everything else short_page(options)
    note = "" if everything else f"\n\nThese are the options that people need most; {HELP_ALL} shows all, in groups."
    paragraphs = [" ".join(part.split()) for part in (type(options).__doc__ or "").split("\n\n")]
    tyro.cli(type(page), prog=prog, args=["--help"], default=page, description="\n\n".join(paragraphs) + note)


def short_page(options: CommandOptions) -> Any:
    """Return a page, one list, of the command's own options except the rare ones, and the experiment's essentials."""
    own = [f.name for f in dataclasses.fields(options) if f.name not in ("spec", *RARE)]
    return with_only(options, own, {"": with_only(options.spec, ESSENTIALS)})


def full_page(options: CommandOptions) -> Any:
    """Return a page of all the command's own options, and those of the experiment in groups."""
    own = [f.name for f in dataclasses.fields(options) if f.name != "spec"]
    return with_only(options, own, {name: with_only(options.spec, group) for name, group in groups().items()})


def groups() -> dict[str, tuple[str, ...]]:
    """Return the name of each group -> its fields of the experiment; every field is in exactly one group."""
    grouped = {name for group in GROUPS.values() for name in group}
    rest = tuple(f.name for f in dataclasses.fields(ExperimentSpec) if f.name not in grouped)
    return {name: group or rest for name, group in GROUPS.items()}


def with_only(values: Any, shown: Collection[str], sections: dict[str, Any] | None = None) -> Any:
    """Return a copy of a dataclass instance of which tyro shows only some fields.

    Args:
        values: The dataclass instance.
        shown: The names of the fields to show.
        sections: Title -> an instance whose fields are shown below, under the title; with an empty title they are shown
            among the fields of `values`.

    Returns:
        An instance of a subclass of the class of `values`, made for tyro's help page only.
    """
    kind = type(values)
    hints = get_type_hints(kind, include_extras=True)
    # A subclass, so that tyro finds the descriptions of the fields in the source of the base class.
    types = {
        name: Annotated[hints[name], tyro.conf.arg(prefix_name=False)]
        if name in shown
        else Annotated[hints[name], tyro.conf.Fixed, tyro.conf.Suppress]
        for name in (f.name for f in dataclasses.fields(kind))
    }
    contents = {name: getattr(values, name) for name in types}
    for number, (title, section) in enumerate((sections or {}).items()):
        types[f"section_{number}"] = Annotated[type(section), tyro.conf.arg(name=title)]
        contents[f"section_{number}"] = section
    frozen = kind.__dataclass_params__.frozen
    page = dataclasses.make_dataclass(kind.__name__, types.items(), bases=(kind,), frozen=frozen, kw_only=True)
    return page(**contents)
