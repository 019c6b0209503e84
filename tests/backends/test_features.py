"""Features computed once: the same numbers as with the backbone's forward pass in every step."""

from __future__ import annotations

import numpy as np
import pytest

from common.contract.watch import Quiet
from tests.backends.conftest import largest_difference

pytestmark = pytest.mark.usefixtures("fresh_cache")


def test_the_head_on_features_is_the_network(backend, models, batch) -> None:
    vectors = backend.feature_extractor(models.fine_tune)(batch[0])
    assert vectors.shape == (8, 512)
    assert vectors.dtype == np.float32
    arrays = backend.to_arrays(models.fine_tune)
    expected = backend.logits(models.fine_tune, batch[0])
    # One forward pass; rounding differs with how a framework fuses its layers.
    assert largest_difference(vectors @ arrays["fc.weight"].T + arrays["fc.bias"], expected) < 1e-5
    head = backend.extract_head(models.fine_tune)
    taken, _ = backend.from_shared(vectors, np.zeros(8, np.int64))
    assert largest_difference(backend.logits(head, taken), expected) < 1e-5


def test_adapters_are_part_of_the_features(backend, spec, batch) -> None:
    model = backend.build_models(spec.replace(strategy="lora")).fine_tune
    backend.load_arrays(model, {"conv1.lora_b": np.full((64, 4), 0.1, np.float32)})
    vectors, arrays = backend.feature_extractor(model)(batch[0]), backend.to_arrays(model)
    expected = backend.logits(model, batch[0])
    assert largest_difference(vectors @ arrays["fc.weight"].T + arrays["fc.bias"], expected) < 1e-5


def test_the_head_is_a_copy_under_its_own_names(backend, models) -> None:
    before = backend.to_arrays(models.fine_tune)
    head = backend.extract_head(models.fine_tune)
    arrays = backend.to_arrays(head)
    assert list(arrays) == ["fc.weight", "fc.bias"]
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)
    backend.load_arrays(head, {"fc.bias": np.array([3, 4], np.float32)})
    assert backend.to_arrays(head)["fc.bias"].tolist() == [3, 4]
    np.testing.assert_array_equal(backend.to_arrays(models.fine_tune)["fc.bias"], before["fc.bias"])
    with pytest.raises(KeyError):
        backend.load_arrays(head, {"conv1.weight": np.zeros((64, 3, 7, 7), np.float32)})


@pytest.mark.parametrize("changes", [
    {"strategy": "feature-extraction", "epochs": 3},
    {"strategy": "feature-extraction", "optimizer": "adam", "loss_reduction": "mean"},
    {"strategy": "warm-up", "warm_up_epochs": 1, "optimizer": "momentum"},
])  # fmt: skip
def test_reused_features_give_the_same_numbers(backend, spec, pictures, monkeypatch, changes) -> None:
    counted = []
    make = backend.feature_extractor

    def counting(model):
        extract = make(model)
        return lambda images: counted.append(len(images)) or extract(images)

    monkeypatch.setattr(backend, "feature_extractor", counting)
    changed = spec.replace(train_crop="none", flip=False, learning_rate=1e-3, **changes)
    histories, arrays = {}, {}
    for reuse in ("auto", "never"):
        model = backend.build_models(changed).fine_tune
        start = backend.to_arrays(model)
        histories[reuse] = backend.train_fine_tuning(
            model, changed.replace(reuse_features=reuse), pictures, watch=Quiet()
        )
        arrays[reuse] = backend.to_arrays(model)
    # 22 training and 14 test images, each once, in batches of 8.
    assert counted == [8, 8, 6, 8, 6]
    for one, other in zip(histories["auto"].epochs, histories["never"].epochs, strict=True):
        # Features and logits are each one forward pass of rounding off, and three epochs carry it on.
        assert (one.loss, one.test_loss) == pytest.approx((other.loss, other.test_loss), rel=1e-4)
    assert largest_difference(histories["auto"].test.logits, histories["never"].test.logits) < 1e-4
    for name, array in arrays["auto"].items():
        change = arrays["never"][name].astype(np.float64) - start[name]
        tolerance = 1e-3 * np.linalg.norm(change) + 2e-6 * np.linalg.norm(start[name])
        assert np.linalg.norm(array - arrays["never"][name]) <= tolerance, name
