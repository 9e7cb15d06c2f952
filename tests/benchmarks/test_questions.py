"""The questions that measure the chat keep their own rules; a file that breaks one is refused by line and field."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from benchmarks.questions import Question, QuestionError, read_questions

GOOD = {"id": "a", "kind": "one", "question": "What is it?", "photos": ["1.jpg"], "answer": "A cat.", "key": ["cat"]}


def write(folder: Path, *rows: Any) -> Path:
    file = folder / "questions.jsonl"
    file.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return file


def test_coco100_holds_enough_of_every_kind() -> None:
    questions = read_questions()
    kinds = Counter(question.kind for question in questions)
    near_misses = sum(question.near_miss for question in questions)
    assert len(questions) >= 72
    assert kinds["one"] >= 30
    assert kinds["several"] >= 20
    assert kinds["none"] >= 22
    assert min(near_misses, kinds["none"] - near_misses) >= 11


def test_coco100_asks_follow_ups_of_every_kind_after_one_turn_and_after_two() -> None:
    follow_ups = [question for question in read_questions() if question.history]
    assert len(follow_ups) >= 8
    assert {question.kind for question in follow_ups} == {"one", "several", "none"}
    assert {len(question.history) for question in follow_ups} == {2, 4}


def test_coco100_asks_nothing_twice_and_names_photos_as_coco_does() -> None:
    questions = read_questions()
    assert len({(*question.history, question.question.casefold()) for question in questions}) == len(questions)
    assert all(re.fullmatch(r"\d{12}\.jpg", name) for question in questions for name in question.photos)
    # One photograph may not stand for the collection: half of the 100 answer something.
    assert len({name for question in questions for name in question.photos}) >= 50


def test_a_file_is_read_in_its_order_with_blank_lines_skipped(tmp_path: Path) -> None:
    follow_up = {**GOOD, "id": "b", "history": ["Is there an animal?", "Yes."]}
    refused = {**GOOD, "id": "c", "kind": "none", "photos": [], "key": [], "near_miss": True}
    questions = read_questions(write(tmp_path, follow_up, "", GOOD, refused))
    assert questions == (
        Question("b", "one", "What is it?", ("1.jpg",), "A cat.", ("cat",), ("Is there an animal?", "Yes.")),
        Question("a", "one", "What is it?", ("1.jpg",), "A cat.", ("cat",)),
        Question("c", "none", "What is it?", (), "A cat.", (), near_miss=True),
    )


@pytest.mark.parametrize(
    ("key", "answer", "expected"),
    [
        (("cat",), "It is a Cat.", True),
        (("cat",), "A category of cattle.", False),
        (("dog", "Union Jack"), "the union jack, on an umbrella", True),
        (("Union Jack",), "a jack and a union", False),
        (("C++",), "Written in C++.", True),
        ((), "anything", False),
    ],
)
def test_a_key_is_found_as_whole_words_in_any_case(key: tuple[str, ...], answer: str, expected: bool) -> None:
    assert Question("a", "one", "What is it?", ("1.jpg",), answer, key).has_key(answer) is expected


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
        ({"kind": "none", "key": []}, "photos: 1 of them do not go with kind 'none'"),
        ({"kind": "none", "photos": []}, "key: must be empty for kind 'none'"),
        ({"key": []}, "key: must be empty for kind 'none' and only then"),
        ({"key": ["cat", 1]}, "key: must be a list of texts"),
        ({"key": ["dog"]}, "key: no term of it is in the answer"),
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


@pytest.mark.parametrize("field", GOOD)
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
