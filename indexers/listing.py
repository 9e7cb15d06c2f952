"""What a source lists: its entries, and what of it is not read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from indexers.fields import Metadata
from indexers.files import display
from indexers.kinds import FileKind, suffix_of
from indexers.report import NotRead, Quarantined

#: Paths that a report lists of each kind of what was not read.
MAX_LISTED = 1000
_MAX_ENDINGS = 6
NO_PICTURE = "sidecars without a picture"


@dataclass(slots=True)
class Entry:
    """One item of a source: a file by its path under the root, or a text item.

    `path` is relative, with forward slashes, and may hold surrogates for bytes that are not UTF-8; for a
    text item it is where it stands, e.g. ``captions.jsonl:7``. `kind` is the name of a row of `indexers.kinds.KINDS`,
    or "text". `part` says which part of the file it is, ``page=2``; "" for all of it, or the first. `metadata` has the
    last word, `hints` only where the file itself says nothing.
    """

    path: str
    kind: str
    captions: tuple[str, ...] = ()
    metadata: Metadata = field(default_factory=dict)
    text: str | None = None
    id: str | None = None
    part: str = ""
    hints: Metadata = field(default_factory=dict)


@dataclass(slots=True)
class Listing:
    """All entries of a source, what could not be listed, and the folders of which less is known than there is.

    notes: what is told of files that are taken all the same. left_out: files that are not read, by what they are.
    """

    entries: list[Entry] = field(default_factory=list)
    quarantined: list[Quarantined] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    ignored: int = 0
    notes: list[Quarantined] = field(default_factory=list)
    left_out: dict[str, LeftOut] = field(default_factory=dict)

    def skip(self, what: str, path: str, *, count: int = 1, name: str, why: str = "", is_litter: bool = False) -> None:
        """Count files that are not read. name: by which a person recognises them, an ending or a folder's name."""
        self.left_out.setdefault(what, LeftOut(why=why, is_litter=is_litter)).add(path, count, name)

    def skip_kind(self, kind: FileKind, path: str) -> None:
        """Count a file of a kind that is not read."""
        self.ignored += 1
        self.skip(kind.what, path, name=suffix_of(path), why=kind.why_not)

    def not_read(self) -> list[NotRead]:
        """What a report says of it, litter first."""
        rows = [left.told(what) for what, left in self.left_out.items()]
        return sorted(rows, key=lambda row: (not row.is_litter, row.what))


@dataclass(slots=True)
class LeftOut:
    """Files of one kind that are not read."""

    why: str = ""
    is_litter: bool = False
    count: int = 0
    paths: list[str] = field(default_factory=list)
    names: dict[str, int] = field(default_factory=dict)

    def add(self, path: str, count: int, name: str) -> None:
        """Count some more."""
        self.count += count
        if len(self.paths) < MAX_LISTED:
            self.paths.append(display(path))
        if name:
            self.names[name] = self.names.get(name, 0) + count

    def told(self, what: str) -> NotRead:
        """What a report says of them."""
        common = sorted(self.names, key=lambda name: (-self.names[name], name))[:_MAX_ENDINGS]
        return NotRead(
            what=what,
            count=self.count,
            names=[display(name) for name in common],
            why=self.why,
            paths=sorted(self.paths),
            is_litter=self.is_litter,
        )


def merged(said: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """Captions of several places, each once, in order."""
    return tuple(dict.fromkeys(caption for captions in said for caption in captions))
