"""Crosscheck finds deliberate faults: a sound PyTorch against one that is broken in one place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from common.batches.shared import SharedBatches
from common.crosscheck import compare, probe, scenarios
from common.crosscheck.compare import Probe
from common.crosscheck.scenarios import Scenario
from common.data.folder import ImageData
from common.network import imagenet, lora
from common.spec.experiment import ExperimentSpec
from common.system.errors import RunError

NAMES = ("sgd, sum", "strong decay", "cosine, momentum", "weighted and smoothed", "lora, sgd")
SCENARIOS = tuple(s for s in scenarios.SCENARIOS if s.name in NAMES)


# Of the session, so that it comes before the probes.
@pytest.fixture(scope="session", autouse=True)
def only_torch(backend_name: str) -> None:
    if backend_name != "torch":
        pytest.skip("faults are planted in the PyTorch backend")


@pytest.fixture(scope="session")
def examine(backend, pictures: ImageData) -> Callable[..., Probe]:
    """Probe the backend as it is now."""

    def examine(precision: str = "fp32", chosen: Sequence[Scenario] = SCENARIOS) -> Probe:
        spec = ExperimentSpec(
            data="pictures", image_size=64, batch_size=8, device="cpu", workers=0, precision=precision
        )  # fmt: skip
        return Probe(*probe.probe(backend, spec, pictures, 4, chosen))

    return examine


@pytest.fixture(scope="session")
def sound(examine) -> tuple[Probe, Probe]:
    """The yardstick, and float32 without a fault."""
    return examine("fp64"), examine()


@pytest.fixture
def failures(examine, sound) -> Callable[..., list[str]]:
    """The checks that fail with what is broken now, of the scenarios named: one that must show it, or must not."""

    def failures(*names: str) -> list[str]:
        yardstick, torch = sound
        chosen = tuple(scenario for scenario in SCENARIOS if scenario.name in names)
        assert len(chosen) == len(names)
        checks = compare.compare({"torch": torch, "broken": examine(chosen=chosen)}, yardstick, chosen)
        return [check.name for check in checks if not check.passed]

    return failures


def change_networks(monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], None]) -> None:
    """Every ResNet-18 that is built is passed through `change`."""
    from backends.torch import models

    build = models.BUILDERS["resnet18"]

    def changed(**options: Any) -> Any:
        network = build(**options)
        change(network)
        return network

    monkeypatch.setitem(models.BUILDERS, "resnet18", changed)


def batch_norms(network: Any) -> list[Any]:
    return [layer for name, layer in network.named_modules() if "bn" in name or name.endswith("downsample.1")]


def test_no_fault_no_failure(failures) -> None:
    assert failures(*NAMES) == []


def test_wrong_index(monkeypatch, failures) -> None:
    monkeypatch.setattr(imagenet, "hotdog_index", lambda names: 713)
    assert failures("sgd, sum") == ["hotdog index", "hotdog name", "hot-dog row of the source head"]


def test_wrong_momentum(monkeypatch, failures) -> None:
    """Each batch weighs 90 %, as in flaxmodels."""
    from backends.torch import layers, training

    set_momentum = layers.set_momentum
    monkeypatch.setattr(
        training, "set_momentum", lambda model, spec: set_momentum(model, spec.replace(batch_norm_momentum=0.9))
    )
    failed = failures("sgd, sum")
    assert "sgd, sum: statistics" in failed
    assert "sgd, sum: losses" not in failed


def test_biased_variance(monkeypatch, backend, failures) -> None:
    pending = []

    def note(layer: Any, inputs: Any, output: Any) -> None:
        if layer.training:
            count = inputs[0].numel() // inputs[0].shape[1]
            pending.append((layer, inputs[0].detach().var((0, 2, 3), unbiased=False) / (count - 1)))

    def change(network: Any) -> None:
        for layer in batch_norms(network):
            layer.register_forward_hook(note)

    step = backend.Trainer.train_step

    def biased_step(trainer: Any, *batch: Any) -> None:
        pending.clear()
        step(trainer, *batch)
        for layer, excess in pending:
            layer.running_var -= layer.momentum * excess

    change_networks(monkeypatch, change)
    monkeypatch.setattr(backend.Trainer, "train_step", biased_step)
    failed = failures("sgd, sum")
    assert "sgd, sum: statistics" in failed
    assert "sgd, sum: losses" not in failed


def test_swapped_channels(monkeypatch, backend, failures) -> None:
    take = backend.from_shared
    monkeypatch.setattr(backend, "from_shared", lambda images, labels: take(images[..., ::-1].copy(), labels))
    failed = failures("sgd, sum")
    assert "logits" in failed
    assert "pixels" not in failed


def test_padding_off_by_one(monkeypatch, failures) -> None:
    """Four pixels left and above, two right and below, instead of three all round: TensorFlow's habit with strides."""
    from torch.nn import functional

    def change(network: Any) -> None:
        network.conv1.register_forward_pre_hook(lambda layer, inputs: functional.pad(inputs[0], (1, -1, 1, -1)))

    change_networks(monkeypatch, change)
    assert "logits" in failures("sgd, sum")


