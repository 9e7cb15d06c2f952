"""A bare date in a filter means the whole of it, whatever the operator and the engine."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends import connect
from backends.base import And, Backend, CollectionSpec, Compare, Not, Or, Record, matches
from backends.dates import is_date, period_of, whole_periods
from retrieval.search.filters import as_where

TAKEN = {
    "before": "2021-07-03T23:59:59",
    "morning": "2021-07-04T00:00:00",
    "evening": "2021-07-04T23:59:59+02:00",
    "day": "2021-07-04",
    "next": "2021-07-05T00:00:00Z",
    "august": "2021-08-01T08:00:00",
    "other year": "2022-01-01T00:00:00",
}
ALL = {*TAKEN, "none"}
THE_DAY = {"morning", "evening", "day"}
AFTER = {"next", "august", "other year"}
DAYS: list[tuple[Any, set[str]]] = [
    ("2021-07-04", THE_DAY),
    ({"$eq": "2021-07-04"}, THE_DAY),
    ({"$in": ["2021-07-04", "2021-08"]}, THE_DAY | {"august"}),
    ({"$ne": "2021-07-04"}, {"before"} | AFTER),
    ({"$nin": ["2021-07-04", "2022"]}, {"before", "next", "august"}),
    ({"$lte": "2021-07-04"}, {"before"} | THE_DAY),
    ({"$lt": "2021-07-04"}, {"before"}),
    ({"$gt": "2021-07-04"}, AFTER),
    ({"$gte": "2021-07-04"}, THE_DAY | AFTER),
    ({"$not": {"$lte": "2021-07-04"}}, AFTER | {"none"}),
    ("2021-07", {"before", "next"} | THE_DAY),
    ({"$lte": "2021-07"}, {"before", "next"} | THE_DAY),
    ({"$gt": "2021-07"}, {"august", "other year"}),
    ("2021", set(TAKEN) - {"other year"}),
    (2021, set(TAKEN) - {"other year"}),
    ({"$lte": 2021}, set(TAKEN) - {"other year"}),
    ({"$gt": "2021"}, {"other year"}),
    ({"$ne": 2021}, {"other year"}),
    ("2021-07-04T23", {"evening"}),
    ({"$lte": "2021-07-03T23:59"}, {"before"}),
    ("2021-07-04T23:59:59", {"evening"}),
    ("2021-02-30", set()),
]


@pytest.fixture(scope="module", params=["exact://", "faiss://{}", "qdrant-edge://{}", "milvus-lite://{}"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    scheme = request.param.partition(":")[0]
    if scheme != "exact":
        pytest.importorskip({"faiss": "faiss", "qdrant-edge": "qdrant_edge", "milvus-lite": "milvus_lite"}[scheme])
    with connect(request.param.format(tmp_path_factory.mktemp("dates") / "store")) as backend:
        backend.create(CollectionSpec("c", 2))
        vector = np.array([1, 0], dtype=np.float32)
        backend.upsert("c", [Record(name, vector, metadata={"taken": taken}) for name, taken in TAKEN.items()])
        backend.upsert("c", [Record("none", vector, metadata={"year": 2021})])
        yield backend


@pytest.mark.parametrize(("condition", "expected"), DAYS)
def test_each_operator_means_the_whole_period_on_every_engine(
    store: Backend, condition: Any, expected: set[str]
) -> None:
    where = as_where({"taken": condition})
    found = store.search("c", np.array([[1, 0]], dtype=np.float32), 20, where=where)[0]
    assert {hit.id for hit in found} == expected
    assert store.count("c", where) == len(expected)


def test_a_tree_means_the_same_as_its_json_form() -> None:
    tree = Not(Or((Compare("taken", "lte", "2021-07-04"), And((Compare("taken", "in", ["2021"]),)))))
    json_form = {"$not": {"$or": [{"taken": {"$lte": "2021-07-04"}}, {"$and": [{"taken": {"$in": ["2021"]}}]}]}}
    for taken in TAKEN.values():
        results = {matches(as_where(each), {"taken": taken}, "image") for each in (tree, json_form)}
        assert len(results) == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("code", "2021"),
        ("year", 2021),
        ("taken", 20210704),
        ("taken", True),
        ("taken", "2021-13"),
        ("taken", "2021-07-04Z"),
        ("taken", "21-07-04"),
        ("candidate", "2021"),
        ("taken", 12.5),
        ("taken", "0000-00-00"),
    ],
)
def test_what_is_no_date_stays_as_it_is(field: str, value: Any) -> None:
    where = Compare(field, "eq", value)
    assert as_where(where) is where


def test_names_that_say_that_they_are_dates() -> None:
    assert [n for n in ("taken", "date", "date_created", "Date_Taken", "拍摄日期") if not is_date(n)] == []
    assert [n for n in ("update", "candidate", "year", "datum_x1", "format", "broken") if is_date(n)] == []


def test_lists_and_numbers_are_still_found_by_their_values() -> None:
    for value in ("2021-07-04", "2021-07-04T10:00:00"):
        assert matches(as_where({"when": "2021-07-04"}), {"when": value}, "image")
    assert matches(as_where({"when": "2021-07-04"}), {"when": ["x", "2021-07-04"]}, "image")
    assert matches(as_where({"date": 2021}), {"date": 2021}, "image")
    assert matches(as_where({"date": {"$gt": 2021}}), {"date": 2022}, "image")
    assert not matches(as_where({"date": {"$gt": 2021}}), {"date": 2021}, "image")


def test_the_last_days_of_months_years_and_of_all_time() -> None:
    ends = [("2021-12", "2022"), ("2020-02-28", "2020-02-29"), ("2021-02-28", "2021-03"), ("9999-12-31", "999:")]
    for value, end in ends:
        period = period_of("taken", value)
        assert period is not None
        assert period.end == end
    assert matches(as_where({"taken": {"$lte": "9999"}}), {"taken": "9999-12-31T23:59:59"}, "image")


def test_a_list_of_very_many_dates_is_refused() -> None:
    days = [f"{year}-01-{day:02d}" for year in range(1900, 2000) for day in range(1, 29)]
    with pytest.raises(ValueError, match="2800 dates in one list"):
        as_where({"taken": {"$in": days}})


OPERATORS = st.sampled_from(["eq", "ne", "lt", "lte", "gt", "gte"])
VALUES = st.sampled_from(["2021-07-04", "2021-07", "2021", "x", "2020-12-31"])


@given(
    st.recursive(
        st.builds(Compare, st.just("taken"), OPERATORS, VALUES),
        lambda inner: (
            st.builds(Not, inner)
            | st.builds(lambda parts: And(tuple(parts)), st.lists(inner, max_size=3))
            | st.builds(lambda parts: Or(tuple(parts)), st.lists(inner, max_size=3))
        ),
        max_leaves=6,
    )
)
def test_applied_again_it_changes_nothing(tree: Any) -> None:
    once = whole_periods(tree)
    assert whole_periods(once) == once
