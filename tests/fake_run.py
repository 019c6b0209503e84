"""`scripts.run` with the NumPy backend in the place of the frameworks, as a process: `python tests/fake_run.py ...`."""

from __future__ import annotations

import backends
import scripts.run
from scripts.cli import command, lookup
from tests.fake_backend import FakeBackend

if __name__ == "__main__":
    backends.load = lambda name: FakeBackend()
    command.hand_over = lambda *arguments: None
    command.start("run", scripts.run.main, lookup.backend_wanted)
