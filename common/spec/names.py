"""The names of the backends, of their networks and of the ways to resize, in the one place that all others ask."""

from typing import Literal, get_args

BackendName = Literal["torch", "keras", "jax", "mxnet"]
BACKENDS: tuple[str, ...] = get_args(BackendName)
ModelName = Literal["resnet18", "resnet50", "resnet18_v2"]
# How an image is resized for a test: its short side, both sides without keeping the aspect ratio, or whole into the
# square, with borders.
ResizeWay = Literal["short_side", "squash", "letterbox"]

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
