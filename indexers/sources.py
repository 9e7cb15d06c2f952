"""Where items come from: a folder, one file, a manifest, or JSON lines on standard input.

A source is listed before anything else is done, in a fixed order: files by path, text items by line.
The list is held in memory, about half a kilobyte an item; contents are not.
"""

from __future__ import annotations

import os
import stat
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal, TextIO

from indexers.fields import Metadata
from indexers.files import MAX_MANIFEST_BYTES, Unreadable, decode_text, display, explain, read_bounded
from indexers.kinds import by_suffix
from indexers.manifests import MANIFEST_NAMES, MANIFEST_SUFFIXES, Row, check_caption, read_manifest
from indexers.report import IndexingError, Quarantined, check_stopped

MAX_SIDECAR_BYTES = 64 * 1024
STDIN_NAME = "stdin"


@dataclass(slots=True)
class Entry:
    """One item of a source: a file by its path under the root, or a text item.

    `path` is relative, with forward slashes, and may hold surrogates for bytes that are not UTF-8; for a
    text item it is where it stands, e.g. ``captions.jsonl:7``. `kind` is the name of a row of `indexers.kinds.KINDS`,
    or "text". `part` says which part of the file it is, ``page=2``; "" for all of it, or the first.
    """

    path: str
    kind: str
    captions: tuple[str, ...] = ()
    metadata: Metadata = field(default_factory=dict)
    text: str | None = None
    id: str | None = None
    part: str = ""


@dataclass(slots=True)
class Listing:
    """All entries of a source, what could not be listed, and the folders of which less is known than there is."""

    entries: list[Entry] = field(default_factory=list)
    quarantined: list[Quarantined] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    ignored: int = 0


@dataclass(frozen=True, slots=True)
class Source:
    """Something to index. `name` is what records carry as `source`; paths are relative to `root`.

    `whole` says that a listing is all there is of it, so that records it no longer has can be pruned.
    """

    kind: Literal["folder", "manifest", "file", "stdin"]
    name: str
    root: Path
    whole: bool = True
    file: str | None = None
    stream: TextIO | None = None

    def listing(self, stop: threading.Event | None = None) -> Listing:
        """List the source. Raises `IndexingError` when nothing of it can be read, `Stopped` once `stop` is set."""
        if self.kind == "folder":
            return _Folder(self.root, stop).read()
        name = self.file or "stdin.jsonl"
        if self.kind == "file":
            return Listing([Entry(name, kind_of(name) or "image")])
        try:
            if self.kind == "manifest":
                text = decode_text(read_bounded(self.root / name, MAX_MANIFEST_BYTES)[0])
            else:
                text = _read_stream(self.stream)
            return _from_manifest(self.root, name, text, with_ids=self.kind == "stdin", stop=stop)
        except Unreadable as error:
            raise IndexingError(f"{self.name} {error}") from None


def open_source(path: str | Path, *, stdin: TextIO | None = None) -> Source:
    """The source that `path` names: a folder, an image or text file, a manifest, or ``-`` for JSON lines on `stdin`.

    Paths on standard input are relative to, and confined to, the working directory. Raises
    `IndexingError` if there is nothing of the kind.
    """
    if str(path) == "-":
        return Source("stdin", STDIN_NAME, Path.cwd().resolve(), whole=False, stream=stdin or sys.stdin)
    try:
        resolved = Path(path).resolve(strict=True)
        mode = resolved.stat().st_mode
        if stat.S_ISDIR(mode):
            with os.scandir(resolved):
                pass
            return Source("folder", display(str(resolved)), resolved)
    except (OSError, ValueError, RuntimeError) as error:
        reason = explain(error) if isinstance(error, (OSError, ValueError)) else str(error)
        raise IndexingError(f"{display(str(path))} cannot be indexed: {reason}") from None
    if not stat.S_ISREG(mode):
        raise IndexingError(f"{display(str(path))} is neither a folder nor a file: use - for JSON lines on stdin")
    kind: Literal["manifest", "file"] = "manifest" if resolved.suffix.lower() in MANIFEST_SUFFIXES else "file"
    return Source(kind, display(str(resolved)), resolved.parent, file=resolved.name)


