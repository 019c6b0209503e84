"""The names of the backends, in the one place that all others ask."""

from typing import Literal, get_args

BackendName = Literal["torch", "keras", "jax", "mxnet"]
BACKENDS: tuple[str, ...] = get_args(BackendName)
