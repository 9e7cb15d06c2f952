"""The first stages: read and hash entries, ask the backend what it has, and form batches of what is missing.

Whether an item is unchanged is decided by the backend's answer alone: its ids are there, with the same
text, URI and metadata. Batches are formed in source order by fixed limits, so they are the same in every
run over the same state.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TypeVar

from PIL import Image

from backends.base import Backend, Record, Vector
from backends.kit.parts import in_pieces
from indexers.copies import Territory, captions_of, kept_records, merged
from indexers.files import Unreadable, display
from indexers.items import EntryRefused, Item, Planned, Reader, image_reason, same_record, same_vector
from indexers.ledger import Ledger
from indexers.sources import Entry
from indexers.tally import Outcome, Tally, Work
from retrieval.images.decode import ImageError
from retrieval.images.plan import Wanted, result_pixels
from retrieval.images.pool import Bounds, DecodePool
from retrieval.places import places_of, whereabouts

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
    """Reads entries in order and hands on batches; `expected` are the ids the source should have.

    `run` plans each content at the first place where it is met. Content that turns up again, or that is stored with
    other places that are still there, waits for `merge`, which is called when all of `run` is stored.
    """

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
        territory: Territory,
    ) -> None:
        self._reader, self._backend, self._collection = reader, backend, collection
        self._tally, self._territory = tally, territory
        self._batch_size, self._wanted = batch_size, Wanted(decode_size)
        self._pool = pool
        self._threads = threads
        # A batch ahead of the encoder is enough for it never to wait. All that is planned would be a hundred megabytes
        # more, and each of them new to the process: 1 ms of page faults for a picture of 640 x 480.
        self._room, self._decodings = Room(max(batch_size, 2 * threads)), 0
        self._batch = Batch()
        self._seen: dict[str, Item] = {}
        self._copies: dict[str, list[Item]] = {}
        self._waiting: dict[str, Item] = {}
        self._merging = False
        self.expected: set[str] = set()

    def run(self, entries: Sequence[Entry], send: Callable[[Batch], None], stopped: Callable[[], bool]) -> bool:
        """Plan all entries; False if stopped before the end."""
        readers = ThreadPoolExecutor(self._threads, thread_name_prefix="read")
        with self._sending(send, stopped):
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
                return self._flushed()
            finally:
                readers.shutdown(wait=True, cancel_futures=True)

    @property
    def has_copies(self) -> bool:
        """Whether there is something for `merge` to do."""
        return bool(self._copies or self._waiting)

    def merge(self, send: Callable[[Batch], None], stopped: Callable[[], bool]) -> bool:
        """Plan what lies at several places, each as one item; False if stopped before the end."""
        self._merging = True
        with self._sending(send, stopped):
            ids = [record_id for record_id in self._seen if record_id in self._copies or record_id in self._waiting]
            for piece in in_pieces(ids, CHECK_ITEMS):
                if self._stopped():
                    return False
                self._merge(piece)
            return self._flushed()

    @contextlib.contextmanager
    def _sending(self, send: Callable[[Batch], None], stopped: Callable[[], bool]) -> Iterator[None]:
        self._send, self._stopped = send, stopped
        self._decoders = ThreadPoolExecutor(self._threads, thread_name_prefix="decode")
        try:
            yield
        finally:
            self._batch.drop()
            self._decoders.shutdown(wait=False)

    def _flushed(self) -> bool:
        if self._stopped():
            return False
        self._flush()
        return True

    def _read(self, entry: Entry) -> list[Item] | EntryRefused:
        with self._tally.busy("hash"):
            return self._reader.read(entry)

    def _is_first(self, item: Item) -> bool:
        """Whether the item's content is new to this run; at later paths it is a copy, which `merge` adds."""
        record_id = item.records[0].record.id
        first = self._seen.setdefault(record_id, item)
        if first is item:
            return True
        same = first.digest == item.digest
        if same and item.entry.id is not None:
            # An id of somebody's choice means one thing: all that is said of it must be the same.
            same = (first.entry.captions, first.entry.metadata) == (item.entry.captions, item.entry.metadata)
        if same and item.entry.kind == "text":
            self._tally.finish(item.entry.path, "duplicates")
        elif same:
            self._copies.setdefault(record_id, []).append(item)
        else:
            self._tally.refuse(item.entry, f"its id {record_id!r} is taken by {display(first.entry.path)}")
        return False

    def _check(self, items: list[Item]) -> None:
        """Compare what items should have with what is stored, and plan the difference; some wait for `merge`."""
        planned, stored = self._stored_of(items)
        waiting = {item.records[0].record.id for item in items if self._is_elsewhere(item, stored)}
        self._waiting |= {item.records[0].record.id: item for item in items if item.records[0].record.id in waiting}
        self._plan_all([item for item in items if item.records[0].record.id not in waiting], planned, stored)

    def _stored_of(self, items: list[Item]) -> tuple[dict[str, tuple[Planned, Item]], dict[str, Record]]:
        planned = {p.record.id: (p, item) for item in items for p in item.records}
        with self._tally.busy("check"):
            self._remember(self._reader.ledger, items)
            stored = {record.id: record for record in self._get(list(planned))}
        return planned, stored

    def _is_elsewhere(self, item: Item, stored: dict[str, Record]) -> bool:
        """Whether the content is also stored at another place where it may still be."""
        main = item.records[0].record
        there = stored.get(main.id)
        if there is None or main.uri is None or not same_vector(there, item.records[0], item.digest):
            return False
        return any(place.uri != main.uri and self._territory.is_live(place) for place in places_of(there))

    def _merge(self, ids: Sequence[str]) -> None:
        groups = {record_id: group for record_id in ids if (group := self._group(record_id))}
        with self._tally.busy("check"):
            stored = {record.id: record for record in self._get(list(groups))}
            elsewhere = {
                record_id: record
                for record_id, record in stored.items()
                if same_vector(record, groups[record_id][0].records[0], groups[record_id][0].digest)
                and self._kept_places(record, groups[record_id])
            }
            captions = captions_of(self._backend, self._collection, elsewhere.values())
        items = []
        for record_id, group in groups.items():
            there, seen = elsewhere.get(record_id), {str(item.records[0].record.uri) for item in group}
            kept = kept_records(there, captions.get(record_id, ()), self._territory.is_kept, seen) if there else []
            items.append(merged(group, kept))
        planned, now = self._stored_of(items)
        self._plan_all(items, planned, now)
        for record_id, group in groups.items():
            # The first was counted by `run`, unless it waited; `_plan_all` has counted one of them by now.
            for copy in group[1 if record_id in self._waiting else 2 :]:
                self._tally.finish(display(copy.entry.path), "duplicates")

    def _group(self, record_id: str) -> list[Item]:
        """The items of one content; none where the first of them turned out to be unusable."""
        first = self._waiting.get(record_id)
        copies = self._copies.get(record_id, [])
        if first is None:
            entry = self._seen[record_id].entry
            failed = display(entry.path) in self._tally.kept_on_error
            read = None if failed else self._reader.read(entry)
            items = read if isinstance(read, list) else []
            first = next((item for item in items if item.records[0].record.id == record_id), None)
            if first is None:
                for copy in copies:
                    self._tally.finish(display(copy.entry.path), "duplicates")
                return []
        return [first, *copies]

    def _kept_places(self, record: Record, group: list[Item]) -> bool:
        seen = {item.records[0].record.uri for item in group}
        return any(place.uri not in seen and self._territory.is_kept(place) for place in places_of(record))

    def _plan_all(self, items: list[Item], planned: dict[str, tuple[Planned, Item]], stored: dict[str, Record]) -> None:
        with self._tally.busy("check"):
            own = {p.record.id for item in items for p in item.records}
            current = {i for i, record in stored.items() if i in own and same_record(record, planned[i][0])}
            movable = [
                record_id
                for record_id, record in stored.items()
                if record_id in own
                and record_id not in current
                and same_vector(record, planned[record_id][0], planned[record_id][1].digest)
            ]
            vectors = {record.id: record.vector for record in self._get(movable, with_vectors=True)}
        self.expected.update(own)
        for item in items:
            if self._stopped():
                return
            self._plan(item, stored, current, vectors)
            # Only digest and path are needed from now on.
            item.records = item.records[:0]

    def _get(self, ids: list[str], *, with_vectors: bool = False) -> Iterator[Record]:
        for piece in in_pieces(ids, GET_IDS):
            yield from self._backend.get(self._collection, piece, with_vectors=with_vectors)

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
        outcome: Outcome = _outcome(item, embed, stored) if embed or kept else "unchanged"
        main = item.records[0].record.id
        if self._merging and main not in self._waiting:
            # `run` has counted the first place; this is a further one.
            path, outcome = display(self._copies[main][0].entry.path), "duplicates"
        if not embed and not kept:
            self._tally.finish(path, outcome)
            return
        for note in item.notes:
            self._tally.note(item.entry, note)
        self._add(item, Work(path, outcome, len(embed) + len(kept)), embed, kept)

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
    moved = whereabouts(stored[main.record.id]).isdisjoint(whereabouts(main.record))
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
