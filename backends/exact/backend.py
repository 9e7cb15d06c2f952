"""``exact://``: NumPy in memory. Every search is a full scan, so it is the oracle of every test."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike

from backends.base import (
    Backend,
    BackendError,
    Capabilities,
    CollectionExists,
    CollectionNotFound,
    CollectionSpec,
    Hit,
    Page,
    Record,
    Where,
    matches,
    prepare_queries,
    prepare_records,
    similarity,
)
from backends.checks import check_batch, check_ids, check_index, check_search, check_selection, plain_metadata
from backends.filters import check_where
from backends.kit.scores import best_first, best_rows
from backends.text import BM25_B, BM25_K1, searched_text, tokenize


@dataclass(slots=True)
class _Contents:
    spec: CollectionSpec
    records: dict[str, Record] = field(default_factory=dict)


class ExactBackend(Backend):
    """NumPy brute force over records held in memory; forgotten when closed."""

    capabilities: ClassVar[Capabilities] = Capabilities(
        keyword=True, persistent=False, server=False, concurrent_writers=False, effort=False
    )

    def __init__(self) -> None:
        self._collections: dict[str, _Contents] = {}
        self._lock = threading.RLock()
        self._closed = False

    @classmethod
    def connect(cls, url: str) -> Self:
        """A new empty store; ``exact://`` takes no path and no options."""
        if url != "exact://":
            raise ValueError("exact:// lives in memory and takes nothing after it: write exact://")
        return cls()

    def collections(self) -> list[str]:
        with self._lock:
            self._check_open()
            return sorted(self._collections)

    def _check_open(self) -> None:
        if self._closed:
            raise BackendError("this exact:// store is closed, and what it held is gone: connect again")

    def _find(self, name: str) -> _Contents:
        self._check_open()
        try:
            return self._collections[name]
        except KeyError:
            raise CollectionNotFound(f"no collection {name!r} in exact://") from None

    def describe(self, name: str) -> CollectionSpec:
        with self._lock:
            return self._find(name).spec

    def create(self, spec: CollectionSpec) -> None:
        check_index(spec, self.capabilities, "exact://")
        with self._lock:
            self._check_open()
            if spec.name in self._collections:
                raise CollectionExists(f"collection {spec.name!r} is already in exact://")
            self._collections[spec.name] = _Contents(spec)

    def set_encoder(self, name: str, fingerprint: str) -> None:
        with self._lock:
            found = self._find(name)
            found.spec = replace(found.spec, encoder=fingerprint)

    def drop(self, name: str) -> None:
        with self._lock:
            self._check_open()
            self._collections.pop(name, None)

    def upsert(self, name: str, records: Iterable[Record]) -> None:
        with self._lock:
            collection = self._find(name)
            kept, vectors = prepare_records(records, collection.spec)
            for record, vector in zip(kept, vectors, strict=True):
                metadata = plain_metadata(record.metadata)
                collection.records[record.id] = replace(record, vector=vector, metadata=metadata)

    def get(self, name: str, ids: Sequence[str], *, with_vectors: bool = False) -> list[Record]:
        ids = check_ids(ids)
        with self._lock:
            records = self._find(name).records
            return [_copy(records[i], with_vectors) for i in ids if i in records]

    def _matching(self, name: str, where: Where | None) -> list[Record]:
        check_where(where)
        return [r for r in self._find(name).records.values() if matches(where, r.metadata, r.modality)]

    def delete(self, name: str, *, ids: Sequence[str] | None = None, where: Where | None = None) -> int:
        ids = check_selection(ids, where)
        with self._lock:
            records = self._find(name).records
            doomed = [r.id for r in self._matching(name, where)] if ids is None else set(ids) & records.keys()
            for record_id in doomed:
                del records[record_id]
            return len(doomed)

    def count(self, name: str, where: Where | None = None) -> int:
        with self._lock:
            return len(self._matching(name, where))

    def search(
        self,
        name: str,
        vectors: ArrayLike,
        k: int,
        *,
        where: Where | None = None,
        effort: float | None = None,
    ) -> list[list[Hit]]:
        check_search(k, effort, self.capabilities)
        with self._lock:
            spec = self._find(name).spec
            found = [r for r in self._matching(name, where) if r.has_vector]
        queries = prepare_queries(vectors, spec)
        if not found:
            return [[] for _ in queries]
        stored = np.stack([record.vector for record in found if record.vector is not None])
        results = []
        for scores in similarity(queries, stored, spec.metric):
            rows = sorted(best_rows(scores, k).tolist(), key=lambda row: (-scores[row], found[row].id))[:k]
            results.append([as_hit(found[row], float(scores[row])) for row in rows])
        return results

    def search_text(self, name: str, query: str, k: int, *, where: Where | None = None) -> list[Hit]:
        """BM25 as in Lucene (Robertson and Zaragoza 2009), statistics over the whole collection."""
        check_search(k, None, self.capabilities)
        check_where(where)
        with self._lock:
            everything = self._matching(name, None)
        texts = [Counter(tokenize(searched_text(record.text, record.uri))) for record in everything]
        wanted = set(tokenize(query))
        mean = sum(text.total() for text in texts) / max(1, len(texts)) or 1.0
        frequency = {word: sum(word in text for text in texts) for word in wanted}
        hits = []
        for record, text in zip(everything, texts, strict=True):
            if not wanted & text.keys() or not matches(where, record.metadata, record.modality):
                continue
            length = BM25_K1 * (1 - BM25_B + BM25_B * text.total() / mean)
            score = sum(
                math.log(1 + (len(texts) - frequency[word] + 0.5) / (frequency[word] + 0.5))
                * text[word]
                * (BM25_K1 + 1)
                / (text[word] + length)
                for word in wanted
            )
            hits.append(as_hit(record, score))
        return best_first(hits, k)

    def scan(
        self, name: str, *, with_vectors: bool = True, cursor: str | None = None, batch: int = 1000
    ) -> Iterator[Page]:
        check_batch(batch)
        while True:
            with self._lock:
                later = sorted(i for i in self._find(name).records if cursor is None or i > cursor)[:batch]
                page = self.get(name, later, with_vectors=with_vectors)
            if not page:
                return
            cursor = page[-1].id
            yield Page(page, cursor)

    def flush(self, name: str) -> None:
        with self._lock:
            self._find(name)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._collections.clear()


def _copy(record: Record, with_vector: bool) -> Record:
    """A record that the caller may change without changing the store."""
    vector = record.vector.copy() if with_vector and record.vector is not None else None
    return replace(record, vector=vector, metadata=plain_metadata(record.metadata))


def as_hit(record: Record, score: float) -> Hit:
    """A record with its score, as an exact hit."""
    return Hit(record.id, score, record.modality, record.text, record.uri, plain_metadata(record.metadata), exact=True)
