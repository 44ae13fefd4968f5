"""A server on the loopback address that answers for one model as the Hugging Face hub does to a download."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import unquote, urlsplit

from serving import answering

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def serving(repository: str, folder: Path, large: bool = False) -> Iterator[str]:
    """Serve a folder's files as `repository`, at one revision, `main`; yields the endpoint.

    `large`: as files that are kept beside Git, whose ETag is their SHA-256.
    """
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    with answering(_handler(repository, files, large)) as address:
        yield address


def _handler(repository: str, files: dict[str, Path], large: bool) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.answer()

        def answer(self) -> None:
            path = unquote(urlsplit(self.path).path)
            api, stored = f"/api/models/{repository}", f"/{repository}/resolve/"
            revision, _, name = path.removeprefix(stored).partition("/")
            if path in (api, f"{api}/revision/main"):
                siblings = [{"rfilename": name} for name in files]
                return self.give(json.dumps({"id": repository, "sha": COMMIT, "siblings": siblings}).encode())
            if path == f"{api}/tree/{COMMIT}":
                return self.give(json.dumps([self.entry(name) for name in files]).encode())
            if path.startswith(stored) and revision in ("main", COMMIT):
                return self.give(files[name].read_bytes()) if name in files else self.refuse("EntryNotFound")
            known = path.startswith((api, f"/{repository}/"))
            self.refuse("RevisionNotFound" if known and "/revision/" in path else "RepoNotFound")

        def entry(self, name: str) -> dict[str, object]:
            data = files[name].read_bytes()
            return {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}

        def refuse(self, code: str) -> None:
            self.send_response(404)
            self.send_header("X-Error-Code", code)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def give(self, data: bytes) -> None:
            self.send_response(200)
            self.send_header("X-Repo-Commit", COMMIT)
            digest = (hashlib.sha256 if large else hashlib.sha1)(data).hexdigest()
            self.send_header("ETag", f'"{digest}"')
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

    return Handler
