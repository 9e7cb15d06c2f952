"""Numbers that are too large, too small, or none: refused in words wherever a request takes one, never a fault."""

from __future__ import annotations

from pathlib import Path

import httpx
import numpy as np
import pytest

from backends import connect
from backends.base import Backend, CollectionSpec, Record
from retrieval.search.query import MAX_WEIGHT, SearchError, Term, parse_terms, query_vector
from tests.support.cli import paint
from tests.support.service import is_problem, png, served
from tests.support.toy import ColourEncoder

BIG, HUGE = "9" * 400, "9" * 5_000
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("numbers")
    with served(stocked(folder), folder / "home") as opened:
        yield opened


def stocked(folder: Path) -> Backend:
    backend, encoder = connect("exact://"), ColourEncoder()
    backend.create(CollectionSpec("c", encoder.dim, encoder=encoder.fingerprint))
    path = paint(folder / "photos" / "red.png", "red", (90, 30))
    backend.upsert("c", [Record("red", encoder.encode_images([path])[0], "image", "red", path.as_uri())])
    return backend


def search(client: httpx.Client, fields: str) -> httpx.Response:
    return client.post("/v1/search", content="{" + fields + "}", headers=JSON)


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        ('{"text":"red","weight":1e308},{"text":"green","weight":-1e308}', "weight must be from 1e-06 to 1e+06"),
        ('{"text":"red","weight":1e308},{"text":"green","weight":1e308}', "weight must be from 1e-06 to 1e+06"),
        ('{"text":"red","weight":1e38},{"text":"green","weight":-1e39}', "weight must be from 1e-06 to 1e+06"),
        ('{"text":"red","weight":1e-320}', "weight must be from 1e-06 to 1e+06"),
        ('{"text":"red","weight":-1e-7}', "weight must be from 1e-06 to 1e+06"),
        ('{"text":"red","weight":0}', "other than 0"),
        ('{"text":"red","weight":1e400}', "terms.0.weight"),
        ('{"text":"red","weight":NaN}', "terms.0.weight"),
        (f'{{"text":"red","weight":{BIG}}}', "terms.0.weight"),
    ],
)
def test_weights_out_of_range_are_refused(client: httpx.Client, terms: str, said: str) -> None:
    is_problem(search(client, f'"terms":[{terms}]'), 422, said)


def test_the_weights_that_are_allowed_can_be_added(client: httpx.Client) -> None:
    many = ",".join('{"text":"red","weight":1e6},{"text":"green","weight":-1e-6}' for _ in range(32))
    assert search(client, f'"terms":[{many}]').json()["hits"][0]["id"] == "red"


@pytest.mark.parametrize("name", ["k", "offset", "effort", "diversity", "group_duplicates", "min_relevance"])
@pytest.mark.parametrize("value", ["1e400", "NaN", "-Infinity", "-1e308", BIG, f"-{BIG}", "1e308"])
def test_options_out_of_range_are_named(client: httpx.Client, name: str, value: str) -> None:
    is_problem(search(client, f'"text":"red","{name}":{value}'), 422, f"body.{name}")


@pytest.mark.parametrize("name", ["effort", "diversity", "group_duplicates", "min_relevance"])
def test_the_smallest_of_numbers_are_numbers(client: httpx.Client, name: str) -> None:
    assert search(client, f'"text":"red","{name}":1e-320').json()["hits"][0]["id"] == "red"


@pytest.mark.parametrize("value", ["1e400", "NaN", "9223372036854775808", "-9223372036854775809", BIG])
def test_numbers_in_filters_and_metadata_fit_databases(client: httpx.Client, value: str) -> None:
    for where in (f'{{"n":{value}}}', f'{{"n":{{"$gt":{value}}}}}', f'{{"n":{{"$in":[1,{value}]}}}}'):
        refused = search(client, f'"text":"red","where":{where}')
        is_problem(refused, 422, "the value of n")
        assert len(refused.text) < 400
    items = f'[{{"text":"x","metadata":{{"n":{value}}}}}]'
    (item,) = client.post("/v1/items", files={"items": (None, items)}).json()["items"]
    assert "metadata field 'n'" in item["error"]
    assert len(item["error"]) < 400


def test_numbers_of_thousands_of_digits_are_no_fault(client: httpx.Client) -> None:
    for fields in (f'"text":"red","k":{HUGE}', f'"text":"red","where":{{"n":{HUGE}}}', f'"terms":[{HUGE}]'):
        is_problem(search(client, fields), 400)
    is_problem(client.post("/v1/items", files={"items": (None, f'[{{"text":"x","metadata":{{"n":{HUGE}}}}}]')}), 422)


@pytest.mark.parametrize("value", ["1e5", "1e400", "NaN", BIG, HUGE, "-1", "%00"])
def test_numbers_in_addresses_and_forms(client: httpx.Client, value: str) -> None:
    for name in ("k", "offset"):
        is_problem(client.get(f"/v1/items/red/similar?{name}={value}"), 422, f"query.{name}")
        form = {name: value}
        is_problem(client.post("/v1/lookup", files={"image": png("red")}, data=form), 422, name)
    is_problem(client.get(f"/v1/items/red/image?size={value}"), 422, "query.size")


@pytest.mark.parametrize("weight", [1e308, -1e308, 1e-320, 2 * MAX_WEIGHT, float("inf"), float("nan"), 0.0])
def test_the_library_and_the_command_line_refuse_the_same_weights(weight: float) -> None:
    with pytest.raises(SearchError, match="a term's weight must be"):
        Term("red", weight)
    if 0 < weight < 1e300:
        with pytest.raises(SearchError, match="a term's weight must be"):
            parse_terms([f"red^{weight:f}"])


def test_weights_at_both_ends_still_make_a_unit_vector() -> None:
    vector = query_vector([Term("red", MAX_WEIGHT)] * 40 + [Term("green", -1 / MAX_WEIGHT)] * 24, ColourEncoder())
    assert vector.dtype == np.float32
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
