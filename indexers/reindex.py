"""Giving a collection another encoder while it is searched: a shadow is filled, compared, and takes its name at once.

Only embeddings are made anew: the records are the stored ones. Until the switch the collection is what it was, and
afterwards it stays, under the name of the collection and ``-before``, until somebody drops it.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Container, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from PIL import Image

from backends.base import Backend, CollectionExists, CollectionSpec, Record
from backends.checks import payload
from backends.kit.parts import in_pieces
from backends.urls import local_path
from backends.wrappers import aliases
from backends.wrappers.aliases import Aliased
from indexers.comparison import Comparison, compare
from indexers.embedding import Embedder
from indexers.files import MAX_IMAGE_BYTES, Unreadable, read_bounded
from indexers.items import image_reason
from indexers.planner import GET_IDS, MAX_PICTURE_BYTES, Batch, Decoding, Room
from indexers.progress import Meter, Progress
from indexers.report import IndexingError, Quarantined, check_stopped
from indexers.tally import Tally, Work
from indexers.text_side import embedded_text
from retrieval.encoders.base import Encoder
from retrieval.images.decode import ImageError
from retrieval.images.parts import part_of
from retrieval.images.plan import Wanted
from retrieval.images.pool import Bounds, DecodePool, shared_pool
from retrieval.places import existing_uri

__all__ = ["ReindexReport", "before_name", "reindex"]

#: Records read, embedded and stored together.
BATCH = 64
#: Passes over the collection until one finds nothing new. Whoever writes faster than that is told to stop.
PASSES = 5
STAGE = "encoding anew"


@dataclass(frozen=True, slots=True)
class ReindexReport:
    """What was done: records `encoded` now and `there` from an earlier run, `failed` ones, and how both sides compare.

    `switched`: whether the name stands for the new vectors now; `before` is what the earlier ones are called then.
    """

    collection: str
    encoder: str
    encoded: int
    there: int
    failed: list[Quarantined]
    comparison: Comparison | None
    switched: bool
    before: str | None
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON types."""
        return asdict(self)


def reindex(
    backend: Aliased,
    collection: str,
    encoder: Encoder,
    *,
    switch: bool = True,
    allow_failed: bool = False,
    progress: Callable[[Progress], None] | None = None,
    stop: threading.Event | None = None,
) -> ReindexReport:
    """Fill a shadow of `collection` with vectors of `encoder`, compare the two, and let the name stand for the shadow.

    Run again after an interruption it goes on where it was. What is written to the collection meanwhile is carried
    over, until the switch and once more when every program has noticed it; what is written by the new name since then
    stays as it is. Images are read from where their records say; a record whose image cannot be read or encoded is not
    in the shadow, and there is no switch then unless `allow_failed`.

    Args:
        switch: False fills and compares only; a later run switches.

    Raises:
        IndexingError: the collection is of this encoder already, what was before the last switch is still there, or
            records come faster than they can be encoded.
        BackendError: the engine's own.
        Stopped: `stop` was set; what was finished is stored.
    """
    begun_s = time.perf_counter()
    source = backend.resolved(collection)
    shadow = _shadow(backend, collection, source, encoder)
    filling = _Filling(backend.inner, source, shadow, encoder, progress, stop)
    with shared_pool() as pool:
        for _ in range(PASSES):
            if not filling.run(pool):
                break
        else:
            raise IndexingError(
                f"{collection!r} is written to faster than it can be encoded anew: stop that, run again"
            )
        backend.inner.flush(shadow)
        comparison = compare(backend.inner, source, shadow)
        check_stopped(stop)
        switched = switch and (allow_failed or not filling.failed)
        if switched:
            backend.point({collection: shadow, before_name(collection): source})
            # Other programs write to what they last saw the name stand for.
            time.sleep(aliases.SEEN_S)
            filling.catch_up(pool)
    return ReindexReport(
        collection=collection,
        encoder=encoder.name,
        encoded=filling.encoded,
        there=filling.there,
        failed=list(filling.failed.values()),
        comparison=comparison,
        switched=switched,
        before=before_name(collection) if switched else None,
        seconds=time.perf_counter() - begun_s,
    )


def before_name(collection: str) -> str:
    """What a collection is called after another has taken its name."""
    return f"{collection[:56]}-before"


def _shadow(backend: Aliased, collection: str, source: str, encoder: Encoder) -> str:
    """The name of the collection to be filled, which is made unless an earlier run did."""
    spec = backend.inner.describe(source)
    if spec.encoder == encoder.fingerprint:
        raise IndexingError(f"collection {collection!r} is of the encoder {encoder.name} already")
    before = before_name(collection)
    # Where it stands for the source itself, an earlier run was killed in the middle of the switch.
    if before in backend.collections() and backend.resolved(before) != source:
        raise IndexingError(f"what {collection!r} was before its last change is still there: sightline drop {before}")
    digest = hashlib.blake2b(f"{source}\0{encoder.fingerprint}".encode(), digest_size=6).hexdigest()
    name = f"{collection[:48]}-{digest}"
    wanted = CollectionSpec(name, encoder.dim, spec.metric, encoder.fingerprint, spec.index)
    with suppress(CollectionExists):
        backend.inner.create(wanted)
    return name


