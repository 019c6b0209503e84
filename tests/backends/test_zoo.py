"""`--weights imagenet`: each framework's own downloader and file format, with files made here and a server of ours."""

from __future__ import annotations

import functools
import hashlib
import http.server
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from common.contract.backend import Backend
from common.network import resnet
from common.network.weights import Arrays, to_channels_last
from common.spec.experiment import ExperimentSpec
from common.system.errors import UserError

# The networks whose weights each framework's zoo has for us.
ZOO = {
    "torch": ["resnet18"],
    "keras": ["resnet18", "resnet50"],
    "jax": ["resnet18"],
    "mxnet": ["resnet18", "resnet18_v2"],
}


@dataclass
class Server:
    """Serves the files of `folder`."""

    folder: Path
    url: str


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(QuietHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield Server(folder, f"http://127.0.0.1:{running.server_port}/")
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend_name: str) -> None:
    """Empty places for what the frameworks download."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("MXNET_HOME", str(tmp_path / "mxnet"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    if backend_name == "keras":
        from keras.src.backend import config

        (tmp_path / "keras").mkdir()
        monkeypatch.setattr(config, "_KERAS_DIR", str(tmp_path / "keras"))


def random_arrays(architecture: str) -> Arrays:
    """Numbers of a network, statistics included, no two tensors alike."""
    generator = np.random.default_rng(5)
    return {
        name: generator.random(shape, np.float32) / 10 + 0.01 for name, shape in resnet.shapes(architecture).items()
    }


# Each makes the file that the zoo's server has, points the zoo at `server`, and returns that file.


def publish_torch(server: Server, arrays: Arrays, model: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A .pth file whose name has the first digits of its SHA-256, which torch checks."""
    import torch
    import torchvision

    state = {name: torch.from_numpy(array) for name, array in arrays.items()}
    counters = [name.replace("running_mean", "num_batches_tracked") for name in state if "running_mean" in name]
    state.update({name: torch.tensor(7) for name in counters})
    draft = server.folder / "draft"
    torch.save(state, draft)
    digest = hashlib.sha256(draft.read_bytes()).hexdigest()
    file = draft.rename(server.folder / f"{model}-{digest[:8]}.pth")
    member = torchvision.models.get_model_weights(model).IMAGENET1K_V1
    monkeypatch.setattr(member, "_value_", replace(member.value, url=server.url + file.name))
    return file


