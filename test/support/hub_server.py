"""A server on this machine that speaks the Hugging Face hub's protocol, as far as fetching a file needs it."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Hub:
    """Files by ``repository/resolve/main/name``, and what was asked for."""

    files: dict[str, bytes]
    url: str = ""
    cut_after: int | None = None  # the next answer ends after so many bytes
    damaged: bool = False  # bytes are others than the hash says
    asked: list[tuple[str, str | None]] = field(default_factory=list)  # of GET: the path, and its Range


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            hub.asked.append((self.path, self.headers.get("Range")))
            self._answer(with_body=True)

        def _answer(self, with_body: bool) -> None:
            content = b"" if self.path == "/" else hub.files.get(self.path.removeprefix("/"))
            if content is None:
                self.send_response(404)
                self.send_header("X-Error-Code", "EntryNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
            self.send_response(206 if start else 200)
            self.send_header("X-Repo-Commit", "0123456789abcdef0123456789abcdef01234567")
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("Accept-Ranges", "bytes")
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            if with_body:
                self._send(content[start:])

        def _send(self, body: bytes) -> None:
            if hub.damaged:
                body = bytes([body[0] ^ 255]) + body[1:]
            if hub.cut_after is not None:
                body, hub.cut_after = body[: hub.cut_after], None
                self.close_connection = True
            self.wfile.write(body)

    return Handler


@contextmanager
def hub_serving(files: dict[str, bytes]) -> Iterator[Hub]:
    hub = Hub(files)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
