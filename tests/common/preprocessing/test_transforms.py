"""What a run's images go through: the user's word, the preset's, the weights' or the default."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.network import imagenet, resnet, weights
from common.network.preprocessing_metadata import Preprocessing
from common.preprocessing import crops, transforms
from common.preprocessing.transforms import Transform
from common.spec.experiment import ExperimentSpec
from common.system.errors import UserError

LETTERBOX = Transform(64, 64, "none", "letterbox", False, "RGB", 1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.fixture(scope="module")
def squashing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights whose images were squashed to 80 px and cropped to 72."""
    return write(tmp_path_factory.mktemp("squash"), Preprocessing(72, 80, resize="squash"))


def write(folder: Path, preprocessing: Preprocessing) -> Path:
    path = folder / "model.safetensors"
    header = weights.Header("resnet18", imagenet.class_names(), preprocessing, "a test")
    weights.write(path, weights.Checkpoint(header, resnet.initial_network("resnet18", 1000, 0)))
    return path


def sizes(spec: ExperimentSpec) -> tuple[int, int, str]:
    transform = transforms.transform_for(spec)
    return transform.image_size, transform.resize_size, transform.test_resize


def test_what_the_spec_leaves_open_is_the_weights(squashing) -> None:
    spec = ExperimentSpec(weights=str(squashing))
    assert sizes(spec) == (72, 80, "squash")
    assert transforms.notes(spec, transforms.transform_for(spec)) == []
    assert sizes(spec.replace(image_size=144)) == (144, 160, "squash")
    assert sizes(spec.replace(test_resize="letterbox")) == (72, 72, "letterbox")
    largest = spec.replace(image_size=4096)
    assert transforms.preprocessing(transforms.transform_for(largest)).resize_size == 4551
    assert sizes(ExperimentSpec(weights="none", strategy="scratch")) == (224, 256, "short_side")


def test_one_note_says_in_what_a_run_differs(squashing) -> None:
    spec = ExperimentSpec(weights=str(squashing), image_size=36, test_resize="short_side")
    (note,) = transforms.notes(spec, transforms.transform_for(spec))
    assert note == (
        "Not as the weights' metadata say: image_size 36 instead of 72, resize short_side instead of squash, "
        "resize_size 40 instead of 80."
    )
    assert transforms.notes(spec.replace(strategy="scratch"), transforms.transform_for(spec)) == []


def test_pipelines_that_do_not_smooth_are_known(squashing) -> None:
    spec = ExperimentSpec(weights=str(squashing), backend="keras", pipeline="native")
    transform = transforms.transform_for(spec)
    assert not transforms.preprocessing(transform).antialias
    assert transforms.notes(spec, transform) == ["Not as the weights' metadata say: antialias False instead of True."]
    for smooth in (spec.replace(pipeline="shared"), spec.replace(backend="torch")):
        assert transforms.preprocessing(transforms.transform_for(smooth)).antialias


def test_weights_for_whole_images_contradict_random_crops_of_resized_ones(tmp_path) -> None:
    path = write(tmp_path, Preprocessing(72, 72, resize="letterbox"))
    assert sizes(ExperimentSpec(weights=str(path), image_size=64)) == (64, 64, "letterbox")
    with pytest.raises(UserError, match="--test-resize short_side"):
        transforms.transform_for(ExperimentSpec(weights=str(path), train_crop="resize_random_crop"))
    squashed = ExperimentSpec(weights=str(path), train_crop="resize_random_crop", test_resize="squash")
    assert sizes(squashed) == (72, 72, "squash")


def test_a_file_that_does_not_say_it_is_read_as_before(tmp_path) -> None:
    from safetensors.numpy import save_file

    path = tmp_path / "old.safetensors"
    old = {"image_size": "96", "resize_size": "110", "interpolation": "bilinear", "mean": "[0.5, 0.5, 0.5]"}
    save_file(resnet.initial_network("resnet18", 1000, 0), path, old)
    spec = ExperimentSpec(weights=str(path))
    assert sizes(spec) == (96, 110, "short_side")
    assert transforms.transform_for(spec).mean == (0.5, 0.5, 0.5)
    # What it does not say is no ground for a note.
    assert transforms.notes(spec.replace(test_resize="squash"), transforms.transform_for(spec)) == []


@pytest.mark.parametrize(
    ("size", "resized"),
    [
        ((200, 100), (64, 32)),
        ((100, 200), (32, 64)),
        ((20, 30), (42, 64)),
        ((64, 63), (64, 63)),
        ((65000, 1), (64, 1)),
        ((1, 1), (64, 64)),
    ],
)
@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_the_whole_image_is_in_the_square(size, resized, order) -> None:
    transform = replace(LETTERBOX, channel_order=order)
    image = Image.new("RGB", size, (255, 200, 100))
    seen = crops.test_image(image, transform)
    assert seen.shape == (64, 64, 3)
    left, top = ((64 - side) // 2 for side in resized)
    inside = np.zeros((64, 64), bool)
    inside[top : top + resized[1], left : left + resized[0]] = True
    # The borders are exactly the mean colour.
    assert not seen[~inside].any()
    colours = np.array([255, 200, 100] if order == "RGB" else [100, 200, 255])
    expected = (colours / 255 - LETTERBOX.mean) / LETTERBOX.std
    np.testing.assert_allclose(seen[inside], np.broadcast_to(expected, (inside.sum(), 3)), rtol=1e-5)


def test_an_object_at_the_side_is_seen() -> None:
    """A crop at the centre loses what stands at the left of a wide photograph."""
    image = Image.new("RGB", (200, 100))
    image.paste((255, 255, 255), (0, 0, 20, 100))
    short_side = replace(LETTERBOX, test_resize="short_side")
    assert crops.test_image(image, short_side).max() < 0
    assert crops.test_image(image, LETTERBOX)[16:48, :6].min() > 1


def test_a_mirrored_whole_image_stays_in_its_place() -> None:
    """Also where the borders are not equally wide."""
    transform = replace(LETTERBOX, flip=True)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 37, 3)).astype(np.uint8))
    plain = crops.test_image(image, transform)
    shown = [crops.train_image(image, transform, 0, epoch, 0) for epoch in range(1, 9)]
    mirrored = [not np.array_equal(one, plain) for one in shown]
    assert 0 < sum(mirrored) < 8
    for one, turned in zip(shown, mirrored, strict=True):
        np.testing.assert_array_equal(one[:, 13:50], plain[:, 13:50][:, ::-1] if turned else plain[:, 13:50])
        assert not one[:, :13].any()
        assert not one[:, 50:].any()
