"""bfloat16: products in it, everything that is kept or compared in float32."""

from __future__ import annotations

import numpy as np
import pytest

from common.contract.watch import Quiet
from common.spec.experiment import ExperimentSpec
from tests.backends.conftest import largest_difference, only_phase

# bfloat16 has 8 bits, so a product is off by 0.4 %; twenty layers in a row, normalised in between, stay near that.
TOLERANCE = 0.03


@pytest.fixture
def low(backend, backend_name, spec) -> ExperimentSpec:
    if backend_name == "mxnet":
        pytest.skip("MXNet trains in float32 only")
    return spec.replace(precision="bf16")


def test_logits_are_float32_near_those_of_float32(backend, models, low, batch) -> None:
    expected = backend.logits(models.fine_tune, batch[0])
    logits = backend.logits(backend.build_models(low).fine_tune, batch[0])
    assert logits.dtype == np.float32
    difference = largest_difference(logits, expected)
    # Not the same numbers: or nothing was computed in bfloat16.
    assert 1e-5 < difference < TOLERANCE


@pytest.mark.parametrize("batch_norm", ["train", "frozen"])
def test_gradients_are_near_those_of_float32(backend, models, spec, low, batch, batch_norm) -> None:
    changes = {"batch_norm": batch_norm}
    expected = backend.gradients(models.fine_tune, spec.replace(**changes), only_phase(spec, **changes), batch)
    model = backend.build_models(low).fine_tune
    found = backend.gradients(model, low.replace(**changes), only_phase(low, **changes), batch)
    assert all(array.dtype == np.float32 for array in found.values())
    assert largest_difference(found["fc.weight"], expected["fc.weight"]) < 0.1
    for name in ("layer4.1.conv2.weight", "layer1.0.conv1.weight", "bn1.weight"):
        one, two = (gradients[name].astype(np.float64).ravel() for gradients in (found, expected))
        assert one @ two / np.linalg.norm(one) / np.linalg.norm(two) > 0.95, name


def test_parameters_and_statistics_stay_float32(backend, models, spec, low, batch) -> None:
    """An update much smaller than a bfloat16 could resolve arrives, and the statistics are those of float32."""
    arrays = {}
    for chosen, model in ((spec, models.fine_tune), (low, backend.build_models(low).fine_tune)):
        before = backend.to_arrays(model)
        trainer = backend.Trainer(model, chosen, only_phase(chosen))
        trainer.train_step(*batch)
        loss_sum, _ = trainer.read_sums()
        assert np.isfinite(loss_sum)
        arrays[chosen.precision] = before, backend.to_arrays(model)
    before, after = arrays["bf16"]
    assert all(array.dtype == np.float32 for array in after.values())
    moved = np.abs(after["layer4.1.conv2.weight"] - before["layer4.1.conv2.weight"])
    assert 0 < moved.max() < 2**-9 * np.abs(before["layer4.1.conv2.weight"]).max()
    for name in ("bn1.running_mean", "bn1.running_var", "layer1.0.bn1.running_var"):
        assert largest_difference(after[name], arrays["fp32"][1][name]) < 5e-3, name


def test_the_whole_loop_trains_in_bf16(backend, low, pictures) -> None:
    changed = low.replace(epochs=1)
    model = backend.build_models(changed).fine_tune
    history = backend.train_fine_tuning(model, changed, pictures, watch=Quiet())
    assert history.test.logits.dtype == np.float32
    assert np.isfinite(history.epochs[0].loss)


@pytest.mark.gpu
def test_tf32_is_used_where_it_is_asked_for_alone(backend, backend_name, spec, numpy_batch) -> None:
    if backend_name == "mxnet":
        pytest.skip("MXNet trains in float32 only")
    found = {}
    for name in ("fp32", "tf32", "bf16", "again"):
        chosen = spec.replace(device="gpu", precision="fp32" if name == "again" else name)
        if (backend.prepare(chosen).compute_capability or (0, 0)) < (8, 0):
            pytest.skip("needs an Ampere or later")
        images, _ = backend.from_shared(*numpy_batch)
        found[name] = backend.logits(backend.build_models(chosen).fine_tune, images)
    np.testing.assert_array_equal(found["again"], found["fp32"])
    # TF32 rounds factors to 10 bits and bfloat16 to 7.
    assert 1e-5 < largest_difference(found["tf32"], found["fp32"]) < largest_difference(found["bf16"], found["fp32"])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_products_run(backend, backend_name, spec, precision) -> None:
    if (backend_name, precision) == ("mxnet", "bf16"):
        pytest.skip("MXNet trains in float32 only")
    assert backend.matmul_benchmark(spec.replace(precision=precision), 64)() is None