def kind_of(name: str) -> str | None:
    """The kind of a file by its name's ending, if it is one that is read; None for others."""
    kind = by_suffix(name)
    return kind.name if kind is not None and kind.is_read else None


def _read_stream(stream: TextIO | None) -> str:
    assert stream is not None
    try:
        text = stream.read(MAX_MANIFEST_BYTES + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise Unreadable(f"cannot be read: {error}") from None
    if len(text) > MAX_MANIFEST_BYTES:
        raise Unreadable(f"has more than {MAX_MANIFEST_BYTES} characters: index it in parts")
    return text.removeprefix("\ufeff")


def locate(root: Path, folder: str, file: str) -> str:
    """The path under `root` of a file that a manifest in `folder` names.

    Raises `Unreadable` for one that is missing, is no file, or leads outside the root, links included.
    """
    if "://" in file:
        raise Unreadable("URLs are not fetched: download the file and name its path")
    top = str(root)
    joined = os.path.normpath(os.path.join(top, folder, file))  # noqa: PTH118 - ten times faster, for every line
    try:
        if "\\" in file and os.sep == "/" and not os.path.lexists(joined):
            joined = os.path.normpath(os.path.join(top, folder, file.replace("\\", "/")))  # noqa: PTH118
        if not _inside(joined, top) or not _inside(os.path.realpath(joined), top):
            raise Unreadable(f"{file!r:.200} leads outside {display(top)}")
        if not stat.S_ISREG(os.stat(joined).st_mode):  # noqa: PTH116
            raise Unreadable(f"{file!r:.200} is not a file")
    except (OSError, ValueError) as error:
        raise Unreadable(f"{file!r:.200}: {explain(error)}") from None
    return os.path.relpath(joined, top).replace(os.sep, "/")


def _inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _from_manifest(root: Path, name: str, text: str, *, with_ids: bool, stop: threading.Event | None) -> Listing:
    listing, files = Listing(), _Described()
    table = read_manifest(name, text, with_ids=with_ids)
    listing.quarantined += table.quarantined
    for row in table.rows:
        check_stopped(stop)
        try:
            files.add(root, "", name, row)
        except Unreadable as error:
            listing.quarantined.append(Quarantined(f"{name}:{row.line}", str(error)))
    listing.entries = sorted(files.files.values(), key=lambda entry: entry.path) + files.texts
    return listing


class _Described:
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
        entry = self.files.setdefault(path, Entry(path, kind_of(path) or "image", id=row.id))
        if row.id is not None and row.id != entry.id:
            known = "no id" if entry.id is None else f"the id {entry.id!r}"
            raise Unreadable(f"gives {row.file!r:.200} the id {row.id!r}, which has {known} from an earlier line")
        entry.captions = tuple(dict.fromkeys(entry.captions + row.captions))
        entry.metadata = {**row.metadata, **entry.metadata}


class _Folder:
    """A recursive listing: sorted, without hidden names, never through a link that leads to a folder."""

    def __init__(self, root: Path, stop: threading.Event | None) -> None:
        self._root, self._stop = root, stop
        self._out = Listing()
        self._files: dict[str, list[str]] = {}

    def read(self) -> Listing:
        for folder, names in self._walk():
            self._files[folder] = names
        described = _Described()
        for folder in sorted(self._files):
            for name in self._files[folder]:
                if name.lower() in MANIFEST_NAMES:
                    self._read_manifest(folder, name, described)
        entries = {entry.path: entry for folder in sorted(self._files) for entry in self._entries(folder)}
        for path, said in described.files.items():
            entry = entries.setdefault(path, said)
            entry.captions = tuple(dict.fromkeys(said.captions + entry.captions))
            entry.metadata = said.metadata
        self._out.entries = sorted(entries.values(), key=lambda entry: entry.path) + described.texts
        return self._out

    def _walk(self) -> Iterator[tuple[str, list[str]]]:
        pending = [""]
        while pending:
            folder = pending.pop()
            names = []
            try:
                with os.scandir(self._root / folder) as found:
                    children = sorted(found, key=lambda child: child.name)
            except OSError as error:
                self._out.unread.append(folder)
                self._quarantine(folder or ".", f"the folder is {explain(error)}")
                continue
            for child in children:
                check_stopped(self._stop)
                path = f"{folder}/{child.name}" if folder else child.name
                try:
                    if child.name.startswith(".") or (child.is_symlink() and not self._usable_link(path)):
                        continue
                    if child.is_dir():
                        pending.append(path)
                    elif child.is_file() or kind_of(child.name):
                        names.append(child.name)
                    else:
                        self._out.ignored += 1
                except OSError as error:
                    self._out.unread.append(path)
                    self._quarantine(path, explain(error))
            yield folder, names

    def _usable_link(self, path: str) -> bool:
        """Whether a link leads to a file inside the root; folders inside are listed where they are."""
        try:
            target = (self._root / path).resolve(strict=True)
        except (OSError, RuntimeError) as error:
            self._quarantine(path, f"is a link that leads nowhere: {error.__class__.__name__}")
            return False
        if not target.is_relative_to(self._root):
            self._quarantine(path, "is a link that leads outside the folder: index its target by itself")
            return False
        return target.is_file()

    def _read_manifest(self, folder: str, name: str, described: _Described) -> None:
        path = f"{folder}/{name}" if folder else name
        try:
            text = decode_text(read_bounded(self._root / path, MAX_MANIFEST_BYTES)[0])
            table = read_manifest(path, text)
        except Unreadable as error:
            # What it described is unknown now, which is no reason to remove what is stored of it.
            self._out.unread.append(folder)
            self._quarantine(path, str(error))
            return
        self._out.quarantined += [Quarantined(display(q.path), q.reason) for q in table.quarantined]
        for row in table.rows:
            check_stopped(self._stop)
            try:
                described.add(self._root, folder, path, row)
            except Unreadable as error:
                self._quarantine(f"{path}:{row.line}", str(error))

    def _entries(self, folder: str) -> Iterator[Entry]:
        names = self._files[folder]
        images = [name for name in names if kind_of(name) == "image"]
        owners: dict[str, list[str]] = {}
        for image in images:
            for sidecar in (f"{image}.txt", f"{PurePosixPath(image).stem}.txt"):
                owners.setdefault(sidecar, []).append(image)
        captions: dict[str, tuple[str, ...]] = {}
        prefix = f"{folder}/" if folder else ""
        for name in names:
            if name in owners:
                check_stopped(self._stop)
                said = self._read_sidecar(prefix + name)
                for image in owners[name]:
                    captions[image] = captions.get(image, ()) + said
        for name in names:
            kind = kind_of(name)
            if kind is not None and (kind == "image" or name not in owners):
                yield Entry(prefix + name, kind, tuple(dict.fromkeys(captions.get(name, ()))))
            elif kind is None and name.lower() not in MANIFEST_NAMES:
                self._out.ignored += 1

    def _read_sidecar(self, path: str) -> tuple[str, ...]:
        try:
            data, _ = read_bounded(self._root / path, MAX_SIDECAR_BYTES)
            lines = (" ".join(line.split()) for line in decode_text(data).split("\n"))
            return tuple(check_caption(line, "a caption") for line in lines if line)
        except Unreadable as error:
            if str(error) != "is empty":
                self._quarantine(path, f"the captions file {error}")
            return ()

    def _quarantine(self, path: str, reason: str) -> None:
        self._out.quarantined.append(Quarantined(display(path), reason))
