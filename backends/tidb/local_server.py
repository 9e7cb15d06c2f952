"""TiDB's server for development and tests, with its embedded store: the Go program that ``make engines`` builds."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from pathlib import Path

from backends.kit.local_server import Launch, LocalServer, answers

_PORT, _STATUS_PORT = 14000, 14080
# Without these the server takes memory by the size of the machine.
_FIRST_START = """SET GLOBAL tidb_enable_gogc_tuner = OFF;
SET GLOBAL tidb_server_memory_limit = '1GB';
"""


def _binary() -> str | None:
    # make engines puts it beside this environment's Python.
    places = os.pathsep.join([str(Path(sys.prefix) / "bin"), os.environ.get("PATH", "")])
    return shutil.which("tidb-server", path=places)


def _missing() -> str | None:
    if _binary():
        return None
    return "the program tidb-server is not here: install Go 1.23 or later, then run make engines"


def launch(folder: Path, port: int = _PORT, status_port: int = _STATUS_PORT) -> Launch:
    """How a server over `folder` is started; its ports are the usual ones unless told otherwise."""
    first = folder / "first-start.sql"
    first.write_text(_FIRST_START, "ascii")
    binary = _binary()
    assert binary is not None
    options = {
        "store": "unistore",
        "path": folder / "data",
        # Both listen on every interface unless told otherwise.
        "host": "127.0.0.1",
        "status-host": "127.0.0.1",
        "advertise-address": "127.0.0.1",
        "P": port,
        "status": status_port,
        "socket": "",
        "temp-dir": folder / "tmp",
        # Else in the folder that the server is started from.
        "log-slow-query": folder / "slow.log",
        "initialize-sql-file": first,
        "L": "warn",
    }
    return Launch([binary, *(f"-{name}={value}" for name, value in options.items())], {"GOMEMLIMIT": "700MiB"})


def ready(port: int = _PORT, status_port: int = _STATUS_PORT) -> bool:
    """Whether the server on these ports answers."""
    if not answers(f"http://127.0.0.1:{status_port}/status"):
        return False
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            # The server speaks first.
            return bool(connection.recv(1))
    except OSError:
        return False


SERVER = LocalServer(
    name="tidb",
    url=f"tidb://root@127.0.0.1:{_PORT}/test",
    ports=(_PORT, _STATUS_PORT),
    missing=_missing,
    launch=launch,
    ready=ready,
)