def publish_keras(server: Server, arrays: Arrays, model: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """keras.applications: an .h5 file with an MD5 in Keras' table. KerasHub: a folder in the layout of its presets."""
    import h5py
    import keras
    import keras_hub
    from keras.src.applications import resnet as applications
    from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

    from backends.keras import models
    from backends.keras.weights import load_arrays

    if model == "resnet18":
        backbone = keras_hub.models.ResNetBackbone(**HUB_BACKBONE)
        converter = keras_hub.layers.ResNetImageConverter(image_size=(224, 224))
        preprocessor = keras_hub.models.ResNetImageClassifierPreprocessor(converter)
        zoo = keras_hub.models.ResNetImageClassifier(
            backbone=backbone, num_classes=1000, activation="softmax", preprocessor=preprocessor
        )
        named = keras.Model(backbone.input, zoo.output_dense(zoo.pooler(backbone.output)), name="resnet18")
        load_arrays(named, arrays)
        zoo.save_to_preset(str(server.folder / "preset"))
        monkeypatch.setattr(models, "HUB_PRESET", str(server.folder / "preset"))
        return server.folder / "preset" / "task.weights.h5"
    zoo = keras.applications.ResNet50(weights=None, classifier_activation=None)
    load_arrays(keras.Model(zoo.input, zoo.output, name="resnet50_keras"), arrays)
    path = server.folder / "resnet50_weights_tf_dim_ordering_tf_kernels.h5"
    with h5py.File(path, "w") as file:
        save_weights_to_hdf5_group(file, zoo)
    digest = hashlib.md5(path.read_bytes()).hexdigest()
    monkeypatch.setitem(applications.WEIGHTS_HASHES, "resnet50", (digest, ""))
    monkeypatch.setattr(applications, "BASE_WEIGHTS_PATH", server.url)
    return path


def publish_jax(server: Server, arrays: Arrays, model: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An .h5 file of flaxmodels: groups under torchvision's names, arrays in Flax's layout."""
    import h5py
    from flaxmodels.resnet.resnet import URLS

    path = server.folder / f"{model}_weights.h5"
    leaves = {"bias": "bias", "running_mean": "mean", "running_var": "var"}
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            *layers, leaf = (
                name.replace("downsample.0", "downsample.conv").replace("downsample.1", "downsample.bn").split(".")
            )
            if layers[0].startswith("layer"):
                layers[1] = f"block{layers[1]}"
            weight = "scale" if array.ndim == 1 else "weight"
            file["/".join([*layers, leaves.get(leaf, weight)])] = to_channels_last(array)
    # flaxmodels takes the name between the last slash and the question mark.
    monkeypatch.setitem(URLS, model, f"{server.url}{path.name}?dl=1")
    return path


def publish_mxnet(server: Server, arrays: Arrays, model: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A .params file of MXNet's older arrays, in a .zip, with its SHA-1 in Gluon's table."""
    import mxnet as mx
    from mxnet.gluon.model_zoo import model_store

    from backends.mxnet import models
    from backends.mxnet.weights import named_parameters

    network = models.build_network(ExperimentSpec(backend="mxnet", model=model), resnet.SOURCE_CLASSES)
    own = {parameter.name: name for name, parameter in named_parameters(network).items()}
    structural = network._collect_params_with_prefix()
    stored = {place: mx.nd.array(arrays[own[parameter.name]]) for place, parameter in structural.items()}
    draft = server.folder / "draft"
    mx.nd.save(str(draft), stored)
    digest = hashlib.sha1(draft.read_bytes()).hexdigest()
    zoo_name = models.ZOO_NAMES[model]
    monkeypatch.setitem(model_store._model_sha1, zoo_name, digest)
    monkeypatch.setenv("MXNET_GLUON_REPO", server.url)
    path = server.folder / "gluon" / "models" / f"{zoo_name}-{digest[:8]}.zip"
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(draft, f"{path.stem}.params")
    return path


PUBLISH: dict[str, Callable[..., Path]] = {
    "torch": publish_torch, "keras": publish_keras, "jax": publish_jax, "mxnet": publish_mxnet,
}  # fmt: skip
HUB_BACKBONE = {
    "input_conv_filters": [64], "input_conv_kernel_sizes": [7], "stackwise_num_filters": [64, 128, 256, 512],
    "stackwise_num_blocks": [2, 2, 2, 2], "stackwise_num_strides": [1, 2, 2, 2], "block_type": "basic_block",
    "image_shape": (None, None, 3),
}  # fmt: skip


def test_the_zoos_numbers_are_those_of_the_file(backend: Backend, spec: ExperimentSpec, server, monkeypatch) -> None:
    for model in ZOO[spec.backend]:
        arrays = random_arrays(resnet.architecture(spec.backend, model))
        PUBLISH[spec.backend](server, arrays, model, monkeypatch)
        chosen = spec.replace(model=model, weights="imagenet")
        # The second time they come from the framework's cache.
        for _ in range(2):
            models = backend.build_models(chosen)
        source, tuned = backend.to_arrays(models.pretrained), backend.to_arrays(models.fine_tune)
        for name, array in arrays.items():
            np.testing.assert_array_equal(source[name], array, err_msg=f"{model}: {name}")
            if not name.startswith("fc."):
                np.testing.assert_array_equal(tuned[name], array, err_msg=f"{model}: {name}")


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def error_page(file: Path) -> None:
    file.write_text("<html><title>503 Service Unavailable</title></html>")


@pytest.mark.parametrize("damage", [cut, error_page, Path.unlink], ids=["cut", "page", "gone"])
def test_a_damaged_file_of_the_zoo_is_refused(backend: Backend, spec, server, monkeypatch, damage) -> None:
    model = "resnet18"
    file = PUBLISH[spec.backend](server, random_arrays("resnet18"), model, monkeypatch)
    damage(file)
    with pytest.raises(UserError, match="weights = 'imagenet'"):
        backend.build_models(spec.replace(weights="imagenet"))


@pytest.mark.parametrize("damage", [cut, error_page], ids=["cut", "page"])
def test_a_damaged_file_in_the_cache_is_refused_or_replaced(
    backend, spec, server, monkeypatch, tmp_path, damage
) -> None:
    """Keras and Gluon hold their cache against a hash and download anew; of the others the file is refused."""
    if spec.backend == "keras" and damage is cut:
        pytest.skip("its hash is as wrong as that of a page, and its file is large")
    # KerasHub reads a preset in a folder where it is, so Keras' cache has the other network.
    model = "resnet50" if spec.backend == "keras" else "resnet18"
    arrays = random_arrays(resnet.architecture(spec.backend, model))
    PUBLISH[spec.backend](server, arrays, model, monkeypatch)
    chosen = spec.replace(model=model, weights="imagenet")
    backend.build_models(chosen)
    caches = [tmp_path / name for name in ("torch", "mxnet", "keras", "flaxmodels")]
    (cached,) = [file for cache in caches for file in cache.rglob("*") if file.suffix in (".pth", ".params", ".h5")]
    damage(cached)
    if spec.backend in ("keras", "mxnet"):
        again = backend.to_arrays(backend.build_models(chosen).pretrained)
        np.testing.assert_array_equal(again["fc.bias"], arrays["fc.bias"])
    else:
        with pytest.raises(UserError, match="weights = 'imagenet'"):
            backend.build_models(chosen)
