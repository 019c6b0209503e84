"""The weights `auto`: from a Hub of ours, from its cache, and where there is none."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from safetensors.numpy import save

from common.network import hub, resnet, sources
from common.spec.experiment import ExperimentSpec
from common.system.errors import UserError
from tests.hub_server import hub_with

REPOSITORY = "timm/resnet18.tv_in1k"
AUTO = ExperimentSpec(weights="auto")


@pytest.fixture(autouse=True)
def own_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty cache of the Hub's, no proxy, and nothing kept of an earlier test, whose proxies the session has."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("NO_PROXY", "*")
    for forget in (sources._choose.cache_clear, huggingface_hub.close_session):
        forget()
    yield
    for forget in (sources._choose.cache_clear, huggingface_hub.close_session):
        forget()


def test_weights_of_the_hub_are_downloaded_once_and_said(monkeypatch) -> None:
    arrays = resnet.initial_network("resnet18", 1000, 0)
    with hub_with(REPOSITORY, save(arrays)) as served:
        monkeypatch.setenv("HF_ENDPOINT", served.url + "/")
        spec, choice = sources.resolve(AUTO)
        assert spec == AUTO.replace(weights="tv_in1k")
        assert choice is not None
        assert choice.why.startswith("weights auto: tv_in1k, torchvision's for 224 px, from the Hugging Face Hub;")
        assert "--weights distilled" in choice.why
        checkpoint = sources.read_for(spec)
        assert checkpoint is not None
        assert (checkpoint.arrays["conv1.weight"] == arrays["conv1.weight"]).all()
        assert sources.preprocessing_of(AUTO).image_size == 224
        assert served.asked.count("GET") == 1
    # Without the Hub, its cache is enough.
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    sources._choose.cache_clear()
    again, choice = sources.resolve(AUTO)
    assert again.weights == "tv_in1k"
    assert choice is not None
    assert "from the Hugging Face Hub's cache;" in choice.why


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("HF_ENDPOINT", "http://127.0.0.1:9", "Connection refused"),
        ("HF_ENDPOINT", "hf-mirror.example", "HF_ENDPOINT is 'hf-mirror.example', without http"),
        ("HF_ENDPOINT", "ftp://hf-mirror.example", "without http:// or https://"),
        ("HTTPS_PROXY", "user:secret@127.0.0.1:9", "HTTPS_PROXY is '127.0.0.1:9', without http"),
        ("HTTPS_PROXY", "nonsense://127.0.0.1:9", "nonsense://127.0.0.1:9"),
    ],
)
def test_without_the_hub_the_embedded_weights_are_taken_at_once(monkeypatch, variable, value, said) -> None:
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.setenv(variable, value)
    begin = time.perf_counter()
    spec, choice = sources.resolve(AUTO)
    assert time.perf_counter() - begin < 2 * hub.LONGEST_PATIENCE
    assert spec.weights == "distilled"
    assert choice is not None
    assert choice.why.startswith("weights auto: distilled")
    assert said.lower() in choice.why.lower()
    assert "secret" not in choice.why
    assert "\n" not in choice.why
    # What the others would need.
    assert f"model.safetensors of {REPOSITORY} as --weights" in choice.why
    assert sources.locate(AUTO) == sources.DISTILLED
    assert sources.preprocessing_of(AUTO).image_size == 128


def test_a_hub_that_never_answers_is_not_waited_for(monkeypatch) -> None:
    monkeypatch.setattr(hub, "LONGEST_PATIENCE", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        begin = time.perf_counter()
        _, choice = sources.resolve(AUTO)
        assert time.perf_counter() - begin < 3
    assert choice is not None
    assert "no answer within 0.3 seconds" in choice.why


def test_a_hub_without_the_file_is_none(monkeypatch) -> None:
    with hub_with("someone/else", b"") as served:
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        _, choice = sources.resolve(AUTO)
    assert choice is not None
    assert choice.weights == "distilled"
    assert "404" in choice.why


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"weights": "tv_in1k"}, "HF_ENDPOINT is 'hf-mirror.example'.*--weights distilled"),
        ({"weights": "auto", "model": "resnet50"}, "HF_ENDPOINT is 'hf-mirror.example'.*--weights imagenet"),
        ({"weights": "auto", "model": "resnet18_v2", "backend": "mxnet"}, "--weights imagenet"),
    ],
)
def test_without_another_source_it_is_an_error_for_people(monkeypatch, changes, said) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "hf-mirror.example")
    with pytest.raises(UserError, match=said):
        sources.read_for(ExperimentSpec(**changes))


def test_other_weights_are_left_alone() -> None:
    spec = ExperimentSpec(weights="distilled")
    assert sources.resolve(spec) == (spec, None)
