"""The commands as a user meets them: what they print, leave behind and exit with."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import backends
import scripts.run
import scripts.show
from common.data.folder import ImageData
from common.spec.presets import preset_names
from scripts.cli import command, lookup, options
from scripts.cli.arguments import parse
from tests.conftest import write_pictures
from tests.fake_backend import FakeBackend

ROOT = Path(scripts.run.__file__).parents[2]


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """NumPy in the place of the frameworks, in this process and in an empty working folder."""
    monkeypatch.setattr(backends, "load", lambda name: FakeBackend())
    monkeypatch.setattr(command, "hand_over", lambda *arguments: None)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


def call(monkeypatch: pytest.MonkeyPatch, module, *arguments: str) -> int:
    """Run a command in this process; its exit code."""
    monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
    name = module.__name__.split(".")[-1]
    with pytest.raises(SystemExit) as ended:
        command.start(name, module.main, lookup.backend_wanted if name == "run" else None)
    return int(ended.value.code or 0)


def small(data: ImageData | Path) -> list[str]:
    root = data.root if isinstance(data, ImageData) else data
    sizes = ["--image-size", "64", "--batch-size", "8", "--epochs", "2", "--workers", "0"]
    return ["--preset", "demo", "--data", str(root), *sizes]


def test_without_a_strategy_fine_tuning_and_scratch_run(monkeypatch, capsys, pictures) -> None:
    assert call(monkeypatch, scripts.run, *small(pictures), "--output", "out") == 0
    printed = capsys.readouterr().out
    assert printed.count("epoch 2, loss ") == 2
    for strategy, rate in (("fine-tune", 2e-4), ("scratch", 1e-3)):
        record = json.loads(Path(f"out/{strategy}/record.json").read_text())
        assert record["status"] == "complete"
        assert record["spec"]["strategy"] == strategy
        assert record["spec"]["learning_rate"] == rate
        assert record["command"][:3] == ["python", "-m", "scripts.run"]


def test_one_strategy_leaves_one_record(monkeypatch, pictures) -> None:
    assert call(monkeypatch, scripts.run, *small(pictures), "--strategy", "partial", "--output", "out") == 0
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "model.safetensors", "predictions.npz", "record.json",
    ]  # fmt: skip


def test_whether_features_are_reused_is_said_and_recorded(monkeypatch, capsys, pictures) -> None:
    arguments = [*small(pictures), "--strategy", "feature-extraction", "--train-crop", "none"]
    for option, said in (("--no-flip", "computed once"), ("--flip", "computed anew")):
        assert call(monkeypatch, scripts.run, *arguments, option, "--output", option.strip("-")) == 0
        assert said in capsys.readouterr().out
        record = json.loads(Path(option.strip("-"), "record.json").read_text())
        assert record["resolved"]["phases"][0]["reused_features"] == (said == "computed once")


def test_a_file_of_weights_says_how_images_are_resized_unless_a_preset_does(monkeypatch, capsys, pictures) -> None:
    """The preset that counts when none is named has a size, which nobody asked for."""
    data = ["--data", str(pictures.root), "--batch-size", "8", "--workers", "0", "--epochs", "1"]
    squashed = [*data, "--image-size", "64", "--test-resize", "squash", "--strategy", "fine-tune"]
    assert call(monkeypatch, scripts.run, *squashed, "--output", "out") == 0
    assert "image_size 64 instead of 128, resize squash instead of short_side" in capsys.readouterr().out
    used = [*data, "--weights", "out/model.safetensors", "--strategy", "zero-shot"]
    found = {}
    for name, asked in {"alone": [], "preset": ["--preset", "demo"], "asked": ["--test-resize", "letterbox"]}.items():
        assert call(monkeypatch, scripts.run, *used, *asked, "--output", name) == 0
        resolved = json.loads(Path(f"{name}/record.json").read_text())["resolved"]
        found[name] = resolved["image_size"], resolved["resize_size"], resolved["test_resize"]
        said = " ".join(capsys.readouterr().out.split())
        assert said.count("Not as the weights' metadata say") == (name != "alone")
        assert ("resize letterbox instead of squash" in said) == (name == "asked")
    assert found == {"alone": (64, 73, "squash"), "preset": (96, 110, "squash"), "asked": (64, 64, "letterbox")}


def test_default_folders_are_new_each_time(monkeypatch, pictures) -> None:
    for _ in range(2):
        assert call(monkeypatch, scripts.run, *small(pictures), "--strategy", "scratch") == 0
    assert len(list(Path("runs").iterdir())) == 2


@pytest.mark.parametrize(
    ("preset", "data", "name"),
    [
        ("demo", "demo", "demo-torch"), ("d2l", "hotdog", "d2l-torch"), ("demo", "hotdog", "hotdog-torch"),
        ("demo", "my photos!", "my-photos-torch"), ("demo", "up/archive.zip", "archive-torch"),
        ("d2l", "my-photos/", "my-photos-torch"), ("demo", "v1.5", "v1.5-torch"), ("demo", ".", "work-torch"),
        ("demo", "/", "demo-torch"), ("demo", "x" * 5000, "x" * 60 + "-torch"), ("demo", "a\0b", "a-b-torch"),
    ],
)  # fmt: skip
def test_a_default_folder_is_named_after_other_data_than_the_presets(preset: str, data: str, name: str) -> None:
    Path("v1.5").mkdir()
    chosen = parse(options.RunOptions, "run", ["--preset", preset, "--data", data])
    assert options.run_name(chosen) == name


def test_a_run_on_other_data_is_named_after_them(monkeypatch, pictures) -> None:
    assert call(monkeypatch, scripts.run, *small(pictures), "--strategy", "scratch") == 0
    (folder,) = Path("runs").iterdir()
    assert folder.name.endswith(f"-{pictures.root.name}-torch")


def test_an_existing_record_is_kept_unless_told(monkeypatch, capsys, pictures) -> None:
    arguments = [*small(pictures), "--strategy", "scratch", "--output", "out"]
    assert call(monkeypatch, scripts.run, *arguments) == 0
    before = Path("out/record.json").read_bytes()
    assert call(monkeypatch, scripts.run, *arguments) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert Path("out/record.json").read_bytes() == before
    assert call(monkeypatch, scripts.run, *arguments, "--overwrite") == 0
    assert Path("out/record.json").read_bytes() != before


def test_five_classes_work_like_two(monkeypatch, tmp_path) -> None:
    names = ["daisy", "dandelion", "roses", "sunflowers", "tulips"]
    root = write_pictures(tmp_path / "flowers", names, train=3, test=2)
    assert call(monkeypatch, scripts.run, *small(root), "--strategy", "fine-tune", "--output", "out") == 0
    record = json.loads(Path("out/record.json").read_text())
    assert record["data"]["class_to_idx"] == {name: index for index, name in enumerate(names)}
    assert record["spec"]["classes"] == 5
    assert np.load("out/predictions.npz")["logits"].shape == (10, 5)


def test_five_classes_with_everything_around_a_step(monkeypatch, capsys, tmp_path) -> None:
    root = write_pictures(tmp_path / "flowers", ["daisy", "orchid", "rose", "sunflower", "tulip"], train=5, test=2)
    choices = [
        "--strategy", "auto", "--learning-rate", "0.01", "--schedule", "cosine", "--class-weights", "balanced",
        "--label-smoothing", "0.1", "--validation", "0.2", "--early-stopping", "1", "--keep", "best",
    ]  # fmt: skip
    assert call(monkeypatch, scripts.run, *small(root), *choices, "--output", "out") == 0
    printed = capsys.readouterr().out
    assert "auto: 4 training images a class of a similar domain, too few" in printed
    assert "as given: batch_size, epochs, learning_rate, schedule" in printed
    assert "kept the model of epoch" in printed
    assert ", val acc " in printed
    record = json.loads(Path("out/record.json").read_text())
    assert (record["spec"]["strategy"], record["spec"]["learning_rate"]) == ("feature-extraction", 0.01)
    assert record["command"][-1] == "out"


def test_zero_shot_without_namesakes_is_an_error_that_names_the_classes(monkeypatch, capsys, tmp_path) -> None:
    root = write_pictures(tmp_path / "flowers", ["daisy", "orchid", "rose"], train=2, test=2)
    assert call(monkeypatch, scripts.run, *small(root), "--strategy", "zero-shot", "--output", "out") == 2
    assert "'orchid', 'rose'" in capsys.readouterr().err
    assert not Path("out").exists()


def test_zero_shot_by_command(monkeypatch, capsys, pictures) -> None:
    assert call(monkeypatch, scripts.run, *small(pictures), "--strategy", "zero-shot", "--output", "out") == 0
    assert "zero-shot" in capsys.readouterr().out
    assert not Path("out/model.safetensors").exists()


def test_a_list_of_classes_by_command(monkeypatch, pictures) -> None:
    arguments = ["--strategy", "partial", "--head-init", "source-class", "--head-init-classes", "pizza", "bagel"]
    assert call(monkeypatch, scripts.run, *small(pictures), *arguments, "--output", "out") == 0
    assert json.loads(Path("out/record.json").read_text())["spec"]["head_init_classes"] == ["pizza", "bagel"]


def test_skipped_images_are_counted_and_shown(monkeypatch, capsys, tmp_path) -> None:
    root = write_pictures(tmp_path / "data", ["a", "b"], train=4, test=3)
    (root / "train" / "a" / "000.png").write_bytes(b"no picture")
    assert call(monkeypatch, scripts.run, *small(root), "--output", "out") == 2
    assert "train/a/000.png" in capsys.readouterr().err
    assert not list(Path("out").glob("**/record.json"))
    arguments = [*small(root), "--bad-images", "skip", "--strategy", "fine-tune", "--output", "out"]
    assert call(monkeypatch, scripts.run, *arguments) == 0
    record = json.loads(Path("out/record.json").read_text())
    assert record["data"]["skipped_images"] == 1
    assert record["data"]["train_images"] == 7
    assert "1 unreadable" in capsys.readouterr().out


def test_divergence_ends_with_code_1(monkeypatch, capsys, pictures) -> None:
    arguments = [*small(pictures), "--strategy", "fine-tune", "--learning-rate", "1e300", "--output", "out"]
    assert call(monkeypatch, scripts.run, *arguments) == 1
    assert "--learning-rate" in capsys.readouterr().err
    assert json.loads(Path("out/record.json").read_text())["status"] == "diverged"


def test_divergence_in_the_last_step_of_an_epoch_is_one_too(monkeypatch, capsys, pictures) -> None:
    """The training loss is still finite, the test loss no longer is."""
    arguments = [*small(pictures), "--batch-size", "128", "--learning-rate", "1e300", "--output", "out"]
    assert call(monkeypatch, scripts.run, *arguments, "--strategy", "fine-tune") == 1
    assert "test loss" in capsys.readouterr().err
    assert json.loads(Path("out/record.json").read_text())["status"] == "diverged"


def test_a_run_does_not_replace_its_own_source(monkeypatch, capsys, pictures) -> None:
    from common.network.sources import DISTILLED

    Path("out").mkdir()
    source = Path("out/model.safetensors")
    source.write_bytes(DISTILLED.read_bytes())
    arguments = [*small(pictures), "--weights", "out/model.safetensors", "--output", "out", "--overwrite"]
    assert call(monkeypatch, scripts.run, *arguments, "--strategy", "fine-tune") == 2
    assert "its own --weights" in capsys.readouterr().err
    assert source.read_bytes() == DISTILLED.read_bytes()


def test_two_runs_do_not_share_a_folder(monkeypatch, capsys, pictures) -> None:
    from common.runs.run_folder import reserved

    with reserved(Path("out")):
        assert call(monkeypatch, scripts.run, *small(pictures), "--strategy", "partial", "--output", "out") == 2
    assert "another run" in capsys.readouterr().err
    assert list(Path("out").iterdir()) == []


def test_sigterm_leaves_a_record_that_says_so(monkeypatch, pictures) -> None:
    import signal

    monkeypatch.setattr("common.training.loop.train_epoch", lambda *arguments: os.kill(os.getpid(), signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert call(monkeypatch, scripts.run, *small(pictures), "--strategy", "scratch", "--output", "out") == 130
    finally:
        signal.signal(signal.SIGTERM, before)
    assert json.loads(Path("out/record.json").read_text())["status"] == "interrupted"


def test_names_are_no_markup(monkeypatch, capsys, tmp_path) -> None:
    root = write_pictures(tmp_path / "[bold]data", ["[red]a", "b"], train=2, test=2)
    output = "[/red]out"
    assert call(monkeypatch, scripts.run, *small(root), "--strategy", "fine-tune", "--output", output) == 0
    assert f"{output}/record.json" in capsys.readouterr().out
    assert call(monkeypatch, scripts.show, "--data", str(root), "--output", "grid.png") == 0
    assert "{'[red]a': 0, 'b': 1}" in capsys.readouterr().out
    assert call(monkeypatch, scripts.run, *small(root), "--weights", "[/b]x.safetensors") == 2
    assert "there is no such file" in capsys.readouterr().err


def test_without_source_weights_only_scratch_runs(monkeypatch, pictures) -> None:
    assert call(monkeypatch, scripts.run, *small(pictures), "--weights", "none", "--output", "out") == 0
    assert json.loads(Path("out/record.json").read_text())["spec"]["strategy"] == "scratch"


def test_no_epochs_report_the_evaluation(monkeypatch, capsys, pictures) -> None:
    arguments = [*small(pictures), "--epochs", "0", "--strategy", "fine-tune", "--output", "out"]
    assert call(monkeypatch, scripts.run, *arguments) == 0
    accuracy = json.loads(Path("out/record.json").read_text())["final"]["test_accuracy"]
    assert f"{accuracy:.3f}" in capsys.readouterr().out


def test_a_failed_start_leaves_no_folder(monkeypatch) -> None:
    assert call(monkeypatch, scripts.run, "--data", "nowhere", "--output", "out") == 2
    assert not Path("out").exists()


def test_ctrl_c_ends_with_code_130(monkeypatch, pictures) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("common.training.loop.train_epoch", interrupt)
    assert call(monkeypatch, scripts.run, *small(pictures), "--strategy", "scratch", "--output", "out") == 130
    assert json.loads(Path("out/record.json").read_text())["status"] == "interrupted"


UNHAPPY = [
    ["--preset", "nope"], ["--preset", ""], ["--preset", "../demo"], ["--backend", "theano"], ["--backend", ""],
    ["--strategy", "finetune"], ["--strategy", ""], ["--model", "vgg"], ["--model", "resnet18_v2"],
    ["--backend", "mxnet", "--model", "resnet50"], ["--backend", "jax", "--model", "resnet18_v2"],
    ["--weights", ""], ["--weights", "nowhere.safetensors"], ["--weights", "."], ["--weights", "x.pth"],
    ["--weights", "none", "--strategy", "partial"], ["--data", "~nobody-here/x"], ["--data", "x" * 300],
    ["--weights", "~nobody-here/x"], ["--classes", "7"], ["--weights", "text.txt"],
    ["--weights", "distilled", "--model", "resnet50"],
    ["--weights", "empty.safetensors"], ["--weights", "zeros.safetensors"], ["--weights", "page.safetensors"],
    ["--data", "nowhere"], ["--data", ""], ["--data", "text.txt"], ["--data", "broken.zip"], ["--data", "empty"],
    ["--data", "flat"], ["--data", "oneclass"], ["--data", "lopsided"], ["--data", "emptyclass"],
    ["--data", "nosplit"], ["--data", "textinside"], ["--data-url", "http://127.0.0.1:9/x.zip"],
    ["--data-sha1", "0" * 40], ["--data", "hotdog", "--data-url", "nonsense", "--data-sha1", "0" * 40],
    ["--data", "hotdog", "--data-url", "http://127.0.0.1:9/x.zip", "--data-sha1", "0" * 40],
    ["--data", "hotdog", "--data-url", "http://127.0.0.1:9/x.zip", "--data-sha1", "zz"],
    ["--data", "hotdog", "--data-url", "file:///etc/hostname", "--data-sha1", "0" * 40],
    ["--batch-size", "0"], ["--batch-size", "-1"], ["--batch-size", "x"], ["--batch-size", "1.5"],
    ["--batch-size"], ["--epochs", "-1"], ["--epochs", "many"], ["--learning-rate", "nan"],
    ["--learning-rate", "inf"], ["--learning-rate", "-0.1"], ["--learning-rate", "fast"],
    ["--weight-decay", "-1"], ["--weight-decay", "nan"], ["--head-multiple", "-1"], ["--head-multiple", "x"],
    ["--head-multiple", "0", "--strategy", "feature-extraction"], ["--stage-multiples.stem", "-1"],
    ["--stage-multiples.layer1", "nan"], ["--stage-multiples.layer5", "1"], ["--image-size", "0"],
    ["--image-size", "31"], ["--image-size", "100000"], ["--image-size", "big"],
    ["--image-size", "128", "--resize-size", "64"], ["--resize-size", "1"], ["--train-crop", "centre"],
    ["--test-resize", "fit"], ["--test-resize", "letterbox", "--resize-size", "200"],
    ["--test-resize", "letterbox", "--train-crop", "resize_random_crop"], ["--weights", "nan.safetensors"],
    ["--flip", "maybe"], ["--optimizer", "lamb"], ["--loss-reduction", "max"],
    ["--batch-norm", "off"], ["--head-init", "ones"], ["--initial-values", "mine"], ["--seed", "-1"],
    ["--seed", "4294967296"], ["--seed", "x"], ["--precision", "int8"], ["--device", "tpu"], ["--workers", "-1"],
    ["--workers", "1000000"], ["--train-limit", "0"], ["--train-limit", "1"], ["--train-limit", "x"],
    ["--test-limit", "1"], ["--test-limit", "-5"], ["--bad-images", "keep"], ["--classes", "1"],
    ["--warm-up-epochs", "0"], ["--warm-up-epochs", "9", "--strategy", "warm-up"], ["--partial-stages", "0"],
    ["--partial-stages", "9"], ["--output", "text.txt"], ["--output", "text.txt/below"], ["--output", "held"],
    ["--unknown"], ["stray"], ["--pipeline", "dali"], ["--epochs", "1", "--epochs"], ["--list-presets", "x"],
    ["--time-limit", "0"], ["--time-limit", "10x"], ["--time-limit", "-5m"], ["--time-limit", "10"], ["--time-limit"],
    ["--time-limit", "10m", "--devices", "2"], ["--strategy", "scratch", "--weights", "nowhere"],
    ["--data", "link"], ["--weights", "cut.safetensors"],
]  # fmt: skip


def spoil(root: Path) -> None:
    """Everything the unhappy arguments name."""
    from common.network.sources import DISTILLED

    (root / "text.txt").write_text("mine")
    (root / "empty.safetensors").touch()
    (root / "zeros.safetensors").write_bytes(bytes(1000))
    (root / "page.safetensors").write_text("<html>404</html>")
    (root / "cut.safetensors").write_bytes(DISTILLED.read_bytes()[:50_000])
    content = DISTILLED.read_bytes()
    (root / "nan.safetensors").write_bytes(content.replace(b"[0.485, 0.456, 0.406]", b"[NaN,   0.456, 0.406]", 1))
    (root / "broken.zip").write_bytes(b"PK\x03\x04 and no more")
    (root / "link").symlink_to("nowhere")
    for folder in (
        "empty", "flat", "oneclass/train/a", "oneclass/test/a", "lopsided/train/a", "lopsided/train/b",
        "lopsided/test/a", "emptyclass/train/a", "emptyclass/train/b", "emptyclass/test/a", "emptyclass/test/b",
        "nosplit/a", "nosplit/b", "textinside/train/a", "textinside/train/b", "textinside/test/a",
        "textinside/test/b", "held",
    ):  # fmt: skip
        (root / folder).mkdir(parents=True, exist_ok=True)
        if folder.count("/") == 2 and folder != "emptyclass/train/b":
            Image.new("RGB", (40, 40)).save(root / folder / "1.png")
    Image.new("RGB", (40, 40)).save(root / "flat" / "1.png")
    (root / "textinside" / "train" / "a" / "notes.txt").write_text("not a picture")
    (root / "held" / "record.json").write_text("{}")


def test_there_are_a_hundred_of_them() -> None:
    assert len({tuple(arguments) for arguments in UNHAPPY}) >= 100


@pytest.mark.parametrize("arguments", UNHAPPY, ids=" ".join)
def test_unhappy_input_is_explained_and_loses_nothing(monkeypatch, capsys, pictures, arguments) -> None:
    spoil(Path())
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    base = small(pictures)
    if "--strategy" not in arguments:
        base += ["--strategy", "fine-tune"]
    assert call(monkeypatch, scripts.run, *base, *arguments) == 2
    message = capsys.readouterr()
    told = message.err + message.out
    assert "Traceback" not in told
    assert len(told.strip()) > 20
    named = [word.lstrip("-").split(".")[0] for word in arguments if word.startswith("-") and len(word) > 2]
    spelled = told.replace("_", "-")
    assert any(word in spelled for word in [*named, *(word for word in arguments if word)])
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before


def test_show_writes_the_grid(monkeypatch, capsys, pictures) -> None:
    assert call(monkeypatch, scripts.show, "--data", str(pictures.root), "--output", "new/grid.png") == 0
    assert "{'hotdog': 0, 'not-hotdog': 1}" in capsys.readouterr().out
    with Image.open("new/grid.png") as picture:
        assert picture.width > 8 * 150
        left_of_rows = [picture.getpixel((40, height)) for height in (120, 340)]
    # The first class is tinted red, the second green.
    assert left_of_rows[0][0] > left_of_rows[0][1]
    assert left_of_rows[1][1] > left_of_rows[1][0]


def test_list_presets(monkeypatch, capsys) -> None:
    assert call(monkeypatch, scripts.run, "--list-presets") == 0
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    for name in preset_names():
        assert f"\n{name}: " in f"\n{printed}"
        assert any(line.split() == ["run", "python", "-m", "scripts.run", "--preset", name] for line in lines)
    assert printed.count("Dive into Deep Learning, Fine-Tuning") == 8
    assert max(map(len, lines)) <= 80
