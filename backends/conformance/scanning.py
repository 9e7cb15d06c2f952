"""Checks of scan, and of collections and calls as wide as they come."""

from __future__ import annotations

import pytest

from backends.base import Compare, Record
from backends.conformance.oracle import payload
from backends.conformance.samples import some, stream, vectors
from backends.conformance.store import Store
from backends.filters import MetadataValue


class ScanChecks:
    """Reading everything, in pages."""

    @pytest.mark.parametrize("batch", [1, 7, 40, 41, 1000])
    def test_scan_gives_every_record_once(self, store: Store, batch: int) -> None:
        twin = store.twin()
        twin.upsert(some(40))
        pages = list(store.backend.scan(twin.name, batch=batch))
        ids = [record.id for page in pages for record in page.records]
        assert sorted(ids) == [f"r{i:05}" for i in range(40)]
        assert all(1 <= len(page.records) <= batch for page in pages)
        for page in pages:
            for record in page.records:
                twin.same_record(record, twin.oracle.get(twin.name, [record.id], with_vectors=True)[0])

    def test_scan_without_vectors(self, store: Store) -> None:
        name = store.collection()
        records = some(12)
        store.backend.upsert(name, records)
        found = [r for page in store.backend.scan(name, with_vectors=False, batch=5) for r in page.records]
        assert all(r.vector is None for r in found)
        assert sorted(payload(r) for r in found) == sorted(payload(r) for r in records)

    def test_scan_resumes_after_any_page(self, store: Store) -> None:
        name = store.collection()
        store.backend.upsert(name, some(23))
        pages = list(store.backend.scan(name, batch=5))
        for i, page in enumerate(pages):
            assert isinstance(page.cursor, str)
            rest = [r.id for p in store.backend.scan(name, cursor=page.cursor, batch=4) for r in p.records]
            assert rest == [r.id for p in pages[i + 1 :] for r in p.records]

    def test_scan_resumes_on_another_handle_and_after_deletes(self, store: Store) -> None:
        name = store.collection()
        store.backend.upsert(name, some(30))
        first = next(iter(store.backend.scan(name, batch=10)))
        seen = [r.id for r in first.records]
        store.backend.delete(name, ids=[seen[-1], seen[0]])
        rest = [r.id for p in store.backend.scan(name, cursor=first.cursor, batch=10) for r in p.records]
        assert sorted(seen + rest) == [f"r{i:05}" for i in range(30)]

    def test_scan_while_being_written(self, store: Store) -> None:
        name = store.collection()
        store.backend.upsert(name, some(60, prefix="m"))
        rows = vectors(40, 8, seed=3)
        seen: list[str] = []
        for i, page in enumerate(store.backend.scan(name, batch=10)):
            seen += [r.id for r in page.records]
            if i < 20:
                store.backend.upsert(name, [Record(f"{stem}{i:03}", rows[i]) for stem in ("a", "n")])
                store.backend.upsert(name, [Record(f"m{i:05}", rows[i], text="changed")])
                store.backend.delete(name, ids=[f"m{59 - i:05}"])
        assert len(seen) == len(set(seen)), "a record was given twice"
        there_all_along = {r.id for p in store.backend.scan(name) for r in p.records if r.id.startswith("m")}
        assert there_all_along <= set(seen), "a record that was there all along was not given"

    def test_scan_refuses_empty_batches(self, store: Store) -> None:
        name = store.collection()
        store.backend.upsert(name, some(3))
        for batch in (0, -1):
            with pytest.raises(ValueError, match="batch"):
                list(store.backend.scan(name, batch=batch))

    def test_facets_count_what_a_filter_leaves(self, store: Store) -> None:
        twin = store.twin()
        values: list[dict[str, MetadataValue]] = [
            {"n": (1, 2, True, "1")[i % 4], "tags": [f"t{j}" for j in range(i % 3)], **({"odd": i} if i % 2 else {})}
            for i in range(40)
        ]
        twin.upsert(stream(40, metadata=values))
        fields = ["n", "tags", "odd", "modality", "nowhere"]
        for where in (None, Compare("odd", "exists", True), Compare("n", "eq", 1), Compare("n", "eq", "none")):
            found = store.backend.facets(twin.name, fields, where=where, top=3)
            assert found == twin.oracle.facets(twin.name, fields, where=where, top=3)
        twin.upsert(stream(2, metadata=[{"n": "new"}, {"n": "new"}]))
        twin.delete(ids=["r00002"])
        assert store.backend.facets(twin.name, ["n"]) == twin.oracle.facets(twin.name, ["n"])
        with pytest.raises(ValueError, match="top"):
            store.backend.facets(twin.name, ["n"], top=0)
        with pytest.raises(ValueError, match="field"):
            store.backend.facets(twin.name, ["no field"])

    def test_many_records_with_wide_metadata(self, store: Store) -> None:
        n = store.sizes.wide
        name = store.collection()
        metadata: list[dict[str, MetadataValue]] = [
            {"n": i, "blob": f"{i:05}" + "w" * 1_000, "tags": [f"t{i % 10}", "all"]} for i in range(n)
        ]
        store.backend.upsert(name, stream(n, metadata=metadata))
        store.backend.flush(name)
        assert store.backend.count(name) == n
        assert store.backend.count(name, Compare("n", "lt", n // 4)) == n // 4
        assert store.backend.count(name, Compare("tags", "eq", "t3")) == n // 10
        found = {r.id: r.metadata for p in store.backend.scan(name, with_vectors=False) for r in p.records}
        assert found == {f"r{i:05}": metadata[i] for i in range(n)}
        some_ids = [f"r{i:05}" for i in range(n - 1, 0, -2)]
        assert [r.id for r in store.backend.get(name, some_ids)] == some_ids
        (hits,) = store.backend.search(name, vectors(1, 8), 10, where=Compare("blob", "eq", metadata[77]["blob"]))
        assert [hit.id for hit in hits] == ["r00077"]
        assert store.backend.delete(name, ids=some_ids) == len(some_ids)
        assert store.backend.delete(name, where=Compare("tags", "eq", "all")) == n - len(some_ids)
        assert store.backend.count(name) == 0
