"""Names, prefixes, heads and architectures: any ResNet's tensors become torchvision's, or the message says why not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from common.network import resnet
from common.network.conversion import names
from common.network.conversion.convert import Conversion, convert
from common.network.conversion.stored import StoredTensors, flatten
from common.system.errors import UserError

Tensors = dict[str, np.ndarray]


def network(architecture: str = "resnet18", classes: int = 7) -> Tensors:
    """A network in which no two tensors are alike."""
    generator = np.random.default_rng(1)
    return {
        name: generator.random(shape, np.float32) + 0.1 for name, shape in resnet.shapes(architecture, classes).items()
    }


def backbone(tensors: Tensors) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if name not in resnet.HEAD}


def renamed(tensors: Tensors, change: Callable[[str], str]) -> Tensors:
    return {change(name): tensor for name, tensor in tensors.items()}


def converted(tensors: dict[str, Any], *tables: dict[str, str], prefix: str | None = None) -> Conversion:
    return convert(StoredTensors(tensors, tables), "file.pth", prefix)


def assert_same(conversion: Conversion, tensors: Tensors) -> None:
    assert list(conversion.arrays) == list(tensors)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(conversion.arrays[name], tensor, err_msg=name)
        assert conversion.arrays[name].dtype == np.float32


@pytest.mark.parametrize("architecture", resnet.ARCHITECTURES)
@pytest.mark.parametrize(
    "prefix", ["", "module.", "backbone.", "resnet.", "model._orig_mod.", "state_dict/module.encoder_q."]
)
def test_every_architecture_behind_every_prefix(architecture: str, prefix: str) -> None:
    tensors = network(architecture)
    conversion = converted(renamed(tensors, lambda name: prefix + name))
    assert (conversion.architecture, conversion.prefix, conversion.classes) == (architecture, prefix, 7)
    assert conversion.left_out == {}
    assert conversion.mapped == {prefix + name: name for name in tensors}
    assert_same(conversion, tensors)


@pytest.mark.parametrize("architecture", ["resnet18", "resnet50"])
@pytest.mark.parametrize(
    "change",
    [
        lambda name: (
            "resnet." + names.hugging_face(name) if name not in resnet.HEAD else name.replace("fc", "classifier.1")
        ),
        lambda name: name.replace("fc.", "fc.1."),
        lambda name: name.replace("fc.", "model.fc.") if "fc." in name else f"model.encoder.{name}",
        lambda name: (
            name.replace("fc.", "head.") if "fc." in name else f"features.{names.torch_tables()[2].get(name, name)}"
        ),
    ],
    ids=["hugging face", "sequential head", "head outside", "head elsewhere"],
)
def test_other_names_of_the_same_network(architecture: str, change: Callable[[str], str]) -> None:
    tensors = network(architecture)
    assert_same(converted(renamed(tensors, change)), tensors)


def test_a_sequential_of_the_children() -> None:
    """nn.Sequential(*list(network.children())[:-1]), which people make of a backbone."""
    numbers = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}
    tensors = backbone(network())
    moved = renamed(tensors, lambda name: f"body.{numbers[name.split('.')[0]]}.{name.split('.', 1)[1]}")
    conversion = converted(moved)
    assert (conversion.prefix, conversion.classes) == ("body.", 0)
    assert_same(conversion, tensors)


def test_a_table_of_a_framework() -> None:
    tensors = network()
    table = {f"{name.replace('.', '_')}/v": name for name in tensors}
    moved = {f"net0_{own}": tensors[name] for own, name in table.items()}
    conversion = converted(moved, {"nothing": "conv1.weight"}, table)
    assert conversion.mapped["net0_conv1_weight/v"] == "conv1.weight"


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_floating_point_types(dtype: type) -> None:
    tensors = {name: tensor.astype(dtype) for name, tensor in network().items()}
    assert_same(converted(tensors), {name: tensor.astype(np.float32) for name, tensor in tensors.items()})


def test_what_is_no_part_of_the_network_is_left_out_and_said() -> None:
    tensors = network()
    file = {
        "epoch": 3,
        "model": {**tensors, "bn1.num_batches_tracked": np.array(3), "loss.pos_weight": np.ones(7, np.float32)},
        # As large as a head, and not one.
        "optimizer": {"state": {0: {"exp_avg": np.ones((7, 512), np.float32)}}, "param_groups": [{"lr": 0.1}]},
    }
    conversion = converted(dict(flatten(file)))
    assert_same(conversion, tensors)
    assert {reason.split(",")[0]: found for reason, found in conversion.left_out.items()} == {
        "counts of batches": ["model/bn1.num_batches_tracked"],
        "beside the network": ["optimizer/state/0/exp_avg"],
        "no parameter of resnet18": ["model/loss.pos_weight"],
    }


def test_a_network_at_the_root_is_kept_apart_from_what_lies_deeper() -> None:
    """As in a Flax training state."""
    tensors = network()
    state = {
        f"opt_state/0/{name}": np.ones_like(tensor) for name, tensor in renamed(tensors, lambda n: f"mu.{n}").items()
    }
    moved = renamed(tensors, lambda name: name.replace("fc", "classifier"))
    conversion = converted({**moved, **{name: tensor for name, tensor in state.items() if "running" not in name}})
    assert_same(conversion, tensors)


def test_a_head_without_a_bias_has_zeros() -> None:
    tensors = network()
    conversion = converted({name: tensor for name, tensor in tensors.items() if name != "fc.bias"})
    assert_same(conversion, {**tensors, "fc.bias": np.zeros(7, np.float32)})


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        ({}, ""),
        (
            {"fc.0.weight": (256, 512), "fc.0.bias": (256,), "fc.3.weight": (7, 256), "fc.3.bias": (7,)},
            "several layers",
        ),
        ({"norm.gamma": (512,), "dense.weight": (7, 512), "dense.bias": (7,)}, "several layers"),
        ({"a.weight": (7, 512), "b.weight": (3, 512)}, "several dense layers"),
        ({"fc.weight": (7, 2048)}, "no dense layer takes 512"),
        ({"fc.weight": (7, 512), "fc.bias": (8,)}, "fc.bias has shape"),
    ],
)
def test_what_is_no_plain_head_is_left_out(head: dict[str, tuple[int, ...]], reason: str) -> None:
    tensors = backbone(network())
    conversion = converted({**tensors, **{name: np.ones(shape, np.float32) for name, shape in head.items()}})
    assert_same(conversion, tensors)
    assert conversion.classes == 0
    assert reason in conversion.head.why_not
    assert [own for left in conversion.left_out.values() for own in left] == list(head)


def test_torchvisions_head_goes_before_others() -> None:
    tensors = network()
    conversion = converted({**tensors, "projector.weight": np.ones((128, 512), np.float32)})
    assert_same(conversion, tensors)


def change_of(**changes: Any) -> Callable[[Tensors], Any]:
    return lambda tensors: tensors.update({name.replace("__", "."): value for name, value in changes.items()})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.clear(), "holds no named tensors"),
        (lambda t: t.pop("layer4.1.bn2.bias"), "nearest is resnet18, but the file lacks layer4.1.bn2.bias"),
        (
            change_of(layer1__2__conv1__weight=np.ones((64, 64, 3, 3), "f4")),
            r"has layer1.2.conv1.weight besides.*3, 2, 2, 2",
        ),
        (change_of(layer1__0__se__fc1__weight=np.ones((4, 64), "f4")), "layer1.0.se.fc1.weight besides"),
        (
            change_of(stack0_block2_1_conv__kernel=np.ones((64, 64, 3, 3), "f4")),
            "convolutions besides.*another network",
        ),
        (change_of(conv1__weight=np.ones((64, 1, 7, 7), "f4")), r"conv1.weight has shape \(64, 1, 7, 7\)"),
        (
            change_of(conv1__weight=np.full((64, 3, 7, 7), np.nan, "f4")),
            "conv1.weight holds values that are not finite",
        ),
        (change_of(conv1__weight=np.full((64, 3, 7, 7), 1e300)), "conv1.weight holds values that are not finite"),
        (change_of(conv1__weight=np.ones((64, 3, 7, 7), "i1")), "conv1.weight has dtype int8"),
        (lambda t: [t.pop(n) for n in list(t) if resnet.is_statistic(n)], "running means and variances are missing"),
        (lambda t: [t.pop(n) for n in list(t) if not n.startswith("conv1")], "only 1 of the tensors have a name"),
        (
            lambda t: [t.update({f"vit.{i}.query.weight": t.pop(n)}) for i, n in enumerate(list(t))],
            "no ResNet; none of the 102 tensors.*vit.0.query.weight",
        ),
        (
            lambda t: [t.update({f"ema/{n}": t[n], f"model/{n}": t.pop(n)}) for n in list(t)],
            "2 networks, whose names begin with 'ema/' and 'model/'; choose one: --prefix ema/",
        ),
    ],
)
def test_what_is_no_network_of_ours_is_refused(change: Callable[[Tensors], Any], message: str) -> None:
    tensors = network()
    change(tensors)
    with pytest.raises(UserError, match=f"^file.pth: .*{message}"):
        converted(tensors)


def test_one_of_several_networks_is_chosen_by_its_prefix() -> None:
    first, second = network(), network(classes=3)
    both = {**renamed(first, lambda name: f"ema/{name}"), **renamed(second, lambda name: f"model/{name}")}
    assert_same(converted(both, prefix="model/"), second)
    assert_same(converted(both, prefix="ema/"), first)
    with pytest.raises(UserError, match="--prefix 'other' stands before no network; what does: 'ema/', 'model/'"):
        converted(both, prefix="other")


def test_nested_dictionaries_end_somewhere() -> None:
    endless: dict[str, Any] = {}
    endless["again"] = endless
    assert list(flatten({"a": endless, "b": np.ones(1)})) == [("b", np.ones(1))]
