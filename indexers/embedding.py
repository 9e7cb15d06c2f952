"""The encoder's stage: vectors for a batch, with whatever cannot be embedded set aside one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.base import Record
from indexers.planner import Batch
from indexers.report import IndexingError, one_line
from indexers.tally import Tally, Work
from retrieval.encoders.base import Encoder, EncoderError

#: After this many failures in a row, nothing in between having worked, it is the encoder that is broken.
MAX_FAILURES = 8


class Embedder:
    """Embeds batches with one encoder; not thread-safe, one thread has it."""

    def __init__(self, encoder: Encoder, tally: Tally) -> None:
        self._encoder, self._tally = encoder, tally
        self._failures = 0

    def embed(self, batch: Batch) -> list[tuple[Work, Record]]:
        """The batch's records with their vectors; the images first, so that captions of broken ones are dropped."""
        done = list(batch.kept)
        pictures: list[tuple[Work, Record, Any]] = []
        for work, record, future in batch.images:
            decoded = future.result()
            if isinstance(decoded, str):
                self._tally.fail(work, decoded)
            else:
                pictures.append((work, record, decoded))
        # Let go of the futures: they hold the pixels.
        batch.images = []
        done += self._encode(self._encoder.encode_images, pictures, "images")
        texts = [text for text in batch.texts if not text[0].failed]
        done += self._encode(self._encoder.encode_texts, texts, "texts")
        return [(work, record) for work, record in done if not work.failed]

    def _encode(
        self, function: Callable[[Any], NDArray[np.float32]], inputs: Sequence[tuple[Work, Record, Any]], what: str
    ) -> list[tuple[Work, Record]]:
        if not inputs:
            return []
        with self._tally.busy("encode"):
            vectors = self._vectors(function, [value for _, _, value in inputs])
        done: list[tuple[Work, Record]] = []
        for (work, record, _), vector in zip(inputs, vectors, strict=True):
            if isinstance(vector, str):
                self._tally.fail(work, vector)
            else:
                done.append((work, replace(record, vector=vector)))
        self._tally.count(what, len(done))
        return done

    def _vectors(self, function: Callable[[Any], Any], values: list[Any]) -> list[NDArray[np.float32] | str]:
        """A vector, or the reason why there is none, for each value; singly if they do not go together."""
        try:
            vectors = np.asarray(function(values), dtype=np.float32)
        except EncoderError as error:
            raise IndexingError(f"the encoder {self._encoder.name} stopped working: {one_line(str(error))}") from error
        except Exception as error:
            if len(values) == 1:
                self._failed(error)
                return [f"the encoder failed on it: {one_line(str(error)) or type(error).__name__}"]
            return [self._vectors(function, [value])[0] for value in values]
        if vectors.shape != (len(values), self._encoder.dim):
            raise IndexingError(
                f"the encoder {self._encoder.name} gave an array of shape {vectors.shape} for {len(values)} inputs, "
                f"not ({len(values)}, {self._encoder.dim})"
            )
        self._failures = 0
        usable = [bool(np.isfinite(vector).all() and vector.any()) for vector in vectors]
        unusable = "the encoder gave a vector of zeros, or one that is not finite"
        return [vector if fine else unusable for vector, fine in zip(vectors, usable, strict=True)]

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        if self._failures >= MAX_FAILURES:
            raise IndexingError(
                f"the encoder {self._encoder.name} failed on {self._failures} inputs in a row, "
                f"lastly with {type(error).__name__}: {one_line(str(error))}"
            ) from error
