"""What manifests say of files, merged by path, and the text items that they hold."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from indexers.files import Unreadable, display, explain
from indexers.kinds import IMAGE, by_suffix
from indexers.listing import Entry, merged
from indexers.manifests import NUMBERED, Row


class Described:
    """What manifests say of files, merged by path, and their text items."""

    def __init__(self) -> None:
        self.files: dict[str, Entry] = {}
        self.texts: list[Entry] = []

    def add(self, root: Path, folder: str, name: str, row: Row) -> None:
        """Add a row: captions add up, and of each field what was said first holds.

        Raises `Unreadable` if its file cannot be used, or was given another id before.
        """
        if row.file is None:
            text = "\n".join(row.captions)
            self.texts.append(Entry(f"{name}:{row.line}", "text", metadata=row.metadata, text=text, id=row.id))
            return
        path = locate(root, folder, row.file)
        entry = self.files.setdefault(path, Entry(path, kind_of(path), id=row.id))
        if row.id is not None and row.id != entry.id:
            known = "no id" if entry.id is None else f"the id {entry.id!r}"
            raise Unreadable(f"gives {row.file!r:.200} the id {row.id!r}, which has {known} from an earlier line")
        entry.captions = merged((entry.captions, row.captions))
        entry.metadata = {**row.metadata, **entry.metadata}


def kind_of(name: str) -> str:
    """The kind of a file that somebody names: by its ending if that is one that is read, else a picture."""
    kind = by_suffix(name)
    return kind.name if kind is not None and kind.is_read else IMAGE.name


def locate(root: Path, folder: str, file: str) -> str:
    """The path under `root` of a file that a manifest in `folder` names.

    Raises `Unreadable` for one that is missing, is no file, or leads outside the root, links included.
    """
    if "://" in file:
        raise Unreadable("URLs are not fetched: download the file and name its path")
    top = str(root)
    try:
        joined = _joined(top, folder, file)
        if not _inside(joined, top) or not _inside(os.path.realpath(joined), top):
            raise Unreadable(f"{file!r:.200} leads outside {display(top)}")
        if not stat.S_ISREG(os.stat(joined).st_mode):  # noqa: PTH116
            raise Unreadable(f"{file!r:.200} is not a file")
    except (OSError, ValueError) as error:
        raise Unreadable(f"{file!r:.200}: {explain(error)}") from None
    return os.path.relpath(joined, top).replace(os.sep, "/")


def _joined(top: str, folder: str, file: str) -> str:
    """The path that is meant: as written, or with other slashes, or without the number of a caption."""
    tries = [file]
    if "\\" in file and os.sep == "/":
        tries.append(file.replace("\\", "/"))
    if match := NUMBERED.match(file):
        tries.append(match[1])
    # os.path, not pathlib: ten times faster, for every line.
    paths = [os.path.normpath(os.path.join(top, folder, each)) for each in tries]  # noqa: PTH118
    return next((path for path in paths if os.path.lexists(path)), paths[-1] if len(paths) > 1 else paths[0])


def _inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)
