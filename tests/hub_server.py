"""A Hugging Face Hub of ours, on this machine: it has one file, and counts what it is asked."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        if self.answer():
            self.wfile.write(self.server.content)  # type: ignore[attr-defined]

    def answer(self) -> bool:
        self.server.asked.append(self.command)  # type: ignore[attr-defined]
        known = self.path == self.server.page  # type: ignore[attr-defined]
        content = self.server.content if known else b""  # type: ignore[attr-defined]
        self.send_response(200 if known else 404)
        self.send_header("Content-Length", str(len(content)))
        if known:
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", "0" * 40)
        self.end_headers()
        return known

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def hub_with(repository: str, content: bytes) -> Iterator[ThreadingHTTPServer]:
    """A server that has `content` as model.safetensors of a repository; its `url`, and what it was `asked`."""
    served = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.page, served.content, served.asked = f"/{repository}/resolve/main/model.safetensors", content, []  # type: ignore[attr-defined]
    served.url = f"http://127.0.0.1:{served.server_port}"  # type: ignore[attr-defined]
    thread = threading.Thread(target=served.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield served
    finally:
        served.shutdown()
        served.server_close()
