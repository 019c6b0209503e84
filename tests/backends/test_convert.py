"""Weights files as each framework's own functions write them: read, renamed, and the same logits again."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.contract.backend import Backend
from common.network import resnet, weights
from common.network.conversion.convert import Conversion, convert
from common.network.conversion.kinds import FILE_SUFFIX, kind_of
from common.network.conversion.stored import read_exchange
from common.spec.experiment import ExperimentSpec
from common.system.errors import UserError

CLASSES = 3
# (file, architecture, classes of its head, logits of the network that wrote it)
Written = tuple[Path, str, int, Any]
# Rounding of float32 in another order; the logits are of the order of 1.
TOLERANCE = 1e-5


def wild(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Values of a parameter or statistic that show every mistake, with logits of the order of 1."""
    generator = np.random.default_rng([len(name), *map(ord, name), *shape])
    if len(shape) == 2:
        return (generator.standard_normal(shape) / 200).astype("f4")
    if len(shape) > 1:
        return (generator.standard_normal(shape) / np.sqrt(np.prod(shape) / max(shape[0], shape[-1]))).astype("f4")
    low, high = (0.5, 1.5) if name.endswith(("weight", "gamma", "scale", "var", "variance")) else (-0.2, 0.2)
    return generator.uniform(low, high, shape).astype("f4")


# Each makes networks by the framework's own means alone and writes them as people do.


def write_torch(folder: Path, images: np.ndarray) -> list[Written]:
    import torch
    import torchvision

    network = torchvision.models.resnet18(num_classes=CLASSES).eval()
    state = network.state_dict()
    for name, tensor in state.items():
        if tensor.is_floating_point():
            tensor.copy_(torch.from_numpy(wild(name, tuple(tensor.shape))))
    with torch.no_grad():
        logits = network(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    optimizer = torch.optim.Adam(network.parameters())
    network.train()(torch.randn(2, 3, 64, 64)).sum().backward()
    # A rate of zero: Adam's state is there, and the parameters stay; BatchNorm's statistics are put back below.
    optimizer.param_groups[0]["lr"] = 0.0
    optimizer.step()
    state = {
        name: torch.from_numpy(wild(name, tuple(t.shape))) if t.is_floating_point() else t for name, t in state.items()
    }
    torch.save(state, folder / "plain.pth")
    torch.save(state, folder / "old.bin", _use_new_zipfile_serialization=False)
    moved = {f"module.{name.replace('fc.', 'fc.1.')}": tensor for name, tensor in state.items()}
    torch.save({"epoch": 3, "state_dict": moved, "optimizer": optimizer.state_dict()}, folder / "checkpoint.pt")
    children = torch.nn.Sequential(*list(network.children())[:-1])
    children.load_state_dict(dict(zip(children.state_dict(), state.values(), strict=False)))
    torch.save({"model_state_dict": children.state_dict()}, folder / "backbone.pth")
    files = [(folder / name, "resnet18", CLASSES, logits) for name in ("plain.pth", "old.bin", "checkpoint.pt")]
    return [*files, (folder / "backbone.pth", "resnet18", 0, logits)]


def write_keras(folder: Path, images: np.ndarray) -> list[Written]:
    import keras
    import keras_hub

    backbone = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64], input_conv_kernel_sizes=[7], stackwise_num_filters=[64, 128, 256, 512],
        stackwise_num_blocks=[2, 2, 2, 2], stackwise_num_strides=[1, 2, 2, 2], block_type="basic_block",
        image_shape=(None, None, 3),
    )  # fmt: skip
    hub = keras_hub.models.ResNetImageClassifier(backbone=backbone, num_classes=CLASSES)
    layers = [keras.Input((None, None, 3)), backbone, keras.layers.GlobalAveragePooling2D(), keras.layers.Dropout(0.1)]
    nested = keras.Sequential([*layers, keras.layers.Dense(CLASSES)])
    nested.compile("adam", "mse")
    applications = keras.applications.ResNet50(
        weights=None, classes=CLASSES, classifier_activation=None, input_shape=images.shape[1:]
    )
    for network in (hub, nested, applications):
        for variable in network.weights:
            if "seed" not in variable.path:
                variable.assign(wild("/".join(variable.path.split("/")[-2:]), tuple(variable.shape)))
    hub.save_weights(folder / "hub.weights.h5")
    nested.save(folder / "nested.keras")
    nested.save(folder / "nested.h5")
    applications.save_weights(folder / "applications.weights.h5")
    features = nested.layers[0](images)
    logits = keras.ops.convert_to_numpy(nested(images))
    assert features.shape[-1] == 512
    return [
        (folder / "hub.weights.h5", "resnet18", CLASSES, keras.ops.convert_to_numpy(hub(images))),
        (folder / "nested.keras", "resnet18", CLASSES, logits),
        (folder / "nested.h5", "resnet18", CLASSES, logits),
        (folder / "applications.weights.h5", "resnet50_keras", CLASSES, np.asarray(applications(images))),
    ]


