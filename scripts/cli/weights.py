"""The source weights that `auto` means, where a command needs them before its runs begin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from common.spec.experiment import ExperimentSpec


def with_weights(specs: Sequence[ExperimentSpec]) -> list[ExperimentSpec]:
    """Return experiments with the source weights that `auto` means in each, and print each choice once."""
    from common.network import sources
    from scripts.cli.display import console

    resolved = [sources.resolve(spec) for spec in specs]
    for why in dict.fromkeys(choice.why for _, choice in resolved if choice):
        console.print(why, soft_wrap=True)
    return [spec for spec, _ in resolved]
