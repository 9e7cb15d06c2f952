"""Filters: what their JSON form accepts, what they mean, what is refused."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.base import And, Compare, Not, Or, format_where, matches, parse_where
from backends.conformance import strategies
from backends.exact import ExactBackend
from backends.where import MAX_DEPTH, MAX_NODES, OPERATORS, fields_of, is_everything

FILTERS = strategies.filters(ExactBackend.capabilities)
BOOK = {"year": 1990, "rating": 4.5, "lang": "en", "tags": ["sea", "dog"], "seen": True, "none": [], "empty": ""}


def holds(data: Any, modality: str = "image") -> bool:
    return matches(parse_where(data), BOOK, modality)


@pytest.mark.parametrize(
    ("data", "tree"),
    [
        ({}, And(())),
        ({"a": 1}, Compare("a", "eq", 1)),
        ({"a": 1, "b": "x"}, And((Compare("a", "eq", 1), Compare("b", "eq", "x")))),
        ({"a": {"$gte": 1, "$lt": 5}}, And((Compare("a", "gte", 1), Compare("a", "lt", 5)))),
        ({"a": {"$in": [1, "x"]}}, Compare("a", "in", (1, "x"))),
        ({"a": {"$not": {"$gt": 3}}}, Not(Compare("a", "gt", 3))),
        ({"a": {"$not": {"$gt": 3, "$lt": 9}}}, Not(And((Compare("a", "gt", 3), Compare("a", "lt", 9))))),
        ({"a": {"$not": 3}}, Not(Compare("a", "eq", 3))),
        ({"$not": {"a": 1, "b": 2}}, Not(And((Compare("a", "eq", 1), Compare("b", "eq", 2))))),
        ({"$or": [{"a": 1}, {"b": 2}]}, Or((Compare("a", "eq", 1), Compare("b", "eq", 2)))),
        ({"$and": []}, And(())),
        ({"$or": []}, Or(())),
        ({"$or": [{}]}, Or((And(()),))),
        ({"modality": "text"}, Compare("modality", "eq", "text")),
    ],
)
def test_json_becomes_a_tree(data: Any, tree: Any) -> None:
    assert parse_where(data) == tree


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (None, "must be an object"),
        ([], "must be an object"),
        ("a", "must be an object"),
        ({"a": {"$foo": 1}}, r"unknown operator '\$foo' on field 'a'; known are \$eq"),
        ({"a": {"gte": 1}}, r"where\.a\.gte: expected an operator such as \$eq"),
        ({"a": {"b": 1}}, "nested fields do not exist"),
        ({"a": {}}, r"where\.a is empty"),
        ({"a": {"$not": {}}}, "is empty"),
        ({"$nor": []}, r"unknown operator '\$nor'; only \$and"),
        ({"$and": {"a": 1}}, r"where\.\$and must be a list"),
        ({"$or": "ab"}, r"where\.\$or must be a list"),
        ({"$or": [{"a": 1}, 3]}, r"where\.\$or\[1\] must be an object"),
        ({"$not": [{"a": 1}]}, r"where\.\$not must be an object"),
        ({"a": None}, r"use \$exists"),
        ({"a": [1, 2]}, r"use .*\$in"),
        ({"a": {"$in": 3}}, r"a \$in must be a list"),
        ({"a": {"$in": "xyz"}}, r"a \$in must be a list"),
        ({"a": {"$in": [None]}}, "an element of the value of a"),
        ({"a": {"$exists": 1}}, "must be true or false"),
        ({"a": {"$gt": True}}, "booleans have no order"),
        ({"a": {"$eq": float("nan")}}, "only finite numbers"),
        ({"a": {"$lt": float("inf")}}, "only finite numbers"),
        ({"a": 2**63}, "beyond 64-bit"),
        ({"a": "x\x00"}, "NUL"),
        ({"a": "\ud800"}, "lone surrogate"),
        ({"a": object()}, "allowed are str, int, float and bool"),
        ({"": 1}, "field name ''"),
        ({"a b": 1}, "field name 'a b'"),
        ({"1a": 1}, "not starting with a digit"),
        ({"a.b": 1}, "field name"),
        ({"a'; --": 1}, "field name"),
        ({"x" * 65: 1}, "1-64 ASCII letters"),
        ({"ä": 1}, "field name"),
        ({"a\n": 1}, "field name"),
        ({1: 1}, "field name 1"),
    ],
)
def test_bad_json_is_refused_with_its_place(data: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        parse_where(data)
    assert "\n" not in str(caught.value)


def nested(levels: int) -> dict[str, Any]:
    data: dict[str, Any] = {"a": 1}
    for _ in range(levels - 1):
        data = {"$not": data}
    return data


def test_depth_and_size_are_bounded() -> None:
    parse_where(nested(MAX_DEPTH))
    with pytest.raises(ValueError, match="nested deeper"):
        parse_where(nested(MAX_DEPTH + 1))
    with pytest.raises(ValueError, match="nested deeper"):
        parse_where(nested(100_000 // 200))
    field: dict[str, Any] = {"$gt": 1}
    for _ in range(200):
        field = {"$not": field}
    with pytest.raises(ValueError, match="nested deeper"):
        parse_where({"a": field})
    parse_where({"$or": [{"a": i} for i in range(MAX_NODES - 1)]})
    with pytest.raises(ValueError, match="more than 4096"):
        parse_where({"$or": [{"a": i} for i in range(MAX_NODES + 1)]})
    with pytest.raises(ValueError, match="more than 4096"):
        parse_where({"$or": [{"a": {"$gt": i, "$lt": i + 1}} for i in range(3_000)]})


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({}, True),
        ({"year": 1990}, True),
        ({"year": 1990.0}, True),
        ({"year": "1990"}, False),
        ({"year": {"$ne": "1990"}}, True),
        ({"year": {"$gt": "1"}}, False),
        ({"lang": {"$gt": 1}}, False),
        ({"rating": {"$gte": 4, "$lt": 5}}, True),
        ({"seen": True}, True),
        ({"seen": 1}, False),
        ({"seen": {"$ne": 1}}, True),
        ({"seen": {"$in": [1, 0]}}, False),
        ({"seen": {"$gt": 0}}, False),
        ({"year": {"$in": [True, 1990]}}, True),
        ({"year": {"$in": []}}, False),
        ({"year": {"$nin": []}}, True),
        ({"nowhere": {"$nin": []}}, False),
        ({"nowhere": 1}, False),
        ({"nowhere": {"$ne": 1}}, False),
        ({"nowhere": {"$not": {"$eq": 1}}}, True),
        ({"nowhere": {"$exists": False}}, True),
        ({"nowhere": {"$exists": True}}, False),
        ({"year": {"$exists": True}}, True),
        ({"none": {"$exists": True}}, True),
        ({"none": {"$ne": "a"}}, True),
        ({"none": {"$nin": ["a"]}}, True),
        ({"none": ""}, False),
        ({"empty": ""}, True),
        ({"tags": "dog"}, True),
        ({"tags": "cat"}, False),
        ({"tags": {"$ne": "cat"}}, True),
        ({"tags": {"$ne": "dog"}}, False),
        ({"tags": {"$in": ["cat", "sea"]}}, True),
        ({"tags": {"$nin": ["cat", "sea"]}}, False),
        ({"tags": {"$contains": "dog"}}, True),
        ({"tags": {"$contains": "do"}}, False),
        ({"tags": {"$gte": "a"}}, False),
        ({"lang": {"$contains": "en"}}, False),
        ({"lang": {"$contains": "e"}}, False),
        ({"modality": "image"}, True),
        ({"modality": {"$ne": "image"}}, False),
        ({"modality": {"$exists": True}}, True),
        ({"modality": {"$exists": False}}, False),
        ({"$and": []}, True),
        ({"$or": []}, False),
        ({"$not": {}}, False),
        ({"$or": [{"year": 1}, {"lang": "en"}]}, True),
        ({"$and": [{"year": 1990}, {"lang": "de"}]}, False),
    ],
)
def test_what_filters_mean(data: Any, expected: bool) -> None:
    assert holds(data) is expected
    assert holds({"$not": data}) is not expected


def test_strings_are_ordered_by_code_point() -> None:
    words = ["", "A", "Z", "a", "a ", "aa", "b", "z", "ä", "～", "😀"]
    for low, high in itertools.pairwise(words):
        assert matches(Compare("w", "lt", high), {"w": low}, "image")
        assert not matches(Compare("w", "gte", high), {"w": low}, "image")


def test_large_numbers_compare_by_value() -> None:
    assert not matches(Compare("n", "eq", 2**53), {"n": 2**53 + 1}, "image")
    assert matches(Compare("n", "gt", float(2**53)), {"n": 2**53 + 1}, "image")
    assert matches(Compare("n", "eq", -(2**63)), {"n": -(2**63)}, "image")


def test_no_filter_matches_everything() -> None:
    assert matches(None, {}, "text")
    assert is_everything(And(()))
    assert is_everything(And((And(()), And(()))))
    assert not is_everything(Or(()))
    assert not is_everything(Not(Or(())))
    assert not is_everything(And((Compare("a", "eq", 1),)))


@pytest.mark.parametrize("op", OPERATORS)
def test_every_operator_is_false_on_a_missing_field(op: Any) -> None:
    value: Any = {"in": ("a",), "nin": ("a",), "exists": True}.get(op, "a")
    assert not matches(Compare("nowhere", op, value), BOOK, "image")


@settings(deadline=None)
@given(FILTERS, strategies.metadata(), st.sampled_from(["image", "text"]))
def test_a_tree_and_its_json_mean_the_same(where: Any, metadata: Any, modality: str) -> None:
    again = parse_where(format_where(where))
    assert matches(again, metadata, modality) is matches(where, metadata, modality)
    assert format_where(parse_where(format_where(again))) == format_where(again)
    assert fields_of(again) == fields_of(where)


@settings(deadline=None)
@given(FILTERS, FILTERS, strategies.metadata())
def test_connectives_are_those_of_logic(left: Any, right: Any, metadata: Any) -> None:
    def true(where: Any) -> bool:
        return matches(where, metadata, "image")

    assert true(Not(left)) is not true(left)
    assert true(And((left, right))) is (true(left) and true(right))
    assert true(Or((left, right))) is (true(left) or true(right))
    assert true(Not(And((left, right)))) is true(Or((Not(left), Not(right))))


def test_fields_are_listed() -> None:
    assert fields_of(parse_where({"a": 1, "$or": [{"b": 2}, {"$not": {"c": {"$gt": 3}}}]})) == {"a", "b", "c"}
    assert fields_of(And(())) == frozenset()
