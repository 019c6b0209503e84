"""Decoded images kept in a file: the same pixels, made anew when a file changes, within a limit."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.batches import shared
from common.data import decoded
from common.data.folder import ImageData, Sample, read_folder
from common.preprocessing import transforms
from common.preprocessing.crops import crop_for_test
from common.spec.experiment import ExperimentSpec
from common.system import caches
from common.system.errors import UserError
from tests.conftest import write_pictures


@pytest.fixture
def spec() -> ExperimentSpec:
    return ExperimentSpec(image_size=64, resize_size=72, batch_size=8, workers=2)


@pytest.fixture
def data(tmp_path: Path) -> ImageData:
    """Pictures of several sizes and formats, one of them turned by EXIF."""
    root = write_pictures(tmp_path / "data", ["hotdog", "not-hotdog"], train=4, test=2)
    generator = np.random.default_rng(1)
    image = Image.fromarray(generator.integers(0, 256, (50, 91, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(root / "train" / "hotdog" / "turned.jpg", exif=exif)
    image.convert("RGBA").save(root / "train" / "hotdog" / "transparent.png")
    image.convert("L").save(root / "test" / "hotdog" / "grey.tif", exif=exif)
    return read_folder(root, progress=False)


def epoch(spec: ExperimentSpec, data: ImageData) -> list[np.ndarray]:
    """All images of a training epoch and of an evaluation."""
    transform = transforms.transform_for(spec)

    def crop(sample: Sample) -> Image.Image:
        return crop_for_test(data.read(sample, transform.presized_side), transform)

    batches = [
        *shared.train_batches(spec, transform, data.train, 1, data.read),
        *shared.test_batches(spec, transform, data.test, crop),
    ]
    return [images for images, _ in batches]


def assert_equal(first: list[np.ndarray], second: list[np.ndarray]) -> None:
    for one, two in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.fixture
def decodings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that were decoded, in their order."""
    seen: list[str] = []
    original: Callable = decoded.read_file

    def note(sample: Sample, short_side: int | None = None) -> Image.Image:
        seen.append(str(sample.path))
        return original(sample, short_side)

    monkeypatch.setattr(decoded, "read_file", note)
    return seen


@pytest.mark.parametrize("train_crop", ["random_resized_crop", "resize_random_crop"])
def test_pixels_are_the_same_to_the_last_bit(spec, data, tmp_path, train_crop) -> None:
    changed = spec.replace(train_crop=train_crop)
    kept, facts = decoded.attach(changed, data, tmp_path / "cache")
    assert facts["kept"]
    assert facts["bytes"] == sum(3 * np.prod(data.read(sample).size) for sample in (*data.train, *data.test))
    assert_equal(epoch(changed, kept), epoch(changed, data))


def test_every_image_is_decoded_once(spec, data, tmp_path, decodings) -> None:
    for _ in range(2):
        kept, _ = decoded.attach(spec, data, tmp_path / "cache")
        epoch(spec, kept)
        epoch(spec, kept)
    assert sorted(decodings) == sorted(str(sample.path) for sample in (*data.train, *data.test))


def test_presized_images_are_kept_presized(spec, data, tmp_path, decodings) -> None:
    """Beside those at their size, which are another entry."""
    changed, side = spec.replace(presize=1.0), 72
    large = write_pictures(tmp_path / "large", ["a", "b"], train=3, test=2, size=(300, 200))
    data = read_folder(large, progress=False)
    samples = (*data.train, *data.test)
    for _ in range(2):
        kept, facts = decoded.attach(changed, data, tmp_path / "cache", side)
        assert facts["bytes"] == len(samples) * 3 * 108 * 72
        assert kept.read(samples[0], side).size == (108, 72)
    assert len(decodings) == len(samples)
    assert_equal(epoch(changed, kept), epoch(changed, data))
    assert len(decodings) == len(samples)
    whole, facts = decoded.attach(spec, data, tmp_path / "cache")
    assert facts["bytes"] == len(samples) * 3 * 300 * 200
    assert_equal(epoch(spec, whole), epoch(spec, data))
    assert len(list((tmp_path / "cache").glob("*/pixels"))) == 2


def test_an_image_that_is_kept_in_another_size_is_decoded(spec, data, tmp_path) -> None:
    for kept_side, side in ((None, 40), (40, None), (40, 30)):
        kept, _ = decoded.attach(spec, data, tmp_path / "cache", kept_side)
        for sample in data.train:
            expected = np.asarray(data.read(sample, side))
            np.testing.assert_array_equal(np.asarray(pickle.loads(pickle.dumps(kept)).read(sample, side)), expected)


