"""The questions that measure the chat keep their own rules; a file that breaks one is refused by line and field."""

from __future__ import annotations

import json
import re
from collections import Counter
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from benchmarks.chat.questions import SHIPPED, Question, QuestionError, read_questions, shipped_questions

GOOD = {
    "id": "a",
    "lang": "en",
    "kind": "one",
    "question": "What is it?",
    "photos": ["1.jpg"],
    "answer": "A cat.",
    "accept": {"en": ["cat"]},
}
COCO100, DEMO = SHIPPED


def write(folder: Path, *rows: Any) -> Path:
    file = folder / "questions.jsonl"
    file.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return file


def test_there_are_enough_questions_of_every_kind_and_language() -> None:
    questions = [question for source in SHIPPED for question in read_questions(source)]
    kinds, languages = (Counter(getattr(question, name) for question in questions) for name in ("kind", "lang"))
    assert len(questions) >= 200
    assert min(kinds["several"], kinds["none"], languages["zh"], languages["de"], languages["ja"]) >= 20
    assert languages["zh"] + languages["de"] + languages["ja"] >= 60
    assert sum(question.about == "count" for question in questions) >= 20
    assert sum(len(question.accept.get(question.lang, ())) > 1 for question in questions) >= 30
    follow_ups = [question for question in questions if question.history]
    assert {question.lang for question in follow_ups} == {"en", "zh", "de", "ja"}
    assert {len(question.history) for question in follow_ups} == {2, 4}


@pytest.mark.parametrize("source", SHIPPED)
def test_a_set_asks_nothing_twice_and_is_about_many_photographs(source: Path) -> None:
    questions = read_questions(source)
    assert len({question.question.casefold() for question in questions}) == len(questions)
    photos = {name for question in questions for name in question.photos}
    # One photograph may not stand for the collection.
    assert len(photos) >= {"coco100_questions.jsonl": 80, "demo_questions.jsonl": 20}[source.name]
    if source == COCO100:
        assert all(re.fullmatch(r"\d{12}\.jpg", name) for name in photos)


@pytest.mark.parametrize("source", SHIPPED)
def test_numbers_are_asked_for_and_answer_nothing_else(source: Path) -> None:
    asks = re.compile(r"how many|wie viele|几|多少|いくつ|何[匹人台本個頭枚]", re.IGNORECASE)
    for question in read_questions(source):
        counts = question.kind != "none" and asks.search(question.question) is not None
        assert not counts or question.about == "count", question.id
        if question.kind != "none" and question.about != "count":
            assert question.said("Two.") < 1, question.id


def test_the_demo_s_questions_are_about_its_photographs() -> None:
    rows = (files("app.cli") / "demo.jsonl").read_text("utf-8").splitlines()
    names = {json.loads(row)["file"] for row in rows}
    assert shipped_questions(names) == read_questions(DEMO)
    with pytest.raises(QuestionError, match="give --questions FILE"):
        shipped_questions(names - {"coffee.png"})


