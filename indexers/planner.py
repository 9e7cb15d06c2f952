"""The first stages: read and hash entries, ask the backend what it has, and form batches of what is missing.

Whether an item is unchanged is decided by the backend's answer alone: its ids are there, with the same
text, URI and metadata. Batches are formed in source order by fixed limits, so they are the same in every
run over the same state.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TypeVar

from PIL import Image

from backends.base import Backend, Record, Vector
from indexers.files import Unreadable, display
from indexers.items import EntryRefused, Item, Planned, Reader, image_reason, same_record, same_vector
from indexers.ledger import Ledger
from indexers.sources import Entry
from indexers.tally import Outcome, Tally, Work
from retrieval.images.decode import ImageError
from retrieval.images.plan import Wanted, result_pixels
from retrieval.images.pool import Bounds, DecodePool

CHECK_ITEMS = 128
POLL_S = 0.1
GET_IDS = 500
TEXTS_PER_IMAGE = 8
MAX_KEPT = 1024
#: Memory that a batch's decoded pixels may take. Three batches are in memory at a time.
MAX_BATCH_BYTES = 128 * 1024 * 1024
#: Memory that decoding one picture may take; the largest are decoded alone.
MAX_PICTURE_BYTES = 2 * 1024 * 1024 * 1024
#: Pillow keeps an RGB pixel in so many.
RGB_BYTES = 4
S = TypeVar("S")
T = TypeVar("T")


class Room:
    """Lets pictures be decoded in the order in which they are taken, at most `size` ahead of the one taken last.

    By number, and not as it comes: rooms that later pictures had got first would all wait for the one that is next.
    """

    def __init__(self, size: int) -> None:
        self._size, self._taken = size, 0
        self._changed = threading.Condition()

    def enter(self, number: int, stopped: Callable[[], bool]) -> None:
        """Return when picture `number`, from 0 on, may be decoded, or soon after the run is stopped."""
        with self._changed:
            while number >= self._taken + self._size and not stopped():
                self._changed.wait(POLL_S)

    def leave(self) -> None:
        """One more was taken."""
        with self._changed:
            self._taken += 1
            self._changed.notify_all()


class Decoding:
    """A picture that is decoded beside the other stages, and gives its room to a later one when it is taken."""

    def __init__(self, future: Future[Image.Image | str], room: Room) -> None:
        self._future, self._room = future, room

    def result(self) -> Image.Image | str:
        """Its pixels, or the reason why there are none; to be called once."""
        try:
            return self._future.result()
        finally:
            self._room.leave()

    def cancel(self) -> None:
        """Leave it undecoded, if that has not begun."""
        self._future.cancel()


@dataclass(slots=True)
class Batch:
    """What is embedded and stored together.

    `images` come with their pixels on the way (or the reason why there are none), `texts` with what
    is embedded; `kept` records have their stored vector.
    """

    images: list[tuple[Work, Record, Decoding]] = field(default_factory=list)
    texts: list[tuple[Work, Record, str]] = field(default_factory=list)
    kept: list[tuple[Work, Record]] = field(default_factory=list)
    size_bytes: int = 0

    def drop(self) -> None:
        """Give the batch up: what is not decoded yet will not be."""
        for _, _, decoding in self.images:
            decoding.cancel()


class Planner:
    """Reads entries in order and hands on batches; `expected` are the ids the source should have."""

    def __init__(
        self,
        reader: Reader,
        backend: Backend,
        collection: str,
        tally: Tally,
        *,
        batch_size: int,
        threads: int,
        decode_size: int | None,
        pool: DecodePool,
    ) -> None:
        self._reader, self._backend, self._collection = reader, backend, collection
        self._tally = tally
        self._batch_size, self._wanted = batch_size, Wanted(decode_size)
        self._pool = pool
        self._threads = threads
        # A batch ahead of the encoder is enough for it never to wait. All that is planned would be a hundred megabytes
        # more, and each of them new to the process: 1 ms of page faults for a picture of 640 x 480.
        self._room, self._decodings = Room(max(batch_size, 2 * threads)), 0
        self._batch = Batch()
        self._seen: dict[str, Item] = {}
        self.expected: set[str] = set()

    def run(self, entries: Sequence[Entry], send: Callable[[Batch], None], stopped: Callable[[], bool]) -> bool:
        """Plan all entries; False if stopped before the end."""
        self._send, self._stopped = send, stopped
        readers = ThreadPoolExecutor(self._threads, thread_name_prefix="read")
        self._decoders = ThreadPoolExecutor(self._threads, thread_name_prefix="decode")
        try:
            waiting: list[Item] = []
            for found in _in_order(readers, self._read, entries, 4 * self._threads):
                if self._stopped():
                    return False
                if isinstance(found, EntryRefused):
                    self._tally.refuse(found.entry, found.reason)
                    continue
                self._tally.count("more", len(found) - 1)
                waiting += [item for item in found if self._is_first(item)]
                while len(waiting) >= CHECK_ITEMS:
                    self._check(waiting[:CHECK_ITEMS])
                    del waiting[:CHECK_ITEMS]
            self._check(waiting)
            if self._stopped():
                return False
            self._flush()
            return True
        finally:
            readers.shutdown(wait=True, cancel_futures=True)
            self._batch.drop()
            self._decoders.shutdown(wait=False)

    def _read(self, entry: Entry) -> list[Item] | EntryRefused:
        with self._tally.busy("hash"):
            return self._reader.read(entry)

    def _is_first(self, item: Item) -> bool:
        """Whether the item's content is new to this run; the first path in order has it, later ones are duplicates."""
        record_id = item.records[0].record.id
        first = self._seen.setdefault(record_id, item)
        if first is item:
            return True
        same = first.digest == item.digest
        if same and item.entry.id is not None:
            # An id of somebody's choice means one thing: all that is said of it must be the same.
            same = (first.entry.captions, first.entry.metadata) == (item.entry.captions, item.entry.metadata)
        if same:
            self._tally.finish(display(item.entry.path), "duplicates")
        else:
            self._tally.refuse(item.entry, f"its id {record_id!r} is taken by {display(first.entry.path)}")
        return False

    def _check(self, items: list[Item]) -> None:
        """Compare what items should have with what is stored, and plan the difference."""
        planned = {p.record.id: (p, item) for item in items for p in item.records}
        with self._tally.busy("check"):
            self._remember(self._reader.ledger, items)
            stored = {record.id: record for record in self._get(list(planned))}
            current = {record_id for record_id, record in stored.items() if same_record(record, planned[record_id][0])}
            movable = [
                record_id
                for record_id, record in stored.items()
                if record_id not in current and same_vector(record, planned[record_id][0], planned[record_id][1].digest)
            ]
            vectors = {record.id: record.vector for record in self._get(movable, with_vectors=True)}
        self.expected.update(planned)
        for item in items:
            if self._stopped():
                return
            self._plan(item, stored, current, vectors)
            # Only digest and path are needed from now on.
            item.records = item.records[:0]

    def _get(self, ids: list[str], *, with_vectors: bool = False) -> Iterator[Record]:
        for start in range(0, len(ids), GET_IDS):
            chunk = ids[start : start + GET_IDS]
            yield from self._backend.get(self._collection, chunk, with_vectors=with_vectors)

    def _remember(self, ledger: Ledger | None, items: list[Item]) -> None:
        if ledger is not None:
            ledger.put(self._reader.source.root, [item.fresh for item in items if item.fresh is not None])

    def _plan(
        self, item: Item, stored: dict[str, Record], current: set[str], vectors: dict[str, Vector | None]
    ) -> None:
        embed: list[Planned] = []
        kept: list[Record] = []
        for planned in item.records:
            if planned.record.id in current:
                continue
            vector = vectors.get(planned.record.id)
            if vector is None:
                embed.append(planned)
            else:
                kept.append(replace(planned.record, vector=vector))
        path = display(item.entry.path)
        if not embed and not kept:
            self._tally.finish(path, "unchanged")
            return
        for note in item.notes:
            self._tally.note(item.entry, note)
        work = Work(path, _outcome(item, embed, stored), len(embed) + len(kept))
        self._add(item, work, embed, kept)

    def _add(self, item: Item, work: Work, embed: list[Planned], kept: list[Record]) -> None:
        pictured = [planned for planned in embed if planned.embed is None]
        if pictured:
            decoded_bytes = self._decoded_bytes(item)
            full = len(self._batch.images) >= self._batch_size
            if full or (self._batch.images and self._batch.size_bytes + decoded_bytes > MAX_BATCH_BYTES):
                self._flush()
            self._batch.size_bytes += decoded_bytes
            future = self._decoders.submit(self._decode, item.entry, item.digest, self._decodings)
            self._decodings += 1
            self._batch.images.append((work, pictured[0].record, Decoding(future, self._room)))
        # An image's captions go with it, so that they are not stored if it turns out to be broken.
        together = item.records[0].embed is None
        for planned in embed:
            if planned.embed is None:
                continue
            if not together and len(self._batch.texts) >= TEXTS_PER_IMAGE * self._batch_size:
                self._flush()
            self._batch.texts.append((work, planned.record, planned.embed))
        self._batch.kept += [(work, record) for record in kept]
        if len(self._batch.texts) >= TEXTS_PER_IMAGE * self._batch_size or len(self._batch.kept) >= MAX_KEPT:
            self._flush()

    def _decoded_bytes(self, item: Item) -> int:
        metadata = item.records[0].record.metadata
        size = (int(str(metadata["width"])), int(str(metadata["height"])))
        return RGB_BYTES * result_pixels(size, str(metadata.get("format")), self._wanted)

    def _decode(self, entry: Entry, digest: str, number: int) -> Image.Image | str:
        # Who has begun when a run is stopped may be waited for.
        self._room.enter(number, self._stopped)
        with self._tally.busy("decode"):
            try:
                data = self._reader.content(entry, digest)
                bounds = Bounds(self._reader.max_pixels, largest_bytes=MAX_PICTURE_BYTES)
                return self._pool.load(data, self._wanted, bounds, part=entry.part)
            except ImageError as error:
                return image_reason(error, self._reader.more_pixels)
            except Unreadable as error:
                return str(error)

    def _flush(self) -> None:
        batch, self._batch = self._batch, Batch()
        if batch.images or batch.texts or batch.kept:
            self._send(batch)


def _outcome(item: Item, embed: list[Planned], stored: dict[str, Record]) -> Outcome:
    main = item.records[0]
    # Captions that are new to an image do not make the image new.
    if embed and (main.embed is not None or embed[0] is main):
        return "indexed"
    old = stored[main.record.id].metadata
    moved = any(old.get(key) != main.record.metadata.get(key) for key in ("path", "source"))
    return "renamed" if moved else "updated"


def _in_order(pool: ThreadPoolExecutor, function: Callable[[S], T], inputs: Iterable[S], window: int) -> Iterator[T]:
    """`function` of each input, computed in the pool at most `window` ahead, yielded in order."""
    pending: deque[Future[T]] = deque()
    for each in inputs:
        pending.append(pool.submit(function, each))
        if len(pending) >= window:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()
