"""Checks of filters: random trees against the oracle, each operator, the corners of the meaning, limits."""

from __future__ import annotations

import enum
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from backends.base import And, Compare, Not, Operator, Or, Record, Unsupported, Where
from backends.conformance import strategies
from backends.conformance.oracle import Twin
from backends.conformance.samples import some, vectors
from backends.conformance.store import Store
from backends.filters import MAX_NODES, MAX_VALUES, OPERATORS, ORDERINGS

COLLECTIONS = 5
SHAPES = 40
EXAMPLES: dict[str, Any] = {"in": (1, "en"), "nin": (1, "en"), "exists": True}

CORNERS: tuple[dict[str, Any], ...] = (
    {},
    {"v": 0},
    {"v": 1},
    {"v": 1.0},
    {"v": True},
    {"v": False},
    {"v": "1"},
    {"v": "true"},
    {"v": ""},
    {"v": []},
    {"v": ["1"]},
    {"v": ["a", "b"]},
    {"v": ["a"]},
    {"v": "a"},
    {"v": "A"},
    {"v": -1},
    {"v": 1.5},
    {"v": 2},
    {"v": 2**53},
    {"v": 2**53 + 1},
    {"v": 2**63 - 1},
    {"v": -(2**63)},
    {"v": 1e300},
    {"v": 1e-300},
    {"v": "a "},
    {"v": "~"},
    {"v": "～"},
    {"v": "😀"},
    {"v": "é"},
    {"v": "e\u0301"},
    {"v": "z"},
    {"v": "Z"},
    {"v": "ä"},
    {"v": '["a"]'},
    {"v": "None"},
    {"w": 1},
    {"V": 1},
    {"v": [""]},
    {"v": ["it's", 'say "x"', "a\\b", "%", "_"]},
)
VALUES: tuple[Any, ...] = (
    0,
    1,
    1.0,
    1.5,
    -1,
    2**53,
    2**53 + 1,
    float(2**53),
    2**63 - 1,
    -(2**63),
    1e300,
    1e-300,
    -1e300,
    True,
    False,
    "1",
    "true",
    "",
    "a",
    "A",
    "a ",
    "b",
    "it's",
    'say "x"',
    "a\\b",
    "%",
    "_",
    "~",
    "～",
    "😀",
    "é",
    "e\u0301",
    "Z",
    "ä",
    '["a"]',
    "None",
)


class Kind(str, enum.Enum):  # noqa: UP042 - of this one str() is another string
    """Strings as programs have them."""

    MANUAL = "manual"


class Level(enum.IntEnum):
    """Numbers as programs have them."""

    HIGH = 3


class Id(str):
    """A string that says something else of itself."""

    __slots__ = ()

    def __str__(self) -> str:
        return "another"


def asks_for_string_order(where: Where) -> bool:
    """Whether the tree compares strings by order."""
    if isinstance(where, Compare):
        return where.op in ORDERINGS and isinstance(where.value, str)
    return any(asks_for_string_order(c) for c in ((where.clause,) if isinstance(where, Not) else where.clauses))


def random_shapes(number: int) -> list[list[Any]]:
    """Metadata for the records of `COLLECTIONS` collections, `SHAPES` different ones in each."""
    drawn: list[list[Any]] = []

    @seed(number)
    @settings(max_examples=COLLECTIONS + 1, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(strategies.metadata(), min_size=SHAPES, max_size=SHAPES))
    def draw(shapes: list[Any]) -> None:
        drawn.append(shapes)

    draw()
    return drawn[-COLLECTIONS:]  # the first one is always the simplest: no metadata at all


def try_random_trees(store: Store, twin: Twin, examples: int, number: int, matched: list[int]) -> list[Where]:
    """Compare count and search under random filters; returns those that were tried, notes how many each matched."""
    tried: list[Where] = []
    query = vectors(1, 8, seed=7)
    k = min(store.sizes.records, store.capabilities.max_k or store.sizes.records)

    @seed(number)
    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(strategies.filters(store.capabilities))
    def agree(where: Where) -> None:
        same_ids(twin, where, k)
        matched.append(twin.same_count(where))
        twin.same_hits(query, k, where)
        twin.same_hits(query, 3, where)
        tried.append(where)

    agree()
    return tried


