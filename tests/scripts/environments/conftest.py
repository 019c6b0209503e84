"""An empty checkout, and builds that take no time."""

from __future__ import annotations

import sys

import pytest

from common.devices import driver
from scripts.environments import build, definitions

PYPROJECT = """\
[project]
dependencies = ["numpy>=1.23"]
[project.optional-dependencies]
test = ["pytest"]
jax = ["jax"]
jax-cuda = ["jax[cuda13]"]
torch = ["torch"]
mxnet = ["mxnet==1.9.1"]
"""


@pytest.fixture
def root(tmp_path, monkeypatch):
    """An empty checkout."""
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    monkeypatch.setattr(definitions, "ROOT", tmp_path)
    monkeypatch.setattr(driver, "find_driver", lambda: None)
    return tmp_path


@pytest.fixture
def builds(root, monkeypatch):
    """The builds that were done, as (name, packages); they make a link to this Python instead of an environment."""
    done = []

    def create(interpreter, folder):
        python = definitions.environment_python(folder.name)
        python.parent.mkdir(parents=True)
        python.symlink_to(sys.executable)

    monkeypatch.setattr(build, "_create", create)
    monkeypatch.setattr(build, "_install", lambda name, packages: done.append((name, list(packages))))
    return done
