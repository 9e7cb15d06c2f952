"""Engines to try the conformance suite on: a durable one, the least capable one allowed, and broken ones."""

from __future__ import annotations

import json
import os
import pickle
import time
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

import numpy as np
from filelock import FileLock, Timeout

from backends.base import NO_VECTOR, And, Capabilities, Compare, Not, Or, Record, Unavailable, Unsupported, Where
from backends.exact.backend import ExactBackend
from backends.filters import ORDERINGS, fields_of
from backends.plans import note_plan


class DurableBackend(ExactBackend):
    """``exact://`` kept in a folder: one pickle a collection, replaced whole by every write, one opener at a time."""

    capabilities: ClassVar[Capabilities] = replace(ExactBackend.capabilities, persistent=True)

    @classmethod
    def connect(cls, url):
        backend = cls()
        backend.folder = Path(urlsplit(url).path)
        backend.lock = FileLock(backend.folder / "lock")
        try:
            backend.lock.acquire(timeout=0)
        except Timeout:
            raise Unavailable(f"{url} is open in another process: close it there first") from None
        for file in backend.folder.glob("*.pickle"):
            collection = pickle.loads(file.read_bytes())
            backend._collections[collection.spec.name] = collection
        return backend

    def save(self, name):
        target = self.folder / f"{name.encode().hex()}.pickle"
        if name not in self._collections:
            target.unlink(missing_ok=True)
            return
        with target.with_suffix(".new").open("wb") as file:
            pickle.dump(self._collections[name], file)
            file.flush()
            os.fsync(file.fileno())
        target.with_suffix(".new").replace(target)

    def create(self, spec):
        with self._lock:
            super().create(spec)
            self.save(spec.name)

    def set_encoder(self, name, fingerprint):
        with self._lock:
            super().set_encoder(name, fingerprint)
            self.save(name)

    def drop(self, name):
        with self._lock:
            super().drop(name)
            self.save(name)

    def upsert(self, name, records):
        with self._lock:
            super().upsert(name, records)
            self.save(name)

    def delete(self, name, *, ids=None, where=None):
        with self._lock:
            gone = super().delete(name, ids=ids, where=where)
            self.save(name)
            return gone

    def close(self):
        super().close()
        self.lock.release()


class SavesLater(DurableBackend):
    """Acknowledges writes that are not saved until the next one."""

    def upsert(self, name, records):
        with self._lock:
            self.save(name)
            ExactBackend.upsert(self, name, records)


class LosesVectorsInACrash(DurableBackend):
    """Forgets after a crash the vectors that the last upsert stored. Only searches by vector tell."""

    lost_of_a_batch = 39

    @classmethod
    def connect(cls, url):
        backend = super().connect.__func__(cls, url)
        backend.last, backend.lost = backend.folder / "last.json", backend.folder / "lost.json"
        missing = json.loads(backend.lost.read_text()) if backend.lost.exists() else []
        if backend.last.exists():
            missing += json.loads(backend.last.read_text())[: cls.lost_of_a_batch]
        backend.lost.write_text(json.dumps(missing))
        backend.missing = set(missing)
        return backend

    def upsert(self, name, records):
        kept = list(records)
        super().upsert(name, kept)
        written = self.last.with_suffix(".new")
        written.write_text(json.dumps([record.id for record in kept]))
        written.replace(self.last)

    def search(self, name, vectors, k, *, where=None, effort=None):
        deep = super().search(name, vectors, k + len(self.missing), where=where)
        return [[replace(hit, exact=False) for hit in hits if hit.id not in self.missing][:k] for hits in deep]

    def close(self):
        self.last.unlink(missing_ok=True)
        super().close()


class LosesFewVectorsInACrash(LosesVectorsInACrash):
    """Forgets two of them."""

    lost_of_a_batch = 2


class ClaimsItLostNothing(LosesFewVectorsInACrash):
    """Forgets two of them, and calls its hits exact."""

    def search(self, name, vectors, k, *, where=None, effort=None):
        answers = super().search(name, vectors, k, where=where, effort=effort)
        return [[replace(hit, exact=True) for hit in hits] for hits in answers]


class MissesNowAndThen(DurableBackend):
    """Is approximate: every fortieth search for a single hit misses the best one."""

    def search(self, name, vectors, k, *, where=None, effort=None):
        answers = super().search(name, vectors, k + 1, where=where)
        missed = [k == 1 and i % 40 == 7 for i in range(len(answers))]
        return [
            [replace(hit, exact=False) for hit in hits[int(miss) :][:k]]
            for hits, miss in zip(answers, missed, strict=True)
        ]