def write_jax(folder: Path, images: np.ndarray) -> list[Written]:
    import flax
    import flaxmodels
    import h5py
    import jax
    from flax.traverse_util import flatten_dict, unflatten_dict

    network = flaxmodels.ResNet18(output="logits", pretrained=None, normalize=False, num_classes=CLASSES)
    flat = flatten_dict(jax.eval_shape(network.init, jax.random.key(0), images[:1]))
    flat = {place: wild("/".join(place), leaf.shape) for place, leaf in flat.items()}
    variables = unflatten_dict(flat)
    (folder / "variables.msgpack").write_bytes(flax.serialization.to_bytes(variables))
    moments = {"0": {"mu": variables["params"], "nu": variables["params"]}}
    inside = {"params": {"backbone": variables["params"]}, "batch_stats": {"backbone": variables["batch_stats"]}}
    state = {"step": np.array(3), "opt_state": moments, **inside}
    (folder / "state.msgpack").write_bytes(flax.serialization.msgpack_serialize(state))
    # flaxmodels' own file, which has groups under names of its own.
    with h5py.File(folder / "flaxmodels.h5", "w") as file:
        for (_, *layers, leaf), value in flat.items():
            file["/".join([*flaxmodels_group(layers), "weight" if leaf == "kernel" else leaf])] = value
    logits = np.asarray(network.apply(variables, images, train=False))
    names = ("variables.msgpack", "state.msgpack", "flaxmodels.h5")
    return [(folder / name, "resnet18", CLASSES, logits) for name in names]


def flaxmodels_group(layers: list[str]) -> list[str]:
    """The group of a layer in flaxmodels' file."""
    kind, number = layers[-1].split("_")
    if len(layers) == 1:
        return [{"Conv": "conv1", "BatchNorm": "bn1", "Dense": "fc"}[kind]]
    block = int(layers[0].split("_")[1])
    inner = "conv" if kind == "Conv" else "bn"
    inner = [f"{inner}{int(number) + 1}"] if number != "2" else ["downsample", inner]
    return [f"layer{block // 2 + 1}", f"block{block % 2}", *inner]


