"""How wide a graph has to be searched: tried on queries that are made from what is stored."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from backends.conformance.samples import unit
from backends.kit.widths import GAP, Width, find_width, trial_queries

WIDTHS = (20, 80, 320, 1_280)


def test_the_first_width_that_finds_enough_is_taken() -> None:
    """An index that finds one more of the ten best for every 40 that it looks at."""
    tried = []

    def by_graph(queries: NDArray[np.float32], width: int) -> list[list[str]]:
        tried.append(width)
        return [list("abcdefghij")[: width // 40] for _ in queries]

    def compared(queries: NDArray[np.float32]) -> list[list[str]]:
        return [list("jihgfedcba") for _ in queries]

    found = find_width(9_000, np.eye(4, dtype=np.float32), WIDTHS, compared, by_graph)
    assert found == Width(9_000, 1_280, 1.0)
    assert tried == list(WIDTHS)
    assert find_width(9_000, np.eye(4, dtype=np.float32), (400, 800), compared, by_graph).width == 400


def test_where_no_width_is_enough_that_is_known() -> None:
    queries = np.eye(3, dtype=np.float32)
    never = find_width(3, queries, (5, 50), lambda asked: [["a"]] * 3, lambda asked, width: [["b"]] * 3)
    assert (never.width, never.reached, never.enough) == (50, 0.0, False)
    at_once = find_width(3, queries, (5, 50), lambda asked: [["a"]] * 3, lambda asked, width: [["a"]] * 3)
    assert (at_once.width, at_once.enough) == (5, True)
    assert find_width(0, queries, (5,), lambda asked: [[]] * 3, lambda asked, width: [[]] * 3).enough


def test_what_is_kept_is_read_again_and_only_that() -> None:
    width = Width(1_000, 400, 0.98)
    assert Width.from_json(width.to_json()) == width
    for other in (None, "", "null", "{}", "[]", '{"rows": "x", "width": 1, "reached": 1}', "an index of mine"):
        assert Width.from_json(other) is None


@pytest.mark.parametrize(("rows", "fits"), [(1_000, True), (1_400, True), (700, True), (1_600, False), (500, False)])
def test_a_collection_of_another_size_is_tried_again(rows: int, fits: bool) -> None:
    assert Width(1_000, 400, 0.98).fits(rows) is fits


def test_half_of_the_queries_lie_beside_what_is_stored() -> None:
    rows = unit(np.random.default_rng(1).standard_normal((32, 64)))
    asked = trial_queries(rows, unit=True)
    assert asked.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(asked, axis=1), 1, atol=1e-6)
    near = (asked * rows).sum(axis=1)
    # The second half has been moved by another `GAP`, which costs that much of the cosine.
    assert near[::2].min() > near[1::2].max() - 0.1
    assert near[1::2].mean() < near[::2].mean() - 0.1 < 1 - GAP / 10
    long = trial_queries(3 * rows, unit=False)
    assert np.linalg.norm(long, axis=1).min() > 2
