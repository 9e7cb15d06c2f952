"""The backend protocol over Qdrant points; `backends.qdrant.backend` and `backends.qdrant.edge` carry it out.

What Qdrant's server, its engine in process and its client's local mode have in common is here: points,
filters, ties, keyword search, and when to scan. What differs is behind `Driver`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Generic

import numpy as np
from numpy.typing import ArrayLike

from backends.base import Backend, CollectionSpec, Hit, Page, Record, Where, prepare_queries, prepare_records
from backends.checks import check_batch, check_ids, check_index, check_search, check_selection
from backends.errors import BackendError, Denied
from backends.kit.record_ids import check_uuid_cursor, storable_ids
from backends.kit.scores import best_first
from backends.kit.ties import search_with_ties
from backends.kit.widths import QUERIES, K, Width, find_width, trial_queries
from backends.kit.words import Renewals, is_outdated, log_renewal, renew_words
from backends.plans import note_plan
from backends.qdrant.driver import DEFAULT_EF, WIDTHS, Driver, Floats, Found, H, Plan, Point, Row
from backends.qdrant.filters import Translator
from backends.qdrant.payload import (
    hit_of,
    id_after,
    metadata_of,
    payload_of,
    point_id,
    query_indices,
    record_of,
    word_weights,
    words_of,
)
from backends.text import WORDS_VERSION, searched_text, wanted_words

BATCH = 1000
# Measured over 20,000 x 512 on two cores: a scan of 40 MB took 1.6 ms, a walk of the graph 0.2 to 0.4 ms, so
# this much is scanned in about the time of a walk (extrapolated)...
SCAN_BYTES = 4 << 20
# ...and under a filter this much, some 2.6 ms (extrapolated), because a graph built before the filter's field was
# indexed found 0 to 100% of the neighbours without ACORN, 56 to 100% with it, depending on the filter and ef.
FILTERED_SCAN_BYTES = 64 << 20
# What is scanned in the time that one candidate takes in a graph that is searched wider than usual: 11.6 ms for 676 of
# them on 100,000 x 512, and 25 MB/ms.
SCANNED_BYTES = 400 << 10
# Candidates rescored from the original vectors, for each hit asked for. With one bit a component and 4 candidates
# recall was 0.87 beside the data and 0.24 far from it; with two bits, 8-bit queries and 32 it was 1.00 and 0.97.
OVERSAMPLING = {"int8": 2.0, "binary": 32.0}
MANY = 10_000
# Payload keys that are indexed, the keywords' own among them. A field of numbers or strings takes up to two.
MAX_INDEXED = 65


class QdrantStore(Backend, Generic[H]):
    """The protocol over a `Driver`; subclasses say how to connect and what they can do."""

    def __init__(self, driver: Driver[H]) -> None:
        self._driver = driver
        self._renewing = threading.Lock()
        self._renewals = Renewals("Qdrant", (Denied,))

    def collections(self) -> list[str]:
        return sorted(self._driver.names())

    def describe(self, name: str) -> CollectionSpec:
        return self._driver.spec_now(name)

    def create(self, spec: CollectionSpec) -> None:
        check_index(spec, self.capabilities, "Qdrant")
        self._driver.create(spec)

    def set_encoder(self, name: str, fingerprint: str) -> None:
        self._driver.set_encoder(name, fingerprint)

    def drop(self, name: str) -> None:
        self._driver.drop(name)

    def upsert(self, name: str, records: Iterable[Record]) -> None:
        at = self._driver.find(name)
        kept, vectors = prepare_records(records, at.spec)
        if not kept:
            return
        self._renew_words(at)
        with self._driver.writing(at):
            for start in range(0, len(kept), BATCH):
                block = kept[start : start + BATCH]
                self._driver.upsert(at, [_point(r, vectors[start + i]) for i, r in enumerate(block)])

    def get(self, name: str, ids: Sequence[str], *, with_vectors: bool = False) -> list[Record]:
        ids = check_ids(ids)
        at = self._driver.find(name)
        wanted = [point_id(record_id) for record_id in storable_ids(ids)]
        found: dict[str, Record] = {}
        for start in range(0, len(wanted), BATCH):
            for _, payload, vector in self._driver.retrieve(
                at, wanted[start : start + BATCH], payload=True, vectors=with_vectors
            ):
                record = record_of(payload, vector, with_vector=with_vectors)
                found[record.id] = record
        return [found[i] for i in ids if i in found]

    def delete(self, name: str, *, ids: Sequence[str] | None = None, where: Where | None = None) -> int:
        """Delete by id or by filter; returns how many records went.

        On a server the count is taken just before the deletion, so what other clients write at the
        same moment may be missing from it.
        """
        ids = check_selection(ids, where)
        at = self._driver.find(name)
        if ids is not None:
            return self._delete_ids(at, [point_id(record_id) for record_id in storable_ids(ids)])
        translator = self._translator(at)
        condition = translator.filter(where) or translator.everything()
        with self._driver.writing(at):
            n = self._driver.count(at, condition)
            if n:
                self._driver.delete_where(at, condition)
        return n

    def _delete_ids(self, at: H, points: list[str]) -> int:
        n = 0
        if points:
            with self._driver.writing(at):
                for start in range(0, len(points), BATCH):
                    there = self._driver.retrieve(at, points[start : start + BATCH], payload=False, vectors=False)
                    if there:
                        self._driver.delete_ids(at, [row[0] for row in there])
                    n += len(there)
        return n

    def count(self, name: str, where: Where | None = None) -> int:
        at = self._driver.find(name)
        return self._driver.count(at, self._condition(at, where))

    def _translator(self, at: H) -> Translator:
        def longer(field: str, condition: Any) -> list[tuple[str, str]]:
            only = self._driver.dialect.combine(must=[condition])
            rows = self._rows(at, None, BATCH, only, vectors=False)
            return [(point, str(metadata_of(payload)[field])) for page in rows for point, payload, _ in page]

        return Translator(self._driver.dialect, longer)

    def _condition(self, at: H, where: Where | None) -> Any | None:
        """The filter for `where`, its payload keys indexed: from the first use on, not for every field there is."""
        if where is None:
            return None
        translator = self._translator(at)
        condition = translator.filter(where)
        for key in sorted(translator.keys.keys() - at.keys):
            # Whoever may search may name any field, as often as they like. Without an index the answer is the same.
            if len(at.keys) >= MAX_INDEXED:
                break
            if self._is_there(at, translator.keys[key]):
                self._driver.index(at, key)
        return condition

    def _is_there(self, at: H, field: str) -> bool:
        """Whether any record has the field. Its name is among the keywords, which are always indexed."""
        named = self._driver.dialect.combine(must=[self._driver.dialect.has_any([field])])
        return bool(self._driver.scroll(at, start=None, limit=1, condition=named, vectors=False))

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
        at = self._driver.find(name)
        spec = at.spec
        queries = prepare_queries(vectors, spec)
        if not len(queries):
            return []
        condition = self._condition(at, where)
        if k > MANY:
            # Qdrant makes room for `limit` results before it searches.
            k = min(k, self._driver.count(at, condition))
            if not k:
                return [[] for _ in queries]
        plan = self._plan(at, k, condition, effort)
        if not plan.exact:
            answers = self._driver.search(at, queries, k, condition, plan)
            if all(len(found) == k for found in answers):
                note_plan("index", queries=len(queries), width=plan.ef)
                return [_hits(found, k, spec.metric, exact=False) for found in answers]
            # A graph may lose its way under a filter. Fewer hits than asked for are only right if a scan says so.
            plan = Plan(exact=True)

        def ask(rows: Sequence[int], limit: int) -> Iterator[list[Found]]:
            # Many that tie make a large answer: those are asked for one query at a time.
            for some in [rows] if limit == k + 1 else [[row] for row in rows]:
                yield from self._driver.search(at, queries[some], limit, condition, plan)

        note_plan("scan", queries=len(queries))
        whole = search_with_ties(ask, len(queries), k, lambda one, other: one[0] == other[0])
        return [_hits(found, k, spec.metric, exact=True) for found in whole]

    def _plan(self, at: H, k: int, condition: Any | None, effort: float | None) -> Plan:
        spec = at.spec
        if effort == 1 or (spec.index.kind == "flat" and spec.index.quantization == "none"):
            return Plan(exact=True)
        rows = self._driver.estimate(at, condition)
        limit_bytes = SCAN_BYTES if condition is None else FILTERED_SCAN_BYTES
        if rows is not None and rows * spec.dim * 4 <= limit_bytes:
            return Plan(exact=True)
        tried = at.width
        width = DEFAULT_EF if tried is None else tried.width
        if effort is not None:
            return Plan(exact=False, ef=max(k, round(16 * 64**effort * width / DEFAULT_EF)))
        if tried is not None and (not tried.enough or _is_scanned_sooner(tried, spec)):
            return Plan(exact=True)
        return Plan(exact=False, ef=max(k, width))

    def _measure(self, at: H) -> None:
        """Find out how wide the graph has to be searched, where that is not known of so many points."""
        spec = at.spec
        rows = self._driver.estimate(at, None)
        rows = self._driver.count(at, None) if rows is None else rows
        if spec.index.kind == "flat" or rows * spec.dim * 4 <= SCAN_BYTES or (at.width and at.width.fits(rows)):
            return
        # In the order of their ids, which are hashes.
        page = self._driver.scroll(at, start=None, limit=QUERIES, condition=None, vectors=True)
        sample = np.array([vector for _, _, vector in page if vector is not None], np.float32)
        if not len(sample):
            return
        queries = trial_queries(sample, unit=spec.metric == "cosine")

        def found(asked: Floats, plan: Plan) -> list[list[str]]:
            answers = self._driver.search(at, asked, K, None, plan)
            return [[hit.id for hit in _hits(some, K, spec.metric, exact=False)] for some in answers]

        width = find_width(
            rows,
            queries,
            WIDTHS,
            lambda asked: found(asked, Plan(exact=True)),
            lambda asked, ef: found(asked, Plan(exact=False, ef=ef)),
        )
        self._driver.note_width(at, width)

    def search_text(self, name: str, query: str, k: int, *, where: Where | None = None) -> list[Hit]:
        """The k best records by keyword: those with at least one word of the query.

        BM25 by a sparse vector: the inverse document frequencies are Qdrant's and follow every write,
        the part that depends on a text's length supposes that an average text has 64 words.
        """
        check_search(k, None, self.capabilities)
        at = self._driver.find(name)
        self._renewals.attempt(name, lambda: self._renew_words(at))
        wanted = set(wanted_words(query))
        condition = self._condition(at, where)
        indices = query_indices(wanted)
        if not indices:
            return []
        k = min(k, self._driver.count(at, condition)) if k > MANY else k
        limit = k + 1
        while k:
            found = self._driver.search_words(at, indices, limit, condition)
            # Two words may share a dimension, so a hit counts when it really has one of them.
            real = [hit for hit in found if not wanted.isdisjoint(words_of(hit[1]))]
            if len(found) < limit or (len(real) > k and real[-1][0] != real[k - 1][0]):
                return _hits(real, k, "dot", exact=True)
            limit *= 4
        return []

    def _renew_words(self, at: H) -> None:
        """Take the words of all points anew, where an earlier version wrote them."""
        if not is_outdated(at.words):
            return
        with self._renewing, self._driver.writing(at):
            if not is_outdated(at.words):
                return
            name = at.spec.name
            log_renewal(f"collection {name!r} in Qdrant")
            pages = self.scan(name, with_vectors=False, batch=BATCH)
            renew_words(pages, partial(self._set_words, at), partial(self.get, name))
            self._driver.note_words(at, WORDS_VERSION)

    def _set_words(self, at: H, records: Sequence[Record]) -> None:
        weights = {point_id(r.id): word_weights(searched_text(r.text, r.uri)) for r in records}
        try:
            self._driver.set_words(at, weights)
        except BackendError:
            # The server says so after the others are written, where one has been deleted meanwhile.
            if len(self.get(at.spec.name, [r.id for r in records])) == len(records):
                raise

    def scan(
        self, name: str, *, with_vectors: bool = True, cursor: str | None = None, batch: int = 1000
    ) -> Iterator[Page]:
        check_batch(batch)
        at = self._driver.find(name)
        for rows in self._rows(at, cursor, batch, condition=None, vectors=with_vectors):
            records = [record_of(payload, vector, with_vector=with_vectors) for _, payload, vector in rows]
            yield Page(records, rows[-1][0])

    def _rows(
        self, at: H, after: str | None, batch: int, condition: Any | None, *, vectors: bool
    ) -> Iterator[list[Row]]:
        if after is not None:
            after = check_uuid_cursor(after, at.spec.name)
        while True:
            start = None if after is None else id_after(after)
            if after is not None and start is None:
                return
            rows = self._driver.scroll(at, start, batch, condition, vectors=vectors)
            if rows:
                yield rows
            if len(rows) < batch:
                return
            after = rows[-1][0]

    def flush(self, name: str) -> None:
        at = self._driver.find(name)
        self._driver.flush(at)
        self._measure(at)

    def close(self) -> None:
        self._driver.close()


def _is_scanned_sooner(tried: Width, spec: CollectionSpec) -> bool:
    """Whether comparing all takes less time than so wide a search."""
    return tried.width > WIDTHS[0] and tried.rows * spec.dim * 4 <= tried.width * SCANNED_BYTES


def _point(record: Record, vector: Floats) -> Point:
    searched = searched_text(record.text, record.uri)
    weights = word_weights(searched) if searched else None
    return point_id(record.id), vector, weights or None, payload_of(record)


def _hits(found: Sequence[Found], k: int, metric: str, *, exact: bool) -> list[Hit]:
    hits = []
    for score, payload in found:
        if metric == "cosine":
            score = min(1.0, max(-1.0, score))
        elif metric == "l2":
            score = 0.0 - score
        hits.append(hit_of(payload, score, exact=exact))
    return best_first(hits, k)