def test_a_file_is_read_in_its_order_with_blank_lines_skipped(tmp_path: Path) -> None:
    follow_up = {**GOOD, "id": "b", "history": ["Is there an animal?", "Yes."], "also": ["2.jpg"], "about": "count"}
    refused = {**GOOD, "id": "c", "kind": "none", "photos": [], "accept": {}, "near_miss": True}
    both = {
        **GOOD,
        "id": "d",
        "lang": "de",
        "accept": {"de": ["cat|katze"], "en": ["cat"]},
        "forbid": {"de": ["hund*"]},
    }
    accept = {"en": (("cat",),)}
    questions = read_questions(write(tmp_path, follow_up, "", GOOD, refused, both))
    assert questions == (
        Question(
            "b",
            "en",
            "one",
            "What is it?",
            ("1.jpg",),
            "A cat.",
            accept,
            also=("2.jpg",),
            about="count",
            history=("Is there an animal?", "Yes."),
        ),
        Question("a", "en", "one", "What is it?", ("1.jpg",), "A cat.", accept),
        Question("c", "en", "none", "What is it?", (), "A cat.", near_miss=True),
        Question(
            "d",
            "de",
            "one",
            "What is it?",
            ("1.jpg",),
            "A cat.",
            {"de": (("cat", "katze"),), "en": (("cat",),)},
            {"de": ("hund*",)},
        ),
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": ""}, "id: must be a text"),
        ({"kind": "many"}, "kind: must be one of one, several, none, not 'many'"),
        ({"kind": ["one"]}, "kind: must be a text"),
        ({"question": None}, "question: must be a text"),
        ({"answer": "  "}, "answer: must be a text"),
        ({"photos": "1.jpg"}, "photos: must be a list of texts"),
        ({"photos": ["images/1.jpg"]}, "photos: must be file names without folders"),
        ({"photos": [".."]}, "photos: must be file names without folders"),
        ({"photos": []}, "photos: 0 of them do not go with kind 'one'"),
        ({"photos": ["1.jpg", "2.jpg"]}, "photos: 2 of them do not go with kind 'one'"),
        ({"kind": "several"}, "photos: 1 of them do not go with kind 'several'"),
        ({"kind": "several", "photos": ["1.jpg", "1.jpg"]}, "photos: a name occurs twice"),
        ({"kind": "none", "accept": {}}, "photos: 1 of them do not go with kind 'none'"),
        ({"kind": "none", "photos": []}, "accept: must be empty for kind 'none'"),
        ({"accept": {}}, "accept: must be empty for kind 'none' and only then"),
        ({"accept": ["cat"]}, "accept: must be an object with a list of texts for each language"),
        ({"accept": {"en": ["cat", 1]}}, "accept: must be a list of texts"),
        ({"accept": {"en": []}}, "accept: no list and no term between | may be empty"),
        ({"accept": {"en": ["cat|"]}}, "accept: no list and no term between | may be empty"),
        ({"accept": {"de": ["cat"]}}, "accept: has no parts in the question's language, 'en'"),
        ({"accept": {"en": ["cat", "dog"]}}, "accept: a part of it is not in the answer"),
        ({"question": "Is it a cat?"}, "accept: a part of it is in the question"),
        ({"forbid": {"en": ["cat*"]}}, "forbid: a term of it is in the answer"),
        ({"also": ["1.jpg"]}, "photos: a name occurs twice"),
        ({"also": ["../1.jpg"]}, "also: must be file names without folders"),
        ({"about": 1}, "about: must be a text"),
        ({"lang": ""}, "lang: must be a text"),
        ({"history": ["Is there an animal?"]}, "history: must end with an answer"),
        ({"history": None}, "history: must be a list of texts"),
        ({"near_miss": 1}, "near_miss: must be true or false"),
        ({"near_miss": True}, "near_miss: goes with kind 'none' only"),
        ({"photo": "1.jpg"}, "photo: there is no such field"),
    ],
)
def test_a_bad_field_is_named_with_its_line(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    file = write(tmp_path, GOOD, {**GOOD, "id": "b", **change})
    with pytest.raises(QuestionError) as raised:
        read_questions(file)
    assert str(raised.value).startswith(f"{file}:2: {message}")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("field", [name for name in GOOD if name != "accept"])
def test_a_missing_field_is_named(tmp_path: Path, field: str) -> None:
    file = write(tmp_path, {name: value for name, value in GOOD.items() if name != field})
    with pytest.raises(QuestionError, match=f":1: {field}: must be a"):
        read_questions(file)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([GOOD, GOOD], ":2: id: 'a' is taken by an earlier line"),
        (["{"], ":1: not JSON"),
        (["[" * 100_000], ":1: not JSON"),
        (["[]"], ":1: must be an object, not list"),
        (["", ""], ": holds no questions"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, rows: list[Any], message: str) -> None:
    file = write(tmp_path, *rows)
    with pytest.raises(QuestionError) as raised:
        read_questions(file)
    assert str(raised.value).startswith(f"{file}{message}")


def test_a_file_that_is_not_there_or_not_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(QuestionError, match="cannot be read"):
        read_questions(tmp_path / "absent.jsonl")
    (tmp_path / "bytes.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(QuestionError, match="cannot be read"):
        read_questions(tmp_path / "bytes.jsonl")
