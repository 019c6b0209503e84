"""With CUDA or without: who says so, and what an environment gets of which nobody has said so."""

from __future__ import annotations

import pytest

from common.devices import driver
from scripts.environments import build, definitions, use
from tests.scripts.environments.conftest import PYPROJECT


def test_the_cuda_variant_is_kept_until_it_is_given_up(root, builds):
    use.ensure("jax")
    use.ensure("jax", cuda=True)
    use.ensure("jax")
    (root / "pyproject.toml").write_text(PYPROJECT.replace("numpy>=1.23", "numpy>=2"))
    use.ensure("jax")
    use.ensure("jax", cuda=False)
    use.ensure("jax")
    assert [packages[-1] for _, packages in builds] == ["jax", "jax[cuda13]", "jax[cuda13]", "jax"]


@pytest.fixture
def with_driver(root, monkeypatch):
    """A machine with NVIDIA's driver."""
    monkeypatch.setattr(driver, "find_driver", lambda: "/proc/driver/nvidia/version")


def test_where_there_is_a_driver_the_cuda_variant_is_built_and_said(builds, with_driver, capsys):
    use.ensure("jax")
    assert builds == [("jax", ["numpy>=1.23", "pytest", "jax[cuda13]"])]
    said = capsys.readouterr().err.splitlines()[0]
    assert "CUDA variant" in said
    assert "/proc/driver/nvidia/version" in said
    assert "environment-jax -- --no-cuda" in said
    use.ensure("torch")
    assert "CUDA variant" not in capsys.readouterr().err, "PyTorch's packages are the same"


@pytest.mark.parametrize("ready", [False, True])
def test_without_cuda_stays_without_it_though_there_is_a_driver(root, builds, monkeypatch, ready):
    if ready:
        use.ensure("jax")
    use.ensure("jax", cuda=False)
    monkeypatch.setattr(driver, "find_driver", lambda: "nvidia-smi")
    (root / "pyproject.toml").write_text(PYPROJECT.replace("numpy>=1.23", "numpy>=2"))
    use.ensure("jax")
    assert [packages[-1] for _, packages in builds] == ["jax", "jax"]


def test_without_cuda_stays_after_a_failed_build(builds, with_driver, monkeypatch):
    def stop(name, packages):
        raise definitions.EnvironmentFailed("pip")

    with monkeypatch.context() as patch:
        patch.setattr(build, "_install", stop)
        with pytest.raises(definitions.EnvironmentFailed):
            use.ensure("jax", cuda=False)
    use.ensure("jax")
    assert builds == [("jax", ["numpy>=1.23", "pytest", "jax"])]


def test_a_driver_that_came_later_counts_at_the_next_build(root, builds, monkeypatch):
    use.ensure("jax")
    monkeypatch.setattr(driver, "find_driver", lambda: "nvidia-smi")
    use.ensure("jax")
    assert len(builds) == 1, "a ready environment was replaced"
    (root / "pyproject.toml").write_text(PYPROJECT.replace("numpy>=1.23", "numpy>=2"))
    use.ensure("jax")
    assert builds[1] == ("jax", ["numpy>=2", "pytest", "jax[cuda13]"])


def test_a_backend_without_a_cuda_variant_is_not_built_twice(builds):
    use.ensure("torch")
    use.ensure("torch", cuda=True)
    assert len(builds) == 1
