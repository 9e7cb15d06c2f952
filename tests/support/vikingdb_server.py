"""One stand-in for VikingDB for the whole test session, in a process and an environment of its own."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.support import local_server

SHIM = Path(__file__).with_name("vikingdb_shim.py")
API_KEY, ACCESS_KEY, SECRET_KEY = "viking-api-key-4711", "AKLTviking4711", "c2VjcmV0LXZpa2luZy00NzEx=="
START_S = 120.0


def interpreter() -> Path:
    """The Python that has the engine; `make engines` makes its environment."""
    return Path(os.environ.get("SIGHTLINE_TEST_OPENVIKING") or Path(sys.prefix) / "openviking" / "bin" / "python")


class Shim:
    """The stand-in on a free port of loopback, which it keeps when it is started again."""

    def __init__(self, delay_s: float = 0.05) -> None:
        assert local_server.LocalServer.marked is not None, "mark a test that starts vikingdb with pytest.mark.server"
        if not interpreter().exists():
            reason = f"no Python with openviking at {interpreter()}: make engines"
            if "vikingdb" in local_server.required():
                pytest.fail(f"vikingdb is required by SIGHTLINE_TEST_REQUIRE: {reason}")
            pytest.skip(reason)
        self.folder = Path(tempfile.mkdtemp(prefix="sl-vikingdb-"))
        atexit.register(self.close)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.delay_s = delay_s
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        """Its URL as a backend."""
        return f"vikingdb://127.0.0.1:{self.port}?https=false&console=127.0.0.1:{self.port}&region=cn-beijing"

    def start(self) -> None:
        """Start it unless it runs, and wait until it answers; the keys are in the environment then."""
        os.environ.update(
            SIGHTLINE_VIKINGDB_API_KEY=API_KEY,
            SIGHTLINE_VIKINGDB_ACCESS_KEY=ACCESS_KEY,
            SIGHTLINE_VIKINGDB_SECRET_KEY=SECRET_KEY,
        )
        if self._process is not None and self._process.poll() is None:
            return
        arguments = (str(self.port), str(self.folder), API_KEY, ACCESS_KEY, SECRET_KEY, str(self.delay_s))
        clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        with (self.folder / "shim.log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(interpreter()), str(SHIM), *arguments], stdout=log, stderr=log, env=clean, cwd=self.folder
            )
        deadline = time.monotonic() + START_S
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError((self.folder / "shim.log").read_text(encoding="utf-8")[-2000:])
            time.sleep(0.05)

    def kill(self) -> None:
        """End it as a crash would."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def close(self) -> None:
        """End it, and remove what it stored."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


_shared: list[Shim] = []


def server() -> Shim:
    """The one that tests share, started again if it was killed."""
    if not _shared:
        _shared.append(Shim())
    _shared[0].start()
    return _shared[0]
