"""Where items come from: a folder, one file, a manifest, or JSON lines on standard input.

A source is listed before anything else is done, in a fixed order: files by path, text items by line.
The list is held in memory, about half a kilobyte an item; contents are not.
"""

from __future__ import annotations

import os
import stat
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TextIO

from indexers.described import Described, kind_of
from indexers.files import MAX_MANIFEST_BYTES, Unreadable, decode_guessed, display, explain, guessed_note, read_bounded
from indexers.folder import Folder
from indexers.kinds import HEAD_BYTES
from indexers.listing import Entry, Listing
from indexers.manifests import MANIFEST_SUFFIXES, is_table_text, read_manifest
from indexers.report import IndexingError, Quarantined, check_stopped
from indexers.rules import rules_of

STDIN_NAME = "stdin"

__all__ = ["Entry", "Listing", "Options", "Source", "open_source"]


@dataclass(frozen=True, slots=True)
class Options:
    """How a source is read.

    exclude, include: patterns as .gitignore has them: what of a folder is left out, and what is not in spite of that or
    of its name. image_root: the folder to which a manifest's paths are relative, its own unless given. encoding: of
    manifests and captions; guessed unless given.
    """

    exclude: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    image_root: Path | None = None
    encoding: str | None = None


DEFAULT = Options()


@dataclass(frozen=True, slots=True)
class Source:
    """Something to index. `name` is what records carry as `source`; paths are relative to `root`.

    `whole` says that a listing is all there is of it, so that records it no longer has can be pruned.
    `folder` is where a manifest is, if not in `root`.
    """

    kind: Literal["folder", "manifest", "file", "stdin"]
    name: str
    root: Path
    whole: bool = True
    file: str | None = None
    stream: TextIO | None = None
    options: Options = DEFAULT
    folder: Path | None = None

    def listing(self, stop: threading.Event | None = None) -> Listing:
        """List the source. Raises `IndexingError` when nothing of it can be read, `Stopped` once `stop` is set."""
        options = self.options
        if self.kind == "folder":
            return Folder(self.root, rules_of(options.exclude, options.include), options.encoding, stop).read()
        name = self.file or "stdin.jsonl"
        if self.kind == "file":
            return Listing([Entry(name, kind_of(name))])
        try:
            if self.kind == "manifest":
                data = read_bounded(Path(self.name_on_disk), MAX_MANIFEST_BYTES)[0]
                text, guessed = decode_guessed(data, options.encoding)
            else:
                text, guessed = _read_stream(self.stream), ""
            listing = _from_manifest(self.root, name, text, with_ids=self.kind == "stdin", stop=stop)
        except Unreadable as error:
            raise IndexingError(f"{self.name} {error}") from None
        if guessed:
            listing.notes.append(Quarantined(display(name), guessed_note(guessed)))
        return listing

    @property
    def name_on_disk(self) -> str:
        """The path of a manifest, which need not be below `root`."""
        return str((self.folder or self.root) / (self.file or ""))


def open_source(path: str | Path, *, stdin: TextIO | None = None, options: Options = DEFAULT) -> Source:
    """The source that `path` names: a folder, an image or text file, a manifest, or ``-`` for JSON lines on `stdin`.

    Paths on standard input are relative to, and confined to, the working directory, or the image root of the options.
    Raises `IndexingError` if there is nothing of the kind, and for options that do not fit.
    """
    root = _image_root(options)
    rules_of(options.exclude, options.include)
    _check_encoding(options.encoding)
    if str(path) == "-":
        here = root or Path.cwd().resolve()
        return Source("stdin", STDIN_NAME, here, whole=False, stream=stdin or sys.stdin, options=options)
    try:
        resolved = Path(path).resolve(strict=True)
        mode = resolved.stat().st_mode
        if stat.S_ISDIR(mode):
            with os.scandir(resolved):
                pass
            if root is not None:
                raise IndexingError("an image root goes with a manifest: a folder's pictures are found below it")
            return Source("folder", display(str(resolved)), resolved, options=options)
    except (OSError, ValueError, RuntimeError) as error:
        reason = explain(error) if isinstance(error, (OSError, ValueError)) else str(error)
        raise IndexingError(f"{display(str(path))} cannot be indexed: {reason}") from None
    if not stat.S_ISREG(mode):
        raise IndexingError(f"{display(str(path))} is neither a folder nor a file: use - for JSON lines on stdin")
    name = display(str(resolved))
    if _is_manifest(resolved):
        top = root or resolved.parent
        return Source("manifest", name, top, file=resolved.name, options=options, folder=resolved.parent)
    if root is not None:
        raise IndexingError(f"an image root goes with a manifest, which {name} is not")
    return Source("file", name, resolved.parent, file=resolved.name, options=options)


def _is_manifest(path: Path) -> bool:
    """Whether a file that was named is a manifest: by its ending, and a text by its first line."""
    suffix = path.suffix.lower()
    if suffix != ".txt":
        return suffix in MANIFEST_SUFFIXES
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
        return is_table_text(decode_guessed(head[: head.rfind(b"\n") + 1] or head)[0])
    except (OSError, Unreadable):
        return False


def _image_root(options: Options) -> Path | None:
    if options.image_root is None:
        return None
    try:
        root = options.image_root.resolve(strict=True)
    except (OSError, RuntimeError):
        root = None
    if root is None or not root.is_dir():
        raise IndexingError(f"the image root {display(str(options.image_root))} is not a folder")
    return root


def _check_encoding(name: str | None) -> None:
    try:
        "".encode(name or "utf-8")
    except LookupError:
        raise IndexingError(f"no encoding is called {name!r:.60}: UTF-8, GB18030, Big5, Shift_JIS, CP1252 …") from None


def _read_stream(stream: TextIO | None) -> str:
    assert stream is not None
    try:
        text = stream.read(MAX_MANIFEST_BYTES + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise Unreadable(f"cannot be read: {error}") from None
    if len(text) > MAX_MANIFEST_BYTES:
        raise Unreadable(f"has more than {MAX_MANIFEST_BYTES} characters: index it in parts")
    return text.removeprefix("\ufeff")


def _from_manifest(root: Path, name: str, text: str, *, with_ids: bool, stop: threading.Event | None) -> Listing:
    listing, files = Listing(), Described()
    table = read_manifest(name, text, with_ids=with_ids)
    assert table is not None
    listing.quarantined += table.quarantined
    for row in table.rows:
        check_stopped(stop)
        try:
            files.add(root, "", name, row)
        except Unreadable as error:
            listing.quarantined.append(Quarantined(f"{name}:{row.line}", str(error)))
    listing.entries = sorted(files.files.values(), key=lambda entry: entry.path) + files.texts
    return listing
