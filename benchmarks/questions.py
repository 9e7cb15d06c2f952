"""Questions with known answers over a folder of photographs, to measure a grounded chat by.

The file is JSON Lines, one question an object. `coco100_questions.jsonl` asks about the 100 COCO photographs
(https://cocodataset.org) that the other measurements use; they are named as COCO names them, and "none" holds for
that collection only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, Literal, cast, get_args

Kind = Literal["one", "several", "none"]

COCO100 = files("benchmarks") / "data" / "coco100_questions.jsonl"


class QuestionError(Exception):
    """A question file that cannot be used: one line that names the file, the line and the field."""


@dataclass(frozen=True, slots=True)
class Question:
    """One question and what a right answer to it rests on and says.

    `kind` says how many photographs hold the answer: "one", "several", or "none", which a chat must refuse.
    `history` alternates what the user asked and was answered before, oldest first; `question` may lean on it.
    `photos` are the file names of the photographs that support a right answer: exactly those for "one", as
    complete as can be judged for "several". `answer` is a short reference answer; a right answer holds at least
    one term of `key`. `near_miss` marks a question without an answer whose kind of scene the photographs do show.
    """

    id: str
    kind: Kind
    question: str
    photos: tuple[str, ...]
    answer: str
    key: tuple[str, ...]
    history: tuple[str, ...] = ()
    near_miss: bool = False

    def has_key(self, answer: str) -> bool:
        """Whether `answer` holds a term of `key` as whole words, in any case; never true without a key."""
        return any(re.search(rf"(?<!\w){re.escape(term)}(?!\w)", answer, re.IGNORECASE) for term in self.key)


def read_questions(source: Traversable = COCO100) -> tuple[Question, ...]:
    """Read the questions of the JSON Lines file `source`, in its order; raises `QuestionError`."""
    try:
        lines = source.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise QuestionError(f"{source}: cannot be read: {error}") from None
    questions: dict[str, Question] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{source}:{number}"
        question = _read_question(line, where)
        if question.id in questions:
            raise QuestionError(f"{where}: id: {question.id!r} is taken by an earlier line")
        questions[question.id] = question
    if not questions:
        raise QuestionError(f"{source}: holds no questions")
    return tuple(questions.values())


def _read_question(line: str, where: str) -> Question:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise QuestionError(f"{where}: not JSON: {error}") from None
    if not isinstance(row, dict):
        raise QuestionError(f"{where}: must be an object, not {type(row).__name__}")
    if unknown := sorted(row.keys() - {field.name for field in fields(Question)}):
        raise QuestionError(f"{where}: {unknown[0]}: there is no such field")
    near_miss = row.get("near_miss", False)
    if not isinstance(near_miss, bool):
        raise QuestionError(f"{where}: near_miss: must be true or false")
    kind = _text(row, "kind", where)
    if kind not in get_args(Kind):
        raise QuestionError(f"{where}: kind: must be one of {', '.join(get_args(Kind))}, not {kind!r}")
    question = Question(
        id=_text(row, "id", where),
        kind=cast(Kind, kind),
        question=_text(row, "question", where),
        photos=_texts(row, "photos", where),
        answer=_text(row, "answer", where),
        key=_texts(row, "key", where),
        history=_texts({"history": [], **row}, "history", where),
        near_miss=near_miss,
    )
    if fault := _fault(question):
        raise QuestionError(f"{where}: {fault}")
    return question


def _text(row: Mapping[str, Any], field: str, where: str) -> str:
    value = row.get(field)
    if not isinstance(value, str) or not value.strip():
        raise QuestionError(f"{where}: {field}: must be a text that is not empty")
    return value


def _texts(row: Mapping[str, Any], field: str, where: str) -> tuple[str, ...]:
    values = row.get(field)
    if not isinstance(values, list) or not all(isinstance(value, str) and value.strip() for value in values):
        raise QuestionError(f"{where}: {field}: must be a list of texts that are not empty")
    return tuple(values)


def _fault(question: Question) -> str | None:
    """The first field that does not go with the others, and why; None if they agree."""
    count = len(question.photos)
    if len(question.history) % 2:
        return "history: must end with an answer: questions and answers take turns"
    if any(name in (".", "..") or re.search(r"[/\\\0]", name) for name in question.photos):
        return "photos: must be file names without folders"
    if len(set(question.photos)) < count:
        return "photos: a name occurs twice"
    if not {"one": count == 1, "several": count > 1, "none": count == 0}[question.kind]:
        return f"photos: {count} of them do not go with kind {question.kind!r}"
    if bool(question.key) != (question.kind != "none"):
        return "key: must be empty for kind 'none' and only then"
    if question.key and not question.has_key(question.answer):
        return "key: no term of it is in the answer"
    if question.near_miss and question.kind != "none":
        return "near_miss: goes with kind 'none' only"
    return None
