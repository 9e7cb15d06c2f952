"""Checks with hostile input: ids, texts and values made to break quoting, encoding and paths."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from backends.base import And, Compare, Not, Record
from backends.conformance import strategies
from backends.conformance.samples import HOSTILE, vectors
from backends.conformance.store import Store

REFUSED = {"empty": "", "NUL": "a\x00b", "a lone surrogate": "a\ud800b", "513 bytes": "x" * 513, "wide": "é" * 257}


def hostile_records() -> list[Record]:
    """One record for each hostile string, which is its id, text, uri and metadata."""
    rows = vectors(len(HOSTILE), 8, seed=11)
    return [
        Record(text, rows[i], "text", text, text, {"v": text, "tags": [text, "x"]}) for i, text in enumerate(HOSTILE)
    ]


class HostileChecks:
    """Strings that engines get wrong."""

    def test_hostile_strings_come_back_unchanged(self, store: Store) -> None:
        twin = store.twin()
        twin.upsert(hostile_records())
        assert twin.same_count() == len(set(HOSTILE)) == len(HOSTILE)
        twin.same_records()
        twin.same_get(HOSTILE[::-1])
        twin.same_hits(vectors(3, 8, seed=12), 100)

    def test_hostile_strings_in_filters(self, store: Store) -> None:
        twin = store.twin()
        twin.upsert(hostile_records())
        for text in HOSTILE:
            assert twin.same_count(Compare("v", "eq", text)) == 1, f"{text!r} is not found by its value"
            assert twin.same_count(Compare("tags", "eq", text)) == 1, f"{text!r} is not found in its list"
            where = And((Compare("v", "in", (text, "nowhere")), Compare("modality", "eq", "text")))
            assert [hit.id for hit in twin.same_hits(vectors(1, 8), 3, where)[0]] == [text]
        twin.same_count(Not(Compare("v", "in", HOSTILE[:40])))

    def test_hostile_ids_are_deleted_one_by_one(self, store: Store) -> None:
        twin = store.twin()
        twin.upsert(hostile_records())
        for record_id in HOSTILE[::2]:
            assert twin.delete(ids=[record_id]) == 1, f"{record_id!r} was not deleted"
        for text in HOSTILE[1::4]:
            assert twin.delete(where=Compare("v", "eq", text)) == 1, f"{text!r} was not deleted by its value"
        twin.same_records()

    def test_random_ids_and_texts(self, store: Store) -> None:
        @seed(store.seed)
        @settings(max_examples=4, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(
            st.lists(strategies.ids().filter(lambda i: len(i.encode()) <= 512), min_size=30, max_size=60, unique=True),
            st.lists(strategies.texts(), min_size=5, max_size=5),
        )
        def survive(ids: list[str], texts: list[str]) -> None:
            twin = store.twin()
            rows = vectors(len(ids), 8)
            twin.upsert(
                Record(i, rows[n], "text", texts[n % 5], metadata={"t": texts[n % 5]}) for n, i in enumerate(ids)
            )
            twin.same_records()
            twin.delete(ids=ids[::3])
            twin.same_get(ids)
            for text in texts:
                twin.same_count(Compare("t", "eq", text))
            store.backend.drop(twin.name)

        survive()

    @pytest.mark.parametrize("what", REFUSED)
    def test_unusable_ids_are_refused(self, store: Store, what: str) -> None:
        name = store.collection()
        with pytest.raises(ValueError, match="id"):
            store.backend.upsert(name, [Record("good", vectors(1, 8)[0]), Record(REFUSED[what], vectors(1, 8)[0])])
        assert store.backend.count(name) == 0

    @pytest.mark.parametrize("what", REFUSED)
    def test_unusable_ids_name_no_record(self, store: Store, what: str) -> None:
        twin = store.twin()
        twin.upsert([Record(record_id, vectors(1, 8)[0]) for record_id in ("a", "ab", "x" * 512, "é" * 256)])
        assert [r.id for r in store.backend.get(twin.name, [REFUSED[what], "ab"])] == ["ab"]
        assert store.backend.delete(twin.name, ids=[REFUSED[what]]) == 0
        twin.same_records()

    def test_texts_as_long_as_allowed(self, store: Store) -> None:
        twin = store.twin()
        row = vectors(3, 8)
        twin.upsert(
            [
                Record("long", row[0], "text", "word " * 13_107, "file:///" + "u" * 8_184, {"v": "é" * 30_000}),
                Record("list", row[1], "text", "", "", {"tags": [f"tag{i}" for i in range(4_000)]}),
                Record("fields", row[2], metadata={f"field_{i}": i for i in range(1_000)}),
            ]
        )
        twin.same_records()
        assert twin.same_count(Compare("v", "eq", "é" * 30_000)) == 1
        assert twin.same_count(Compare("tags", "eq", "tag3999")) == 1
        assert twin.same_count(Compare("field_999", "eq", 999)) == 1
        twin.same_hits(row, 3)
