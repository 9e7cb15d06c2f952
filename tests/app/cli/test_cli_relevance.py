"""Relevance at the command line and over HTTP: shown, gated, and what is said when nothing is relevant."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.cli.output import print_hits, show_relevance
from app.cli.search import NEAR_MISS
from app.core.settings import Settings, SettingsError
from app.http.app import create_app
from backends import connect
from backends.base import Hit
from retrieval.search.results import Result
from tests.support.cli import Run
from tests.support.topics import TopicEncoder, fill
from tests.support.toy import KeptBackend

ABSENT = "a violet umbrella"


@pytest.mark.usefixtures("colours")
class TestSearch:
    def test_what_is_not_relevant_is_left_out(self, run: Run) -> None:
        gated = run("search", "red", "--json").json["hits"]
        assert [hit["id"] for hit in gated] == ["img-red"]
        assert gated[0]["relevance"] > 0.99
        everything = run("search", "red", "--min-relevance", 0, "--json").json["hits"]
        assert len(everything) == 5
        assert everything[0] == gated[0]
        assert all(0 <= hit["relevance"] < 0.8 for hit in everything[1:])

    def test_nothing_relevant_is_said_and_misses_are_shown_on_request(self, run: Run) -> None:
        said = run("search", ABSENT)
        assert (said.code, said.out) == (0, "")
        assert said.err.startswith("nothing relevant: the nearest miss is at ")
        assert "below 80%; --misses shows the nearest misses" in said.err
        shown = run("search", ABSENT, "--misses", "--k", 2)
        assert shown.err.startswith("nothing relevant")
        rows = [line.split("\t") for line in shown.out.splitlines()]
        assert len(rows) == 2
        assert all(int(row[2].rstrip("%")) < 80 for row in rows)

    def test_near_misses_are_shown_unasked_and_marked(self, run: Run) -> None:
        missed = run("search", ABSENT, "--misses", "--json").json["misses"]
        best = missed[0]["relevance"]
        gate = min(1.0, best / NEAR_MISS - 0.001)
        near = run("search", ABSENT, "--min-relevance", gate)
        assert near.err.startswith("nothing relevant: the nearest miss is at ")
        rows = [line.split("\t") for line in near.out.splitlines()]
        expected = [hit["id"] for hit in missed if hit["relevance"] >= NEAR_MISS * gate][:3]
        assert [row[4] for row in rows] == expected
        assert [row[0] for row in rows] == [f"~{rank}" for rank in range(1, len(expected) + 1)]
        assert run("search", ABSENT, "--min-relevance", gate, "--json").json == {"hits": []}
        far = run("search", ABSENT, "--min-relevance", min(1.0, best / NEAR_MISS + 0.001))
        assert far.out == ""

    def test_misses_do_not_mix_with_what_is_relevant(self, run: Run) -> None:
        found = run("search", "red", "--misses")
        assert len(found.out.splitlines()) == 1
        assert found.err == ""

    def test_json_stays_one_valid_object(self, run: Run) -> None:
        assert run("search", ABSENT, "--json").json == {"hits": []}
        missed = run("search", ABSENT, "--misses", "--json").json
        assert list(missed) == ["hits", "misses"]
        assert missed["hits"] == []
        assert len(missed["misses"]) == 5
        assert run("search", "red", "--misses", "--json").json.keys() == {"hits"}

    def test_the_setting_is_the_gate(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SIGHTLINE_MIN_RELEVANCE", "0")
        assert len(run("search", "red", "--json").json["hits"]) == 5
        assert len(run("search", "red", "--min-relevance", 0.8, "--json").json["hits"]) == 1
        monkeypatch.setenv("SIGHTLINE_MIN_RELEVANCE", "much")
        refused = run("search", "red")
        assert refused.code == 2
        assert "SIGHTLINE_MIN_RELEVANCE must be a number" in refused.err

    def test_a_threshold_out_of_range_is_refused(self, run: Run) -> None:
        refused = run("search", "red", "--min-relevance", 2)
        assert refused.code != 0
        assert "min_relevance must be from 0 to 1" in refused.err
        with pytest.raises(SettingsError, match="min_relevance must be a number from 0 to 1"):
            Settings.load({"min_relevance": -1.0}, env={})

    def test_an_empty_result_for_another_reason_says_that(self, run: Run) -> None:
        assert "nothing found" in run("search", "red", "--where", '{"number": 99}').err
        assert "nothing relevant from rank 2 on" in run("search", "red", "--offset", 1).err

    def test_pictures_are_not_gated_unasked(self, run: Run, colours: Path) -> None:
        assert len(run("search", "--image", colours / "red.png", "--json").json["hits"]) == 5
        assert len(run("similar", "img-red", "--json").json["hits"]) == 4
        assert len(run("lookup", colours / "red.png", "--json").json["hits"]) == 5

    def test_the_page_shows_it(self, run: Run, tmp_path: Path) -> None:
        run("search", "red", "--html", tmp_path / "found.html")
        page = (tmp_path / "found.html").read_text()
        assert "relevance from 80%" in page
        assert 'title="relevance">100%' in page
        run("search", ABSENT, "--html", tmp_path / "empty.html")
        assert "Nothing relevant: the nearest miss is at" in (tmp_path / "empty.html").read_text()
        run("search", ABSENT, "--misses", "--html", tmp_path / "misses.html")
        assert "Nothing relevant; the nearest misses" in (tmp_path / "misses.html").read_text()

    def test_the_sample_is_kept_under_the_home_until_the_collection_goes(self, run: Run, isolated: Path) -> None:
        run("search", "red")
        kept = list((isolated / "samples").rglob("*.npz"))
        assert sorted(path.name.startswith("background-") for path in kept) == [False, True]
        assert run("drop", "default", "--yes").code == 0
        assert [path.name[:11] for path in (isolated / "samples").rglob("*.npz")] == ["background-"]


def test_a_table_explains_what_only_words_found(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr("app.cli.output.is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    hit = Hit("a", 2.5, "image", None, "photos/chelsea_cat.png", {}, exact=True)
    found = [Result.of(hit, relevance=0.0, scored_by="keyword"), Result.of(hit, relevance=0.9)]
    print_hits(found, asked_words="Chelsea dog")
    out = capsys.readouterr().out
    assert out.count("BM25 2.50") == 1
    assert out.count("2.500") == 1
    assert out.count("words: chelsea\n") + out.count("words: chelsea ") == 2
    assert max(map(len, out.splitlines())) <= 80


def test_a_lookup_without_texts_says_what_else_there_is(run: Run, colours: Path) -> None:
    run("index", colours, "--collection", "new")
    told = run("lookup", colours / "red.png", "--collection", "new")
    assert "there are no texts in the collection; index captions" in told.err


def test_indexing_prepares_the_first_search(run: Run, colours: Path, isolated: Path, tmp_path: Path) -> None:
    shutil.copytree(colours, tmp_path / "more")
    assert run("index", tmp_path / "more", "--collection", "new").code == 0
    # The background queries are not encoded while somebody waits for an index.
    (sample,) = (isolated / "samples").rglob("*.npz")
    assert not sample.name.startswith("background-")
    before = sample.stat().st_mtime_ns
    assert len(run("search", "red", "--collection", "new", "--json").json["hits"]) == 1
    assert len(list((isolated / "samples").rglob("background-*.npz"))) == 1
    assert sample.stat().st_mtime_ns == before
    store = KeptBackend.connect("kept://")
    store.delete("new", ids=[record.id for page in store.scan("new") for record in page.records][:1])
    run("search", "red", "--collection", "new")
    assert sample.stat().st_mtime_ns != before


def test_a_relevance_is_rounded_down_and_may_be_unknown() -> None:
    hit = Hit("a", 0.5, "image", None, None, {}, True)
    assert show_relevance(hit) == "-"
    assert show_relevance(Result.of(hit)) == "-"
    shown = [
        show_relevance(Result("a", 0.5, "image", None, None, {}, True, relevance=r)) for r in (0.0, 0.799, 0.9999, 1.0)
    ]
    assert shown == ["0%", "79%", "99%", "100%"]


def test_the_service_gives_and_takes_it(tmp_path: Path) -> None:
    store, model = connect("exact://"), TopicEncoder()
    fill(store, model, 40, texts=True)
    client = TestClient(create_app(store, model, "c", samples=tmp_path), base_url="http://127.0.0.1")
    hits = client.post("/v1/search", json={"text": "topic 7", "modality": "image", "k": 40}).json()["hits"]
    assert len(hits) == 40
    assert hits[0]["relevance"] > 0.9
    gated = client.post("/v1/search", json={"text": "topic 7", "modality": "image", "k": 40, "min_relevance": 0.9})
    assert gated.json()["hits"] == [hit for hit in hits if hit["relevance"] >= 0.9]
    assert client.post("/v1/search", json={"text": "topic 7", "min_relevance": 2}).status_code == 422
    assert client.get("/v1/items/image-7-0/similar").json()["hits"][0]["relevance"] is not None
    assert json.loads(gated.text)
    assert list(tmp_path.glob("*.npz"))