def test_a_changed_file_is_decoded_anew(spec, data, tmp_path, decodings) -> None:
    decoded.attach(spec, data, tmp_path / "cache")
    path = data.train[0].path
    before = path.stat()
    Image.new("RGB", Image.open(path).size, "red").save(path)
    # The size is another one; and a date alone is enough, too.
    for _ in range(2):
        decodings.clear()
        kept, facts = decoded.attach(spec, data, tmp_path / "cache")
        assert facts["kept"]
        assert len(decodings) == len(data.train) + len(data.test)
        np.testing.assert_array_equal(np.asarray(kept.read(data.train[0])), np.asarray(data.read(data.train[0])))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 5_000_000_000))


def test_a_cut_or_damaged_file_is_made_anew(spec, data, tmp_path) -> None:
    expected = epoch(spec, data)
    decoded.attach(spec, data, tmp_path / "cache")
    for name, content in (("*/pixels", b"abc"), ("*/sizes.json", b"{"), ("*/sizes.json", b"[]")):
        (path,) = (tmp_path / "cache").glob(name)
        path.write_bytes(content)
        kept, _ = decoded.attach(spec, data, tmp_path / "cache")
        assert_equal(epoch(spec, kept), expected)


@pytest.mark.parametrize(
    ("changes", "limit", "reason"),
    [
        ({}, "0", "GiB are more than 0.0 GiB"),
        ({}, "0.00001", "FINE_TUNING_IMAGE_CACHE_GIB"),
        ({"image_cache": False}, "8", "image_cache is off"),
        ({"pipeline": "native"}, "8", "native pipeline"),
    ],
)
def test_without_room_or_wish_images_are_decoded_each_time(
    monkeypatch, spec, data, tmp_path, changes, limit, reason
) -> None:
    monkeypatch.setenv(decoded.LIMIT, limit)
    kept, facts = decoded.attach(spec.replace(**changes), data, tmp_path / "cache")
    assert kept is data
    assert (facts["kept"], facts["bytes"]) == (False, 0)
    assert reason in facts["reason"]
    assert not list(tmp_path.glob("cache/*/pixels"))


def test_the_disk_is_not_filled(monkeypatch, spec, data, tmp_path) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(caches.shutil, "disk_usage", lambda path: usage)
    _, facts = decoded.attach(spec, data, tmp_path / "cache")
    assert not facts["kept"]
    assert "do not fit on the disk" in facts["reason"]


def test_a_folder_that_cannot_be_written_to_is_said(spec, data, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    _, facts = decoded.attach(spec, data, tmp_path / "file" / "cache")
    assert not facts["kept"]
    assert "file" in facts["reason"]


@pytest.mark.parametrize("text", ["much", "-1", "nan", "inf"])
def test_a_limit_must_be_a_number(monkeypatch, spec, data, tmp_path, text) -> None:
    monkeypatch.setenv(decoded.LIMIT, text)
    with pytest.raises(UserError, match=decoded.LIMIT):
        decoded.attach(spec, data, tmp_path / "cache")


def test_the_longest_unused_files_make_room(monkeypatch, spec, data, tmp_path) -> None:
    folder = tmp_path / "cache"
    subsets = [ImageData("", data.root, data.classes, (sample,), (), ()) for sample in data.train[:4]]
    sizes = [decoded.attach(spec, subset, folder)[1]["bytes"] for subset in subsets[:3]]
    paths = {path.stat().st_mtime_ns: path for path in folder.iterdir() if path.is_dir()}
    assert len(paths) == 3
    os.utime(paths[min(paths)], ns=(0, 0))
    monkeypatch.setenv(decoded.LIMIT, str((sum(sizes) + 1000) / 2**30))
    decoded.attach(spec, subsets[3], folder)
    left = {path for path in folder.iterdir() if path.is_dir()}
    assert len(left) == 3
    assert paths[min(paths)] not in left


def test_another_process_maps_the_same_file(spec, data, tmp_path) -> None:
    kept, _ = decoded.attach(spec, data, tmp_path / "cache")
    kept.read(data.train[0])
    stored = pickle.dumps(kept)
    assert len(stored) < 20_000
    copy = pickle.loads(stored)
    np.testing.assert_array_equal(np.asarray(copy.read(data.train[1])), np.asarray(data.read(data.train[1])))
