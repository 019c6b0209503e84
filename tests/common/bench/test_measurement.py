"""The benchmark's rounds, ratios and stand-in data, with work of known speed."""

from __future__ import annotations

import multiprocessing
import os
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

import backends
from common.bench import chapter, measurement, temporary_data
from common.bench.measurement import Contenders
from common.bench.results import PRODUCT_SIDE, Case, Result
from common.bench.slices import Slice
from common.data.folder import ImageData
from common.network import resnet
from common.spec.experiment import ExperimentSpec
from common.system.caches import cache_folder
from common.system.errors import RunError, UserError
from tests.fake_backend import FakeBackend


def test_every_slice_runs_once_for_nothing_and_then_in_every_round() -> None:
    calls: list[str] = []

    def piece(name: str, seconds: float) -> Slice:
        def do() -> tuple[int, float]:
            calls.append(name)
            return 6, seconds * len(calls)

        return do

    rates = measurement.measure({"a": piece("a", 1.0), "b": piece("b", 2.0)}, repeats=2)
    # The second round goes backwards.
    assert calls == ["a", "b", "a", "b", "b", "a"]
    assert rates == {"a": [6 / 3, 6 / 6], "b": [6 / 8, 6 / 10]}


@pytest.fixture
def result() -> Result:
    cases = [
        Case("train", "tab", "fp32", [10.0, 20.0, 30.0]),
        Case("train", "ours", "fp32", [20.0, 20.0, 90.0]),
        Case("train", "ours", "bf16", [30.0, 80.0, 60.0]),
        Case("train", "ready", "bf16", [40.0, 80.0, 80.0]),
        Case("train", "input", "fp32", [500.0, 600.0, 700.0]),
        Case("product", "product", "bf16", [1.0, 2.0, 4.0]),
    ]
    return Result(224, 8, 32, 32, 2 * PRODUCT_SIDE**3 // 300, cases)


def test_ratios_are_medians_within_rounds(result: Result) -> None:
    """The tab of the same round counts, not the tab's median: the machine's speed changes from round to round."""
    assert result.ratio(result.case("train", "ours"), "tab") == 2.0
    assert result.ratio(result.case("train", "ours", "bf16"), "tab") == 3.0
    assert result.ratio(result.case("train", "ours", "bf16"), "ready") == 0.75
    assert result.ratio(result.case("train", "ours"), "ready") is None
    assert result.case("train", "ours").rate == 20.0


def test_the_share_of_the_peak_counts_three_passes(result: Result) -> None:
    # 300 forward passes are one product; 30, 80 and 60 images a second are 90, 240 and 180 passes.
    share = result.share_of_peak(result.case("train", "ours", "bf16"))
    assert share == pytest.approx(90 / 300, rel=1e-4)
    assert result.share_of_peak(result.case("train", "ours")) is None
    assert result.share_of_peak(result.case("train", "input")) is None
    assert result.to_dict()["cases"][2]["share_of_peak"] == share


@pytest.mark.parametrize(
    ("architecture", "multiply_adds"),
    [
        # fvcore's and torchvision's numbers; ResNet-50 v1 is Keras' and Caffe's.
        ("resnet18", 1_814_073_344),
        ("resnet18_v2", 1_814_073_344),
        ("resnet50", 4_089_184_256),
        ("resnet50_keras", 3_857_973_248),
    ],
)
def test_operations_are_counted_as_elsewhere(architecture: str, multiply_adds: int) -> None:
    assert resnet.forward_flops(architecture, 224, classes=1000) == 2 * multiply_adds


def test_operations_at_odd_sizes() -> None:
    # torch.utils.flop_counter's numbers at 72 px with two classes: maps of 9 px are halved to 5.
    assert resnet.forward_flops("resnet18", 72) == 460_726_272
    assert resnet.forward_flops("resnet50", 72) == 1_029_060_608


def test_images_are_linked_in_full_batches(pictures: ImageData, tmp_path: Path) -> None:
    linked = temporary_data.link_images(pictures, tmp_path / "images", steps=5, batch_size=8)
    assert (len(linked.train), len(linked.test)) == (16, 8)
    assert linked.classes == pictures.classes
    assert {sample.label for sample in linked.train} == {0, 1}
    assert len({sample.path.resolve() for sample in linked.train}) == 16
    with pytest.raises(UserError, match="--batch-size 100"):
        temporary_data.link_images(pictures, tmp_path / "other", steps=5, batch_size=100)


class FakeTab:
    """A tab that is asked in this process."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def configure(self, folder: Path, image_size: int, batch_size: int, classes: int, frozen: bool = False) -> None:
        self.asked.append(f"{image_size} px, batch {batch_size}, {classes} classes" + ", frozen" * frozen)
        assert (folder / "train" / "hotdog").is_dir()

    def train(self) -> tuple[int, float]:
        self.asked.append("train")
        return 16, 0.5

    def test(self) -> tuple[int, float]:
        self.asked.append("test")
        return 8, 0.25


@pytest.fixture
def job(tmp_path: Path) -> ExperimentSpec:
    spec = chapter.same_job(ExperimentSpec(image_size=64, batch_size=8, epochs=2, workers=1, learning_rate=1e-6))
    return spec.replace(weights=str(temporary_data.random_weights(tmp_path, spec)))


def test_everything_is_measured_in_every_precision(pictures, job, tmp_path) -> None:
    linked = temporary_data.link_images(pictures, tmp_path / "images", 2, 8)
    asked = FakeTab()
    result = measurement.run(Contenders(FakeBackend(), asked, ["fp32", "bf16"]), job, linked, repeats=2)
    assert asked.asked == ["64 px, batch 8, 2 classes", "train", "test", "train", "test", "test", "train"]
    names = {case.name for case in result.cases}
    both = {f"{name} {kind}" for kind in ("fp32", "bf16") for name in ("train ours", "train ready", "test ours",
            "test ready", "product product")}  # fmt: skip
    assert names == both | {"train tab fp32", "test tab fp32", "train input fp32", "test input fp32"}
    assert all(len(case.rates) == 2 and min(case.rates) > 0 for case in result.cases)
    assert result.case("train", "tab").rate == 32
    assert result.flops == resnet.forward_flops("resnet18", 64, 2)


def test_a_whole_job_runs_all_epochs(pictures, job, tmp_path) -> None:
    linked = temporary_data.link_images(pictures, tmp_path / "images", 2, 8)
    asked = FakeTab()
    found = measurement.whole_job(Contenders(FakeBackend(), asked), job, linked)
    assert asked.asked == ["64 px, batch 8, 2 classes", *["train", "test"] * 2]
    assert found["times_tab"] == pytest.approx(found["tab_seconds"] / found["seconds"])
    assert found["seconds_again"] is None


def test_feature_extraction_is_held_against_a_frozen_tab(pictures, job, tmp_path) -> None:
    linked = temporary_data.link_images(pictures, tmp_path / "images", 2, 8)
    asked, notes = FakeTab(), []
    chosen = job.replace(strategy="feature-extraction", batch_norm="frozen", train_crop="none", flip=False)
    found = measurement.whole_job(Contenders(FakeBackend(), asked), chosen, linked, notes.append)
    assert asked.asked[0] == "64 px, batch 8, 2 classes, frozen"
    assert notes == [f"feature-extraction, 2 epochs: {who}" for who in ("the tab", "ours", "ours")]
    assert found["seconds_again"] > 0


def test_what_is_cached_meanwhile_is_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    for before in ("elsewhere", None):
        monkeypatch.setenv("FINE_TUNING_CACHE", "elsewhere") if before else monkeypatch.delenv("FINE_TUNING_CACHE")
        with temporary_data.temporary_folder() as folder:
            assert cache_folder() == folder
        assert os.environ.get("FINE_TUNING_CACHE") == before
        assert not folder.exists()


@pytest.mark.parametrize("backend", chapter.SAME_JOB)
def test_every_tab_has_a_job_that_the_spec_allows(backend: str, tmp_path: Path) -> None:
    spec = chapter.same_job(ExperimentSpec(backend=backend))
    assert spec.test_resize == "squash"
    path = temporary_data.random_weights(tmp_path, spec)
    assert spec.replace(weights=str(path)).weights == str(path)


def test_a_tab_whose_framework_is_missing_says_so() -> None:
    """A real process: here without any framework."""
    with (
        chapter.ChapterProcess(backends.chapter_file("mxnet")) as process,
        pytest.raises(RunError, match="No module named 'mxnet'"),
    ):
        process.configure(Path(), 64, 8, 2)


def test_a_tab_process_that_dies_is_said() -> None:
    with chapter.ChapterProcess(backends.chapter_file("torch")) as process:
        process.process.terminate()
        process.process.join()
        with pytest.raises(RunError, match="ended at 'train'"):
            process.train()


def test_the_process_answers_until_the_connection_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    module = SimpleNamespace(
        make_network=lambda image_size, classes, frozen: (image_size, classes, frozen),
        make_optimizer=lambda network: "optimizer",
        train_batches=lambda folder, image_size, batch_size: [1, 2, 3],
        test_batches=lambda folder, image_size, batch_size: [4],
        train_epoch=lambda network, optimizer, batches: sum(batches),
        evaluate=lambda network, batches: sum(batches),
    )
    monkeypatch.setattr(chapter, "load", lambda backend: module)
    here, there = multiprocessing.Pipe()
    thread = threading.Thread(target=chapter.serve, args=("torch", there))
    thread.start()
    process = chapter.ChapterProcess.__new__(chapter.ChapterProcess)
    process.connection = here
    process.configure(Path(), 64, 8, 2)
    assert process.train()[0] == 6
    assert process.test()[0] == 4
    assert process.peak_memory() > 0
    here.close()
    thread.join(timeout=5)
    assert not thread.is_alive()
