"""Folders and files that are there whole or not at all, and survive a power cut.

A folder is made under another name and renamed, and renamed before it is removed. What a killed process left of
either has a name that begins with `NEW` or `DROPPED`; `remove_leftovers` clears it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backends.errors import Unavailable

NEW, DROPPED = ".new-", ".dropped-"


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk, where the system can."""
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_through(path: Path, text: str) -> None:
    """Make a file that is on the disk when this returns."""
    with path.open("x", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def replace_file(path: Path, text: str) -> None:
    """Put a file in the place of another: who reads the path has the old text or the new, after a power cut too."""
    fresh = path.with_name(NEW + path.name)
    fresh.unlink(missing_ok=True)
    write_through(fresh, text)
    fresh.replace(path)
    sync(path.parent)


@contextmanager
def whole_folder(target: Path, unfinished: Path | None = None) -> Iterator[Path]:
    """The path at which the block makes the folder that becomes `target` when the block ends.

    The block sees to it that the files in it are on the disk. If it raises, nothing is left. `unfinished` is another
    path to use, on the same disk; what is there from an interrupted run is removed.
    """
    unfinished = unfinished or target.with_name(NEW + target.name)
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        yield unfinished
        sync(unfinished)
        unfinished.rename(target)
        sync(target.parent)
    except OSError as error:
        # Of another file, such as a program that is missing, the name is told.
        elsewhere = error.filename is not None and not Path(str(error.filename)).is_relative_to(target.parent)
        reason = str(error) if elsewhere else error.strerror or error
        raise Unavailable(f"cannot create {target}: {reason}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def put_aside(folder: Path) -> Path | None:
    """Rename a folder, in one step, to one that `remove` removes; `None` where there is none."""
    aside = folder.with_name(f"{DROPPED}{folder.name}-{os.urandom(4).hex()}")
    try:
        folder.rename(aside)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Unavailable(f"cannot remove {folder}: {error.strerror or error}") from error
    return aside


def remove(aside: Path) -> None:
    """Remove what `put_aside` renamed. That the folder has gone is on the disk first."""
    sync(aside.parent)
    shutil.rmtree(aside, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left in `folder` of folders that they made or removed."""
    for path in folder.iterdir():
        if path.name.startswith((NEW, DROPPED)):
            shutil.rmtree(path, ignore_errors=True)
