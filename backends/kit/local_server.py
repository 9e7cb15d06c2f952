"""What an engine says of a server that can be started from the packages on this machine."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Launch:
    """How a server process is started: its command, what is added to the environment, and its working folder.

    Without `cwd` it works in the server's own folder.
    """

    argv: list[str]
    env: Mapping[str, str]
    cwd: Path | None = None


@dataclass(frozen=True, slots=True)
class LocalServer:
    """One server that can be run from packages: its URL as a backend, its ports, and how to start it.

    `missing` says what to install where it cannot be started, `launch` prepares its folder and gives
    the command, `ready` says whether it answers. `environment` gives what a client's environment needs:
    the key that the server in this folder asks for.
    """

    name: str
    url: str
    ports: tuple[int, ...]
    missing: Callable[[], str | None]
    launch: Callable[[Path], Launch]
    ready: Callable[[], bool]
    environment: Callable[[Path], Mapping[str, str]] = lambda folder: {}


def answers(url: str) -> bool:
    """Whether an HTTP server on loopback answers `url` with 2xx."""
    try:
        with urllib.request.urlopen(url, timeout=2) as response:  # noqa: S310 (loopback, from an engine's own table)
            status: int = response.status
            return 200 <= status < 300
    except (urllib.error.URLError, OSError):
        return False
