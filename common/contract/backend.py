"""The interface of a backend. Every backend package has these names; its modules hold them in this order.

Models, images and labels are the framework's own objects, which is why they are `Any` here. The name of a parameter
is always torchvision's (`layer2.0.conv1.weight`), and arrays that leave a backend have torchvision's layout: OIHW for
convolutions, (out, in) for dense layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from common.contract.results import History
from common.contract.trainer import Trainer
from common.contract.watch import Watch
from common.data.folder import ImageData, Sample
from common.devices.device import Device
from common.method.phases import Phase
from common.network.conversion.stored import StoredTensors
from common.network.weights import Arrays
from common.preprocessing.resampling import Frame, Places
from common.preprocessing.transforms import Images, Labels, Transform
from common.spec.experiment import ExperimentSpec


@dataclass(frozen=True)
class Models:
    """The three networks of the experiment, independent of each other: training one changes no other.

    With the weights `none` there is no source, and `pretrained` and `fine_tune` are None. With a backbone without a
    head, `pretrained` is None.
    """

    pretrained: Any
    """The source network with its own head, 1000-way for ImageNet's."""
    fine_tune: Any
    """The source network's backbone with a new head; with the strategy `lora`, its convolutions have adapters."""
    scratch: Any
    """The same network, with all values random."""


