"""`index`: bring a collection up to date with a source, embedding only what is new."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

from backends.base import (
    Backend,
    BackendError,
    CollectionExists,
    CollectionNotFound,
    CollectionSpec,
    IndexSpec,
    Metric,
)
from indexers.copies import Territory
from indexers.embedding import Embedder
from indexers.items import Reader
from indexers.ledger import Ledger
from indexers.passages import passage_words
from indexers.pipeline import Pipeline, Plan
from indexers.planner import Planner
from indexers.progress import Meter, Progress
from indexers.removal import Removed, count_from, remove_stale, vanished
from indexers.report import IndexingError, IndexReport, NothingListed, Stopped, escaped_line
from indexers.sources import Listing, Source, open_source
from indexers.tally import Tally
from indexers.text_side import STAGE, encode_texts_anew
from retrieval.encoders.base import Encoder
from retrieval.encoders.text_side import has_earlier_texts
from retrieval.images.decode import available_cores
from retrieval.images.pool import shared_pool
from retrieval.places import is_there

DEFAULT_INDEX = IndexSpec()
MAX_THREADS = 8
MORE_PIXELS = "--max-pixels, or the setting max_pixels, allows more"


def index(
    source: Source | str | Path,
    backend: Backend,
    encoder: Encoder,
    collection: str,
    *,
    ledger: Path | None = None,
    prune: bool = False,
    prune_empty: bool = False,
    batch_size: int = 64,
    max_pixels: int | None = None,
    metric: Metric = "cosine",
    index: IndexSpec = DEFAULT_INDEX,
    progress: Callable[[Progress], None] | None = None,
    stop: threading.Event | None = None,
) -> IndexReport:
    """Bring `collection` up to date with `source` and say what was found and done.

    Only what the backend does not have is embedded: interrupted in whatever way, a rerun goes on from there, and
    ends in the state an uninterrupted run ends in. Where an earlier text side of the encoder filled the collection, all
    its texts are first encoded anew (`indexers.text_side`). Content that lies at several places is one item with all of
    them; a file indexed from two sources belongs to the one that was indexed last. Ctrl-C ends the run as `stop` does.

        report = index("photos", backend, load_encoder("compact"), "photos")
        print(report.indexed, report.quarantined)

    Args:
        source: a folder, a manifest, or a `Source`.
        encoder: one that filled the collection, if it is there. Its optional hints are told at `Encoder`.
        collection: made if it is missing, with `metric` and `index`.
        ledger: the file of a cache of content hashes, which saves reading unchanged images again and may be
            deleted at any time.
        prune: remove what the source has lost, and of a folder all below it whose file is gone, whatever run brought
            it; the path itself may be gone, see `prune_empty`.
        prune_empty: let `prune` take a source with nothing in it, which may just be a disk that is not mounted.
        batch_size: items stored at once.
        max_pixels: images with more are quarantined; 300 million for JPEG and 100 million for others unless given.
        progress: called from this thread, at most ten times a second.
        stop: when set, ends the run after the picture in hand, or a second of the encoder's work; what is
            embedded by then is stored, and the report says `interrupted`.

    Returns:
        What was found, embedded, removed and quarantined.

    Raises:
        IndexingError: whatever a person has to change first, such as a collection that another encoder filled.
        ValueError: impossible arguments.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    chosen = source if isinstance(source, Source) else (vanished(source) if prune else None) or open_source(source)
    if prune and not chosen.whole:
        raise IndexingError("prune does not go with standard input, which never says all there is")
    run = _Run(chosen, backend, encoder, collection, progress, stop or threading.Event())
    try:
        exists = run.check_collection()
        is_gone = prune and chosen.kind == "folder" and not is_there(chosen.root)
        if is_gone and not (exists and count_from(backend, collection, chosen)):
            # Nothing came from it: it is misspelt, rather.
            open_source(chosen.root)
        listing = run.list() if run.bring_texts_up_to_date() else None
        if listing is None:
            return run.report(Listing())
        if prune and not prune_empty:
            run.refuse_empty_prune(listing, exists)
        if not exists and listing.entries:
            with suppress(CollectionExists):
                backend.create(CollectionSpec(collection, encoder.dim, metric, encoder.fingerprint, index))
            # Someone else may have been faster, perhaps with another encoder.
            exists = run.check_collection()
        with ExitStack() as stack:
            cache = None if ledger is None else stack.enter_context(Ledger(ledger))
            run.embed(listing, cache, batch_size, max_pixels)
            if exists and run.complete:
                run.remove(listing, prune, cache)
    except BackendError as error:
        raise IndexingError(escaped_line(str(error), 1000)) from error
    return run.report(listing)


