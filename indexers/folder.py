"""Listing a folder: all files below it, each of its kind, with what sidecars and manifests say of them."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

from indexers.described import Described
from indexers.fields import Metadata
from indexers.files import (
    MAX_MANIFEST_BYTES,
    Unreadable,
    decode_guessed,
    display,
    explain,
    guessed_note,
    read_bounded,
)
from indexers.kinds import HEAD_BYTES, IMAGE, OTHER, by_suffix, kind_named, recognise, suffix_of
from indexers.listing import NO_PICTURE, Entry, Listing, merged
from indexers.manifests import check_caption, is_manifest, read_manifest
from indexers.report import Quarantined, check_stopped
from indexers.rules import EXCLUDED, IGNORE_NAME, Rules
from indexers.sidecars import Pairing, looks_like_sidecar, pair
from indexers.takeout import read_takeout
from indexers.xmp import Said, read_xmp

MAX_SIDECAR_BYTES = 64 * 1024
MAX_XMP_BYTES = 1024 * 1024
#: Files that are counted in a folder that is left out; more is not worth the time.
MAX_COUNTED = 100_000
#: Errors of a link by which it is known that there is nothing at its end.
_NOWHERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})


class Folder:
    """A recursive listing: sorted, without litter and hidden names, never through a link that leads to a folder."""

    def __init__(self, root: Path, rules: Rules, encoding: str | None, stop: threading.Event | None) -> None:
        self._root, self._rules, self._encoding, self._stop = root, rules, encoding, stop
        self._out = Listing()
        self._files: dict[str, list[str]] = {}
        self._manifests: set[str] = set()

    def read(self) -> Listing:
        """All of it. Raises `Stopped`."""
        for folder, names in self._walk():
            self._files[folder] = names
        described = Described()
        for folder in sorted(self._files):
            for name in self._files[folder]:
                if is_manifest(name):
                    self._read_manifest(folder, name, described)
        entries = {entry.path: entry for folder in sorted(self._files) for entry in self._entries(folder)}
        for path, said in described.files.items():
            entry = entries.setdefault(path, said)
            entry.captions = merged((said.captions, entry.captions))
            entry.metadata = {**entry.metadata, **said.metadata}
        self._out.entries = sorted(entries.values(), key=lambda entry: entry.path) + described.texts
        return self._out

    def _walk(self) -> Iterator[tuple[str, list[str]]]:
        pending = [("", self._rules)]
        while pending:
            folder, outer = pending.pop()
            names: list[str] = []
            try:
                with os.scandir(self._root / folder) as found:
                    children = sorted(found, key=lambda child: child.name)
                rules = outer.below(self._root, folder)
            except OSError as error:
                self._close(folder, f"the folder is {explain(error)}")
                continue
            except Unreadable as error:
                self._close(folder, f"the folder is left out, as {error}")
                continue
            for child in children:
                check_stopped(self._stop)
                path = f"{folder}/{child.name}" if folder else child.name
                try:
                    if self._is_left_out(child, path, rules):
                        continue
                    if child.is_dir():
                        pending.append((path, rules))
                    elif child.is_file() or by_suffix(child.name) is not None:
                        names.append(child.name)
                    else:
                        self._out.skip_kind(OTHER, path)
                except OSError as error:
                    self._out.unread.append(path)
                    self._quarantine(path, explain(error))
            yield folder, names

    def _close(self, folder: str, reason: str) -> None:
        self._out.unread.append(folder)
        self._quarantine(folder or ".", reason)

    def _is_left_out(self, child: os.DirEntry[str], path: str, rules: Rules) -> bool:
        if child.name == IGNORE_NAME:
            return True
        is_folder = child.is_dir(follow_symlinks=False)
        why = rules.why_left_out(path, child.name, is_folder=is_folder)
        if why is None:
            return child.is_symlink() and not self._usable_link(path)
        count = self._count(self._root / path) if is_folder else 1
        if count:
            name = child.name if is_folder or why != EXCLUDED else suffix_of(child.name)
            self._out.skip(why, path, count=count, name=name if is_folder or why == EXCLUDED else "", is_litter=True)
        return True

    def _count(self, folder: Path) -> int:
        """The files below a folder, as far as they can be seen."""
        count = 0
        for _, _, files in os.walk(folder):
            check_stopped(self._stop)
            count += len(files)
            if count > MAX_COUNTED:
                break
        return count

    def _usable_link(self, path: str) -> bool:
        """Whether a link leads to a file inside the root; folders inside are listed where they are."""
        try:
            target = (self._root / path).resolve(strict=True)
        except (OSError, RuntimeError) as error:
            if isinstance(error, RuntimeError) or error.errno in _NOWHERE:
                self._quarantine(path, f"is a link that leads nowhere: {error.__class__.__name__}")
            else:
                # Its target may be there, so that what is stored of it stays.
                self._out.unread.append(path)
                self._quarantine(path, f"is a link whose target is {explain(error)}")
            return False
        if not target.is_relative_to(self._root):
            self._quarantine(path, "is a link that leads outside the folder: index its target by itself")
            return False
        return target.is_file()

    def _read_manifest(self, folder: str, name: str, described: Described) -> None:
        path = f"{folder}/{name}" if folder else name
        try:
            text, guessed = decode_guessed(read_bounded(self._root / path, MAX_MANIFEST_BYTES)[0], self._encoding)
            table = read_manifest(path, text, in_folder=True)
        except Unreadable as error:
            # What it described is unknown now, which is no reason to remove what is stored of it.
            self._out.unread.append(folder)
            self._quarantine(path, str(error))
            self._manifests.add(path)
            return
        if table is None:
            return
        self._manifests.add(path)
        if guessed:
            self._note(path, guessed_note(guessed))
        self._out.quarantined += [Quarantined(display(q.path), q.reason) for q in table.quarantined]
        for row in table.rows:
            check_stopped(self._stop)
            try:
                described.add(self._root, folder, path, row)
            except Unreadable as error:
                self._quarantine(f"{path}:{row.line}", str(error))

    def _entries(self, folder: str) -> Iterator[Entry]:
        prefix = f"{folder}/" if folder else ""
        kinds = {name: self._kind(prefix + name) for name in self._files[folder]}
        kinds = {name: kind for name, kind in kinds.items() if prefix + name not in self._manifests}
        images = [name for name, kind in kinds.items() if kind == IMAGE.name]
        pairing = pair(kinds, images)
        said = self._said(prefix, pairing)
        for name, kind in kinds.items():
            if name in pairing.owners:
                continue
            if kind_named(kind).is_read:
                told = said.get(name, [])
                metadata, hints = _fields(told)
                captions = merged(each.captions for each in told)
                yield Entry(prefix + name, kind, captions, metadata, hints=hints)
            elif looks_like_sidecar(name):
                self._out.skip(NO_PICTURE, prefix + name, name=suffix_of(name))
            else:
                self._out.skip_kind(kind_named(kind), prefix + name)

    def _said(self, prefix: str, pairing: Pairing) -> dict[str, list[Said]]:
        """What sidecars say of each picture, in the order of their names; those that are none lose their pairing."""
        found: dict[str, list[Said]] = {}
        for name, images in pairing.unclear.items():
            several = " or ".join(display(image) for image in images[:3])
            self._note(prefix + name, f"is not taken for what is said of {several}: call it after one of them exactly")
        for name, images in list(pairing.owners.items()):
            check_stopped(self._stop)
            said = self._read_sidecar(prefix, name, images[0])
            if said is None:
                del pairing.owners[name]
                continue
            for image in images:
                found.setdefault(image, []).append(said)
        return found

    def _read_sidecar(self, prefix: str, name: str, image: str) -> Said | None:
        """What a sidecar says; None for a file that only has a sidecar's name."""
        path, suffix = prefix + name, suffix_of(name)
        try:
            data, _ = read_bounded(self._root / path, MAX_SIDECAR_BYTES if suffix == ".txt" else MAX_XMP_BYTES)
            if suffix == ".xmp":
                said: Said | None = read_xmp(data)
            elif suffix == ".json":
                said = read_takeout(decode_guessed(data)[0], image)
            else:
                text, guessed = decode_guessed(data, self._encoding)
                said = Said(tuple(" ".join(line.split()) for line in text.split("\n")))
                if guessed:
                    self._note(path, guessed_note(guessed))
            if said is not None:
                said.captions = tuple(check_caption(caption, "a caption") for caption in said.captions if caption)
            return said
        except Unreadable as error:
            if str(error) != "is empty":
                self._quarantine(path, f"the {'captions' if suffix == '.txt' else 'sidecar'} file {error}")
            return Said()

    def _kind(self, path: str) -> str:
        """The kind of a file: by its ending where that is read, by its content where not."""
        named = by_suffix(path)
        if named is not None and named.is_read:
            return named.name
        try:
            descriptor = os.open(
                self._root / path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
            )
            with os.fdopen(descriptor, "rb") as file:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    return (named or OTHER).name
                return recognise(file.read(HEAD_BYTES), path).name
        except (OSError, ValueError):
            return (named or OTHER).name

    def _note(self, path: str, text: str) -> None:
        self._out.notes.append(Quarantined(display(path), text))

    def _quarantine(self, path: str, reason: str) -> None:
        self._out.quarantined.append(Quarantined(display(path), reason))


def _fields(said: list[Said]) -> tuple[Metadata, Metadata]:
    """The fields and hints of several sidecars: of each, what was said first."""
    metadata: Metadata = {}
    hints: Metadata = {}
    for each in reversed(said):
        metadata, hints = {**metadata, **each.metadata}, {**hints, **each.hints}
    return metadata, hints
