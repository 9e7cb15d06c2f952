"""What the routes share: store, encoder, jobs, roots, limits and figures of one running service."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

from PIL import Image

import indexers
from app.core.fetch import Address, Fetcher
from app.core.hosts import HostList
from app.core.jobs import IndexJobs, Job
from app.core.llm import LoadModel
from app.core.roots import Roots, RootsError
from app.core.uploaded import UploadedFiles
from app.http.access import Access
from app.http.encoders import Encoders, LoadEncoder
from app.http.limits import FairSemaphore, Limits, Place, Places
from app.http.observing import Metrics, TimedProxy
from app.http.problems import Refused
from app.http.thumbnails import Thumbnails
from app.http.turns import Chats
from backends.base import Backend, BackendError, CollectionNotFound
from backends.checks import check_collection_name
from backends.wrappers.breaker import Breaker
from backends.wrappers.timing import TimedBackend
from indexers import IndexingError, IndexReport, Progress
from retrieval.encoders.base import Encoder, EncoderError
from retrieval.encoders.batching import BatchedEncoder, Overloaded
from retrieval.images.plan import Wanted
from retrieval.images.pool import Bounds, DecodingBusy, shared_pool
from retrieval.search.query import SearchError
from retrieval.search.retriever import Retriever

log = logging.getLogger(__name__)

NO_HOSTS = HostList()
#: How long the service waits at its end for what it does at its start.
PREPARED_WITHIN_S = 5.0
_STORE_STAGES = {"search": "search", "search_text": "search", "get": "fetch"}
_ENCODER_STAGES = {"encode_texts": "encode", "encode_images": "encode"}


class Service:
    """One running service. `close` ends its jobs, which go on at the next start, and its threads."""

    def __init__(
        self,
        backend: Backend,
        encoder: Encoder,
        collection: str,
        *,
        home: Path,
        access: Access,
        roots: Roots,
        limits: Limits,
        batch_size: int,
        max_pixels: int | None = None,
        samples: Path | None = None,
        tracer: Any = None,
        load_model: LoadModel | None = None,
        jobs: Path | None = None,
        fetch_hosts: HostList = NO_HOSTS,
        load_encoder: LoadEncoder | None = None,
    ) -> None:
        # What only this process can open is never away, only locked for writing, which must not stop reading.
        guarded = Breaker(backend) if backend.capabilities.server else backend
        self.backend, self.encoder, self.collection = guarded, encoder, collection
        # Jobs wait for a database themselves, and may index a folder of uploads.
        self._unguarded = UploadedFiles(home / "uploads", backend).claiming()
        self.access, self.roots, self.limits, self.batch_size = access, roots, limits, batch_size
        #: What may be indexed, and shown of it; None for the usual.
        self.max_pixels = max_pixels
        self.uploads = UploadedFiles(home / "uploads", guarded)
        self._samples = samples
        self._ledger = home / "ledger.sqlite"
        self.thumbnails = Thumbnails(home / "thumbnails", limits.thumbnails_bytes)
        self.metrics = Metrics(tracer)
        self.encoders = Encoders(encoder, self._batching, load_encoder)
        self.metrics.gauge(
            "sightline_encoder_waiting_texts", "Texts that wait to be encoded.", lambda: self.encoders.waiting
        )
        #: Set when the service is told to end: streams close, nothing new is begun.
        self.stopping = threading.Event()
        self.requests = Places(limits.max_in_flight)
        self.streams = Places(limits.max_streams)
        self.large_bodies = Places(limits.max_large_bodies)
        self.fetcher = Fetcher(
            fetch_hosts,
            max_bytes=limits.max_body_bytes,
            max_fetches=limits.max_fetches,
            deadline_s=limits.fetch_s,
        )
        self._held = contextlib.ExitStack()
        self._pool = self._held.enter_context(shared_pool())
        self._decoders = FairSemaphore(limits.max_decoding)
        self._previews = FairSemaphore(limits.max_preview_decodes)
        self.metrics.gauge(
            "sightline_images_waiting", "Requests that wait to decode images.", lambda: self._decoders.waiting
        )
        self.metrics.gauge("sightline_requests_in_flight", "Requests that are worked on.", lambda: self.requests.taken)
        self._retrievers: dict[str, Retriever] = {}
        self._lock = threading.Lock()
        self._forgotten = 0
        self.chats = Chats(load_model, limits.max_chats)
        self.metrics.gauge("sightline_chats_running", "Questions that are being answered.", lambda: self.chats.running)
        self.jobs = IndexJobs(jobs or home / "jobs", self._index)
        self.metrics.jobs(lambda: Counter(job.state for job in self.jobs.listed()))
        self._preparing: threading.Thread | None = None

    def prepare(self) -> None:
        """Begin in a thread what the first search would wait for: loading the encoder, and what relevance is judged by.

        What cannot be done yet, as there is no collection or no database, is left to that search.
        """
        self._preparing = threading.Thread(target=self._prepare, name="sightline-prepare", daemon=True)
        self._preparing.start()

    def _prepare(self) -> None:
        try:
            self.retriever(None).prepare()
        except CollectionNotFound:
            pass  # said at the start, and nothing to prepare
        except (BackendError, EncoderError, SearchError) as error:
            log.info("not prepared for the first search: %s: %s", type(error).__name__, error)
        self.uploads.sweep()

    def _batching(self, encoder: Encoder) -> BatchedEncoder:
        return BatchedEncoder(encoder, max_waiting=self.limits.max_waiting_texts, observe=self.metrics.batches.observe)

    def retriever(self, name: str | None) -> Retriever:
        """Search over a collection, the default one for None. Raises `CollectionNotFound`, `EncoderMismatch`.

        Where the name stands for another collection since, with an encoder that is not loaded, the earlier one is
        searched until it is.
        """
        wanted = name or self.collection
        kept = self._retrievers.get(wanted)
        if kept is not None and not (kept.outdated and self._may_replace(kept)):
            return kept
        check_name(wanted)
        forgotten = self._forgotten
        staged = TimedBackend(self.backend, _STORE_STAGES, self.metrics.stage)
        encoder = TimedProxy(self.encoders.of(self.backend.describe(wanted).encoder), self.metrics, _ENCODER_STAGES)
        made = Retriever(staged, cast(Encoder, encoder), wanted, samples=self._samples)
        if kept is not None:
            with self._lock:
                self._retrievers.pop(wanted, None)
        for notice in made.notices:
            log.warning("%s", notice)
        with self._lock:
            # One that was dropped while this looked at it is not kept.
            return self._retrievers.setdefault(wanted, made) if forgotten == self._forgotten else made

    def _may_replace(self, kept: Retriever) -> bool:
        """Whether what the name stands for now can be searched at once; if not, that is seen to."""
        stored = self.backend.describe(kept.name).encoder
        return self.encoders.kept(stored) is not None or not self.encoders.begin(stored)

    def stream_place(self) -> Place:
        """A place for a stream, to be left at its end. Raises `Refused` with 503 where there is none."""
        place = self.streams.take()
        if place is None:
            raise Refused(503, f"{self.streams.taken} streams are open: try again later", {"Retry-After": "10"})
        return place

    @contextlib.contextmanager
    def decoding(self, *, briefly: bool = False) -> Iterator[None]:
        """Hold decoded images of a request only inside: few may at a time. Raises `Overloaded`.

        briefly: for what only decodes, so that it need not wait for those that encode what they decoded.
        """
        room = self._previews if briefly else self._decoders
        if not room.enter(self.limits.decoding_wait_s):
            raise Overloaded("too many images are being worked on: try again in a moment")
        try:
            yield
        finally:
            room.leave()

    def load(self, data: bytes, wanted: Wanted, *, max_pixels: int | None = None) -> Image.Image:
        """A picture that somebody sent, decoded in a process of its own within the limits.

        max_pixels: if fewer than the limits say. Raises `ImageError`, `Overloaded`.
        """
        return self._load(data, wanted, self.limits.max_pixels if max_pixels is None else max_pixels)

    def _load(self, data: bytes, wanted: Wanted, max_pixels: int | None, *, part: str = "") -> Image.Image:
        limits = self.limits
        bounds = Bounds(
            max_pixels=max_pixels,
            cpu_s=limits.picture_s,
            largest_bytes=limits.picture_bytes,
            wait_s=limits.decoding_wait_s,
        )
        try:
            return self._pool.load(data, wanted, bounds, part=part)
        except DecodingBusy as error:
            raise Overloaded(str(error)) from None

    def encoder_of(self, name: str) -> BatchedEncoder:
        """The encoder of a collection. Raises `CollectionNotFound`."""
        return self.encoders.of(self.backend.describe(name).encoder)

    def load_stored(self, data: bytes, wanted: Wanted, *, part: str) -> Image.Image:
        """The picture of an item, or of a part of its file, decoded likewise, of as many pixels as are indexed.

        Raises `ImageError`, `Overloaded`.
        """
        return self._load(data, wanted, self.max_pixels, part=part)

    @contextlib.contextmanager
    def fetched(self, address: Address) -> Iterator[bytes]:
        """The image file at a checked address, for as long as it is needed. Raises `FetchError`, `Overloaded`."""
        with contextlib.ExitStack() as held:
            with self.metrics.stage("download"):
                data = held.enter_context(self.fetcher.fetched(address))
            yield data

    def forget(self, name: str) -> None:
        """Look at the collection afresh at its next use."""
        with self._lock:
            self._forgotten += 1
            self._retrievers.pop(name, None)
        self.chats.forget(name)

    def stop(self) -> None:
        """Begin to end: streams close, turns are cancelled, the running job stores its batch. From any thread."""
        self.stopping.set()
        self.chats.stop()
        self.jobs.stop()

    def close(self) -> None:
        """End all threads; what is queued or running is taken up at the next start."""
        self.stop()
        self.chats.close()
        self.jobs.close()
        if self._preparing is not None:
            self._preparing.join(PREPARED_WITHIN_S)
        self.encoders.close()
        self._held.close()

    def _index(self, job: Job, tell: Callable[[Progress], None], stop: threading.Event) -> IndexReport:
        # Looked at again, as it may have become a link since, or the roots others.
        try:
            folder = self.roots.folder(job.source)
        except RootsError as error:
            raise IndexingError(str(error)) from None
        encoder: Encoder = self.encoder
        # A new one is filled by the service's own.
        with contextlib.suppress(CollectionNotFound):
            encoder = self.encoder_of(job.collection).encoder
        return indexers.index(
            folder,
            self._unguarded,
            encoder,
            job.collection,
            ledger=self._ledger,
            prune=job.prune,
            batch_size=self.batch_size,
            max_pixels=self.max_pixels,
            progress=tell,
            stop=stop,
        )


def picture_size(encoder: Encoder) -> Wanted:
    """What an encoder can make use of: images are decoded as they are when they are indexed."""
    return Wanted(getattr(encoder, "decode_size", None))


def check_name(name: str) -> None:
    """Raise `CollectionNotFound` for what cannot be the name of a collection."""
    try:
        check_collection_name(name)
    except ValueError:
        raise CollectionNotFound(f"there is no collection {name[:80]!r}") from None