class _Filling:
    """Brings the shadow up to the source, pass by pass."""

    def __init__(
        self,
        backend: Backend,
        source: str,
        shadow: str,
        encoder: Encoder,
        progress: Callable[[Progress], None] | None,
        stop: threading.Event | None,
    ) -> None:
        self._backend, self._source, self._shadow = backend, source, shadow
        self._encoder, self._progress, self._stop = encoder, progress, stop
        self._meter = Meter()
        self._wanted = Wanted(getattr(encoder, "decode_size", None))
        self.encoded, self.there = 0, -1
        self.failed: dict[str, Quarantined] = {}
        #: The records of the source at the last pass, each by its id as `_content` of it.
        self._passed: dict[str, int] = {}

    def run(self, pool: DecodePool) -> int:
        """Carry over what differs, and remove what has gone; how many records were changed."""
        changed, done, total = 0, 0, self._backend.count(self._source)
        there = 0
        seen: dict[str, int] = {}
        with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="decode") as threads:
            for page in self._backend.scan(self._source, with_vectors=False, batch=BATCH):
                check_stopped(self._stop)
                seen.update((record.id, _content(record)) for record in page.records)
                fresh = self._fresh(page.records)
                there += len(page.records) - len(fresh)
                changed += self._carry(fresh, pool, threads)
                done += len(page.records)
                self._tell(done, max(done, total))
        # What later passes find there, this run encoded.
        self.there = there if self.there < 0 else self.there
        self.encoded += changed
        self._passed = seen
        return changed + self._remove_gone(seen)

    def catch_up(self, pool: DecodePool) -> None:
        """Carry over what the source was given since the last pass.

        The shadow is written to as well by now: what differs from the last pass there stays as it is.
        """
        seen: set[str] = set()
        with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="decode") as threads:
            for page in self._backend.scan(self._source, with_vectors=False, batch=BATCH):
                seen.update(record.id for record in page.records)
                late = [r for r in page.records if self._passed.get(r.id) != _content(r)]
                untouched = self._untouched([record.id for record in late])
                self.encoded += self._carry([record for record in late if record.id in untouched], pool, threads)
        for piece in in_pieces([each for each in self._passed if each not in seen], GET_IDS):
            there = {record.id for record in self._backend.get(self._source, piece)}
            gone = self._untouched([each for each in piece if each not in there])
            self._backend.delete(self._shadow, ids=sorted(gone))

    def _untouched(self, ids: Sequence[str]) -> set[str]:
        """Those that the shadow has as the last pass left them, or does not have."""
        theirs = {record.id: _content(record) for record in self._backend.get(self._shadow, ids)} if ids else {}
        return {each for each in ids if each not in theirs or theirs[each] == self._passed.get(each)}

    def _fresh(self, records: Sequence[Record]) -> list[Record]:
        """Those that the shadow does not have as they are, without what failed before."""
        there = {r.id: payload(r) for r in self._backend.get(self._shadow, [record.id for record in records])}
        return [r for r in records if there.get(r.id) != payload(r) and r.id not in self.failed]

    def _carry(self, records: Sequence[Record], pool: DecodePool, threads: ThreadPoolExecutor) -> int:
        tally, room = Tally(), Room(len(records) or 1)
        batch = Batch()
        names: dict[int, Record] = {}
        for record in records:
            work = Work(str(record.metadata.get("path", record.id)), "indexed", 1)
            names[id(work)] = record
            if record.modality == "text":
                batch.texts.append((work, record, embedded_text(record)))
            else:
                batch.images.append((work, record, Decoding(threads.submit(self._pixels, record, pool), room)))
        works = [work for work, *_ in (*batch.images, *batch.texts)]
        encoded, _ = Embedder(self._encoder, tally).embed(batch)
        if encoded:
            self._backend.upsert(self._shadow, [record for _, record in encoded])
        reasons = {item.path: item for item in tally.quarantined}
        for work in works:
            if work.failed:
                self.failed[names[id(work)].id] = reasons[work.path]
        return len(encoded)

    def _pixels(self, record: Record, pool: DecodePool) -> Image.Image | str:
        uri = existing_uri(record)
        path = local_path(uri)
        if path is None:
            return f"its image is at {record.uri}, which is not on this machine" if record.uri else "it has no image"
        try:
            data, _ = read_bounded(path, MAX_IMAGE_BYTES)
            # As many pixels as are indexed, where nothing else is set.
            bounds = Bounds(None, largest_bytes=MAX_PICTURE_BYTES)
            return pool.load(data, self._wanted, bounds, part=part_of(uri))
        except ImageError as error:
            return image_reason(error)
        except Unreadable as error:
            return str(error)

    def _remove_gone(self, seen: Container[str]) -> int:
        gone = [
            record.id
            for page in self._backend.scan(self._shadow, with_vectors=False)
            for record in page.records
            if record.id not in seen
        ]
        # One that came after the scan had passed its place is looked for once more.
        there = {record.id for some in in_pieces(gone, GET_IDS) for record in self._backend.get(self._source, some)}
        return sum(
            self._backend.delete(self._shadow, ids=piece)
            for piece in in_pieces([each for each in gone if each not in there], GET_IDS)
        )

    def _tell(self, done: int, total: int) -> None:
        if self._progress is not None:
            self._progress(self._meter.read(STAGE, done, total, len(self.failed), ""))


def _content(record: Record) -> int:
    """A number that tells whether a record is as it was; of this process only."""
    *said, metadata = payload(record)
    return hash((*said, repr(sorted(metadata.items()))))
