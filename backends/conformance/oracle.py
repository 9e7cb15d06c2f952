"""A collection and its twin in ``exact://``: every call goes to both, every answer is compared."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence

import numpy as np
import pytest
from numpy.typing import ArrayLike

from backends.base import Backend, CollectionSpec, Hit, Record, Where
from backends.checks import plain_metadata
from backends.exact.backend import ExactBackend

SCORE_TOLERANCE = 1e-4
QUANTIZED_TOLERANCE = 0.05
RECALL = 0.95


def payload(item: Record | Hit) -> tuple[str, str, str | None, str | None, str]:
    """What is stored beside the vector, with types kept apart: 1, 1.0 and True differ."""
    metadata = json.dumps(plain_metadata(item.metadata), sort_keys=True, ensure_ascii=False)
    return item.id, item.modality, item.text, item.uri, metadata


def in_order(hits: Sequence[Hit]) -> bool:
    """Whether hits stand best first, ties by id, each id once."""
    keys = [(-hit.score, hit.id) for hit in hits]
    return keys == sorted(keys) and len({hit.id for hit in hits}) == len(hits)


def score_tolerance(backend: Backend, score: float) -> float:
    """How far a score may be from the true one: 1e-4 of it, more where vectors are stored with less precision."""
    storage = backend.capabilities.vector_tolerance
    return (SCORE_TOLERANCE + storage) * max(1.0, abs(score))


class Twin:
    """A collection of the engine under test, compared with the same records in ``exact://``."""

    def __init__(self, backend: Backend, spec: CollectionSpec) -> None:
        self.backend, self.spec, self.name = backend, spec, spec.name
        self.oracle = ExactBackend()
        backend.create(spec)
        self.oracle.create(CollectionSpec(spec.name, spec.dim, spec.metric, spec.encoder))

    def upsert(self, records: Iterable[Record]) -> None:
        """Upsert into both."""
        kept = list(records)
        self.backend.upsert(self.name, kept)
        self.oracle.upsert(self.name, kept)

    def delete(self, *, ids: Sequence[str] | None = None, where: Where | None = None) -> int:
        """Delete from both; the counts must be the same."""
        expected = self.oracle.delete(self.name, ids=ids, where=where)
        assert self.backend.delete(self.name, ids=ids, where=where) == expected, "delete counts other records"
        return expected

    def same_count(self, where: Where | None = None) -> int:
        """Count in both; equal."""
        expected = self.oracle.count(self.name, where)
        assert self.backend.count(self.name, where) == expected, f"count differs under {where}"
        return expected

    def same_records(self) -> list[Record]:
        """Read everything from both through `scan`; the engine's records, equal to the oracle's, by id."""
        found = {r.id: r for page in self.backend.scan(self.name) for r in page.records}
        wanted = {r.id: r for page in self.oracle.scan(self.name) for r in page.records}
        assert sorted(found) == sorted(wanted), "scan gives other ids"
        for record_id, record in wanted.items():
            self.same_record(found[record_id], record)
        return [found[record_id] for record_id in sorted(found)]

    def same_record(self, found: Record, wanted: Record) -> None:
        """Payload equal, vector equal bit for bit unless the engine declares a tolerance."""
        assert payload(found) == payload(wanted)
        assert found.vector is not None
        assert wanted.vector is not None
        assert found.vector.dtype == np.float32
        tolerance = self.backend.capabilities.vector_tolerance
        np.testing.assert_allclose(found.vector, wanted.vector, rtol=tolerance, atol=tolerance, err_msg=found.id)

    def same_get(self, ids: Sequence[str]) -> list[Record]:
        """Get from both, with vectors; equal, in the same order."""
        found = self.backend.get(self.name, ids, with_vectors=True)
        wanted = self.oracle.get(self.name, ids, with_vectors=True)
        assert [r.id for r in found] == [r.id for r in wanted]
        for mine, theirs in zip(found, wanted, strict=True):
            self.same_record(mine, theirs)
        return found

    def same_hits(
        self,
        queries: ArrayLike,
        k: int,
        where: Where | None = None,
        *,
        effort: float | None = None,
        recall: float = RECALL,
    ) -> list[list[Hit]]:
        """Search both. Exact hits are the oracle's, others reach `recall` by distance; returns the engine's.

        Two records whose true scores lie within the tolerance of each other may change places.
        """
        answers = self.backend.search(self.name, queries, k, where=where, effort=effort)
        truths = self.oracle.search(self.name, queries, max(1, self.oracle.count(self.name)), where=where)
        assert len(answers) == len(truths), "one list of hits for each query"
        reached = [self._same_list(hits, truth, k) for hits, truth in zip(answers, truths, strict=True)]
        if reached:
            assert float(np.mean(reached)) >= recall, f"recall {np.mean(reached):.3f} under {where}"
        return answers

    def _same_list(self, hits: list[Hit], truth: list[Hit], k: int) -> float:
        expected = min(k, len(truth))
        by_id = {hit.id: hit for hit in truth}
        strangers = [hit.id for hit in hits if hit.id not in by_id]
        assert not strangers, f"hits that are not stored or that the filter excludes: {strangers[:5]}"
        assert len(hits) == expected, f"{len(hits)} hits instead of min(k, matching) = {expected}"
        assert in_order(hits), "hits must be best first, ties by id, each once"
        assert len({hit.exact for hit in hits}) <= 1, "`exact` speaks of the whole list"
        for hit in hits:
            assert payload(hit) == payload(by_id[hit.id])
            self.same_score(hit, by_id[hit.id].score)
        if not hits:
            return 1.0
        kth = truth[expected - 1].score - SCORE_TOLERANCE * max(1.0, abs(truth[expected - 1].score))
        if hits[0].exact:
            for hit, best in zip(hits, truth, strict=False):
                assert abs(by_id[hit.id].score - best.score) <= self.tolerance(best.score), f"{hit.id!r} stands wrongly"
        return sum(by_id[hit.id].score >= kth for hit in hits) / expected

    def same_score(self, hit: Hit, expected: float) -> None:
        """The score means the same as the oracle's."""
        assert math.isfinite(hit.score)
        quantized = self.spec.index.quantization != "none" and not hit.exact
        allowed = QUANTIZED_TOLERANCE * max(1.0, abs(expected)) if quantized else self.tolerance(expected)
        assert hit.score == pytest.approx(expected, rel=0, abs=allowed), f"score of {hit.id!r}"

    def tolerance(self, score: float) -> float:
        """How far a score may be from the oracle's."""
        return score_tolerance(self.backend, score)
