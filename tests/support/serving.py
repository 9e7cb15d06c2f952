"""A service on a real server in a thread."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from app.http.server import GracefulServer, configuration


@contextlib.contextmanager
def serving(app: FastAPI, **options: Any) -> Iterator[httpx.Client]:
    """A client of `app`, which is served as `sightline serve` does it, until the block ends."""
    with running(app) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, **options) as client:
        yield client


@contextlib.contextmanager
def running(app: FastAPI) -> Iterator[int]:
    """The port at which `app` is served until the block ends."""
    server: uvicorn.Server = GracefulServer(configuration(app))
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.01)
    try:
        yield int(listener.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
