"""Files of a ``qdrant-edge://`` folder written so that they survive a power cut."""

from __future__ import annotations

import os
from pathlib import Path


def write_through(path: Path, text: str) -> None:
    """Make a file that is on the disk when this returns."""
    with path.open("x", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
