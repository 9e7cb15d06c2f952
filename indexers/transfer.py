"""Copying a collection from any engine to any other, checked record by record."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.base import (
    Backend,
    BackendError,
    CollectionExists,
    CollectionNotFound,
    CollectionSpec,
    IndexSpec,
    Page,
    Record,
)
from backends.checks import payload, unit_length
from indexers.report import Stopped, check_stopped

BATCH = 1000
PARITY_QUERIES = 100
PARITY_K = 10


class TransferError(Exception):
    """A copy that cannot be made, or that does not equal its source: one line that says what differs."""


@dataclass(frozen=True, slots=True)
class Parity:
    """How alike two collections answer: mean and least overlap of their top k, largest score difference.

    Ties are fair: a hit that the other side lacks still counts when its score reaches the other side's
    k-th score.
    """

    queries: int
    k: int
    mean_overlap: float
    least_overlap: float
    score_difference: float


@dataclass(frozen=True, slots=True)
class TransferReport:
    """What a copy did: records written, records that were there already, and what the checks found.

    `extra` counts records of the target that the source does not have; they are left alone.
    `vector_error` is the largest absolute difference of a component, 0.0 when all are bit-equal.
    """

    written: int
    unchanged: int
    extra: int
    vector_error: float
    parity: Parity | None
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON types."""
        return asdict(self)


def copy(
    source: Backend,
    name: str,
    target: Backend,
    target_name: str | None = None,
    *,
    index: IndexSpec | None = None,
    progress: Callable[[int, int], None] | None = None,
    stop: threading.Event | None = None,
) -> TransferReport:
    """Make collection `name` of `source` be in `target` too, and prove it.

    The target collection is created when missing, with the source's spec (and `index`, if given).
    Records that are there already and equal are not written again, so an interrupted copy is resumed
    by running it again. Afterwards every record is read back and compared, and 100 stored vectors are
    searched for on both sides. `progress` is told (done, total).

    Raises TransferError when the target holds another encoder, dimension or metric, or when a record
    read back differs; `BackendError` when an engine fails; `Stopped` after the page of records in hand
    when `stop` is set.
    """
    spec = source.describe(name)
    wanted = replace(spec, name=target_name or name, index=index or spec.index)
    total = source.count(name)

    def pages() -> Iterator[Page]:
        return source.scan(name, batch=BATCH)

    started = time.monotonic()
    report = transfer(pages, wanted, total, target, progress=progress, stop=stop)
    parity = measure_parity(source, name, target, wanted.name, stop=stop)
    return replace(report, parity=parity, seconds=time.monotonic() - started)


def transfer(
    pages: Callable[[], Iterable[Page]],
    spec: CollectionSpec,
    total: int,
    target: Backend,
    *,
    progress: Callable[[int, int], None] | None = None,
    stop: threading.Event | None = None,
) -> TransferReport:
    """Write every record of `pages()` into collection `spec` of `target`, then read all back and compare."""
    started = time.monotonic()
    prepare_target(target, spec)
    written = unchanged = 0
    for page in until_stopped(pages(), stop):
        there = {record.id: record for record in target.get(spec.name, [r.id for r in page.records], with_vectors=True)}
        fresh = [record for record in page.records if not _equal(record, there.get(record.id), spec, target)]
        if fresh:
            target.upsert(spec.name, fresh)
        written += len(fresh)
        unchanged += len(page.records) - len(fresh)
        if progress:
            progress(written + unchanged, total)
    target.flush(spec.name)
    count, error = _verify(until_stopped(pages(), stop), spec, target)
    extra = target.count(spec.name) - count
    return TransferReport(
        written=written,
        unchanged=unchanged,
        extra=extra,
        vector_error=error,
        parity=None,
        seconds=time.monotonic() - started,
    )


def until_stopped(pages: Iterable[Page], stop: threading.Event | None) -> Iterator[Page]:
    """The pages; raises `Stopped` before the next one, and after the last, once `stop` is set."""
    for page in pages:
        check_stopped(stop)
        yield page
    check_stopped(stop)


