"""What a run says about itself: its report, what it quarantined and why, and the error a person can act on."""

from __future__ import annotations

import re
import threading
from dataclasses import asdict, dataclass, field
from typing import Any

from backends.harmless import escaped, shortened


class IndexingError(Exception):
    """Indexing cannot start or go on: one line that says why and what to do."""


class NothingListed(IndexingError):
    """A prune would remove all that came from a source, as that has nothing in it, like a disk that is not mounted."""


class Stopped(Exception):
    """Whoever began the work asked for its end; what was finished is stored, and a rerun goes on from there."""


def check_stopped(stop: threading.Event | None) -> None:
    """Raise `Stopped` if the work is to end."""
    if stop is not None and stop.is_set():
        raise Stopped("stopped before the end")


@dataclass(frozen=True, slots=True)
class Quarantined:
    """Something of the source that could not be used, and why; `path` is relative to it, ``file:line`` in manifests."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class NotRead:
    """Files of one kind that were not read: what they are, in the plural; endings or folders by which they are known,
    the most frequent first; why, and what to do, "" where there is nothing to be said; and the first 1,000 paths.

    is_litter: they are what systems and programs leave behind, or what people left out themselves.
    """

    what: str
    count: int
    names: list[str]
    why: str
    paths: list[str]
    is_litter: bool = False

    def told(self) -> str:
        """All that in a line, but the paths."""
        what = re.sub(r"(?<=[a-z])s\b", "", self.what, count=1) if self.count == 1 else self.what
        names = f" ({', '.join(self.names)})" if self.names else ""
        return escaped_line(f"{self.count:,} {what}{names}{f': {self.why}' if self.why else ''}")


@dataclass(frozen=True, slots=True)
class IndexReport:
    """What a run found and did.

    Every one of `found` items is counted in exactly one of `indexed` (embedded and stored), `unchanged`,
    `renamed` (moved; stored under its new path without embedding), `duplicates` (same content as an
    earlier path), `updated` (captions or metadata changed; its vector kept) and `quarantined`, unless
    the run was interrupted. `quarantined` also lists lines of manifests, links and folders that could
    not be used; those are not items.

    `notes` say of items that were taken what of them was not, such as the end of a JPEG that lacks it.

    `pruned` counts the files and manifest entries whose records were removed because the source has
    them no more, `missing` those that a run without prune left in place; `ignored` files of kinds that are not read:
    `not_read` has those, and what was left out, by what they are. `images` and `texts` count what was embedded;
    `unreadable` of these texts could not be read by the encoder, so that only their words can be searched for.
    `reencoded` counts stored texts that were embedded anew for a new text side of the encoder. `seconds` is the busy
    time of each stage, summed over its threads, with ``wall`` the time from start to end; stages overlap.
    """

    found: int = 0
    indexed: int = 0
    unchanged: int = 0
    renamed: int = 0
    duplicates: int = 0
    updated: int = 0
    pruned: int = 0
    missing: int = 0
    ignored: int = 0
    quarantined: list[Quarantined] = field(default_factory=list)
    notes: list[Quarantined] = field(default_factory=list)
    not_read: list[NotRead] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    images: int = 0
    texts: int = 0
    unreadable: int = 0
    reencoded: int = 0
    interrupted: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON types."""
        plain: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        for name in ("quarantined", "notes"):
            plain[name] = [{"path": item.path, "reason": item.reason} for item in getattr(self, name)]
        plain["not_read"] = [{**asdict(row), "told": row.told()} for row in self.not_read]
        plain["seconds"] = {stage: round(seconds, 3) for stage, seconds in self.seconds.items()}
        return plain


def escaped_line(text: str, limit: int = 300) -> str:
    """`text` on one line of at most `limit` characters; what could drive a terminal or reorder it is escaped."""
    return shortened(escaped(text), limit)
