"""Low-rank adapters: identity at first, the paper's update, merged export."""

from __future__ import annotations

import numpy as np
import pytest

from common.network import lora, resnet, weights
from common.network.preprocessing_metadata import Preprocessing
from common.network.stages import stage_of
from common.spec.experiment import ExperimentSpec, StageMultiples
from common.spec.names import MODELS_BY_BACKEND
from tests.backends.conftest import largest_difference, only_phase

RATE, DECAY = 1e-2, 0.1


@pytest.fixture
def lora_spec(spec: ExperimentSpec) -> ExperimentSpec:
    return spec.replace(strategy="lora", lora_rank=3, lora_alpha=6.0, learning_rate=RATE, weight_decay=DECAY)


def test_adapters_start_as_identity(backend, lora_spec, batch, spec) -> None:
    adapted, plain = backend.build_models(lora_spec), backend.build_models(spec)
    logits = [backend.logits(models.fine_tune, batch[0]) for models in (adapted, plain)]
    # The same numbers, but a compiler may fuse the two networks differently.
    assert largest_difference(*logits) < 1e-6
    for models in zip((adapted.pretrained, adapted.fine_tune), (plain.pretrained, plain.fine_tune), strict=True):
        arrays, expected = (backend.to_arrays(model) for model in models)
        assert list(arrays) == list(expected) == list(resnet.shapes("resnet18"))
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, expected[name], err_msg=name)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum"])
def test_three_steps_follow_the_definition(backend, lora_spec, batch, optimizer) -> None:
    """Adapters followed in NumPy, float64, with the backend's own gradients; the network shows them merged."""
    spec = lora_spec.replace(
        optimizer=optimizer, loss_reduction="mean", stage_multiples=StageMultiples(layer1=2.0, layer3=0.0)
    )
    phase, model = only_phase(spec), backend.build_models(spec).fine_tune
    start = backend.to_arrays(model)
    arrays = {name: array.astype(np.float64) for name, array in start.items()}
    arrays.update({name: array.astype(np.float64) for name, array in lora.initial("resnet18", 3, spec.seed).items()})
    buffers = dict.fromkeys(filter(phase.trains, arrays), 0.0)
    trainer = backend.Trainer(model, spec, phase)
    for step in range(3):
        gradients = backend.gradients(model, spec, phase, batch)
        assert gradients.keys() == buffers.keys()
        trainer.train_step(*batch)
        for name, gradient in gradients.items():
            assert gradient.shape == arrays[name].shape, name
            assert (step == 0 and name.endswith("lora_a")) != gradient.any(), name
            kept = 0.9 if optimizer == "momentum" else 0.0
            buffers[name] = kept * buffers[name] + gradient + DECAY * arrays[name]
            arrays[name] = arrays[name] - RATE * phase.multiples[stage_of(name)] * buffers[name]
    # alpha / rank = 2.
    expected, found = lora.merge(arrays, 2.0), backend.to_arrays(model)
    for name, array in found.items():
        if lora_untouched(name):
            np.testing.assert_array_equal(array, start[name], err_msg=name)
            continue
        change = expected[name] - start[name]
        assert np.linalg.norm(change) > 0, name
        # float32 resolves the merged weight only to 6e-8 of its own size.
        tolerance = 1e-4 * np.linalg.norm(change) + 2e-7 * np.linalg.norm(start[name])
        assert np.linalg.norm(array - expected[name]) <= tolerance, name


def lora_untouched(name: str) -> bool:
    """Whether training with adapters leaves a tensor as it is where layer3's multiple is 0."""
    convolution = len(resnet.shapes("resnet18")[name]) == 4 and not name.startswith("layer3.")
    return not convolution and not name.startswith("fc.")


@pytest.mark.parametrize("model_name", ["resnet18", "other"])
def test_a_merged_network_gives_the_adapted_logits(backend, lora_spec, batch, tmp_path, model_name) -> None:
    spec, architecture = lora_spec, "resnet18"
    if model_name == "other":
        (name,) = (name for name in MODELS_BY_BACKEND[spec.backend] if name != "resnet18")
        architecture = resnet.architecture(spec.backend, name)
        path = tmp_path / "source.safetensors"
        header = weights.Header(architecture, ("a", "b"), Preprocessing(), "test")
        arrays = resnet.initial_network(architecture, 2, 5)
        weights.write(path, weights.Checkpoint(header, arrays))
        spec = spec.replace(model=name, weights=str(path))
    adapted = backend.build_models(spec).fine_tune
    before = backend.logits(adapted, batch[0])
    generator = np.random.default_rng(2)
    values = {
        name: 0.05 * generator.standard_normal(shape).astype(np.float32)
        for name, shape in lora.shapes(architecture, 3).items()
    }
    backend.load_arrays(adapted, values)
    after, arrays = backend.logits(adapted, batch[0]), backend.to_arrays(adapted)
    assert largest_difference(after, before) > 1e-2
    plain = backend.build_models(spec.replace(strategy="fine-tune")).fine_tune
    backend.load_arrays(plain, arrays)
    # One pass forward, with weights that were rounded when they were merged.
    assert largest_difference(backend.logits(plain, batch[0]), after) < 1e-5
    # What the adapters held is now in the weights, and the adapters start anew.
    backend.load_arrays(adapted, arrays)
    assert largest_difference(backend.logits(adapted, batch[0]), after) < 1e-5
    for name, array in backend.to_arrays(adapted).items():
        np.testing.assert_array_equal(array, arrays[name], err_msg=name)


def test_training_with_adapters_changes_no_other_network(backend, lora_spec, batch) -> None:
    models = backend.build_models(lora_spec)
    before = backend.to_arrays(models.pretrained)
    trainer = backend.Trainer(models.fine_tune, lora_spec, only_phase(lora_spec))
    trainer.train_step(*batch)
    trainer.read_sums()
    for name, array in backend.to_arrays(models.pretrained).items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)