def prepare_target(target: Backend, spec: CollectionSpec) -> None:
    """Create the collection, or check that the one that is there takes the same vectors."""
    try:
        there = target.describe(spec.name)
    except CollectionNotFound:
        # Someone else may be faster.
        with suppress(CollectionExists):
            target.create(spec)
        there = target.describe(spec.name)
    for what in ("encoder", "dim", "metric"):
        if getattr(there, what) != getattr(spec, what):
            raise TransferError(
                f"collection {spec.name!r} is in the target with {what} {getattr(there, what)!r}, the source has "
                f"{getattr(spec, what)!r}: copy into another collection, or drop that one first"
            )


def _verify(pages: Iterable[Page], spec: CollectionSpec, target: Backend) -> tuple[int, float]:
    count, worst = 0, 0.0
    for page in pages:
        ids = [record.id for record in page.records]
        there = {record.id: record for record in target.get(spec.name, ids, with_vectors=True)}
        for record in page.records:
            if not _equal(record, there.get(record.id), spec, target):
                raise TransferError(
                    f"record {record.id!r} of {spec.name!r} does not read back as it was written: "
                    "was the target written to meanwhile? Run the copy again"
                )
            worst = max(worst, _vector_error(record, there[record.id], spec))
        count += len(ids)
    return count, worst


def _expected(record: Record, spec: CollectionSpec) -> NDArray[np.float32]:
    vector = np.asarray(record.vector, dtype=np.float32)
    if not record.has_vector:
        return vector
    return unit_length(vector[None, :])[0] if spec.metric == "cosine" else vector


def _vector_error(record: Record, other: Record, spec: CollectionSpec) -> float:
    """The largest difference of a component; infinite where only one of the two has a vector."""
    assert other.vector is not None
    if record.has_vector != other.has_vector:
        return float("inf")
    return float(np.abs(_expected(record, spec) - other.vector).max(initial=0.0))


def _equal(record: Record, other: Record | None, spec: CollectionSpec, target: Backend) -> bool:
    """Same text, uri, modality and metadata, and vectors as near as the engine's storage keeps them."""
    if other is None:
        return False
    return (
        payload(record) == payload(other) and _vector_error(record, other, spec) <= target.capabilities.vector_tolerance
    )


def measure_parity(
    source: Backend,
    name: str,
    target: Backend,
    target_name: str,
    seed: int = 0,
    *,
    stop: threading.Event | None = None,
) -> Parity | None:
    """Search both collections for up to 100 of the source's vectors and compare the answers; None when empty."""
    vectors = _sample(source, name, np.random.default_rng(seed), stop)
    if vectors is None:
        return None
    k = PARITY_K
    mine = source.search(name, vectors, k, effort=_most(source))
    check_stopped(stop)
    theirs = target.search(target_name, vectors, k, effort=_most(target))
    overlaps, difference = [], 0.0
    for left, right in zip(mine, theirs, strict=True):
        scores = {hit.id: hit.score for hit in left}
        floor = min(scores.values(), default=0.0) - 1e-4
        shared = [hit for hit in right if hit.id in scores or hit.score >= floor]
        overlaps.append(len(shared) / max(1, len(left)))
        pairs = [abs(hit.score - scores[hit.id]) for hit in right if hit.id in scores]
        difference = max([difference, *pairs])
    return Parity(
        queries=len(vectors),
        k=k,
        mean_overlap=float(np.mean(overlaps)),
        least_overlap=min(overlaps),
        score_difference=difference,
    )


def _most(backend: Backend) -> float | None:
    """The highest effort, None for an engine that has one way of searching."""
    return 1.0 if backend.capabilities.effort else None


def _sample(
    source: Backend, name: str, random: np.random.Generator, stop: threading.Event | None
) -> NDArray[np.float32] | None:
    """A uniform sample of stored vectors in one pass over them (reservoir sampling, Vitter 1985); None of none."""
    chosen: list[NDArray[np.float32]] = []
    seen = 0
    for page in until_stopped(source.scan(name, batch=BATCH), stop):
        for record in page.records:
            if record.vector is None or not record.has_vector:
                continue
            seen += 1
            if len(chosen) < PARITY_QUERIES:
                chosen.append(record.vector)
            elif (slot := int(random.integers(seen))) < PARITY_QUERIES:
                chosen[slot] = record.vector
    return np.stack(chosen) if chosen else None


__all__ = ["BackendError", "Parity", "Stopped", "TransferError", "TransferReport", "copy", "measure_parity", "transfer"]
