"""Chroma's server for development and tests: the program that the package ``chromadb`` brings."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from backends.kit.local_server import Launch, LocalServer, answers

_PORT = 8000


def _binary() -> str | None:
    places = os.pathsep.join([str(Path(sys.prefix) / "bin"), os.environ.get("PATH", "")])
    return shutil.which("chroma", path=places)


def _missing() -> str | None:
    return None if _binary() else "the program chroma is not here: pip install 'sightline[chroma]'"


def _launch(folder: Path) -> Launch:
    binary = _binary()
    assert binary is not None
    argv = [binary, "run", "--path", str(folder / "data"), "--host", "127.0.0.1", "--port", str(_PORT)]
    return Launch(argv, {"ANONYMIZED_TELEMETRY": "False"})


SERVER = LocalServer(
    name="chroma",
    url=f"chroma://127.0.0.1:{_PORT}",
    ports=(_PORT,),
    missing=_missing,
    launch=_launch,
    ready=lambda: answers(f"http://127.0.0.1:{_PORT}/api/v2/heartbeat"),
)
