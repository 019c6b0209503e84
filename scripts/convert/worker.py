"""Read or write a framework's own weights file in that framework's environment, for `scripts.convert`.

python -m scripts.convert.worker read torch model.pth tensors.safetensors
python -m scripts.convert.worker write torch resnet18 weights.safetensors model.pth
"""

from __future__ import annotations

from pathlib import Path

from scripts.cli.command import start


def backend_of(arguments: list[str]) -> str | None:
    """Return the backend, the second argument."""
    return arguments[1]


def main(arguments: list[str]) -> int:
    """Do what the first argument says and return the exit code."""
    action, backend, *rest = arguments
    if action == "read":
        read(backend, *map(Path, rest))
    else:
        write(backend, rest[0], *map(Path, rest[1:]))
    return 0


def read(name: str, path: Path, exchange: Path) -> None:
    """Write the tensors of a framework's file for the process that asked.

    Args:
        name: The backend.
        path: The file.
        exchange: The file to write.

    Raises:
        UserError: The framework cannot read the file.
    """
    import backends
    from common.network.conversion.stored import write_exchange
    from common.system.errors import UserError

    try:
        write_exchange(exchange, backends.load(name).read_file(path))
    except UserError:
        raise
    # A damaged file can end in any error of the framework.
    except Exception as error:
        raise UserError(f"{path}: cannot be read, or is damaged ({reason(error)})") from error


def reason(error: Exception) -> str:
    """Return an error in one short line: its type, and what it says first, which MXNet puts behind a traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = (lines[-1] if lines[0].startswith("Traceback") else lines[0]) if lines else ""
    kind = type(error).__name__
    return (said if said.startswith(kind) else f"{kind}: {said}" if said else kind)[:300]


def write(name: str, model: str, weights: Path, path: Path) -> None:
    """Write a framework's file.

    Args:
        name: The backend.
        model: The spec's `model`.
        weights: A weights file of this project with a head.
        path: The file to write.
    """
    import backends
    from common.spec.experiment import ExperimentSpec

    spec = ExperimentSpec().replace(backend=name, model=model, weights=str(weights), device="cpu")
    backend = backends.load(name)
    backend.prepare(spec)
    backend.write_file(backend.build_models(spec).pretrained, path)


if __name__ == "__main__":
    start("convert.worker", main, backend_of)
