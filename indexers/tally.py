"""What the stages of a run count together."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeAlias

from indexers.files import display
from indexers.report import Quarantined, escaped_line
from indexers.sources import Entry

Outcome: TypeAlias = Literal["indexed", "unchanged", "renamed", "duplicates", "updated"]


@dataclass(slots=True, eq=False)
class Work:
    """An item on its way: how it will count once its last record is stored, unless one of them failed."""

    path: str
    outcome: Outcome
    pending: int
    failed: bool = False


class Tally:
    """Counts, reasons and busy times; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.quarantined: list[Quarantined] = []
        #: What is told of items that were taken all the same.
        self.notes: list[Quarantined] = []
        #: Display paths of items that could not be used in this run: what is stored of them stays.
        self.kept_on_error: set[str] = set()
        self.done = 0
        self.path = ""

    @contextmanager
    def busy(self, stage: str) -> Iterator[None]:
        """Add the time inside the block to `stage`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self.seconds[stage] += time.perf_counter() - start

    def count(self, name: str, amount: int = 1) -> None:
        """Add to a count of the report."""
        with self._lock:
            self.counts[name] += amount

    def finish(self, path: str, outcome: Outcome) -> None:
        """One item has come to its end."""
        with self._lock:
            self.counts[outcome] += 1
            self.done += 1
            self.path = path

    def refuse(self, entry: Entry, reason: str) -> None:
        """An item is quarantined."""
        self._quarantine(display(entry.path), reason)

    def note(self, entry: Entry, text: str) -> None:
        """Something its owner should know of an item that is taken."""
        with self._lock:
            self.notes.append(Quarantined(display(entry.path), text))

    def fail(self, work: Work, reason: str) -> None:
        """A record of an item could not be made or stored: the item is quarantined, once."""
        with self._lock:
            first, work.failed = not work.failed, True
        if first:
            self._quarantine(work.path, reason)

    def _quarantine(self, path: str, reason: str) -> None:
        with self._lock:
            self.quarantined.append(Quarantined(path, escaped_line(reason)))
            self.kept_on_error.add(path)
            self.done += 1
            self.path = path

    def stored(self, work: Work) -> None:
        """One more record of an item is in the backend."""
        with self._lock:
            work.pending -= 1
            last = work.pending == 0 and not work.failed
        if last:
            self.finish(work.path, work.outcome)
