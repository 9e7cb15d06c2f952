"""A fake of the model hub: its published file endpoint and listing, over HTTP on this machine."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants


class FakeHub(ThreadingHTTPServer):
    """HEAD and GET of /ORG/NAME/resolve/REVISION/FILE, and the listing of a repository's files."""

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), FakeHubRequest)
        self.files = files
        self.served: list[str] = []
        self.refused: set[str] = set()  # files that are listed and not given


class FakeHubRequest(BaseHTTPRequestHandler):
    server: FakeHub

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        path = self.path.partition("?")[0]
        if path.startswith("/api/models/"):
            return self._list("/".join(path.split("/")[3:5]))
        repository, _, file = path.lstrip("/").partition("/resolve/")
        name = f"{repository}/{file.partition('/')[2]}"
        if name in self.server.refused:
            return self.send_error(403)
        body = self.server.files.get(name)
        self.send_response(404 if body is None else 200)
        if body is None:
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
        else:
            self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
            self.send_header("X-Repo-Commit", "c" * 40)
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if body is not None and with_body:
            self.server.served.append(path)
            self.wfile.write(body)
        return None

    def _list(self, repository: str) -> None:
        start = f"{repository}/"
        names = [name.removeprefix(start) for name in self.server.files if name.startswith(start)]
        if "/tree/" in self.path:
            files = self.server.files
            listing: Any = [
                {"type": "file", "path": name, "size": len(files[f"{start}{name}"]), "oid": "a" * 40} for name in names
            ]
        else:
            listing = {"id": repository, "sha": "c" * 40, "siblings": [{"rfilename": name} for name in names]}
        body = json.dumps(listing).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the test's output clean."""


def point_at(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What HF_ENDPOINT does, which is read when huggingface_hub is imported."""
    address = f"http://127.0.0.1:{port}"
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", address)


@contextmanager
def serving(files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub with `files` by ``ORG/NAME/FILE``, which the hub's client asks while it is open."""
    with FakeHub(files) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        point_at(server.server_port, monkeypatch)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield server
        server.shutdown()
    huggingface_hub.close_session()
