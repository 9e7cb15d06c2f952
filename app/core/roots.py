"""Which folders the service may read from: pictures are shown and folders indexed only below these."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MAX_IMAGE_BYTES = 128 * 1024 * 1024


class RootsError(Exception):
    """A path that the service may not touch: one line that does not tell whether it is there."""


class RecordedRoots:
    """The folders that were indexed from the command line, in ``roots.json`` of the home; other writers are seen.

    A folder that was indexed as such may be indexed again by the service. Of a manifest, a single file
    or standard input only the pictures are shown: that somebody indexed one file of a folder does not
    open the folder.
    """

    def __init__(self, home: Path) -> None:
        self._file = home / "roots.json"
        self._lock = threading.Lock()
        self._seen: tuple[int, int] | None = None
        self._rows: dict[str, list[str]] = {}

    def add(self, root: Path, *, folder: bool) -> None:
        """Remember `root`; `folder` says that all of it was indexed. Silent where the home cannot be written."""
        kind, path = "folders" if folder else "pictures", str(root)
        rows = self._read()
        if path in rows.get(kind, []):
            return
        rows = {**rows, kind: [*rows.get(kind, []), path]}
        temporary = self._file.with_name(f".{self._file.name}.{os.getpid()}.tmp")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(rows, indent=1), "ascii")
            temporary.replace(self._file)
        except OSError:
            # It only saves the flag --root.
            with contextlib.suppress(OSError):
                temporary.unlink()

    def folders(self) -> list[str]:
        """What may be indexed."""
        return self._read().get("folders", [])

    def pictures(self) -> list[str]:
        """Below what pictures may be shown."""
        rows = self._read()
        return [*rows.get("folders", []), *rows.get("pictures", [])]

    def _read(self) -> dict[str, list[str]]:
        with self._lock:
            try:
                status = self._file.stat()
                seen = (status.st_mtime_ns, status.st_size)
                if seen != self._seen:
                    self._rows = _checked(json.loads(self._file.read_text("ascii")))
                    self._seen = seen
            except (OSError, ValueError):
                self._seen, self._rows = None, {}
            return self._rows


def _checked(data: Any) -> dict[str, list[str]]:
    if not isinstance(data, dict):
        raise ValueError("no object")
    return {
        kind: [path for path in data.get(kind) or [] if isinstance(path, str) and Path(path).is_absolute()]
        for kind in ("folders", "pictures")
    }


class Roots:
    """The folders below which this service shows pictures and indexes.

    given: these and no others; None for those that `recorded` holds. `uploads` is always shown from.
    Links are followed first and what they lead to is checked, so no link leads out.
    """

    def __init__(self, given: Sequence[Path] | None, recorded: RecordedRoots, uploads: Path) -> None:
        self._given = None if given is None else [os.path.realpath(path) for path in given]
        self._recorded = recorded
        self._uploads = os.path.realpath(uploads)

    def folders(self) -> list[str]:
        """The folders that may be indexed, links resolved."""
        if self._given is not None:
            return self._given
        return [os.path.realpath(path) for path in self._recorded.folders()]

    def folder(self, path: str) -> Path:
        """The folder of this name, links resolved. Raises `RootsError` unless it is an allowed one or below one.

        What indexing an allowed folder leaves out is not had by its name either: hidden folders, unless one is itself
        an allowed one.
        """
        try:
            real = os.path.realpath(path)
        except (OSError, ValueError):
            real = ""
        roots = [root for root in self.folders() if _below(real, root)]
        if not os.path.isabs(path) or not roots:  # noqa: PTH117 - a NUL in it is no error here
            raise RootsError(f"{path!r:.300} is not below a folder that this service may index")
        if all(_is_hidden(real, root) for root in roots):
            raise RootsError(f"{path!r:.300} is hidden, by a name that begins with a dot; this service indexes none")
        # Never an error, unlike pathlib's, where the name is too long or the folder above it closed.
        if not os.path.isdir(real):  # noqa: PTH112
            raise RootsError(f"{path!r:.300} is not a folder")
        return Path(real)

    def open_image(self, path: Path) -> tuple[bytes, os.stat_result]:
        """The bytes of a picture below a root, and the file's state; at most 128 MiB.

        Raises `RootsError` for a path that is outside, leads outside, or is no regular file, FileNotFoundError
        and other OSErrors. Between check and read no link can be slipped in: the checked path is walked
        folder by folder without following any.
        """
        try:
            real = os.path.realpath(path)
        except ValueError:
            raise RootsError("the item's picture has an impossible path") from None
        for root in (self._uploads, *(self._shown())):
            if _below(real, root):
                descriptor = _open_below(root, real)
                break
        else:
            raise RootsError("the item's picture is not below a folder that this service may show")
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise RootsError("the item's picture is not a regular file")
            if status.st_size > MAX_IMAGE_BYTES:
                raise RootsError(f"the item's picture is larger than {MAX_IMAGE_BYTES} bytes")
            return file.read(MAX_IMAGE_BYTES + 1), status

    def _shown(self) -> list[str]:
        if self._given is not None:
            return self._given
        return [os.path.realpath(path) for path in self._recorded.pictures()]


def _below(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip(os.sep) + os.sep)


def _is_hidden(path: str, root: str) -> bool:
    """Whether a name between `root`, which may be hidden itself, and `path` below it begins with a dot."""
    return any(part.startswith(".") for part in Path(path).relative_to(root).parts)


def _open_below(root: str, real: str) -> int:
    """A descriptor of the file `real`, reached from `root` without following any link."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
    parts = Path(real).relative_to(root).parts
    if os.open not in os.supports_dir_fd or not parts:
        return os.open(real, flags)
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in parts[:-1]:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = inner
        return os.open(parts[-1], flags, dir_fd=folder)
    finally:
        os.close(folder)