class Backend(Protocol):
    """The functions and the class of a backend package."""

    # runtime.py

    def prepare(self, spec: ExperimentSpec) -> Device:
        """Choose the devices, seed the framework's generators, and make float32 arithmetic exact and repeatable.

        Exact means that TF32 is off, unless it is the precision of `spec`. Call this once, before anything else.
        Where a CPU is to be several devices (`spec.devices`), virtual ones are made, or the other processes are joined.

        Args:
            spec: The experiment.

        Returns:
            The device that the experiment runs on.

        Raises:
            UserError: `spec.device` is `gpu` and the framework sees none, or there are fewer than `spec.devices`.
        """

    def versions(self) -> dict[str, str]:
        """Return package name -> version, for each package that computes."""

    def peak_gpu_memory(self) -> int | None:
        """Return the most bytes held on the GPU so far; None on a CPU, or where the framework does not count."""

    def matmul_benchmark(self, spec: ExperimentSpec, side: int) -> Callable[[], None]:
        """Prepare a matrix product to be timed.

        Args:
            spec: The experiment, for device and precision.
            side: Number of rows and of columns of both matrices.

        Returns:
            A function that multiplies the matrices on the device and waits for the result.
        """

    # models.py

    def build_models(self, spec: ExperimentSpec) -> Models:
        """Build the three networks on the device of `spec`; raise UserError for weights that do not fit them."""

    # layers.py

    def head_shape(self, model: Any) -> tuple[int, ...]:
        """Return the shape of the head's weight in the framework's own layout."""

    def head_row(self, model: Any, index: int) -> NDArray[Any]:
        """Return the head row of class `index`, its weight vector: (features,) float32."""

    def extract_head(self, model: Any) -> Any:
        """Copy the head to a model of its own, which takes feature vectors in the place of images.

        Args:
            model: The network.

        Returns:
            The head, with the parameters `fc.weight` and `fc.bias`. `Trainer`, `logits`, `to_arrays` and `load_arrays`
            accept it.
        """

    # training.py

    Trainer: type[Trainer]

    def gradients(
        self,
        model: Any,
        spec: ExperimentSpec,
        phase: Phase,
        batch: tuple[Any, Any],
        class_counts: Sequence[int] | None = None,
    ) -> dict[str, NDArray[Any]]:
        """Compute the gradient of the loss of `spec`, without weight decay, in training mode.

        BatchNorm follows `phase.frozen_statistics`; parameters and statistics stay as they are.

        Args:
            model: The model.
            spec: The experiment.
            phase: The phase, for the trained parameters and the frozen statistics.
            batch: Images and labels as `from_shared` gives them.
            class_counts: Training images of each class, for `common.method.loss.target_table`.

        Returns:
            Name of each trained parameter -> its gradient, in torchvision's layout.
        """

    def logits(self, model: Any, images: Any) -> NDArray[Any]:
        """Compute the logits of a batch in evaluation mode.

        Args:
            model: The model.
            images: Images of a batch, or feature vectors for a head of `extract_head`. Where several processes share
                the batch evenly, they are this one's part.

        Returns:
            (N, classes) float32 (float64 in a float64 experiment), with the rows of all processes' images in every
            process.
        """

    def feature_extractor(self, model: Any) -> Callable[[Any], NDArray[Any]]:
        """Make a function that computes the features of images, the head's input in evaluation mode.

        The function may hold copies of the parameters: after a change of the backbone make another.

        Args:
            model: The network.

        Returns:
            A function from a batch of images to (N, features) float32; several processes share the batch as in
            `logits`.
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

        Args:
            model: The model.
            spec: The experiment.
            data: Its data.
            param_group: Whether head and stages learn at multiples of the learning rate; otherwise all have the
                multiple 1.
            watch: The receiver of progress and results.

        Returns:
            The metrics of every epoch, and the predictions of the model that was kept.

        Raises:
            common.training.loop.Diverged: The loss is no longer finite.
        """

    # inputs.py

    def from_shared(self, images: Images, labels: Labels) -> tuple[Any, Any]:
        """Convert a batch of the shared pipeline to the framework's own objects.

        Args:
            images: (N, H, W, 3) float32, or feature vectors (N, features) float32.
            labels: (N,) int64.

        Returns:
            Images and labels as this framework's `Trainer` takes them.
        """

    def native_train_batches(
        self, spec: ExperimentSpec, transform: Transform, samples: Sequence[Sample], epoch: int
    ) -> Iterable[tuple[Any, Any]]:
        """Return the shuffled, augmented batches of an epoch by the framework's own tools; the last may be smaller."""

    def native_test_batches(
        self, spec: ExperimentSpec, transform: Transform, samples: Sequence[Sample]
    ) -> Iterable[tuple[Any, Any]]:
        """Return batches of all samples in order by the framework's own tools, with labels that NumPy can convert."""

    # resident.py

    def to_device(self, spec: ExperimentSpec, pixels: NDArray[np.uint8]) -> Any:
        """Copy the pixels of all images to the memory of the device of `spec`.

        Args:
            spec: The experiment.
            pixels: (segments, SEGMENT, 3) uint8, as `common.batches.resident.pack` lays them out.

        Returns:
            The store that `resident_batch` takes batches from.
        """

    def resident_batch(self, store: Any, places: Places, frame: Frame, labels: Labels) -> tuple[Any, Any]:
        """Make a batch on the device from the pixels in its memory, without waiting for the result.

        Of each image `frame.height` rows of `frame.width` pixels are gathered: segment s of row r is segment
        begin + across r + s of the store, or the store's last where that lies behind it, with begin and across from
        `places.segments`. What does not belong to the image has the weight 0 below. Images that are `turned` are
        transposed, before the two resizes and once more after them.

        Each resize is a product with a matrix of resampling coefficients: first along the rows, with `places.first`,
        then along the columns, with `places.second`. The filter is a triangle. With unit, start, step, reach and length
        of the axis, the coefficient of input pixel x in output pixel i, 0 <= i < `frame.side`, is

            weight[i, x] = max(0, reach - |(2 x + 1) unit - (start + i step)|)  if x < length, else 0
            total[i] = max(1, sum_x weight[i, x])
            coefficient[i, x] = floor(DIGIT**2 weight[i, x] / total[i] + 1/2) / DIGIT**2

        that is, the normalised weight rounded to a multiple of DIGIT**-2 = 2**-22, half upwards. It is computed in
        whole numbers below 2**31 as two digits, coefficient = high / DIGIT + low / DIGIT**2:

            high[i, x] = floor(DIGIT weight[i, x] / total[i])
            low[i, x] = floor((DIGIT (DIGIT weight[i, x] - high[i, x] total[i]) + floor(total[i] / 2)) / total[i])

        A value of output pixel i is the sum over the input's values, rounded to a whole number, half upwards:

            output[i] = floor(sum_x coefficient[i, x] input[x] + 1/2)
                      = floor((sum_x high[i, x] input[x] + floor(sum_x low[i, x] input[x] / DIGIT) + DIGIT / 2) / DIGIT)

        The sums of the second line are float32, and exact for up to 32 pixels x of weight above 0. Up to there the
        result is Pillow's (BILINEAR, Resample.c) to the last bit. At the end, for channel c,

            image[c] = (output[c] * frame.scale - frame.mean[c]) / frame.std[c]

        and, where the frame is padded, 0 outside `places.content`.

        Args:
            store: The pixels, as `to_device` returned them.
            places: Where the N images lie, and the geometry of their resampling.
            frame: Height and width that hold every image of the batch, side of the squares, and normalisation.
            labels: (N,) int64.

        Returns:
            Images and labels as `from_shared` gives them.
        """

    # weights.py

    def to_arrays(self, model: Any) -> Arrays:
        """Copy every parameter and running statistic to NumPy.

        Args:
            model: The model.

        Returns:
            torchvision's name -> array in torchvision's layout. Adapters (`common.network.lora`) are merged into the
            weights of their convolutions.
        """

    def load_arrays(self, model: Any, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Set the named parameters, adapters and statistics, and leave the others as they are.

        Where a convolution's weight is set, its adapter returns to zero, unless it is named too.

        Args:
            model: The model, which is changed in place.
            arrays: torchvision's name -> array in torchvision's layout.

        Raises:
            KeyError: A name is unknown.
            ValueError: An array has the wrong shape.
        """

    def read_file(self, path: Path) -> StoredTensors:
        """Read a weights file as people of this framework have it, without running code that it may hold.

        The framework may raise any exception for a file that it cannot read.

        Args:
            path: The file.

        Returns:
            Every tensor under the file's own name, in torchvision's layout, and tables from the framework's names of
            parameters and statistics to torchvision's.

        Raises:
            UserError: The file holds something else than weights.
        """

    def write_file(self, model: Any, path: Path) -> None:
        """Write a network's weights to a file of the framework's own kind, which its own functions load.

        Args:
            model: The network.
            path: The file; its suffix is `FILE_SUFFIX[backend]` of `common.network.conversion.kinds`.
        """
