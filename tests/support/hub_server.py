"""A server on the loopback address that answers for a dataset repository as the Hugging Face hub does."""

import hashlib
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from urllib.parse import unquote

from serving import answering

COMMIT = "1234567890abcdef1234567890abcdef12345678"
LARGE = 10_000
"""Bytes from which on a file is stored beside the repository: its ETag is its SHA-256, and a GET is redirected."""


@dataclass
class Hub:
    """What the server holds and how it misbehaves.

    Attributes:
        files: name to contents.
        commit: of the one revision, `main`.
        cut_after: bytes of a body after which the connection is dropped, one entry a GET of a large file.
        hang_after: bytes after which every GET of a large file goes silent.
        ignore_range: answer with the whole file always.
        plain_etags: ETags that are no checksums.
        status: answered to everything, where it is set.
        no_commit: leave out what only the hub sends.
        requests: (method, name, first byte asked for), in order.
        sent: bytes of bodies by file.
    """

    repo: str
    files: dict[str, bytes]
    commit: str = COMMIT
    cut_after: list[int] = field(default_factory=list)
    hang_after: int | None = None
    ignore_range: bool = False
    plain_etags: bool = False
    status: int | None = None
    no_commit: bool = False
    requests: list[tuple[str, str, int]] = field(default_factory=list)
    sent: Counter = field(default_factory=Counter)
    url: str = ""
    silent: threading.Event = field(default_factory=threading.Event)

    def etag(self, name: str) -> str:
        data = self.files[name]
        if self.plain_etags:
            return f"version-of-{len(data)}"
        if len(data) >= LARGE:
            return hashlib.sha256(data).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Serve until the block ends; `hub.url` is the endpoint."""
    with answering(_handler(hub)) as hub.url:
        try:
            yield hub
        finally:
            hub.silent.set()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.answer()

        def answer(self) -> None:
            first, _, name = unquote(self.path).rpartition("/")
            stored = first == "/stored"
            revisions = [f"/datasets/{hub.repo}/resolve/{revision}" for revision in ("main", hub.commit)]
            start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
            hub.requests.append((self.command, name, start))
            if hub.status:
                return self.refuse(hub.status)
            if name not in hub.files or not (stored or first in revisions):
                return self.refuse(404)
            data = hub.files[name]
            if len(data) >= LARGE and not stored:
                return self.redirect(name, data)
            return self.give(name, data, 0 if hub.ignore_range else start, stored)

        def refuse(self, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def common(self, name: str) -> None:
            if not hub.no_commit:
                self.send_header("X-Repo-Commit", hub.commit)
            self.send_header("Accept-Ranges", "bytes")

        def redirect(self, name: str, data: bytes) -> None:
            """As for a file in the hub's large-file store, on another host."""
            self.send_response(302)
            self.common(name)
            self.send_header("X-Linked-Etag", f'"{hub.etag(name)}"')
            self.send_header("X-Linked-Size", str(len(data)))
            port = self.server.server_address[1]
            self.send_header("Location", f"http://localhost:{port}/stored/{name}")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def give(self, name: str, data: bytes, start: int, stored: bool) -> None:
            if start >= len(data) > 0:
                return self.refuse(416)
            body = data[start:]
            self.send_response(206 if start or ("Range" in self.headers and not hub.ignore_range) else 200)
            self.common(name)
            self.send_header("ETag", f'"{hub.etag(name)}"')
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.end_headers()
            if self.command == "HEAD":
                return None
            if stored and hub.hang_after is not None:
                self.send(name, body[: hub.hang_after])
                hub.silent.wait(30)
                self.close_connection = True
            elif stored and hub.cut_after:
                self.send(name, body[: hub.cut_after.pop(0)])
                self.close_connection = True
                self.connection.close()
            else:
                self.send(name, body)
            return None

        def send(self, name: str, body: bytes) -> None:
            self.wfile.write(body)
            self.wfile.flush()
            hub.sent[name] += len(body)

    return Handler
