"""Stages and phases."""

from __future__ import annotations

import pytest

from common.method import phases
from common.network import lora, resnet
from common.network.stages import BACKBONE_STAGES, STAGES, by_stage, stage_of
from common.spec.experiment import ExperimentSpec, StageMultiples
from common.system.errors import UserError


@pytest.mark.parametrize("architecture", resnet.ARCHITECTURES)
def test_every_name_is_in_exactly_one_stage(architecture: str) -> None:
    names = resnet.shapes(architecture)
    stages = by_stage(names)
    assert sorted(name for group in stages.values() for name in group) == sorted(names)
    assert all(stages.values())


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match="layer5"):
        stage_of("layer5.0.conv1.weight")


def multiples(**changes: object) -> list[dict[str, float]]:
    return [phase.multiples for phase in phases.phases(ExperimentSpec(**changes))]  # type: ignore[arg-type]


def test_fine_tuning_has_a_faster_head() -> None:
    assert multiples() == [dict.fromkeys(BACKBONE_STAGES, 1.0) | {"head": 10.0}]


def test_scratch_and_no_groups_have_one_rate() -> None:
    assert multiples(strategy="scratch") == [dict.fromkeys(STAGES, 1.0)]
    (phase,) = phases.phases(ExperimentSpec(), param_group=False)
    assert phase.multiples == dict.fromkeys(STAGES, 1.0)


def test_discriminative_has_three_rates() -> None:
    assert multiples(strategy="discriminative") == [
        {"stem": 0.1, "layer1": 0.1, "layer2": 0.1, "layer3": 1.0, "layer4": 1.0, "head": 10.0}
    ]


def test_feature_extraction_trains_the_head_alone_and_keeps_statistics() -> None:
    (phase,) = phases.phases(ExperimentSpec(strategy="feature-extraction"))
    assert phase.trained_stages == ("head",)
    assert phase.frozen_statistics == set(STAGES)


@pytest.mark.parametrize(("count", "trained"), [(1, ("layer4", "head")), (2, ("layer3", "layer4", "head"))])
def test_partial_trains_the_last_stages(count: int, trained: tuple[str, ...]) -> None:
    (phase,) = phases.phases(ExperimentSpec(strategy="partial", partial_stages=count))
    assert phase.trained_stages == trained
    assert phase.frozen_statistics == set(STAGES) - set(trained)


def test_lora_trains_adapters_and_head_alone() -> None:
    (phase,) = phases.phases(ExperimentSpec(strategy="lora", stage_multiples=StageMultiples(layer2=0)))
    assert phase.frozen_statistics == set(STAGES)
    names = [*resnet.shapes("resnet18"), *lora.shapes("resnet18", 4)]
    trained = [name for name in names if phase.trains(name)]
    adapters = [name for name in lora.shapes("resnet18", 4) if not name.startswith("layer2.")]
    assert trained == ["fc.weight", "fc.bias", *adapters]


def test_without_adapters_a_stage_trains_as_a_whole_but_for_its_statistics() -> None:
    (phase,) = phases.phases(ExperimentSpec(strategy="partial", partial_stages=1))
    trained = {name for name in resnet.shapes("resnet18") if phase.trains(name)}
    late = {name for name in resnet.shapes("resnet18") if name.startswith(("layer4.", "fc."))}
    assert trained == {name for name in late if not resnet.is_statistic(name)}


def test_warm_up_has_two_phases() -> None:
    head, everything = phases.phases(ExperimentSpec(strategy="warm-up", epochs=5, warm_up_epochs=2))
    assert (head.epochs, everything.epochs) == (2, 3)
    assert head.trained_stages == ("head",)
    assert everything.trained_stages == STAGES
    assert everything.frozen_statistics == set()


def test_frozen_early_statistics() -> None:
    (phase,) = phases.phases(ExperimentSpec(batch_norm="frozen_early"))
    assert phase.frozen_statistics == {"stem", "layer1", "layer2"}
    assert phase.trained_stages == STAGES


def test_nothing_to_train_is_refused() -> None:
    with pytest.raises(UserError, match="head_multiple"):
        phases.phases(ExperimentSpec(head_multiple=0, stage_multiples=StageMultiples(0, 0, 0, 0, 0)))
    with pytest.raises(UserError, match="head_multiple"):
        phases.phases(ExperimentSpec(head_multiple=0, strategy="feature-extraction"))
    with pytest.raises(UserError, match="phase 'head'"):
        phases.phases(ExperimentSpec(head_multiple=0, strategy="warm-up"))
    with pytest.raises(UserError, match="last stages"):
        phases.phases(
            ExperimentSpec(
                head_multiple=0, strategy="partial", partial_stages=1, stage_multiples=StageMultiples(layer4=0)
            )
        )


def test_names_are_sorted_into_the_groups_of_a_phase() -> None:
    (phase,) = phases.phases(ExperimentSpec(strategy="partial", partial_stages=1))
    names = ["conv1.weight", "layer4.0.conv1.weight", "fc.weight", "layer4.0.bn1.running_mean"]
    assert phase.assign(names) == {"layer4": ["layer4.0.conv1.weight"], "head": ["fc.weight"]}
    assert phase.learning_rates == {"layer4": 5e-5, "head": pytest.approx(5e-4)}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["fc.weight", "fc.weight"], "comes twice"),
        (["blocks.0.weight"], "blocks.0.weight belongs to none of the stages"),
    ],
)
def test_names_that_fit_no_group_are_refused(names, message) -> None:
    (phase,) = phases.phases(ExperimentSpec())
    with pytest.raises(RuntimeError, match=message):
        phase.assign(names)


@pytest.mark.parametrize(
    "held", [["fc.weight"], ["fc.weight", "fc.bias", "fc.bias"], ["fc.weight", "fc.bias", "conv1.weight"]]
)
def test_an_optimizer_holds_each_trained_parameter_once_and_no_other(held) -> None:
    (phase,) = phases.phases(ExperimentSpec(strategy="feature-extraction"))
    names = ["conv1.weight", "fc.weight", "fc.bias"]
    phase.check_held(["fc.bias", "fc.weight"], names)
    with pytest.raises(RuntimeError, match="exactly one parameter group"):
        phase.check_held(held, names)
