"""What a sweep varies, as a user writes it."""

from __future__ import annotations

import pytest

from common.spec.experiment import ExperimentSpec
from common.sweep import vary
from common.system.errors import UserError


@pytest.mark.parametrize(
    ("text", "kind", "grid"),
    [
        ("head_multiple=1,5,10", "list", (1.0, 5.0, 10.0)),
        ("head-multiple=1,5", "list", (1.0, 5.0)),
        ("strategy=fine-tune,scratch", "list", ("fine-tune", "scratch")),
        ("flip=true,false", "list", (True, False)),
        ("image_size=64,72", "list", (64, 72)),
        ("stage_multiples.stem=0,1", "list", (0.0, 1.0)),
        ("learning_rate=1e-5..1e-1:log", "log range", (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)),
        ("learning_rate=1e-4..1e-2:log:3", "log range", (1e-4, 1e-3, 1e-2)),
        ("weight_decay=0..0.4", "range", (0.0, 0.1, 0.2, 0.3, 0.4)),
        ("partial_stages=1..4", "range", (1, 2, 3, 4)),
        ("seed=0,1,2", "list", (0, 1, 2)),
    ],
)
def test_what_can_be_varied(text: str, kind: str, grid: tuple[object, ...]) -> None:
    variable = vary.parse(text)
    assert variable.kind == kind
    assert variable.grid == grid
    assert [type(value) for value in variable.grid] == [type(value) for value in grid]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rat=1,2", "learning_rate"),
        ("learning_rate", "name=low..high"),
        ("learning_rate=", "name=low..high"),
        ("learning_rate=fast", "'fast' is no value of learning_rate"),
        ("learning_rate=1,,2", "'' is no value"),
        ("learning_rate=nan,1", "'nan' is no value"),
        ("learning_rate=1..2..3", "'2..3' is no value"),
        ("learning_rate=1e-1..1e-5:log", "from a lower to a higher"),
        ("learning_rate=0..1:log", "starts above 0"),
        ("learning_rate=1..2:lin", ":N"),
        ("learning_rate=1..2:log:1", ":N"),
        ("learning_rate=1..2:log:3:4", ":N"),
        ("batch_size=8,8.5", "'8.5' is no value of batch_size"),
        ("head_multiple=1,1.0", "twice"),
        ("optimizer=sgd,lamb", "'lamb' is no value of optimizer"),
        ("optimizer=adam..sgd", "list its values"),
        ("flip=maybe", "'maybe' is no value"),
        ("backend=torch,jax", "--study"),
        ("classes=2,3", "come from the data"),
        ("stage_multiples=1,2", "stage_multiples.stem"),
        ("validation=0.1,0.2", "the same images"),
    ],
)
def test_what_cannot_be_varied_is_explained(text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        vary.parse(text)
    assert message in str(caught.value)
    assert text.split("=")[0].split(".")[0] in str(caught.value)


def test_values_reach_the_spec() -> None:
    spec = vary.with_values(ExperimentSpec(), {"batch_size": 4, "stage_multiples.stem": 0.5, "flip": False})
    assert (spec.batch_size, spec.stage_multiples.stem, spec.stage_multiples.layer1, spec.flip) == (4, 0.5, 1.0, False)