class ForgetsToLock(DurableBackend):
    """Lets a second process open the folder, and each overwrites what the other saved."""

    @classmethod
    def connect(cls, url):
        backend = super().connect.__func__(cls, url)
        backend.lock.release()
        return backend


class DeniesPersistence(DurableBackend):
    """Is persistent and declares that it is not."""

    capabilities = replace(DurableBackend.capabilities, persistent=False)


class LimitedBackend(ExactBackend):
    """The least that an engine may do: approximate, half precision, at most 200 hits, no words, few operators."""

    capabilities: ClassVar[Capabilities] = Capabilities(
        keyword=False,
        persistent=False,
        server=False,
        concurrent_writers=False,
        effort=True,
        metrics=frozenset({"cosine"}),
        operators=frozenset({"eq", "in", "gt", "gte", "lt", "lte"}),
        string_order=False,
        max_k=200,
        vector_tolerance=1e-3,
    )

    def honour(self, where: Where | None) -> None:
        if isinstance(where, Compare):
            if where.op not in self.capabilities.operators:
                raise Unsupported(f"no operator {where.op}")
            if where.op in ORDERINGS and isinstance(where.value, str):
                raise Unsupported("strings have no order here")
        elif isinstance(where, Not):
            self.honour(where.clause)
        elif isinstance(where, (And, Or)):
            for clause in where.clauses:
                self.honour(clause)

    def upsert(self, name, records):
        super().upsert(name, records)
        for record in self._collections[name].records.values():
            if record.has_vector:
                record.vector[:] = record.vector.astype(np.float16)

    def delete(self, name, *, ids=None, where=None):
        self.honour(where)
        return super().delete(name, ids=ids, where=where)

    def count(self, name, where=None):
        self.honour(where)
        return super().count(name, where)

    def search(self, name, vectors, k, *, where=None, effort=None):
        self.honour(where)
        answers = super().search(name, vectors, k, where=where, effort=effort)
        missed = 1 if self.misses(effort) else 0
        deeper = super().search(name, vectors, k + missed, where=where) if k < self.capabilities.max_k else answers
        return [
            [replace(hit, exact=False) for hit in (deep if len(deep) <= k else deep[missed:])]
            for deep in (deeper if missed else answers)
        ]

    def misses(self, effort):
        return effort is not None and effort < 0.5

    def search_text(self, name, query, k, *, where=None):
        raise Unsupported("no keyword search")


class TiresWithEffort(LimitedBackend):
    """Finds less the harder it tries."""

    def misses(self, effort):
        return effort is not None and effort > 0.5


class NeedsNoEffort(LimitedBackend):
    """Is approximate, declares no effort, and takes it all the same."""

    capabilities = replace(LimitedBackend.capabilities, effort=False)