def write_mxnet(folder: Path, images: np.ndarray) -> list[Written]:
    import mxnet as mx
    from mxnet.gluon.model_zoo import vision

    written: list[Written] = []
    pixels = mx.np.array(images.transpose(0, 3, 1, 2))
    for zoo_name, architecture in (("resnet18_v1", "resnet18"), ("resnet18_v2", "resnet18_v2")):
        network = vision.get_model(zoo_name, classes=CLASSES)
        network.initialize()
        network(pixels)
        for name, parameter in network.collect_params().items():
            # Gluon's first BatchNorm of the pre-activation network has neither scale nor shift.
            if parameter.grad_req != "null" or "running" in name:
                parameter.set_data(mx.np.array(wild(name.split("_", 1)[1], parameter.shape)))
        network.hybridize()
        logits = network(pixels).asnumpy()
        network.save_parameters(str(folder / f"{zoo_name}.params"))
        network.export(str(folder / zoo_name))
        network.features.save_parameters(str(folder / f"{zoo_name}-features.params"))
        # As programs that do not switch NumPy's semantics on write it.
        with mx.util.np_array(False), mx.util.np_shape(False):
            arrays = {
                place: mx.nd.array(p.data().asnumpy()) for place, p in network._collect_params_with_prefix().items()
            }
            mx.nd.save(str(folder / f"{zoo_name}-old.params"), arrays)
        ends = (".params", "-0000.params", "-old.params")
        written += [(folder / f"{zoo_name}{end}", architecture, CLASSES, logits) for end in ends]
        written.append((folder / f"{zoo_name}-features.params", architecture, 0, logits))
    return written


