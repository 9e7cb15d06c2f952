"""Filters: what their JSON form accepts, what they mean, what is refused."""

from __future__ import annotations

import enum
import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.base import And, CollectionSpec, Compare, Not, Or, Record, format_where, matches, parse_where
from backends.checks import check_ids
from backends.conformance import strategies
from backends.exact.backend import ExactBackend
from backends.filters import MAX_DEPTH, MAX_NODES, MAX_VALUES, OPERATORS, fields_of
from backends.fold import folded, is_everything

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
        ({"x" * 65: 1}, "1-64 letters"),
        ({"年" * 65: 1}, "1-64 letters"),
        ({"年 月": 1}, "field name '年 月'"),
        ({"१वर्ष": 1}, "not starting with a digit"),
        ({"\u0301a": 1}, "field name"),
        ({"a1\u0301": 1}, "field name"),
        ({"😀": 1}, "field name"),
        ({"x²": 1}, "field name"),
        ({"ﾃﾞ-ﾀ": 1}, "field name"),
        ({"ä\n": 1}, "field name"),
        ({"\ud800": 1}, "field name"),
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
    assert not is_everything(And((Compare("a", "eq", 1),)))
    assert not is_everything(Or((Compare("a", "eq", 1), Not(Compare("a", "eq", True)))))


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"$and": []},
        {"$and": [{}, {"$and": []}]},
        {"$or": [{"a": 1}, {}]},
        {"$not": {"$or": []}},
        {"$not": {"a": {"$in": []}}},
        {"$not": {"$not": {}}},
        {"$not": {"a": 1, "b": {"$in": []}}},
        {"$or": [{"a": {"$exists": True}}, {"a": {"$exists": False}}]},
        {"$or": [{"a": 1}, {"b": 2}, {"$not": {"a": {"$eq": 1}}}]},
        {"modality": {"$in": ["image", "text"]}},
        {"modality": {"$ne": "sound"}},
        {"$not": {"modality": {"$contains": "image"}}},
    ],
)
def test_a_tautology_is_known_by_its_form_and_deletes_nothing(data: Any) -> None:
    where = parse_where(data)
    assert is_everything(where)
    with ExactBackend() as store:
        store.create(CollectionSpec("c", 2))
        store.upsert("c", [Record("a", np.ones(2, np.float32), metadata={"a": 1})])
        with pytest.raises(ValueError, match="true of every record"):
            store.delete("c", where=where)
        assert store.delete("c", where=Not(where)) == 0
        assert store.count("c") == 1


@settings(deadline=None, max_examples=300)
@given(FILTERS, strategies.metadata(), st.sampled_from(["image", "text"]))
def test_a_folded_filter_means_the_same(where: Any, metadata: Any, modality: str) -> None:
    small = folded(where)
    assert matches(small, metadata, modality) is matches(where, metadata, modality)
    assert folded(small) == small
    if is_everything(where):
        assert matches(where, metadata, modality)


@settings(deadline=None, max_examples=300)
@given(
    st.recursive(
        st.sampled_from([And(()), Or(()), Compare("a", "in", ()), Compare("a", "exists", True), Compare("a", "ne", 1)]),
        lambda inner: st.one_of(
            inner.map(Not),
            st.lists(inner, max_size=3).map(lambda clauses: And(tuple(clauses))),
            st.lists(inner, max_size=3).map(lambda clauses: Or(tuple(clauses))),
        ),
    )
)
def test_what_is_called_everything_matches_whatever_there_is(where: Any) -> None:
    shapes: list[Any] = [{}, {"a": 1}, {"a": 2}, {"a": ["x"]}]
    if is_everything(where):
        assert all(matches(where, shape, "image") for shape in shapes)
    if folded(where) == Or(()):
        assert not any(matches(where, shape, "image") for shape in shapes)