class LooksNarrowly(ExactBackend):
    """Takes the best by half of each vector for candidates: enough where clusters lie apart, not where they crowd."""

    def search(self, name, vectors, k, *, where=None, effort=None):
        whole = super().search(name, vectors, 1_000_000, where=where, effort=effort)
        halves = np.array(vectors, np.float32)
        halves[:, halves.shape[1] // 2 :] = 0
        found = super().search(name, halves, 12 * k, where=where, effort=effort)
        kept = [{hit.id for hit in hits} for hits in found]
        return [
            [replace(hit, exact=False) for hit in hits if hit.id in ids][:k]
            for hits, ids in zip(whole, kept, strict=True)
        ]


class DropsFilters(ExactBackend):
    def search(self, name, vectors, k, *, where=None, effort=None):
        return super().search(name, vectors, k, effort=effort)


class DropsOneOperator(ExactBackend):
    def _matching(self, name, where):
        return super()._matching(name, None if isinstance(where, Compare) and where.op == "nin" else where)


class PostFilters(ExactBackend):
    def search(self, name, vectors, k, *, where=None, effort=None):
        passed = {record.id for record in self._matching(name, where)}
        return [[hit for hit in hits if hit.id in passed] for hits in super().search(name, vectors, 5 * k)]


class OneHitShort(ExactBackend):
    def search(self, name, vectors, k, *, where=None, effort=None):
        return [hits[: max(1, k - 1)] for hits in super().search(name, vectors, k, where=where, effort=effort)]


class InvertsScores(ExactBackend):
    def search(self, name, vectors, k, *, where=None, effort=None):
        answers = super().search(name, vectors, k, where=where, effort=effort)
        return [[replace(hit, score=1 - hit.score) for hit in hits] for hits in answers]


class WorstFirst(ExactBackend):
    def search(self, name, vectors, k, *, where=None, effort=None):
        return [hits[::-1] for hits in super().search(name, vectors, k, where=where, effort=effort)]


class ClaimsToBeExact(ExactBackend):
    def search(self, name, vectors, k, *, where=None, effort=None):
        return [
            hits if len(hits) <= k else hits[: k - 1] + hits[k:]
            for hits in super().search(name, vectors, k + 1, where=where, effort=effort)
        ]


class BoastsOfItsPlan(ExactBackend):
    def search(self, name, vectors, k, *, where=None, effort=None):
        note_plan("index", queries=len(vectors), width=k)
        return super().search(name, vectors, k, where=where, effort=effort)


class TellsOnePlanForAll(ExactBackend):
    def search(self, name, vectors, k, *, where=None, effort=None):
        note_plan("scan")
        return super().search(name, vectors, k, where=where, effort=effort)


class LosesAWrite(ExactBackend):
    def upsert(self, name, records):
        kept = list(records)
        super().upsert(name, kept[:-1] if len(kept) > 4 else kept)


class StoresTheGoodOnes(ExactBackend):
    def upsert(self, name, records):
        for record in records:
            super().upsert(name, [record])


class TrueIsOne(ExactBackend):
    def _matching(self, name, where):
        if (
            isinstance(where, Compare)
            and where.op == "eq"
            and where.value in (0, 1)
            and not isinstance(where.value, str)
        ):
            return [r for r in super()._matching(name, None) if r.metadata.get(where.field) == where.value]
        return super()._matching(name, where)


class IgnoresLists(ExactBackend):
    def _matching(self, name, where):
        fields = fields_of(where) if where is not None else ()
        found = super()._matching(name, where)
        return [r for r in found if not any(isinstance(r.metadata.get(field), list) for field in fields)]


class NotOfMissingIsFalse(ExactBackend):
    def _matching(self, name, where):
        found = super()._matching(name, where)
        return [r for r in found if where.clause.field in r.metadata] if isinstance(where, Not) else found


class EmptyMeansAll(ExactBackend):
    def delete(self, name, *, ids=None, where=None):
        if ids is not None and not ids:
            return super().delete(name, ids=[record.id for page in self.scan(name) for record in page.records])
        return super().delete(name, ids=ids, where=where)


class CountsWhatWasAsked(ExactBackend):
    def delete(self, name, *, ids=None, where=None):
        gone = super().delete(name, ids=ids, where=where)
        return gone if ids is None else len(ids)


class StillFindsTheDeleted(ExactBackend):
    """Answers searches from what it read a moment ago."""

    snapshot = (0.0, None)

    def search(self, name, vectors, k, *, where=None, effort=None):
        read_at, before = self.snapshot
        if before is None or time.monotonic() - read_at > 0.2:
            before = ExactBackend()
            before.create(self.describe(name))
            with self._lock:
                before.upsert(name, self._collections[name].records.values())
            self.snapshot = (time.monotonic(), before)
        return before.search(name, vectors, k, where=where, effort=effort)


class TiesAsTheyCome(ExactBackend):
    def search(self, name, vectors, k, *, where=None, effort=None):
        place = {record.id: i for i, record in enumerate(self._matching(name, None))}
        answers = super().search(name, vectors, k, where=where, effort=effort)
        return [sorted(hits, key=lambda hit: (-hit.score, place[hit.id])) for hits in answers]


class NormalizesIds(ExactBackend):
    def upsert(self, name, records):
        super().upsert(name, [replace(r, id=unicodedata.normalize("NFC", r.id)) for r in records])


class ForgetsTheEncoder(ExactBackend):
    def describe(self, name):
        return replace(super().describe(name), encoder="")


class IntegersBecomeFloats(ExactBackend):
    def upsert(self, name, records):
        super().upsert(name, [replace(r, metadata={k: self.widen(v) for k, v in r.metadata.items()}) for r in records])

    def widen(self, value):
        return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


class MergesMetadata(ExactBackend):
    def upsert(self, name, records):
        for record in records:
            old = self._find(name).records.get(record.id)
            merged = {**(old.metadata if old else {}), **record.metadata}
            super().upsert(name, [replace(record, metadata=merged)])


class SkipsAtPageEnds(ExactBackend):
    def scan(self, name, *, with_vectors=True, cursor=None, batch=1000):
        for page in super().scan(name, with_vectors=with_vectors, cursor=cursor, batch=batch):
            yield replace(page, records=page.records[:-1] or page.records, cursor=page.cursor)


class IgnoresTheCursor(ExactBackend):
    def scan(self, name, *, with_vectors=True, cursor=None, batch=1000):
        return super().scan(name, with_vectors=with_vectors, batch=batch)


class NeedsAllWords(ExactBackend):
    def search_text(self, name, query, k, *, where=None):
        hits = super().search_text(name, query, k, where=where)
        return [hit for hit in hits if all(word.lower() in (hit.text or "") for word in query.split())]


class ChokesOnQuotes(ExactBackend):
    def search_text(self, name, query, k, *, where=None):
        if query.count('"') % 2:
            raise RuntimeError("fts5: syntax error")
        return super().search_text(name, query, k, where=where)


class EveryWordWeighsTheSame(ExactBackend):
    def search_text(self, name, query, k, *, where=None):
        hits = super().search_text(name, query, 10**6, where=where)
        return [replace(hit, score=1.0) for hit in sorted(hits, key=lambda hit: hit.id)][:k]


class SharesItsObjects(ExactBackend):
    def get(self, name, ids: Sequence[str], *, with_vectors=False) -> list[Record]:
        return [self._find(name).records[i] for i in ids if i in self._find(name).records]


class WorksWhenClosed(ExactBackend):
    def close(self):
        self._collections.clear()


class HidesKeyword(ExactBackend):
    capabilities = replace(ExactBackend.capabilities, keyword=False)


class HidesAnOperator(ExactBackend):
    capabilities = replace(ExactBackend.capabilities, operators=ExactBackend.capabilities.operators - {"contains"})


class HidesStringOrder(ExactBackend):
    capabilities = replace(ExactBackend.capabilities, string_order=False)


class HidesItsMetrics(ExactBackend):
    capabilities = replace(ExactBackend.capabilities, metrics=frozenset({"cosine"}))

    def create(self, spec):
        super().create(replace(spec, metric="cosine"))


class BoastsOfAnIndex(ExactBackend):
    capabilities = replace(ExactBackend.capabilities, index_kinds=frozenset({"auto", "flat", "hnsw"}))

    def search(self, name, vectors, k, *, where=None, effort=None):
        answers = super().search(name, vectors, k, where=where, effort=effort)
        if self.describe(name).index.kind != "hnsw":
            return answers
        deeper = super().search(name, vectors, 2 * k, where=where, effort=effort)
        return [[replace(hit, exact=False) for hit in hits[-k:]] for hits in deeper]


class FoldsFieldNames(ExactBackend):
    """Keeps of a field's name only what is ASCII."""

    def upsert(self, name, records):
        kept = [replace(r, metadata={folded(k): v for k, v in r.metadata.items()}) for r in records]
        super().upsert(name, kept)


def folded(field):
    return "".join(c if c.isascii() else "_" for c in field)


class MakesUpVectors(ExactBackend):
    """Gives records without a vector one that stands far from most, and reads it back as none."""

    def upsert(self, name, records):
        dim = self.describe(name).dim
        kept = list(records)
        self.made_up = {r.id for r in kept if np.shape(r.vector) == (0,)} | getattr(self, "made_up", set())
        super().upsert(name, [replace(r, vector=np.full(dim, -1.0)) if r.id in self.made_up else r for r in kept])

    def get(self, name, ids, *, with_vectors=False):
        found = super().get(name, ids, with_vectors=with_vectors)
        return [replace(r, vector=NO_VECTOR) if with_vectors and r.id in self.made_up else r for r in found]


class KeepsTheOldVector(ExactBackend):
    """Leaves the vector of a record as it was where the new one has none."""

    def upsert(self, name, records):
        old = dict(self._find(name).records)
        super().upsert(name, records)
        for record_id, record in self._find(name).records.items():
            if not record.has_vector and record_id in old:
                self._find(name).records[record_id] = replace(record, vector=old[record_id].vector)


class CountsThoseWithVectors(ExactBackend):
    def count(self, name, where=None):
        return sum(r.has_vector for r in self._matching(name, where))


class FindsNoWordsWithoutVectors(ExactBackend):
    def search_text(self, name, query, k, *, where=None):
        hits = super().search_text(name, query, k, where=where)
        return [hit for hit in hits if self._find(name).records[hit.id].has_vector]


class ForgetsTheNewEncoder(DurableBackend):
    """Says at once which encoder was set, and forgets it when it is closed."""

    def set_encoder(self, name, fingerprint):
        ExactBackend.set_encoder(self, name, fingerprint)


class MakesItAnew(ExactBackend):
    """Changes the encoder by making the collection anew, with no index of its own."""

    def set_encoder(self, name, fingerprint):
        spec, records = self.describe(name), self.get(name, list(self._find(name).records))
        self.drop(name)
        self.create(replace(spec, encoder=fingerprint))
        super().upsert(name, [replace(r, vector=np.ones(spec.dim)) for r in records])


class AcceptsAnyIndex(ExactBackend):
    def create(self, spec):
        asked = spec.index
        super().create(replace(spec, index=type(asked)()))
        self._collections[spec.name].spec = spec
