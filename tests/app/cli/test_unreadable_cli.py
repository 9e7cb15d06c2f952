"""At the command line: queries and texts that the encoder cannot read, and collections of an earlier text side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import retrieval.llms
from tests.support.chat_models import Scripted
from tests.support.cli import Run, paint
from tests.support.readers import LatinReader

AEROPLANE = "飞机"
REFUSED = (
    "error: latin cannot read this query; use --mode keyword, or an encoder for its language (sightline encoders)\n"
)


@pytest.fixture
def reader(run: Run, monkeypatch: pytest.MonkeyPatch) -> list[LatinReader]:
    """The encoder that every name loads is the last of the list."""
    readers = [LatinReader()]
    monkeypatch.setattr("retrieval.encoders.load_encoder", lambda *_, **__: readers[-1])
    return readers


@pytest.fixture
def photos(reader: list[LatinReader], tmp_path: Path) -> Path:
    """Two pictures, one with a Chinese caption."""
    folder = tmp_path / "photos"
    for colour in ("red", "green"):
        paint(folder / f"{colour}.png", colour)
    (folder / "red.txt").write_text("一架 飞机 停在 跑道\n", encoding="utf-8")
    (folder / "green.txt").write_text("a green square\n")
    return folder


@pytest.fixture
def indexed(run: Run, photos: Path) -> Path:
    assert run("index", photos).code == 0
    return photos


def test_an_index_run_counts_what_cannot_be_read(run: Run, photos: Path) -> None:
    done = run("index", photos, "--json")
    assert done.code == 0
    assert done.json["unreadable"] == 1
    assert "1 text cannot be read by latin: stored for keyword search alone\n" in done.err
    (photos / "green.txt").write_text("一只猫\n一只狗\n", encoding="utf-8")
    assert "2 texts cannot be read by latin: stored for keyword search alone\n" in run("index", photos).err
    assert "cannot be read" not in run("index", photos).err


@pytest.mark.parametrize("more", [[], ["--json"], ["--min-relevance", "0"], ["--facets", "folder"]])
def test_a_query_that_cannot_be_read_is_one_line_and_a_usage_error(run: Run, indexed: Path, more: list[str]) -> None:
    refused = run("search", AEROPLANE, *more)
    assert (refused.code, refused.out, refused.err) == (2, "", REFUSED)


def test_a_term_is_named(run: Run, indexed: Path) -> None:
    refused = run("search", "--term", "red", "--term", f"-{AEROPLANE}")
    assert refused.code == 2
    assert f"latin cannot read the term '{AEROPLANE}'; leave it out, use --mode keyword" in refused.err


def test_keywords_find_it_and_hybrid_does_and_says_so(run: Run, indexed: Path) -> None:
    found = run("search", AEROPLANE, "--mode", "keyword", "--json")
    assert (found.code, found.err) == (0, "")
    assert {Path(hit["uri"]).name for hit in found.json["hits"]} == {"red.png"}
    both = run("search", AEROPLANE, "--mode", "hybrid", "--json")
    assert both.code == 0
    assert both.json == found.json
    assert both.err == "note: latin cannot read this query: only its words were searched\n"
    nothing = run("search", "没有", "--mode", "hybrid")
    assert nothing.code == 0
    assert "nothing found: no image has any of these words" in nothing.err


def test_similar_to_an_item_without_a_vector(run: Run, indexed: Path) -> None:
    hits = run("search", AEROPLANE, "--mode", "keyword", "--modality", "text", "--json").json["hits"]
    refused = run("similar", hits[0]["id"])
    assert refused.code == 1
    assert refused.err.count("\n") == 1
    assert "has no vector" in refused.err
    assert run("show", hits[0]["id"], "--json").json["text"] == "一架 飞机 停在 跑道"


def test_ask_falls_back_to_words_and_says_so(run: Run, indexed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load_model(*_: Any, **__: Any) -> Scripted:
        return Scripted(replies=["一架 飞机 停在 跑道 [1]."])

    monkeypatch.setattr(retrieval.llms, "load_model", load_model)
    done = run("ask", AEROPLANE, "--model", "openai:x", "--json", "--no-stream")
    assert done.code == 0
    answer = done.json
    assert answer["notices"] == ["latin cannot read the question: only its words were searched for"]
    assert answer["sources"][0]["text"] == "一架 飞机 停在 跑道"
    plain = run("ask", AEROPLANE, "--model", "openai:x", "--no-stream")
    assert "note: latin cannot read the question: only its words were searched for\n" in plain.err
    refused = run("ask", "？！", "--model", "openai:x", "--no-stream")
    assert (refused.code, refused.err) == (2, REFUSED)


def test_an_evaluation_counts_them_as_not_found(run: Run, photos: Path) -> None:
    done = run("eval", photos, "--json")
    assert done.code == 0
    assert "note: 1 texts cannot be read by latin: none of them finds anything, or is found\n" in done.err
    report = json.loads(done.out)
    assert report["text_to_image"]["R@1"] == 50.0
    assert report["image_to_text"]["R@10"] == 50.0


def test_a_collection_of_an_earlier_text_side(run: Run, indexed: Path, reader: list[LatinReader]) -> None:
    reader.append(LatinReader(side="new"))
    found = run("search", "green", "--json")
    assert found.code == 0
    assert found.json["hits"]
    assert found.err.startswith("note: the texts of collection 'default' were encoded by an earlier version of latin: ")
    assert found.err.count("\n") == 1
    assert "run sightline index" in found.err
    done = run("index", indexed)
    assert "(2 unchanged, 2 texts encoded anew)" in done.out
    assert run("search", "green", "--json").err == ""