class _Run:
    """The steps of one call of `index`."""

    def __init__(
        self,
        source: Source,
        backend: Backend,
        encoder: Encoder,
        collection: str,
        progress: Callable[[Progress], None] | None,
        stop: threading.Event,
    ) -> None:
        self._source, self._backend, self._encoder, self._collection = source, backend, encoder, collection
        self._progress, self._stop = progress, stop
        self._start_s = time.perf_counter()
        self._tally, self._meter = Tally(), Meter()
        self._expected: set[str] = set()
        self._removed = Removed(0, 0)
        self._total: int | None = None
        self._texts_are_earlier = False
        self.complete = True

    def check_collection(self) -> bool:
        """Whether the collection is there. Raises `IndexingError` if this encoder's vectors have no place in it."""
        try:
            spec = self._backend.describe(self._collection)
        except CollectionNotFound:
            return False
        encoder = self._encoder
        self._texts_are_earlier = has_earlier_texts(spec.encoder, encoder) and spec.dim == encoder.dim
        if not self._texts_are_earlier and (spec.encoder, spec.dim) != (encoder.fingerprint, encoder.dim):
            raise IndexingError(
                f"collection {self._collection!r} was filled by encoder {spec.encoder!r} ({spec.dim} dimensions); "
                f"{encoder.name} is {encoder.fingerprint!r} ({encoder.dim} dimensions): "
                "name another collection, or drop this one"
            )
        return True

    def bring_texts_up_to_date(self) -> bool:
        """Encode stored texts anew if an earlier text side of the encoder encoded them; False if interrupted."""
        if not self._texts_are_earlier:
            return True
        meter = Meter()

        def tell(done: int, total: int) -> None:
            if self._progress is not None:
                self._progress(meter.read(STAGE, done, total, len(self._tally.quarantined), ""))

        try:
            self.complete = encode_texts_anew(
                self._backend, self._encoder, self._collection, self._tally, tell=tell, stopped=self._stop.is_set
            )
        except KeyboardInterrupt:
            self._stop.set()
            self.complete = False
        self._texts_are_earlier = not self.complete
        return self.complete

    def list(self) -> Listing | None:
        """The source's listing; None if interrupted."""
        self._tell("listing")
        if self._source.kind == "folder" and not is_there(self._source.root):
            # What is pruned may be gone as a whole.
            self._total = 0
            return Listing()
        try:
            with self._tally.busy("list"):
                listing = self._source.listing(self._stop)
        except (KeyboardInterrupt, Stopped):
            self._stop.set()
            self.complete = False
            return None
        self._tally.quarantined += listing.quarantined
        self._tally.notes += listing.notes
        self._total = len(listing.entries)
        return listing

    def refuse_empty_prune(self, listing: Listing, exists: bool) -> None:
        """Raise `IndexingError` if pruning would remove everything because the source looks empty."""
        if listing.entries or not exists:
            return
        stored = count_from(self._backend, self._collection, self._source)
        if stored:
            nothing = "has nothing in it that is read" if listing.left_out else "has nothing in it"
            what = nothing if is_there(self._source.root) else "is not there"
            raise NothingListed(
                f"{self._source.name} {what}, but {stored} records came from it: is the disk mounted? "
                "To remove them all, say so: prune_empty, or --prune-empty"
            )

    def embed(self, listing: Listing, ledger: Ledger | None, batch_size: int, max_pixels: int | None) -> None:
        """Embed and store what the backend does not have."""
        if not listing.entries:
            return
        words = passage_words(getattr(self._encoder, "context_length", None))
        reader = Reader(self._source, ledger, words, max_pixels, MORE_PIXELS)
        embedder = Embedder(self._encoder, self._tally)
        with shared_pool() as pool:
            planner = Planner(
                reader,
                self._backend,
                self._collection,
                self._tally,
                batch_size=batch_size,
                threads=min(MAX_THREADS, available_cores()),
                decode_size=getattr(self._encoder, "decode_size", None),
                pool=pool,
                territory=self._territory(listing),
            )
            plan: Plan = partial(planner.run, listing.entries)
            while True:
                pipeline = Pipeline(self._backend, self._collection, embedder, self._tally, self._stop)
                pipeline.start(plan)
                pipeline.wait(lambda: self._tell("indexing"))
                # What is at several places is put together when all is stored, and nothing is embedded twice.
                if not pipeline.complete or not planner.has_copies or plan == planner.merge:
                    break
                plan = planner.merge
        self.complete = pipeline.complete
        self._expected = planner.expected

    def _territory(self, listing: Listing) -> Territory:
        return Territory(self._source, listing, self._tally.kept_on_error)

    def remove(self, listing: Listing, prune: bool, ledger: Ledger | None) -> None:
        """Remove what the source replaced or lost, and let the engine settle."""
        self._tell("pruning")
        try:
            with self._tally.busy("remove"):
                self._removed = remove_stale(
                    self._backend,
                    self._collection,
                    self._source,
                    self._territory(listing),
                    expected=self._expected,
                    prune=prune,
                    sure=not self._tally.kept_on_error,
                    stop=self._stop,
                )
                if prune and ledger is not None:
                    ledger.keep_only(self._source.root, {entry.path for entry in listing.entries})
            with self._tally.busy("flush"):
                self._backend.flush(self._collection)
        except (KeyboardInterrupt, Stopped):
            # Deleting goes by id: whatever is left is found again.
            self.complete = False

    def _tell(self, stage: str) -> None:
        if self._progress is not None:
            tally = self._tally
            total = None if self._total is None else self._total + tally.counts["more"]
            self._progress(self._meter.read(stage, tally.done, total, len(tally.quarantined), tally.path))

    def report(self, listing: Listing) -> IndexReport:
        """The report, after a last word to `progress`."""
        tally = self._tally
        self._tell("done")
        return IndexReport(
            found=len(listing.entries) + tally.counts["more"],
            **{name: tally.counts[name] for name in _COUNTS},
            pruned=self._removed.pruned,
            missing=self._removed.missing,
            ignored=listing.ignored,
            not_read=listing.not_read(),
            quarantined=sorted(tally.quarantined, key=lambda item: (item.path, item.reason)),
            notes=sorted(
                (item for item in tally.notes if item.path not in tally.kept_on_error),
                key=lambda item: (item.path, item.reason),
            ),
            seconds={**{stage: tally.seconds[stage] for stage in _STAGES}, "wall": time.perf_counter() - self._start_s},
            interrupted=not self.complete,
        )


_COUNTS = ("indexed", "unchanged", "renamed", "duplicates", "updated", "images", "texts", "unreadable", "reencoded")
_STAGES = ("list", "hash", "check", "decode", "encode", "upsert", "remove", "flush")