def test_equalities_on_one_field_become_one_list() -> None:
    ones = tuple(Compare("a", "eq", value) for value in (1, True, "1", 1))
    assert folded(Or(ones)) == Compare("a", "in", (1, True, "1"))
    assert folded(Or((Or(ones), Compare("a", "in", ("b",))))) == Compare("a", "in", (1, True, "1", "b"))
    assert folded(And(tuple(Not(one) for one in ones))) == Not(Compare("a", "in", (1, True, "1")))
    assert folded(And((Compare("a", "ne", 1), Compare("a", "nin", (2, 3))))) == Compare("a", "nin", (1, 2, 3))
    kept = And((Compare("a", "eq", 1), Compare("a", "eq", 2)))
    assert folded(kept) == kept


def test_trees_made_in_python_are_bounded_too() -> None:
    deep: Any = Compare("a", "eq", 1)
    for _ in range(5_000):
        deep = Not(deep)
    for where, said in (
        (deep, "nested deeper than 32"),
        (Or(tuple(Compare(f"f{i}", "eq", 1) for i in range(MAX_NODES + 100))), "more than 4096 comparisons"),
        (Compare("a", "in", tuple(range(MAX_VALUES + 1))), "more than 65536 values"),
        (Or(tuple(Compare("a", "in", tuple(range(i, i + 40_000))) for i in (0, 40_000))), "more than 65536 values"),
    ):
        with pytest.raises(ValueError, match=said):
            folded(where)
    with pytest.raises(ValueError, match="more than 65536 values"):
        parse_where({"a": {"$in": list(range(MAX_VALUES + 1))}})
    ops = ("gt", "gte", "lt", "lte", "ne", "eq")
    with pytest.raises(ValueError, match="more than 4096"):
        parse_where({f"f{i}": {"$not": {"$" + op: 1 for op in ops}} for i in range(1_000)})


class Kind(str, enum.Enum):  # noqa: UP042 - of this one str() is another string
    MANUAL = "manual"


class Level(enum.IntEnum):
    HIGH = 3


class Loud(str):
    def __str__(self) -> str:
        return "LOUD"

    __repr__ = __str__


@pytest.mark.parametrize(
    ("value", "held"),
    [
        (Kind.MANUAL, "manual"),
        (Loud("soft"), "soft"),
        (np.str_("x"), "x"),
        (Level.HIGH, 3),
        (np.int32(4), 4),
        (np.uint64(7), 7),
        (np.float64(0.5), 0.5),
        (np.float32(0.25), 0.25),
        (np.bool_(True), True),
        (np.False_, False),
    ],
)
def test_values_are_plain_from_where_they_enter(value: Any, held: Any) -> None:
    (metadata,) = (Record("a", None, metadata={"f": value}).metadata,)
    for found in (metadata["f"], Compare("f", "eq", value).value, *Compare("f", "in", [value]).value):
        assert (found, type(found)) == (held, type(held))


def test_lists_ids_and_names_are_plain_too() -> None:
    record = Record(Loud("id"), None, Loud("text"), Loud("words"), Loud("u"), {Loud("f"): np.array(["a", "b"])})  # type: ignore[arg-type]
    assert record.metadata == {"f": ["a", "b"]}
    texts = (record.id, record.modality, record.text, record.uri, *record.metadata, *record.metadata["f"])  # type: ignore[misc]
    assert {type(text) for text in texts} == {str}
    assert Record("a", None, metadata={"f": (Kind.MANUAL, "b")}).metadata == {"f": ["manual", "b"]}
    assert Compare("f", "in", np.array([1, 2])).value == (1, 2)
    assert type(Compare(Loud("f"), Loud("eq"), 1).field) is str  # type: ignore[arg-type]
    assert type(CollectionSpec(Loud("c"), 2, encoder=Loud("e")).name) is str
    assert check_ids([Loud("a"), "b"]) == ["a", "b"]
    assert {type(i) for i in check_ids([Loud("a"), "b"])} == {str}


@pytest.mark.parametrize(
    "value",
    [enum.Enum("Odd", "A").A, np.array([["a"]]), np.datetime64("2020"), b"x", np.uint64(2**63), np.array([1])],  # type: ignore[attr-defined]
)
def test_what_holds_no_plain_value_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="record 'a'"):
        Record("a", None, metadata={"f": value})
    with pytest.raises(ValueError, match=r"the value of f \$eq"):
        Compare("f", "eq", value)
    with pytest.raises(ValueError, match="an id is a string"):
        check_ids(["a", value])


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
