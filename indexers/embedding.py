"""The encoder's stage: vectors for a batch, with whatever cannot be embedded quarantined one by one."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from backends.base import Record
from indexers.planner import Batch, Decoding
from indexers.report import IndexingError, escaped_line
from indexers.tally import Tally, Work
from retrieval.encoders.base import Encoder, EncoderError
from retrieval.encoders.text_side import to_store

#: After this many failures in a row, nothing in between having worked, it is the encoder that is broken.
MAX_FAILURES = 8
#: How long one call of the encoder is to take, so that a stop is heard of soon; so few inputs go in one call at first.
PIECE_S = 1.0
FEW = 8
IsStopped: TypeAlias = Callable[[], bool]
_Text: TypeAlias = tuple[Work, Record, str]


class Embedder:
    """Embeds batches with one encoder; not thread-safe, one thread has it.

    A batch goes through the encoder in pieces of about a second; the first, before it is known how long one takes, is a
    single input, or the whole batch where that has only a few. So whoever stops a run waits for a second, or one
    picture with its captions where that takes longer, however slow the encoder and large the batch. An encoder that
    takes several pictures side by side says so (`images_at_once`) and always gets so many.
    """

    def __init__(self, encoder: Encoder, tally: Tally) -> None:
        self._encoder, self._tally = encoder, tally
        self._failures = 0
        self._images, self._texts = _Pace(getattr(encoder, "images_at_once", 1)), _Pace(1)

    def embed(self, batch: Batch, stopped: IsStopped = lambda: False) -> tuple[list[tuple[Work, Record]], bool]:
        """The batch's records with their vectors, and whether these are all: not if stopped, but whole images.

        An image goes before its captions, so that those of a broken one are dropped, and both before the next ones.
        """
        done = list(batch.kept)
        # Let go of the pictures one by one: they hold the pixels.
        images, batch.images = deque(batch.images), []
        captions: dict[int, list[_Text]] = {id(work): [] for work, _, _ in images}
        texts: list[_Text] = []
        for text in batch.texts:
            if not text[0].failed:
                captions.get(id(text[0]), texts).append(text)
        while images and not stopped():
            piece = [images.popleft() for _ in range(self._images.next(len(images)))]
            done += self._encode(self._encoder.encode_images, self._decoded(piece), "images", self._images)
            with_them = [text for work, _, _ in piece if not work.failed for text in captions[id(work)]]
            done += self._in_pieces(with_them, lambda: False)[0]
        if images:
            batch.images = list(images)
            batch.drop()
            return _usable(done), False
        more, whole = self._in_pieces(texts, stopped)
        return _usable(done + more), whole

    def _decoded(self, piece: Sequence[tuple[Work, Record, Decoding]]) -> list[tuple[Work, Record, Any]]:
        pictures: list[tuple[Work, Record, Any]] = []
        for work, record, decoding in piece:
            decoded = decoding.result()
            if isinstance(decoded, str):
                self._tally.fail(work, decoded)
            else:
                pictures.append((work, record, decoded))
        return pictures

    def _in_pieces(self, texts: Sequence[_Text], stopped: IsStopped) -> tuple[list[tuple[Work, Record]], bool]:
        """The records of texts, and whether these are all."""
        done: list[tuple[Work, Record]] = []
        start = 0
        while start < len(texts):
            if stopped():
                return done, False
            piece = texts[start : start + self._texts.next(len(texts) - start)]
            start += len(piece)
            done += self._encode(self._encoder.encode_texts, piece, "texts", self._texts)
        return done, True

    def _encode(
        self,
        function: Callable[[Any], NDArray[np.float32]],
        inputs: Sequence[tuple[Work, Record, Any]],
        what: str,
        pace: _Pace,
    ) -> list[tuple[Work, Record]]:
        if not inputs:
            return []
        start_s = time.perf_counter()
        with self._tally.busy("encode"):
            vectors = self._vectors(function, [value for _, _, value in inputs], what)
        pace.took(len(inputs), time.perf_counter() - start_s)
        done: list[tuple[Work, Record]] = []
        for (work, record, _), vector in zip(inputs, vectors, strict=True):
            if isinstance(vector, str):
                self._tally.fail(work, vector)
            else:
                done.append((work, replace(record, vector=vector)))
        self._tally.count(what, len(done))
        self._tally.count("unreadable", sum(not record.has_vector for _, record in done))
        return done

    def _vectors(self, function: Callable[[Any], Any], values: list[Any], what: str) -> list[NDArray[np.float32] | str]:
        """A vector, or the reason why there is none, for each value; singly if they do not go together.

        Of texts that the encoder cannot read it is `NO_VECTOR`: they are stored, for keyword search alone.
        """
        try:
            vectors = np.asarray(function(values), dtype=np.float32)
        except EncoderError as error:
            raise IndexingError(
                f"the encoder {self._encoder.name} stopped working: {escaped_line(str(error))}"
            ) from error
        except Exception as error:
            if len(values) == 1:
                self._failed(error)
                return [f"the encoder failed on it: {escaped_line(str(error)) or type(error).__name__}"]
            return [self._vectors(function, [value], what)[0] for value in values]
        if vectors.shape != (len(values), self._encoder.dim):
            raise IndexingError(
                f"the encoder {self._encoder.name} gave an array of shape {vectors.shape} for {len(values)} inputs, "
                f"not ({len(values)}, {self._encoder.dim})"
            )
        self._failures = 0
        rows = to_store(vectors) if what == "texts" else list(vectors)
        usable = [bool(np.isfinite(row).all() and (row.any() or not len(row))) for row in rows]
        unusable = "the encoder gave a vector of zeros, or one that is not finite"
        return [row if fine else unusable for row, fine in zip(rows, usable, strict=True)]

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        if self._failures >= MAX_FAILURES:
            raise IndexingError(
                f"the encoder {self._encoder.name} failed on {self._failures} inputs in a row, "
                f"lastly with {type(error).__name__}: {escaped_line(str(error))}"
            ) from error


class _Pace:
    """How many inputs go into one call of an encoder that works at `at_once` of them side by side."""

    def __init__(self, at_once: int) -> None:
        self._at_once = max(1, at_once)
        self._size: int | None = None

    def next(self, left: int) -> int:
        """How many of those that are left, at least 1."""
        if self._size is None:
            return left if left <= FEW else min(left, self._at_once)
        return min(left, self._size)

    def took(self, count: int, seconds: float) -> None:
        """Learn from a call how long it takes; a slow first one, which loads a model, is made up for by the next."""
        rounds = int(count * PIECE_S / max(seconds, 1e-9)) // self._at_once
        self._size = self._at_once * max(1, rounds)


def _usable(done: Sequence[tuple[Work, Record]]) -> list[tuple[Work, Record]]:
    return [(work, record) for work, record in done if not work.failed]
