"""A browser for the tests of pages: Playwright drives the Chromium that is installed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="the environment tools has playwright")

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


@dataclass
class Watched:
    """An open page, and what went wrong or over the network since."""

    page: Any
    problems: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("there is no Chromium to look at pages with; Debian's package is `chromium`")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=found, args=list(FLAGS))
        yield opened
        opened.close()


@pytest.fixture
def show(browser: Any) -> Iterator[Callable[..., Watched]]:
    """Opens a file in a context of its own; options are those of Playwright's new_context."""
    contexts = []

    def opener(path: Path, **options: Any) -> Watched:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        watched = Watched(context.new_page())
        page = watched.page
        page.on("console", lambda message: watched.problems.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: watched.problems.append(str(error)))
        page.on("dialog", lambda dialog: (watched.problems.append(dialog.message), dialog.dismiss()))
        # The page itself and what lies in it are no requests.
        page.on("request", lambda r: r.url.startswith(("data:", path.as_uri())) or watched.requests.append(r.url))
        page.goto(path.as_uri())
        return watched

    yield opener
    for context in contexts:
        context.close()
