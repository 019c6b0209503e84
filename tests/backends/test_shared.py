"""What the shared parts promise in every environment, whose versions of NumPy differ."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import backends
from common.network import lora, resnet
from common.preprocessing import crops, random_streams
from common.preprocessing.transforms import Transform

ROOT = Path(__file__).resolve().parents[2]
TRANSFORM = Transform(
    64, 72, "random_resized_crop", "short_side", True, "RGB", 1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
)


def test_initial_values_are_the_same_everywhere() -> None:
    digest = hashlib.sha256()
    for array in resnet.initial_network("resnet18", 2, 0).values():
        digest.update(array.tobytes())
    assert digest.hexdigest() == "750e7cbe3030df0dc50aec1a0fa829dd4bd8269027277b7eb4841b134822244c"


def test_initial_adapters_are_the_same_everywhere() -> None:
    digest = hashlib.sha256()
    for array in lora.initial("resnet18", 4, 0).values():
        digest.update(array.tobytes())
    assert digest.hexdigest() == "956e77ab45ac56f2805753a00ae9c3e3ed73e9fa5b42d20ca3aad63527333062"


def test_pixels_are_the_same_everywhere() -> None:
    pixels = np.add.outer(np.arange(90) * 7, np.arange(120) * 5)[..., None] * np.array([1, 2, 3]) % 256
    image = Image.fromarray(pixels.astype(np.uint8))
    digest = hashlib.sha256(crops.test_image(image, TRANSFORM).tobytes())
    for epoch in range(1, 4):
        digest.update(crops.train_image(image, TRANSFORM, 0, epoch, 5).tobytes())
        digest.update(random_streams.epoch_order(100, 0, epoch).tobytes())
    assert digest.hexdigest() == "9b3cd3612ce5588d644e60ea33dfcc5070dee568c43dbafaa67c7dbffc8eb542"


@pytest.mark.parametrize(
    "module", ["common.runs.experiment", "common.runs.record", "scripts.cli.arguments", "scripts.cli.display"]
)
def test_common_and_scripts_import_no_framework(module: str) -> None:
    """In an environment that has one."""
    frameworks = {name for modules in backends.REQUIRED_MODULES.values() for name in modules}
    code = f"import sys, {module}; print(*sorted({frameworks!r} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""


def test_the_backend_imports_no_other(backend_name: str) -> None:
    others = {name for other in backends.NAMES if other != backend_name for name in backends.REQUIRED_MODULES[other]}
    code = f"import sys, backends; backends.load({backend_name!r}); print(*sorted({others!r} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""


def test_a_backend_of_keras_that_the_user_set_does_not_count(backend_name) -> None:
    """KERAS_BACKEND and keras.json may say anything; this project's Keras runs on TensorFlow."""
    if backend_name != "keras":
        pytest.skip("of Keras only")
    code = "import backends; backends.load('keras'); import keras; print(keras.backend.backend())"
    variables = {**os.environ, "KERAS_BACKEND": "numpy"}
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, cwd=ROOT)
    assert (done.stdout, done.stderr) == ("tensorflow\n", "")
