"""Write TensorBoard events with the same tags for every framework, so that their runs share the charts."""

from __future__ import annotations

import shutil
from pathlib import Path

from common.contract.results import EpochMetrics, Predictions
from common.contract.watch import ForwardingWatch, Watch
from common.spec.experiment import ExperimentSpec

FOLDER = "tensorboard"


class TensorBoardWatch(ForwardingWatch):
    """A watch that writes TensorBoard events and passes everything on to another watch.

    The spec is a text. The metrics of every epoch are scalars by epoch: loss/train, loss/test, accuracy/train,
    accuracy/test and images_per_second, and with a validation split loss/validation and accuracy/validation.
    """

    def __init__(self, folder: Path, spec: ExperimentSpec, shown: Watch) -> None:
        super().__init__(shown)
        self.folder, self.spec = folder / FOLDER, spec

    def __enter__(self) -> TensorBoardWatch:
        from tensorboardX import SummaryWriter

        # TensorBoard would draw an earlier run's events into the same curve.
        shutil.rmtree(self.folder, ignore_errors=True)
        self.writer = SummaryWriter(str(self.folder))
        # Indented by four spaces, Markdown shows text as it is.
        self.writer.add_text("spec", "".join(f"    {line}\n" for line in self.spec.to_json().splitlines()))
        return self

    def __exit__(self, *exception: object) -> None:
        self.writer.close()

    def on_epoch(self, metrics: EpochMetrics, predictions: Predictions) -> None:
        """Write the epoch's metrics as scalars, then pass the epoch on."""
        scalars = {
            "loss/train": metrics.loss,
            "loss/test": metrics.test_loss,
            "accuracy/train": metrics.train_accuracy,
            "accuracy/test": metrics.test_accuracy,
            "images_per_second": metrics.images_per_second,
        }
        if metrics.validation_loss is not None and metrics.validation_accuracy is not None:
            scalars["loss/validation"] = metrics.validation_loss
            scalars["accuracy/validation"] = metrics.validation_accuracy
        for tag, value in scalars.items():
            self.writer.add_scalar(tag, value, metrics.epoch)
        self.writer.flush()
        super().on_epoch(metrics, predictions)
