"""The names of the backends and of their networks, in the one place that all others ask."""

from typing import Literal, get_args

BackendName = Literal["torch", "keras", "jax", "mxnet"]
BACKENDS: tuple[str, ...] = get_args(BackendName)
ModelName = Literal["resnet18", "resnet50", "resnet18_v2"]

# The networks each framework's own model libraries offer.
MODELS_BY_BACKEND: dict[str, tuple[str, ...]] = {
    "torch": ("resnet18", "resnet50"),
    "keras": ("resnet18", "resnet50"),
    "jax": ("resnet18", "resnet50"),
    "mxnet": ("resnet18", "resnet18_v2"),
}


def backends_with(model: str) -> list[str]:
    """Return the backends that offer a model."""
    return [backend for backend, models in MODELS_BY_BACKEND.items() if model in models]
