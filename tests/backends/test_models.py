"""The three networks: heads, rows, names, layouts, independence."""

from __future__ import annotations

import numpy as np
import pytest

from common.contract.backend import Backend, Models
from common.network import imagenet, resnet, sources, weights
from common.network.preprocessing_metadata import Preprocessing
from common.spec.experiment import ExperimentSpec
from common.spec.names import MODELS_BY_BACKEND
from common.system.errors import UserError
from tests.backends.conftest import largest_difference, only_phase


def test_head_shapes(backend: Backend, models: Models) -> None:
    shapes = [backend.head_shape(model) for model in (models.pretrained, models.fine_tune, models.scratch)]
    assert [sorted(shape) for shape in shapes] == [[512, 1000], [2, 512], [2, 512]]


def test_hotdog_row_is_that_of_class_934(backend: Backend, models: Models) -> None:
    stored = weights.read(sources.DISTILLED).arrays["fc.weight"]
    row = backend.head_row(models.pretrained, imagenet.hotdog_index(imagenet.class_names()))
    assert row.shape == (512,)
    np.testing.assert_array_equal(row, stored[934])
    assert not np.array_equal(row, stored[713])


def test_source_has_the_numbers_of_the_file(backend: Backend, models: Models) -> None:
    arrays = backend.to_arrays(models.pretrained)
    stored = weights.read(sources.DISTILLED).arrays
    assert list(arrays) == list(resnet.shapes("resnet18"))
    for name, array in arrays.items():
        assert array.dtype == np.float32, name
        np.testing.assert_array_equal(array, stored[name], err_msg=name)


def test_fine_tune_is_the_source_with_the_shared_head(backend: Backend, models: Models, spec: ExperimentSpec) -> None:
    source, tuned = backend.to_arrays(models.pretrained), backend.to_arrays(models.fine_tune)
    head = resnet.initial_head("resnet18", 2, spec.seed)
    for name, array in tuned.items():
        np.testing.assert_array_equal(array, head[name] if name in head else source[name], err_msg=name)


def test_scratch_has_the_shared_random_values(backend: Backend, models: Models, spec: ExperimentSpec) -> None:
    expected = resnet.initial_network("resnet18", 2, spec.seed)
    for name, array in backend.to_arrays(models.scratch).items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


def test_native_initial_values(backend: Backend, spec: ExperimentSpec) -> None:
    networks = []
    for seed in (0, 0, 1):
        changed = spec.replace(initial_values="native", seed=seed)
        backend.prepare(changed)
        models = backend.build_models(changed)
        networks.append((backend.to_arrays(models.fine_tune), backend.to_arrays(models.scratch)))
    (head, scratch), (head_again, scratch_again), (other_head, other_scratch) = networks
    limit = np.sqrt(6 / (512 + 2))
    assert limit * 0.9 < np.abs(head["fc.weight"]).max() <= limit
    np.testing.assert_array_equal(scratch["layer2.0.bn1.weight"], np.ones(128))
    for name in scratch:
        np.testing.assert_array_equal(head[name], head_again[name], err_msg=name)
        np.testing.assert_array_equal(scratch[name], scratch_again[name], err_msg=name)
    assert not np.array_equal(head["fc.weight"], other_head["fc.weight"])
    for name in ("fc.weight", "layer2.0.conv1.weight"):
        assert not np.array_equal(scratch[name], other_scratch[name]), name


@pytest.mark.parametrize("classes", [2, 5])
def test_every_architecture_matches_the_table(backend: Backend, spec: ExperimentSpec, classes: int) -> None:
    for model in MODELS_BY_BACKEND[spec.backend]:
        scratch_spec = spec.replace(model=model, weights="none", strategy="scratch", classes=classes)
        models = backend.build_models(scratch_spec)
        assert models.pretrained is None
        assert models.fine_tune is None
        shapes = {name: array.shape for name, array in backend.to_arrays(models.scratch).items()}
        expected = resnet.shapes(resnet.architecture(spec.backend, model), classes)
        assert shapes == expected
        assert list(shapes) == list(expected)


def test_load_arrays_sets_what_is_named(backend: Backend, models: Models) -> None:
    before = backend.to_arrays(models.scratch)
    changed = {
        name: np.random.default_rng(1).random(before[name].shape).astype(np.float32)
        for name in ("layer1.0.conv1.weight", "fc.weight", "bn1.running_var", "layer2.0.downsample.0.weight")
    }
    backend.load_arrays(models.scratch, changed)
    for name, array in backend.to_arrays(models.scratch).items():
        np.testing.assert_array_equal(array, changed.get(name, before[name]), err_msg=name)


def test_load_arrays_refuses_what_does_not_fit(backend: Backend, models: Models) -> None:
    with pytest.raises(KeyError):
        backend.load_arrays(models.scratch, {"layer9.conv1.weight": np.zeros(1, np.float32)})
    with pytest.raises(ValueError, match="conv1.weight"):
        backend.load_arrays(models.scratch, {"conv1.weight": np.zeros((64, 3, 7, 5), np.float32)})


def test_to_arrays_gives_copies(backend: Backend, models: Models) -> None:
    backend.to_arrays(models.scratch)["fc.bias"][:] = 7
    assert not backend.to_arrays(models.scratch)["fc.bias"].any()


def test_training_one_model_changes_no_other(backend, models, spec, batch) -> None:
    before = [backend.to_arrays(model) for model in (models.pretrained, models.scratch)]
    trainer = backend.Trainer(models.fine_tune, spec, only_phase(spec))
    trainer.train_step(*batch)
    trainer.read_sums()
    for old, model in zip(before, (models.pretrained, models.scratch), strict=True):
        for name, array in backend.to_arrays(model).items():
            np.testing.assert_array_equal(array, old[name], err_msg=name)


def test_a_written_checkpoint_gives_the_same_logits(backend, models, spec, batch, tmp_path) -> None:
    path = tmp_path / "model.safetensors"
    header = weights.Header("resnet18", ("hotdog", "not-hotdog"), Preprocessing(), "test")
    weights.write(path, weights.Checkpoint(header, backend.to_arrays(models.scratch)))
    again = backend.build_models(spec.replace(weights=str(path))).pretrained
    assert largest_difference(backend.logits(again, batch[0]), backend.logits(models.scratch, batch[0])) < 1e-6


def test_gpu_that_is_not_there_is_refused(backend: Backend, spec: ExperimentSpec) -> None:
    if backend.prepare(spec.replace(device="auto")).kind == "gpu":
        pytest.skip("this machine has a GPU")
    with pytest.raises(UserError, match="gpu"):
        backend.prepare(spec.replace(device="gpu"))


@pytest.mark.gpu
def test_gpu_is_used(backend: Backend, spec: ExperimentSpec, batch) -> None:
    assert backend.prepare(spec.replace(device="gpu")).kind == "gpu"
    on_gpu = backend.build_models(spec.replace(device="gpu")).fine_tune
    on_cpu = backend.build_models(spec).fine_tune
    # Without TF32 the two differ by float32 rounding only.
    assert largest_difference(backend.logits(on_gpu, batch[0]), backend.logits(on_cpu, batch[0])) < 1e-5
    assert backend.peak_gpu_memory() != 0
