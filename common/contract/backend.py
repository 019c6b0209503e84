"""What a backend provides. Every backend package has these names; its modules hold them in this order.

Models, images and labels are the framework's own objects, which is why they are `Any` here. A name of a parameter
is always torchvision's (`layer2.0.conv1.weight`), and arrays that leave a backend have torchvision's layout: OIHW
convolutions, (out, in) dense layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from common.contract.results import History
from common.contract.watch import Watch
from common.data.folder import ImageData, Sample
from common.devices.device import Device
from common.method.phases import Phase
from common.network.weights import Arrays
from common.preprocessing.resampling import Frame, Places
from common.preprocessing.transforms import Images, Labels, Transform
from common.spec.experiment import ExperimentSpec


@dataclass(frozen=True)
class Models:
    """The three networks of the experiment, independent of each other: training one changes no other.

    With the weights `none` there is no source, and `pretrained` and `fine_tune` are None.
    """

    pretrained: Any
    """The source network with its 1000-way head."""
    fine_tune: Any
    """The source network's backbone under a new head; with the strategy `lora`, its convolutions have adapters."""
    scratch: Any
    """The same network with random values everywhere."""


class Trainer(Protocol):
    """Trains one model through one phase. Holds the optimizer, whose groups follow `phase.learning_rates`."""

    def __init__(
        self, model: Any, spec: ExperimentSpec, phase: Phase, class_counts: Sequence[int] | None = None
    ) -> None:
        """Raises RuntimeError if a parameter is in no group or in two.

        class_counts: training images of each class, for `common.method.loss.target_table`.
        """

    def train_step(self, images: Any, labels: Any, rate_factor: float = 1.0) -> None:
        """One forward pass, backward pass and update; adds to the sums without waiting for the device.

        images, labels: one batch as this backend's pipelines give them. Where several processes share it, the images
        are this one's part (`common.devices.processes`) and the labels those of the whole batch; where one process
        drives several devices, it shares them out. The step is that of the whole batch on one device, BatchNorm's
        statistics included.
        rate_factor: multiple of all learning rates in this step. Momentum gathers gradients, not updates, as in
        torch: a rate acts on its own step only.
        """

    def read_sums(self) -> tuple[float, int]:
        """Sum of the losses (plain cross-entropy, whatever the targets) and number of correct top-1 answers over the
        examples since the last call, those of all devices and the same in every process."""


class Backend(Protocol):
    """A backend package."""

    # runtime.py

    def prepare(self, spec: ExperimentSpec) -> Device:
        """Choose the devices, seed the framework's generators, and make float32 arithmetic exact and repeatable
        (no TF32). Call it once, before anything else; for `spec.devices` of a CPU it makes virtual ones, or meets the
        other processes. Raises UserError when `spec.device` is `gpu` and the framework sees none, and when there are
        fewer than `spec.devices`."""

    def versions(self) -> dict[str, str]:
        """Version of each package that computes."""

    def peak_gpu_memory(self) -> int | None:
        """Most bytes the framework held on the GPU; None on a CPU, or where the framework does not count."""

    def matmul_benchmark(self, spec: ExperimentSpec, side: int) -> Callable[[], None]:
        """What multiplies two square matrices of `side` rows on the device, in the precision of `spec`, and waits."""

    # models.py

    def build_models(self, spec: ExperimentSpec) -> Models:
        """The three networks, on the device of `spec`. Raises UserError for weights that do not fit."""

    # layers.py

    def head_shape(self, model: Any) -> tuple[int, ...]:
        """Shape of the head's weight in the framework's own layout."""

    def head_row(self, model: Any, index: int) -> NDArray[Any]:
        """The head's weight vector for class `index`: (features,) float32."""

    def extract_head(self, model: Any) -> Any:
        """A copy of the head as a model of its own, which takes feature vectors in the place of images. `Trainer`,
        `logits`, `to_arrays` and `load_arrays` accept it; its names are those of the head, `fc.weight` and
        `fc.bias`."""

    # training.py

    Trainer: type[Trainer]

    def gradients(
        self,
        model: Any,
        spec: ExperimentSpec,
        phase: Phase,
        images: Any,
        labels: Any,
        class_counts: Sequence[int] | None = None,
    ) -> dict[str, NDArray[Any]]:
        """Gradient of the loss of `spec` (without weight decay) by name of the trained parameter, in training mode
        with `phase.frozen_statistics`; parameters and statistics stay as they are."""

    def logits(self, model: Any, images: Any) -> NDArray[Any]:
        """(N, classes) float32 in evaluation mode. Where several processes share a batch evenly, N are the images of
        all, and every process has their rows."""

    def feature_extractor(self, model: Any) -> Callable[[Any], NDArray[Any]]:
        """What computes, from a batch of images, what the head sees in evaluation mode: (N, features) float32;
        of several processes as `logits`.

        It may hold copies: after a change of the backbone ask for another.
        """

    def train_fine_tuning(
        self,
        model: Any,
        spec: ExperimentSpec,
        data: ImageData,
        param_group: bool = True,
        watch: Watch | None = None,
    ) -> History:
        """Train `model` in place as `spec` says and evaluate it after each epoch.

        param_group: whether head and stages learn at multiples of the learning rate; without, all learn at 1.
        Raises common.training.loop.Diverged when the loss is no longer finite.
        """

    # inputs.py

    def from_shared(self, images: Images, labels: Labels) -> tuple[Any, Any]:
        """A batch of the shared pipeline, float32 (N, H, W, 3) and int64 (N,), as this framework takes it; also
        float32 feature vectors (N, features)."""

    def native_train_batches(
        self, spec: ExperimentSpec, transform: Transform, samples: Sequence[Sample], epoch: int
    ) -> Iterable[tuple[Any, Any]]:
        """An epoch of shuffled, augmented batches by the framework's own tools; the last batch may be smaller."""

    def native_test_batches(
        self, spec: ExperimentSpec, transform: Transform, samples: Sequence[Sample]
    ) -> Iterable[tuple[Any, Any]]:
        """All samples in order by the framework's own tools; labels convertible to NumPy."""

    # resident.py

    def to_device(self, spec: ExperimentSpec, pixels: NDArray[np.uint8]) -> Any:
        """The pixels of all images (segments, SEGMENT, 3) in the memory of the device of `spec`; see
        `common.batches.resident`."""

    def resident_batch(self, store: Any, places: Places, frame: Frame, labels: Labels) -> tuple[Any, Any]:
        """A batch as `from_shared` gives it, made on the device from what `to_device` returned; nothing waits for it.

        Of each image `frame.height` rows of `frame.width` pixels are gathered, and rows and columns of those that are
        turned change places, in the end again. Along each axis, rows first, a pixel counts max(0, reach - distance) of
        the sum of these over the image's pixels, rounded to DIGIT**-2, half upwards; and the sums over pixels are
        rounded to whole numbers, half upwards. So resizes Pillow (BILINEAR, Resample.c), to the last bit where at most
        32 pixels count at once. Then the values are multiplied with `frame.scale`, less `frame.mean`, divided by
        `frame.std`.
        """

    # weights.py

    def to_arrays(self, model: Any) -> Arrays:
        """Every parameter and running statistic by torchvision's name, in torchvision's layout: copies. Adapters
        (common.network.lora) are merged into the weights of their convolutions."""

    def load_arrays(self, model: Any, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Set the named parameters, adapters and statistics, leave the others; raises KeyError for an unknown name
        and ValueError for a wrong shape. The adapter of a convolution that is set returns to zero, unless it is named
        too."""
