"""Images that stay on the device: the same pixels as Pillow's, to the last bit, computed as a backend does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.batches import resident
from common.batches.resident import ResidentBatches
from common.batches.shared import SharedBatches
from common.contract.watch import Quiet
from common.data import decoded
from common.data.folder import ImageData, Sample, read_folder
from common.data.images import UnreadableImage, open_rgb, upright_size
from common.method import feature_reuse, phases
from common.preprocessing import crops, resampling
from common.preprocessing.transforms import Transform
from common.runs import description
from common.spec.experiment import ExperimentSpec
from common.system.errors import UserError
from tests.common.batches.test_shared import PLAIN
from tests.conftest import write_pictures
from tests.fake_backend import FakeBackend
from tests.run_experiment import make_experiment, run_experiment

CAFFE_LIKE = {"channel_order": "BGR", "mean": (103.9, 116.8, 123.7)}


@pytest.fixture
def spec() -> ExperimentSpec:
    return ExperimentSpec(pipeline="resident", image_size=64, resize_size=72, batch_size=4, epochs=2, workers=0)


def assert_same(spec: ExperimentSpec, transform: Transform, data: ImageData) -> None:
    """That an epoch and a test have the batches of the shared pipeline, bit for bit."""
    experiment = make_experiment(FakeBackend(), spec, data, transform=transform)
    source, usual = ResidentBatches(experiment), SharedBatches(experiment)
    pairs = [
        *((source.train(epoch), usual.train(epoch)) for epoch in (1, 2)),
        (source.test(data.test), usual.test(data.test)),
    ]
    for found, expected in pairs:
        for (made, labels), (images, expected_labels) in zip(found, expected, strict=True):
            assert made.dtype == np.float32
            np.testing.assert_array_equal(made, images)
            np.testing.assert_array_equal(labels, expected_labels)


@pytest.mark.parametrize("colours", [{}, CAFFE_LIKE], ids=["RGB", "BGR"])
@pytest.mark.parametrize("test_resize", ["short_side", "squash"])
@pytest.mark.parametrize("train_crop", ["random_resized_crop", "resize_random_crop", "none"])
def test_every_crop_is_pillows(spec, odd_sizes, train_crop, test_resize, colours) -> None:
    assert_same(spec, replace(PLAIN, train_crop=train_crop, test_resize=test_resize, **colours), odd_sizes)


@pytest.mark.parametrize("colours", [{}, CAFFE_LIKE], ids=["RGB", "BGR"])
@pytest.mark.parametrize("train_crop", ["random_resized_crop", "none"])
def test_whole_images_have_the_same_borders(spec, odd_sizes, train_crop, colours) -> None:
    letterbox = replace(PLAIN, test_resize="letterbox", resize_size=64, train_crop=train_crop, **colours)
    assert_same(spec, letterbox, odd_sizes)
    assert_same(spec, replace(letterbox, image_size=37, resize_size=37), odd_sizes)


@pytest.mark.parametrize(("side", "resized"), [(48, 48), (37, 41), (112, 128)])
def test_other_sizes(spec, odd_sizes, side, resized) -> None:
    for train_crop in ("random_resized_crop", "resize_random_crop"):
        transform = replace(PLAIN, image_size=side, resize_size=resized, train_crop=train_crop)
        assert_same(spec, transform, odd_sizes)


def test_the_order_of_the_axes_is_pillows(spec, tmp_path) -> None:
    """Sizes on both sides of the rule by which Pillow resizes columns first."""
    sizes = [(70, 75), (70, 76), (70, 77), (40, 64), (40, 65), (100, 135), (100, 136), (100, 137)]
    generator = np.random.default_rng(9)
    for split in ("train", "test"):
        for number, (width, height) in enumerate(sizes):
            path = tmp_path / split / str(number % 2) / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(generator.integers(0, 256, (height, width, 3)).astype(np.uint8)).save(path)
    data = read_folder(tmp_path, progress=False)
    transform = replace(PLAIN, resize_size=64, test_resize="squash")
    source = ResidentBatches(make_experiment(FakeBackend(), spec, data, transform=transform))
    cuts = [crops.test_cut(source.size(sample), transform) for sample in data.test]
    made = source.places(data.test, range(len(data.test)), cuts.__getitem__)
    turned = np.concatenate([places.turned for places, _, _ in made])
    by_size = {source.size(sample): bool(turns) for sample, turns in zip(data.test, turned, strict=True)}
    assert [by_size[size] for size in sizes] == [False, False, True, False, True, False, False, True]
    assert_same(spec, transform, data)


def test_a_photograph_is_turned_upright(spec, tmp_path) -> None:
    write_pictures(tmp_path, ["a", "b"], train=2, test=2)
    for number, orientation in enumerate((1, 3, 6, 8)):
        exif = Image.Exif()
        exif[0x0112] = orientation
        for path in (tmp_path / "train/a" / f"{number}.jpg", tmp_path / "test/a" / f"{number}.jpg"):
            Image.open(tmp_path / "train/a/000.png").save(path, exif=exif)
    data = read_folder(tmp_path, progress=False)
    for sample in (*data.train, *data.test):
        assert upright_size(sample.path) == open_rgb(sample.path).size
    assert {upright_size(sample.path) for sample in data.test} == {(80, 72), (72, 80)}
    assert_same(spec, PLAIN, data)


def test_presized_images_are_the_shared_pipelines(spec, odd_sizes, tmp_path) -> None:
    transform = replace(PLAIN, presized_side=75)
    layout = resident.lay_out(spec, transform, odd_sizes)
    assert {min(size) for _, *size in layout.places.values() if max(size) > 100} == {64, 75}
    assert layout.bytes < resident.lay_out(spec, PLAIN, odd_sizes).bytes
    kept, _ = decoded.attach(spec, odd_sizes, tmp_path, 75)
    for data in (odd_sizes, kept):
        assert_same(spec, transform, data)


def test_decoded_images_and_workers_change_nothing(spec, odd_sizes, tmp_path) -> None:
    kept, _ = decoded.attach(spec, odd_sizes, tmp_path)
    for workers in (1, 3):
        assert_same(spec.replace(workers=workers), PLAIN, kept)


def test_images_lie_close_together(spec, odd_sizes) -> None:
    layout = resident.lay_out(spec, PLAIN, odd_sizes)
    places = sorted(layout.places.values())
    ends = [first + height * -(-width // 32) for first, width, height in places]
    assert [first for first, _, _ in places] == [0, *ends[:-1]]
    assert layout.bytes == ends[-1] * 96
    assert (layout.height, layout.width) == (200, 224)


def test_images_that_are_not_looked_at_stay_out(spec, odd_sizes) -> None:
    layout = resident.lay_out(spec.replace(strategy="zero-shot", epochs=0), PLAIN, odd_sizes)
    assert set(layout.places) == set(odd_sizes.test)


def test_one_huge_image_costs_other_batches_nothing() -> None:
    layout = resident.Layout({}, 0, 3000, 4000)
    frames = [
        resident.frame_of([(0, *size) for size in sizes], False, layout, PLAIN)
        for sizes in ([(500, 333), (20, 375)], [(500, 333), (3900, 3000)], [(3, 7)])
    ]
    assert [(frame.height, frame.width) for frame in frames] == [(512, 512), (3000, 4000), (32, 32)]
    assert len({replace(frame) for frame in frames}) == 3


def test_the_limit_is_said_with_what_mends_it(spec, odd_sizes, monkeypatch) -> None:
    monkeypatch.setenv(resident.LIMIT, "0.001")
    with pytest.raises(UserError, match=r"GiB of pixels .* the largest image .* --pipeline shared, or set FINE_TUNING"):
        resident.lay_out(spec, PLAIN, odd_sizes)
    monkeypatch.setenv(resident.LIMIT, "much")
    with pytest.raises(UserError, match=resident.LIMIT):
        resident.lay_out(spec, PLAIN, odd_sizes)


@pytest.mark.parametrize(("size", "fits"), [((5000, 3000), True), ((9000, 60), False), ((40, 6000), False)])
def test_an_image_too_long_for_32_bits_is_refused(spec, size, fits) -> None:
    sample = Sample(Path("long.png"), 0, "long.png")
    if fits:
        resident.check_size(sample, *size, PLAIN)
        return
    with pytest.raises(UserError, match=r"long\.png is too long .* --pipeline shared"):
        resident.check_size(sample, *size, PLAIN)


def test_whole_numbers_stay_below_2_to_the_31(spec) -> None:
    """At the largest image that `check_size` lets pass."""
    long = next(
        side for side in range(8000, 64, -1)
        if max(2049 * (2 * side**2 / 64 + 2 * 72), 2 * (side + 1) * 72) < 2**31
    )  # fmt: skip
    resident.check_size(Sample(Path("long.png"), 0, "long.png"), long, long, PLAIN)
    places = resampling.places_of([(0, long, long)], [crops.test_cut((long, long), PLAIN)], 64)
    unit, start, step, reach, size = places.first[:, :, None, None]
    distance = abs((2 * np.arange(long) + 1) * unit - (start + step * np.arange(64)[:, None]))
    assert (np.maximum(reach - distance, 0).sum(-1) * 2049).max() < 2**31
    with pytest.raises(UserError):
        resident.check_size(Sample(Path("long.png"), 0, "long.png"), long + 1, long + 1, PLAIN)


def test_a_file_that_changes_meanwhile_is_noticed(spec, tmp_path) -> None:
    data = read_folder(write_pictures(tmp_path, ["a", "b"], train=2, test=2), progress=False)
    layout = resident.lay_out(spec, PLAIN, data)
    Image.new("RGB", (9, 9)).save(data.test[0].path)
    with pytest.raises(UnreadableImage, match="changed"):
        resident.pack(layout, data, PLAIN, workers=2)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"last_batch": "drop"},
        {"strategy": "feature-extraction", "train_crop": "none", "flip": False},
        {"strategy": "warm-up", "train_crop": "none", "flip": False, "warm_up_epochs": 1},
    ],
)
def test_a_run_gives_the_numbers_of_the_shared_pipeline(spec, pictures, changes) -> None:
    histories = []
    for name in ("resident", "shared"):
        backend, changed = FakeBackend(), spec.replace(pipeline=name, **changes)
        data = replace(pictures, validation=pictures.train[8:11])
        histories.append(
            backend.train_fine_tuning(backend.build_models(changed).fine_tune, changed, data, watch=Quiet())
        )
    for one, other in zip(*(history.epochs for history in histories), strict=True):
        assert (one.loss, one.validation_loss, one.test_loss) == (other.loss, other.validation_loss, other.test_loss)
    np.testing.assert_array_equal(histories[0].test.logits, histories[1].test.logits)


def test_features_are_reused_as_with_the_shared_pipeline(spec) -> None:
    changed = spec.replace(strategy="feature-extraction", train_crop="none", flip=False)
    (phase,) = phases.phases(changed)
    assert feature_reuse.reused(changed, phase)
    assert description.describe_phases([phase], changed)[0]["reused_features"]


def test_the_record_says_what_is_on_the_device(spec, pictures, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr("backends.load", lambda name: FakeBackend())
    changed = spec.replace(data=str(pictures.root), strategy="scratch", weights="none")
    run = run_experiment(changed, tmp_path / "run", Quiet())
    assert run.resolved["resident_images"] == {"images": 36, "bytes": 36 * 72 * 96 * 3}
    monkeypatch.setenv(resident.LIMIT, "0")
    with pytest.raises(UserError, match=resident.LIMIT):
        run_experiment(changed, tmp_path / "other", Quiet())
    assert not (tmp_path / "other").exists()
