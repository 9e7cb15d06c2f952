"""Checks of metadata fields whose names are in any script."""

from __future__ import annotations

import unicodedata
from typing import Any

import numpy as np
import pytest

from backends.base import And, Compare, Not, Operator, Or, Record, Where
from backends.conformance.samples import vectors
from backends.conformance.store import Store

# Chinese, Arabic, Hindi with vowel signs, Cyrillic in two cases, accents, kana with sound marks, Thai; the last one as
# long as names may be; and beside each what an encoding of it could be taken for.
NAMES = (
    "拍摄地点",
    "السنة",
    "वर्ष",
    "год",
    "Год",
    "año",
    "ガイド_2",
    "ปีที่",
    "二〇",
    "x_年",
    "x年_",
    "_年x",
    "𝔘rl",
    "界" * 64,
    "plain",
    "v年",
    "l年",
    "u0021",
)
UNUSABLE = ("😀", "a😀", "年 月", "年-月", "१वर्ष", "\u0301a", "年" * 65, "a\u200bb", "x²", "年\n", "")
VALUES: tuple[Any, ...] = (1, 2.5, 2**53 + 1, "a", "日本", True, ["a", "b"], [])


def metadata_of(i: int) -> dict[str, Any]:
    """Every name in most records, each with every kind of value in turn."""
    return {name: VALUES[(i + j) % len(VALUES)] for j, name in enumerate(NAMES) if (i + j) % 5}


def filters_on(name: str, store: Store) -> list[Where]:
    """Each operator that the engine has, on this field."""
    asked: tuple[tuple[Operator, Any], ...] = (
        ("eq", 1),
        ("eq", "日本"),
        ("eq", "a"),
        ("eq", True),
        ("ne", "a"),
        ("in", (1, "b", "日本")),
        ("nin", (1, "b")),
        ("gt", 1),
        ("gte", 2.5),
        ("lt", 2**53 + 1),
        ("lte", 2**53 + 1),
        ("gt", "a"),
        ("lte", "日本"),
        ("exists", True),
        ("exists", False),
        ("contains", "b"),
    )
    declared = store.capabilities
    return [
        Compare(name, op, value)
        for op, value in asked
        if op in declared.operators and (declared.string_order or op[0] not in "gl" or not isinstance(value, str))
    ]


class FieldNameChecks:
    """Names of fields, in records and in filters."""

    def test_field_names_of_any_script_are_kept_and_filtered(self, store: Store) -> None:
        twin = store.twin()
        rows = vectors(40, 8)
        twin.upsert(Record(f"r{i:02}", rows[i], metadata=metadata_of(i)) for i in range(40))
        assert twin.same_records()[7].metadata == metadata_of(7)
        for name in NAMES:
            for where in filters_on(name, store):
                twin.same_count(where)
            twin.same_hits(rows[:2], 40, Compare(name, "in", ("a", 1)))
        combined = And((Or((Compare("年月", "eq", 1), Compare("拍摄地点", "gte", 2))), Not(Compare("год", "eq", "a"))))
        twin.same_hits(rows[:2], 40, combined)
        assert twin.delete(where=Compare("वर्ष", "eq", "a")) > 0
        twin.same_records()
        twin.upsert([Record("r00", rows[0], metadata={"拍摄地点": "西湖"})])
        for where in filters_on("拍摄地点", store):
            twin.same_count(where)

    def test_two_spellings_of_a_name_are_one_field(self, store: Store) -> None:
        composed = unicodedata.normalize("NFC", "año_और")
        apart = unicodedata.normalize("NFD", composed)
        assert apart != composed
        name = store.collection()
        row = np.ones(8, np.float32)
        store.backend.upsert(name, [Record("a", row, metadata={apart: 1}), Record("b", row, metadata={composed: 1})])
        found = store.backend.get(name, ["a", "b"])
        assert [dict(record.metadata) for record in found] == [{composed: 1}, {composed: 1}]
        for spelling in (apart, composed):
            assert store.backend.count(name, Compare(spelling, "gte", 1)) == 2
            assert store.backend.count(name, Not(Compare(spelling, "gte", 1))) == 0

    def test_unusable_field_names_are_refused_and_nothing_is_stored(self, store: Store) -> None:
        name = store.collection()
        row = np.ones(8, np.float32)
        for field in UNUSABLE:
            with pytest.raises(ValueError, match="field name"):
                store.backend.upsert(name, (Record(i, row, metadata={f: 1}) for i, f in (("a", "good"), ("b", field))))
            with pytest.raises(ValueError, match="field name"):
                store.backend.count(name, Compare(field, "eq", 1))
        assert store.backend.count(name) == 0