def test_no_decay_in_one_group(monkeypatch, failures) -> None:
    from backends.torch import optimizer, training

    make = optimizer.make_optimizer

    def without_decay(*arguments: Any) -> Any:
        optimizer = make(*arguments)
        optimizer.param_groups[2]["weight_decay"] = 0.0
        return optimizer

    monkeypatch.setattr(training, "make_optimizer", without_decay)
    assert "strong decay: parameters" in failures("sgd, sum", "strong decay")


def test_head_at_the_backbones_rate(monkeypatch, failures) -> None:
    from backends.torch import optimizer, training

    make = optimizer.make_optimizer

    def one_rate(*arguments: Any) -> Any:
        optimizer = make(*arguments)
        optimizer.param_groups[-1]["lr"] = optimizer.param_groups[0]["lr"]
        return optimizer

    monkeypatch.setattr(training, "make_optimizer", one_rate)
    assert "sgd, sum: losses" in failures("sgd, sum")


def test_learning_rate_inside_the_momentum(monkeypatch, failures) -> None:
    """As in Keras and MXNet by themselves: what was gathered at another rate keeps that rate."""
    from backends.torch import optimizer, training

    make = optimizer.make_optimizer

    def inside(*arguments: Any) -> Any:
        optimizer, rates = make(*arguments), {}

        def rescale(optimizer: Any, *_: Any) -> None:
            for number, group in enumerate(optimizer.param_groups):
                for parameter in group["params"]:
                    if "momentum_buffer" in optimizer.state[parameter]:
                        optimizer.state[parameter]["momentum_buffer"] *= rates[number] / group["lr"]
                rates[number] = group["lr"]

        optimizer.register_step_pre_hook(rescale)
        return optimizer

    monkeypatch.setattr(training, "make_optimizer", inside)
    failed = failures("sgd, sum", "cosine, momentum")
    assert "cosine, momentum: losses" in failed
    assert not any(name.startswith("sgd") for name in failed)


def test_no_smoothing(monkeypatch, failures) -> None:
    from backends.torch import training

    table = training.target_table
    monkeypatch.setattr(training, "target_table", lambda spec, counts: table(spec.replace(label_smoothing=0.0), counts))
    failed = failures("sgd, sum", "weighted and smoothed")
    assert "weighted and smoothed: losses" in failed
    assert all(name.startswith("weighted") for name in failed)


@pytest.mark.parametrize("fault", ["layout", "scale"])
def test_other_adapters(monkeypatch, failures, fault) -> None:
    """Height and width exchanged, or alpha without the division by the rank."""
    from backends.torch import layers

    build, initial = layers.Adapter, lora.initial

    def transposed(*arguments: Any) -> Any:
        return {n: a.swapaxes(2, 3) if a.ndim == 4 else a for n, a in initial(*arguments).items()}

    if fault == "layout":
        monkeypatch.setattr(lora, "initial", transposed)
    else:
        monkeypatch.setattr(layers, "Adapter", lambda weight, rank, scale: build(weight, rank, scale * rank))
    assert failures("sgd, sum", "lora, sgd") == ["lora, sgd: losses", "lora, sgd: parameters"]


@pytest.mark.parametrize("split", ["train", "test"])
def test_dropped_last_batch(monkeypatch, examine, split) -> None:
    whole = getattr(SharedBatches, split)
    monkeypatch.setattr(SharedBatches, split, lambda *arguments: list(whole(*arguments))[:-1])
    with pytest.raises(RunError, match="of 22 training|of 14 test"):
        examine(chosen=())