WRITE: dict[str, Callable[[Path, np.ndarray], list[Written]]] = {
    "torch": write_torch, "keras": write_keras, "jax": write_jax, "mxnet": write_mxnet,
}  # fmt: skip


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(2).standard_normal((2, 72, 72, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def written(backend: Backend, backend_name: str, images: np.ndarray, tmp_path_factory) -> list[Written]:
    return WRITE[backend_name](tmp_path_factory.mktemp("written"), images)


def keep(conversion: Conversion, path: Path) -> Path:
    """Write a converted network with the metadata that a run needs."""
    names = tuple(f"class {number}" for number in range(conversion.classes))
    header = weights.Header(conversion.architecture, names, weights.Preprocessing(64, 72), "a test")
    weights.write(path, weights.Checkpoint(header, conversion.arrays))
    return path


def model_name(architecture: str) -> str:
    return "resnet50" if architecture == "resnet50_keras" else architecture


def test_the_converted_network_gives_the_logits_of_the_one_that_was_written(
    backend: Backend, spec: ExperimentSpec, written: list[Written], images: np.ndarray, tmp_path: Path
) -> None:
    pixels, _ = backend.from_shared(images, np.zeros(len(images), np.int64))
    for path, architecture, classes, logits in written:
        assert kind_of(path).backend == spec.backend, path.name
        conversion = convert(backend.read_file(path), path)
        assert (conversion.architecture, conversion.classes) == (architecture, classes), path.name
        file = keep(conversion, tmp_path / "weights.safetensors")
        models = backend.build_models(spec.replace(model=model_name(architecture), weights=str(file)))
        assert np.abs(logits).max() > 0.1
        if classes:
            np.testing.assert_allclose(
                backend.logits(models.pretrained, pixels), logits, atol=TOLERANCE, err_msg=path.name
            )
        else:
            # The head of another file of the same network.
            whole = next(convert(backend.read_file(p), p) for p, a, c, _ in written if a == architecture and c)
            assert models.pretrained is None
            backend.load_arrays(models.scratch, backend.to_arrays(models.fine_tune))
            head = {
                name: np.zeros_like(array) for name, array in backend.to_arrays(models.scratch).items() if "fc." in name
            }
            head["fc.weight"][:] = whole.arrays["fc.weight"][:2]
            head["fc.bias"][:] = whole.arrays["fc.bias"][:2]
            backend.load_arrays(models.scratch, head)
            answer = backend.logits(models.scratch, pixels)
            np.testing.assert_allclose(answer, logits[:, :2], atol=TOLERANCE, err_msg=path.name)


def test_what_is_written_for_the_framework_is_read_again(
    backend: Backend, spec: ExperimentSpec, written: list[Written], tmp_path: Path
) -> None:
    path, architecture, *_ = next(entry for entry in written if entry[2])
    conversion = convert(backend.read_file(path), path)
    file = keep(conversion, tmp_path / "weights.safetensors")
    models = backend.build_models(spec.replace(model=model_name(architecture), weights=str(file)))
    again = tmp_path / f"again{FILE_SUFFIX[spec.backend]}"
    backend.write_file(models.pretrained, again)
    read = convert(backend.read_file(again), again)
    for name, array in conversion.arrays.items():
        np.testing.assert_array_equal(read.arrays[name], array, err_msg=name)
    loads(spec.backend, again)


def loads(backend_name: str, path: Path) -> None:
    """The framework's own functions load what was written."""
    if backend_name == "torch":
        import torch
        import torchvision

        torchvision.models.resnet18(num_classes=CLASSES).load_state_dict(torch.load(path, weights_only=True))
    elif backend_name == "mxnet":
        from mxnet.gluon.model_zoo import vision

        vision.resnet18_v1(classes=CLASSES).load_parameters(str(path))
    elif backend_name == "jax":
        import flax

        assert set(flax.serialization.msgpack_restore(path.read_bytes())) == {"params", "batch_stats"}


@pytest.mark.parametrize("damage", ["cut", "inside"])
def test_a_damaged_file_ends_in_one_message(
    backend_name: str, written: list[Written], tmp_path: Path, damage: str
) -> None:
    """The worker reads it in a process of its own: some frameworks end the process over a damaged file."""
    whole = written[0][0].read_bytes()
    contents = {"cut": whole[: len(whole) // 2], "inside": whole[:60] + b"\xff" * 200 + whole[260:]}
    path = tmp_path / written[0][0].name
    path.write_bytes(contents[damage])
    exchange = tmp_path / "exchange"
    command = [sys.executable, "-m", "scripts.convert.worker", "read", backend_name, str(path), str(exchange)]
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode == 0:
        # Damage among the numbers is no damage of the format.
        convert(read_exchange(exchange), path)
        return
    assert ended.returncode == 2 or ended.returncode < 0, ended.stderr
    assert "Traceback" not in ended.stderr
    if ended.returncode == 2:
        assert f"error: {path}: " in ended.stderr


def test_code_is_not_run(backend: Backend, backend_name: str, tmp_path: Path) -> None:
    path, trace = tmp_path / "evil.pth", tmp_path / "trace"
    if backend_name == "torch":
        import torch
        import torchvision

        class Evil:
            def __reduce__(self) -> tuple[Any, ...]:
                return Path.touch, (trace,)

        for content in ({"model": Evil()}, torchvision.models.resnet18()):
            torch.save(content, path)
            with pytest.raises(UserError, match="holds a pickled .*torch.save\\(model.state_dict"):
                backend.read_file(path)
        torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), path)
        with pytest.raises(UserError, match="holds TorchScript code"):
            backend.read_file(path)
    elif backend_name == "keras":
        path = tmp_path / "evil.keras"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("config.json", '{"class_name": "Lambda"}')
        with pytest.raises(KeyError, match="model.weights.h5"):
            backend.read_file(path)
    else:
        pytest.skip("its files hold arrays alone")
    assert not trace.exists()


def test_a_backbone_without_a_head_is_fine_tuned(backend: Backend, spec: ExperimentSpec, tmp_path: Path) -> None:
    arrays = resnet.initial_network("resnet18", 7, 1)
    backbone = {name: array for name, array in arrays.items() if name not in resnet.HEAD}
    path = tmp_path / "backbone.safetensors"
    weights.write(path, weights.Checkpoint(weights.Header("resnet18", (), weights.Preprocessing(), "a test"), backbone))
    models = backend.build_models(spec.replace(weights=str(path)))
    assert models.pretrained is None
    tuned, head = backend.to_arrays(models.fine_tune), resnet.initial_head("resnet18", 2, spec.seed)
    for name, array in tuned.items():
        np.testing.assert_array_equal(array, head[name] if name in head else backbone[name], err_msg=name)
