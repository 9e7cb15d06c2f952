"""Micro-batching: the texts of many callers in one call of the encoder."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from retrieval.encoders.base import Encoder, EncoderError, ImageInput

MAX_BATCH = 64
MAX_WAITING = 1024

Rows: TypeAlias = NDArray[np.float32]


class Overloaded(EncoderError):
    """More texts are waiting to be encoded than the queue takes: try again in a moment."""


class BatchedEncoder:
    """An encoder whose `encode_texts` shares its batches among all threads that call it.

    While one batch is encoded the next one gathers: nobody waits for company, so a lone caller pays
    for a change of thread only, and batches grow with the load. Images go straight to the encoder.
    Vectors may differ from those of a call alone by rounding, because of the padding.

    max_batch: texts in one call of the encoder; a longer request has a batch of its own.
    max_waiting: texts that may wait; a request that finds no room raises `Overloaded` at once.
    observe: called with the size of each batch, in texts, before it is encoded.

    An error of the encoder reaches only those whose texts cause it: the requests of a batch that fails
    are encoded again one by one. `close` ends the thread; what waits then is still encoded.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        max_batch: int = MAX_BATCH,
        max_waiting: int = MAX_WAITING,
        observe: Callable[[int], None] | None = None,
    ) -> None:
        if max_batch < 1 or max_waiting < 1:
            raise ValueError(f"max_batch and max_waiting must be at least 1, not {max_batch} and {max_waiting}")
        self._encoder = encoder
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._observe = observe
        self._waiting: deque[tuple[Sequence[str], Future[Rows]]] = deque()
        self._waiting_texts = 0
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="encode texts", daemon=True)
        self._thread.start()

    @property
    def encoder(self) -> Encoder:
        """The wrapped one."""
        return self._encoder

    @property
    def name(self) -> str:
        """The wrapped encoder's."""
        return self._encoder.name

    @property
    def fingerprint(self) -> str:
        """The wrapped encoder's: the space is the same."""
        return self._encoder.fingerprint

    @property
    def dim(self) -> int:
        """The wrapped encoder's."""
        return self._encoder.dim

    @property
    def waiting(self) -> int:
        """Texts that wait for the batch being encoded to end."""
        return self._waiting_texts

    def __getattr__(self, name: str) -> Any:
        # The optional hints of the protocol, and what an encoder can do beyond it.
        return getattr(self._encoder, name)

    def encode_images(self, images: Sequence[ImageInput]) -> Rows:
        """The wrapped encoder's."""
        return self._encoder.encode_images(images)

    def encode_texts(self, texts: Sequence[str]) -> Rows:
        """(n, dim) float32 rows of unit length, in the order given. Raises `Overloaded` and the encoder's errors."""
        if not texts:
            return self._encoder.encode_texts(texts)
        answer: Future[Rows] = Future()
        with self._changed:
            if self._closed:
                raise EncoderError("the encoder is closed")
            # A request larger than the whole queue is served when nothing else waits, not refused for ever.
            if self._waiting and self._waiting_texts + len(texts) > self._max_waiting:
                raise Overloaded(f"{self._waiting_texts} texts are waiting to be encoded: try again in a moment")
            self._waiting.append((texts, answer))
            self._waiting_texts += len(texts)
            self._changed.notify()
        return answer.result()

    def close(self) -> None:
        """Encode what waits, then end. The wrapped encoder stays usable."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _run(self) -> None:
        while batch := self._next_batch():
            if self._observe is not None:
                self._observe(sum(len(texts) for texts, _ in batch))
            self._encode(batch)

    def _next_batch(self) -> list[tuple[Sequence[str], Future[Rows]]]:
        """The requests whose texts fit into one batch, at least one; none at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            batch: list[tuple[Sequence[str], Future[Rows]]] = []
            room = self._max_batch
            while self._waiting and (not batch or len(self._waiting[0][0]) <= room):
                batch.append(self._waiting.popleft())
                room -= len(batch[-1][0])
                self._waiting_texts -= len(batch[-1][0])
            return batch

    def _encode(self, batch: list[tuple[Sequence[str], Future[Rows]]]) -> None:
        try:
            rows = self._encoder.encode_texts([text for texts, _ in batch for text in texts])
        except Exception as error:
            if len(batch) == 1:
                batch[0][1].set_exception(error)
                return
            for request in batch:
                self._encode([request])
            return
        start = 0
        for texts, answer in batch:
            answer.set_result(rows[start : start + len(texts)])
            start += len(texts)
