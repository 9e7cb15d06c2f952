"""The stages as threads: plan (read, hash, check) -> decode -> embed -> store, joined by queues of one batch.

At most three batches exist beside the one being stored, each of bounded decoded size, and no more pictures than
one batch has are decoded ahead of the encoder, so memory does not grow with the source. The calling thread only
waits, so that Ctrl-C interrupts no embedding or write.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeAlias, TypeVar

from backends.base import Backend, BackendError, Record
from indexers.embedding import Embedder
from indexers.planner import Batch
from indexers.report import IndexingError, escaped_line
from indexers.tally import Tally, Work

POLL_S = 0.1
T = TypeVar("T")
#: The first stage: hands on batches, asks whether it is to stop, and returns False if that was before the end.
Plan: TypeAlias = Callable[[Callable[[Batch], None], Callable[[], bool]], bool]


class Aborted(Exception):
    """Another stage failed: this one has nothing left to do."""


class _Pipe(Generic[T]):
    """A bounded queue between two stages that ends when the run is aborted."""

    def __init__(self, abort: threading.Event) -> None:
        self._queue: queue.Queue[T | None] = queue.Queue(maxsize=1)
        self._abort = abort

    def put(self, value: T | None) -> None:
        """Hand over a value, or None for the end, waiting for room. Raises `Aborted`."""
        while not self._abort.is_set():
            try:
                self._queue.put(value, timeout=POLL_S)
                return
            except queue.Full:
                continue
        raise Aborted

    def get(self) -> T | None:
        """The next value, None at the end. Raises `Aborted`."""
        while not self._abort.is_set():
            try:
                return self._queue.get(timeout=POLL_S)
            except queue.Empty:
                continue
        raise Aborted


@dataclass(slots=True)
class Pipeline:
    """One run of the stages. `stop` has what was embedded so far be stored; the rest is left for a rerun."""

    backend: Backend
    collection: str
    embedder: Embedder
    tally: Tally
    stop: threading.Event
    complete: bool = True
    _abort: threading.Event = field(default_factory=threading.Event)
    _errors: list[BaseException] = field(default_factory=list)
    # Not the threads themselves: a join that Ctrl-C breaks off takes the thread for ended.
    _ended: list[threading.Event] = field(default_factory=list)

    def start(self, plan: Plan) -> None:
        """Start the stages; `wait` returns when they have ended. plan: hands on batches until it is stopped."""
        batches: _Pipe[Batch] = _Pipe(self._abort)
        vectors: _Pipe[list[tuple[Work, Record]]] = _Pipe(self._abort)
        for name, stage in (
            ("plan", lambda: self._plan(plan, batches)),
            ("embed", lambda: self._embed(batches, vectors)),
            ("store", lambda: self._store(vectors)),
        ):
            ended = threading.Event()
            self._ended.append(ended)
            threading.Thread(target=self._guard, args=(stage, ended), name=name, daemon=True).start()

    def wait(self, tick: Callable[[], None]) -> None:
        """Return when all stages have ended, calling `tick` now and then. Raises what a stage raised first.

        A KeyboardInterrupt sets `stop`; a second one ends the wait at once and is raised.
        """
        last_s = time.monotonic()
        while not all(ended.is_set() for ended in self._ended):
            try:
                for ended in self._ended:
                    ended.wait(POLL_S / 2)
                if time.monotonic() - last_s >= POLL_S:
                    last_s = time.monotonic()
                    tick()
            except KeyboardInterrupt:
                if self.stop.is_set():
                    self._abort.set()
                    raise
                self.stop.set()
            except BaseException:
                # The caller's own progress function failed: the stages must not go on unseen.
                self._abort.set()
                for ended in self._ended:
                    ended.wait()
                raise
        if self._errors:
            raise self._errors[0]

    def _guard(self, stage: Callable[[], None], ended: threading.Event) -> None:
        try:
            stage()
        except Aborted:
            return
        except BaseException as error:
            self._errors.append(error)
            self._abort.set()
        finally:
            ended.set()

    def _plan(self, plan: Plan, out: _Pipe[Batch]) -> None:
        if not plan(out.put, lambda: self.stop.is_set() or self._abort.is_set()):
            self.complete = False
        out.put(None)

    def _embed(self, batches: _Pipe[Batch], out: _Pipe[list[tuple[Work, Record]]]) -> None:
        while (batch := batches.get()) is not None:
            if self.stop.is_set():
                batch.drop()
                self.complete = False
                continue
            records, whole = self.embedder.embed(batch, lambda: self.stop.is_set() or self._abort.is_set())
            if not whole:
                self.complete = False
            out.put(records)
        out.put(None)

    def _store(self, vectors: _Pipe[list[tuple[Work, Record]]]) -> None:
        while (records := vectors.get()) is not None:
            with self.tally.busy("upsert"):
                self._upsert(records)

    def _upsert(self, batch: list[tuple[Work, Record]]) -> None:
        if not batch:
            return
        try:
            self.backend.upsert(self.collection, [record for _, record in batch])
        except BackendError as error:
            raise IndexingError(
                f"storing stopped: {escaped_line(str(error))}; what was stored stays, a rerun goes on from there"
            ) from error
        except ValueError as error:
            # All are checked before any is stored, so one bad record keeps its whole batch out.
            if len(batch) == 1:
                self.tally.fail(batch[0][0], str(error))
                return
            for pair in batch:
                self._upsert([pair])
            return
        for work, _ in batch:
            self.tally.stored(work)
