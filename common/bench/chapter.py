"""Run the chapter's own code of one framework in a process of its own, where the framework keeps its defaults."""

from __future__ import annotations

import importlib.util
import multiprocessing
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from common.devices import cuda_libraries
from common.spec.experiment import ExperimentSpec
from common.system.errors import RunError
from common.system.machine import peak_memory, without_messages

# Backend -> the fields of a spec with which this project does the same job as the chapter's tab.
SAME_JOB: dict[str, dict[str, Any]] = {
    "torch": {"model": "resnet18", "train_crop": "random_resized_crop", "loss_reduction": "sum"},
    "keras": {
        "model": "resnet50",
        "train_crop": "resize_random_crop",
        "loss_reduction": "mean",
        "optimizer": "momentum",
    },
    "jax": {
        "model": "resnet18",
        "train_crop": "resize_random_crop",
        "loss_reduction": "mean",
        "batch_norm": "frozen",
    },
    "mxnet": {"model": "resnet18_v2", "train_crop": "random_resized_crop", "loss_reduction": "sum"},
}

# Backends whose frameworks look for CUDA's libraries in the system alone, where packages do not bring them.
LOOK_IN_THE_SYSTEM = ("mxnet",)


def same_job(spec: ExperimentSpec) -> ExperimentSpec:
    """Return the spec with the network and the choices of the chapter's tab for its framework."""
    return spec.replace(test_resize="squash", flip=True, weight_decay=1e-3, **SAME_JOB[spec.backend])


class ChapterProcess:
    """A process that runs the chapter's tab one piece at a time and is idle in between; use it in a `with` statement.

    Start it before the backend is imported, since it would inherit the backend's settings. All methods raise RunError
    when the tab fails or its process ends.
    """

    def __init__(self, file: Path) -> None:
        """Start the process with the chapter's code in `file`, which `backends.chapter_file` names."""
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        self.process = context.Process(target=serve, args=(file, other), daemon=True)
        self.process.start()
        other.close()

    def __enter__(self) -> ChapterProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.connection.close()
        self.process.join(timeout=10)
        if self.process.is_alive():
            self.process.terminate()

    def configure(self, folder: Path, image_size: int, batch_size: int, classes: int, frozen: bool = False) -> None:
        """Make a new network with its optimizer, and new input pipelines.

        Args:
            folder: A folder whose `train` and `test` hold a folder of images for each class.
            image_size: The side of the network's input in pixels.
            batch_size: Images of a batch.
            classes: The number of classes.
            frozen: Whether the backbone does not train, as in the chapter's exercise.
        """
        self._ask("configure", folder, image_size, batch_size, classes, frozen)

    def train(self) -> tuple[int, float]:
        """Train one epoch; return the number of images and the seconds."""
        images, seconds = self._ask("train")
        return images, seconds

    def test(self) -> tuple[int, float]:
        """Evaluate once; return the number of images and the seconds."""
        images, seconds = self._ask("test")
        return images, seconds

    def peak_memory(self) -> int:
        """Return the most bytes that the process has held in main memory."""
        return int(self._ask("peak_memory"))

    def _ask(self, question: str, *arguments: Any) -> Any:
        """Call a method of `Chapter` in the process; return its answer or raise its error as RunError."""
        try:
            self.connection.send((question, arguments))
            answer = self.connection.recv()
        except (EOFError, OSError) as error:
            raise RunError(f"the process of the chapter's tab ended at {question!r}; its messages are above") from error
        if isinstance(answer, Exception):
            raise RunError(f"the chapter's tab failed at {question!r}: {answer}") from answer
        return answer


class Chapter:
    """The network, optimizer and batches in the process; its methods answer those of ChapterProcess."""

    def __init__(self, module: ModuleType) -> None:
        self.module = module

    def configure(self, folder: Path, image_size: int, batch_size: int, classes: int, frozen: bool) -> None:
        """Make network, optimizer and input pipelines by the chapter's code."""
        self.network = self.module.make_network(image_size, classes, frozen)
        self.optimizer = self.module.make_optimizer(self.network)
        self.train_batches = self.module.train_batches(folder, image_size, batch_size)
        self.test_batches = self.module.test_batches(folder, image_size, batch_size)

    def train(self) -> tuple[int, float]:
        """Train one epoch; return the number of images and the seconds."""
        start = time.perf_counter()
        return self.module.train_epoch(self.network, self.optimizer, self.train_batches), time.perf_counter() - start

    def test(self) -> tuple[int, float]:
        """Evaluate once; return the number of images and the seconds."""
        start = time.perf_counter()
        return self.module.evaluate(self.network, self.test_batches), time.perf_counter() - start

    def peak_memory(self) -> int:
        """Return the most bytes that this process has held in main memory."""
        return peak_memory()


def serve(file: Path, connection: Connection) -> None:
    """Answer the questions of a ChapterProcess until it closes the connection."""
    tab: Chapter | None = None
    while True:
        try:
            question, arguments = connection.recv()
        except EOFError:
            return
        try:
            with without_messages():
                tab = tab or Chapter(load(file))
            answer = getattr(tab, question)(*arguments)
        except Exception as error:  # sent to the process that asked
            answer = RunError(f"{type(error).__name__}: {error}")
        connection.send(answer)


def load(file: Path) -> ModuleType:
    """Load the chapter's code from its file, since importing its package would change the framework's settings."""
    if file.parent.name in LOOK_IN_THE_SYSTEM:
        cuda_libraries.preload(cuda_libraries.installed())
    specification = importlib.util.spec_from_file_location(f"chapter_of_{file.parent.name}", file)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    # TensorFlow looks up the module of a function that it compiles.
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module