def same_ids(twin: Twin, where: Where, k: int) -> None:
    """Both find the same; the message shows the metadata that was decided wrongly."""
    (found,) = twin.backend.search(twin.name, np.ones((1, 8)), k, where=where)
    (wanted,) = twin.oracle.search(twin.name, np.ones((1, 8)), k, where=where)
    wrong = sorted({hit.id for hit in found} ^ {hit.id for hit in wanted})
    shown = [record.metadata for record in twin.oracle.get(twin.name, wrong[:5])]
    assert not wrong, f"{where} decides wrongly on {shown}, or on deleted records: {wrong[:5]}"


def refused(store: Store, name: str, where: Where) -> None:
    """`where` raises `Unsupported` from every method, wherever it stands in a tree."""
    for tree in (where, Not(where), And((Compare("w", "eq", 1), where)), Or((where, where))):
        with pytest.raises(Unsupported):
            store.backend.count(name, tree)
        with pytest.raises(Unsupported):
            store.backend.search(name, np.ones((1, 8)), 3, where=tree)
        with pytest.raises(Unsupported):
            store.backend.delete(name, where=tree)


class FilterChecks:
    """Filters mean on this engine what `backends.filters.matches` says."""

    def test_random_filters_agree_with_the_oracle(self, store: Store) -> None:
        trees_each = -(-store.sizes.filter_trees // COLLECTIONS)
        matched: list[int] = []
        for number, shapes in enumerate(random_shapes(store.seed)):
            twin = store.twin()
            records = some(store.sizes.records, metadata=shapes)
            twin.upsert(records)
            trees = try_random_trees(store, twin, trees_each, store.seed + number, matched)
            for where in trees[::10]:
                if twin.oracle.count(twin.name, where) < len(records):
                    twin.delete(where=where)
                    twin.same_records()
                    twin.upsert(records)
        assert len(matched) >= store.sizes.filter_trees
        assert sum(0 < n < store.sizes.records for n in matched) >= 0.2 * len(matched), "the filters select too little"

    @pytest.mark.parametrize("op", OPERATORS)
    def test_each_operator_on_every_kind_of_value(self, store: Store, op: Operator) -> None:
        twin = store.twin()
        twin.upsert(some(len(CORNERS), metadata=CORNERS))
        if op not in store.capabilities.operators:
            refused(store, twin.name, Compare("v", op, EXAMPLES.get(op, "a" if op == "contains" else 1)))
            return
        operands: tuple[Any, ...] = VALUES
        if op == "exists":
            operands = (True, False)
        elif op in ("in", "nin"):
            operands = ((), *((value,) for value in VALUES), (1, "a"), (True, 0, "b"), VALUES)
        elif op in ORDERINGS:
            operands = tuple(value for value in VALUES if not isinstance(value, bool))
        for operand in operands:
            where = Compare("v", op, operand)
            if asks_for_string_order(where) and not store.capabilities.string_order:
                continue
            for tree in (where, Not(where)):
                twin.same_count(tree)
                same_ids(twin, tree, len(CORNERS))
        twin.same_count(Compare("nowhere", op, operands[0]))

    def test_string_order_is_by_code_point_or_refused(self, store: Store) -> None:
        words = ("", "A", "Z", "a", "b", "~", "ä", "é", "e\u0301", "\ud7ff", "\ue000", "～", "\uffff", "😀", "a ", "aa")
        twin = store.twin()
        twin.upsert(some(len(words), metadata=[{"w": word} for word in words]))
        for op in sorted(ORDERINGS & store.capabilities.operators):
            for word in words:
                where = Compare("w", op, word)  # type: ignore[arg-type]
                if store.capabilities.string_order:
                    twin.same_count(where)
                else:
                    refused(store, twin.name, where)

    def test_modality_is_a_field(self, store: Store) -> None:
        twin = store.twin()
        twin.upsert(some(30))
        questions: tuple[tuple[Operator, Any], ...] = (
            ("eq", "text"),
            ("ne", "text"),
            ("in", ("image", "x")),
            ("nin", ("image",)),
            ("exists", True),
        )
        for op, value in questions:
            if op in store.capabilities.operators:
                where = Compare("modality", op, value)
                twin.same_count(where)
                twin.same_hits(vectors(2, 8), 30, where)
                twin.same_hits(vectors(2, 8), 30, Not(where))

    def test_metadata_fields_are_not_the_engine_s_columns(self, store: Store) -> None:
        names = (
            "id",
            "ID",
            "_id",
            "pk",
            "rowid",
            "oid",
            "vector",
            "embedding",
            "text",
            "uri",
            "metadata",
            "payload",
            "score",
            "distance",
            "select",
            "order",
            "group",
            "null",
            "true",
            "key",
            "value",
            "name",
            "type",
            "class",
            "properties",
            "record_id",
            "document",
            "data",
            "json",
            "x" * 64,
            "_",
            "__",
            "a1",
            "A1",
            "ector",
            "ords",
        )
        twin = store.twin()
        twin.upsert(some(len(names), metadata=[{name: "r00000", "w": i} for i, name in enumerate(names)]))
        twin.same_records()
        for name in names:
            assert twin.same_count(Compare(name, "eq", "r00000")) == 1
            assert twin.same_count(Not(Compare(name, "eq", "r00000"))) == len(names) - 1
            twin.same_hits(vectors(1, 8), 3, Compare(name, "eq", "r00000"))

    def test_filters_as_large_as_allowed(self, store: Store) -> None:
        twin = store.twin()
        twin.upsert(some(50))
        deep: Where = Compare("n", "gte", 10)
        for level in range(30):
            deep = Not(deep) if level % 2 else And((deep, Compare("n", "lt", 45)))
        wide = Or(tuple(Compare("n", "eq", i) for i in range(20, 4_000)))
        many = Compare("n", "in", tuple(range(30, 4_000)))
        long = Not(Compare("lang", "eq", "x" * 60_000))
        for where in (deep, wide, And((Compare("n", "lt", 40), wide)), many, Not(many), long):
            twin.same_count(where)
            twin.same_hits(vectors(1, 8), 50, where)

    def test_long_lists_of_values_are_answered(self, store: Store) -> None:
        twin = store.twin()
        twin.upsert(some(50, metadata=[{"n": i, "word": f"w{i}", "tags": [f"w{i}", "all"]} for i in range(50)]))
        words = tuple(f"w{i}" for i in range(0, 9_000, 3))
        lists = [Compare("word", "in", words), Compare("tags", "in", words), Compare("n", "in", tuple(range(7, 7_000)))]
        one_by_one = tuple(Compare("word", "eq", word) for word in words[:2_900])
        trees: list[Where] = [
            *lists,
            Not(lists[1]),
            And((Not(lists[0]), lists[2])),
            Or(one_by_one),
            And(tuple(Not(clause) for clause in one_by_one)),
            Or(tuple(Compare("word", "in", words[i : i + 16]) for i in range(0, 2_900, 2))),
            Or(tuple(Compare(f"f{i}", "in", words[i : i + 16]) for i in range(2_100))),
        ]
        for where in trees:
            twin.same_count(where)
        for where in lists:
            twin.same_hits(vectors(1, 8), 50, where)

    def test_comparisons_of_thousands_of_fields_are_answered(self, store: Store) -> None:
        twin = store.twin()
        twin.upsert(some(50, metadata=[{f"f{i * 61}": i, f"g{i}": ["a"], f"h{i}": f"w{i}"} for i in range(50)]))
        equal = [Compare(f"f{i}", "eq", i // 61 + i % 2) for i in range(1_500)]
        other = [Compare(f"f{i}", "ne", i // 61) for i in range(1_500, 3_000)]
        more = [Compare(f"g{i}", "contains", "a") for i in range(20)] + [
            Compare(f"h{i}", "in", ("w1", 2)) for i in range(300)
        ]
        ordered = [Compare(f"f{i * 61}", "gte", 40) for i in range(8)]
        clauses = tuple(c for c in (*equal, *other, *more, *ordered) if c.op in store.capabilities.operators)
        for where in (Or(clauses), Not(Or(clauses)), And(tuple(Not(clause) for clause in clauses))):
            twin.same_count(where)
        twin.same_hits(vectors(1, 8), 50, Or(clauses))

    def test_a_filter_beyond_the_bounds_is_refused_before_it_is_sent(self, store: Store) -> None:
        name = store.collection()
        for where in (
            Or(tuple(Compare(f"f{i}", "eq", 1) for i in range(2 * MAX_NODES))),
            Compare("n", "in", tuple(range(MAX_VALUES + 1))),
        ):
            for ask in (
                lambda where=where: store.backend.count(name, where),
                lambda where=where: store.backend.search(name, vectors(1, 8), 3, where=where),
                lambda where=where: store.backend.delete(name, where=where),
            ):
                with pytest.raises(ValueError, match="more than"):
                    ask()

    def test_a_filter_that_is_true_of_everything_deletes_nothing(self, store: Store) -> None:
        twin = store.twin()
        twin.upsert(some(10))
        for where in (And(()), Not(Or(())), Not(Compare("n", "in", ())), Compare("modality", "in", ("image", "text"))):
            with pytest.raises(ValueError, match="true of every record"):
                store.backend.delete(twin.name, where=where)
            assert twin.delete(where=Not(where)) == 0
        assert twin.same_count() == 10

    def test_values_of_subclasses_are_stored_and_found_as_what_they_are(self, store: Store) -> None:
        shapes: list[Any] = [
            {"kind": Kind.MANUAL, "level": Level.HIGH, "on": np.bool_(True), "ratio": np.float32(0.5)},
            {"kind": "manual", "level": 3, "on": True, "ratio": 0.5},
            {"kind": [Kind.MANUAL, "other"], "level": np.int64(4), "on": np.False_},
            {"kind": np.array(["manual"]), "level": np.float64(3.0)},
        ]
        twin = store.twin()
        rows = vectors(len(shapes), 8)
        twin.upsert([Record(Id(f"id{i}"), rows[i], metadata=shape) for i, shape in enumerate(shapes)])
        for record in twin.same_records():
            held = [record.id, *record.metadata, *(v for v in record.metadata.values() if not isinstance(v, list))]
            assert {type(value) for value in held} <= {str, int, float, bool}
        assert twin.same_count(Compare("kind", "eq", Kind.MANUAL)) == 4
        assert twin.same_count(Compare("kind", "in", (Kind.MANUAL, "x"))) == 4
        assert twin.same_count(Not(Compare("kind", "eq", Kind.MANUAL))) == 0
        assert twin.same_count(Compare("level", "eq", Level.HIGH)) == 3
        assert twin.same_count(Compare("level", "gt", np.float32(3))) == 1
        assert twin.same_count(Compare("on", "eq", np.True_)) == 2
        assert len(twin.same_get([Id("id0"), Id("id9"), "id1"])) == 2
        assert twin.delete(ids=[Id("id0")]) == 1

    def test_a_filter_is_applied_before_the_cut_to_k(self, store: Store) -> None:
        twin = store.twin()
        rows = vectors(200, 8, seed=3)
        query = np.ones((1, 8), np.float32)
        order = np.argsort(rows @ query[0] / np.linalg.norm(rows, axis=1))
        records = [Record(f"p{rank:03}", rows[i], metadata={"rank": rank}) for rank, i in enumerate(order.tolist())]
        twin.upsert(records)
        for worst in (1, 3, 20):
            (hits,) = twin.same_hits(query, 10, Compare("rank", "lt", worst))
            assert len(hits) == min(10, worst)
