"""Let a framework read or write its own files, in its own environment."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from common.network import resnet, weights
from common.network.conversion import kinds, stored
from common.network.conversion.kinds import Kind
from common.network.conversion.stored import StoredTensors
from common.network.weights import Checkpoint, Header
from common.spec.names import MODELS_BY_BACKEND
from common.system.errors import RunError, UserError
from scripts.environments import definitions, use

FRAMEWORKS = {"torch": "torch", "keras": "keras", "flax": "jax", "gluon": "mxnet"}


def read(path: Path, kind: Kind) -> StoredTensors:
    """Read a weights file, in the environment of its framework if it has one.

    Args:
        path: The file.
        kind: Its kind.

    Returns:
        The tensors under the file's own names.

    Raises:
        UserError: The file cannot be read.
    """
    if kind.backend is None:
        return stored.read_safetensors(path)
    with tempfile.TemporaryDirectory(prefix="fine-tuning-convert-") as folder:
        exchange = Path(folder, "tensors.safetensors")
        error = run_worker("read", kind.backend, str(path.absolute()), str(exchange))
        if error:
            raise UserError(error.replace(str(path.absolute()), str(path)))
        return stored.read_exchange(exchange)


def write(output: Path, framework: str, checkpoint: Checkpoint) -> None:
    """Write a network in a framework's own format, atomically.

    Args:
        output: The file.
        framework: One of FRAMEWORKS.
        checkpoint: The network, with a head.

    Raises:
        RunError: The framework could not write it.
    """
    backend = FRAMEWORKS[framework]
    model = model_in(framework, checkpoint.header.architecture)
    output.parent.mkdir(parents=True, exist_ok=True)
    # Beside the output, where the finished file can take its place in one step.
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as folder:
        source, draft = Path(folder, "source.safetensors"), Path(folder, f"draft{kinds.FILE_SUFFIX[backend]}")
        weights.write(source, checkpoint)
        error = run_worker("write", backend, model, str(source.absolute()), str(draft.absolute()))
        if error:
            raise RunError(f"{output}: {framework} could not write it: {error}")
        os.replace(draft, output)


def check_writable(framework: str, header: Header) -> None:
    """Raise UserError where a framework's own format cannot hold a network."""
    model_in(framework, header.architecture)
    if not header.class_names:
        raise UserError(f"--to {framework}: the file has no head, and only a whole network can be written")


def model_in(framework: str, architecture: str) -> str:
    """Return the spec's `model` that means an architecture in a framework.

    >>> model_in("keras", "resnet50_keras")
    'resnet50'

    Args:
        framework: One of FRAMEWORKS.
        architecture: One of resnet.ARCHITECTURES.

    Returns:
        The name of the model.

    Raises:
        UserError: The framework does not have this network.
    """
    backend = FRAMEWORKS[framework]
    models = {resnet.architecture(backend, model): model for model in MODELS_BY_BACKEND[backend]}
    if architecture not in models:
        raise UserError(f"--to {framework}: has no {architecture}; its networks are {', '.join(models)}")
    return models[architecture]


def run_worker(action: str, backend: str, *arguments: str) -> str | None:
    """Run `scripts.convert.worker` in the environment of a backend, which is built first if it is not there.

    Args:
        action: `read` or `write`.
        backend: The backend.
        arguments: What the worker needs for this.

    Returns:
        The message of its failure, or None.

    Raises:
        RunError: The environment cannot be had.
    """
    try:
        python = use.ensure(backend)
    except definitions.EnvironmentFailed as failed:
        raise RunError(str(failed)) from failed
    command = [str(python), "-P", "-m", "scripts.convert.worker", action, backend, *arguments]
    variables = {**use.project_variables(), "TF_CPP_MIN_LOG_LEVEL": "3"}
    ended = subprocess.run(command, env=variables, capture_output=True, text=True, errors="replace", check=False)
    if ended.returncode == 0:
        return None
    lines = ended.stderr.strip().splitlines()
    told = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    if ended.returncode < 0:
        return f"{arguments[0]}: {backend} was ended by signal {-ended.returncode} over it; it may be damaged"
    return (told or lines or [f"{backend} ended with exit code {ended.returncode}"])[-1]
