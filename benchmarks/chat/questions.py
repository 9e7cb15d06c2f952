"""Questions with known answers over a folder of photographs, to measure a grounded chat by.

A file is JSON Lines, a question a line::

    {"id": "q1", "lang": "en", "kind": "one", "question": "What lies beside the baby?", "photos": ["12448.jpg"],
     "answer": "A teddy bear.", "accept": {"en": ["teddy|bear"]}, "forbid": {"en": ["doll*"]}}

- `kind`: how many photographs hold the answer: "one", "several", or "none", which a chat must decline;
- `photos`: the names of the files that support a right answer: that one, or as complete as can be judged;
- `also` (optional): files that may be cited besides, as they show it too or may be taken to;
- `answer`: an answer that is right, in the question's language; for "none" any text;
- `accept`: by language, the parts that a right answer has, all of them; of a part one of the terms between "|". An
  answer that says all parts in any of these languages is right: which language it is in is measured apart;
- `forbid` (optional): by language, terms that make an answer wrong, such as the other colours;
- `about` (optional): "count" for questions whose answer is a number;
- `history` (optional): what was asked and answered before, in turns, oldest first; `question` may lean on it;
- `near_miss` (optional): of kind "none", whether the photographs show that kind of scene.

`benchmarks.chat.matching` says how terms are found. No part may be said by the question itself, or repeating it would
be an answer. "none" holds for one collection only: a file is for one folder.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, Literal, TypeAlias, cast, get_args

from benchmarks.chat.matching import normalised, parts_said, says

Kind = Literal["one", "several", "none"]
Parts: TypeAlias = tuple[tuple[str, ...], ...]

#: The files that this package has, by what they are about.
SHIPPED = tuple(files("benchmarks") / "data" / f"{name}_questions.jsonl" for name in ("coco100", "demo"))


class QuestionError(Exception):
    """A question file that cannot be used: one line that names the file, the line and the field."""


@dataclass(frozen=True, slots=True)
class Question:
    """One question and what a right answer to it rests on and says; see the module."""

    id: str
    lang: str
    kind: Kind
    question: str
    photos: tuple[str, ...]
    answer: str
    accept: Mapping[str, Parts] = field(default_factory=dict)
    forbid: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    also: tuple[str, ...] = ()
    about: str = ""
    history: tuple[str, ...] = ()
    near_miss: bool = False

    def said(self, text: str) -> float:
        """Which share of the parts an answer says, in the language of which it says most; 0 without a key."""
        plain = normalised(text)
        return max((parts_said(plain, parts) / len(parts) for parts in self.accept.values()), default=0.0)

    def forbids(self, text: str) -> bool:
        """Whether an answer says something that makes it wrong."""
        plain = normalised(text)
        return any(says(plain, term) for terms in self.forbid.values() for term in terms)


def read_questions(source: Traversable) -> tuple[Question, ...]:
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


def shipped_questions(names: Iterable[str]) -> tuple[Question, ...]:
    """The questions that this package has about a folder with files of these names. Raises `QuestionError`."""
    known = set(names)
    for source in SHIPPED:
        questions = read_questions(source)
        if known.issuperset(photo for question in questions for photo in question.photos):
            return questions
    raise QuestionError(
        "there are no questions about this folder in the package: write some, and give --questions FILE"
    )


def _read_question(line: str, where: str) -> Question:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise QuestionError(f"{where}: not JSON: {error}") from None
    if not isinstance(row, dict):
        raise QuestionError(f"{where}: must be an object, not {type(row).__name__}")
    if unknown := sorted(row.keys() - {each.name for each in fields(Question)}):
        raise QuestionError(f"{where}: {unknown[0]}: there is no such field")
    near_miss = row.get("near_miss", False)
    if not isinstance(near_miss, bool):
        raise QuestionError(f"{where}: near_miss: must be true or false")
    kind = _text(row, "kind", where)
    if kind not in get_args(Kind):
        raise QuestionError(f"{where}: kind: must be one of {', '.join(get_args(Kind))}, not {kind!r}")
    accept = _by_language(row, "accept", where)
    question = Question(
        id=_text(row, "id", where),
        lang=_text(row, "lang", where),
        kind=cast(Kind, kind),
        question=_text(row, "question", where),
        photos=_texts(row, "photos", where),
        answer=_text(row, "answer", where),
        accept={lang: tuple(tuple(part.split("|")) for part in parts) for lang, parts in accept.items()},
        forbid=_by_language(row, "forbid", where),
        also=_texts({"also": [], **row}, "also", where),
        about=_text({"about": "-", **row}, "about", where).strip("-"),
        history=_texts({"history": [], **row}, "history", where),
        near_miss=near_miss,
    )
    if fault := _fault(question):
        raise QuestionError(f"{where}: {fault}")
    return question


def _text(row: Mapping[str, Any], name: str, where: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise QuestionError(f"{where}: {name}: must be a text that is not empty")
    return value


def _texts(row: Mapping[str, Any], name: str, where: str) -> tuple[str, ...]:
    values = row.get(name)
    if not isinstance(values, list) or not all(isinstance(value, str) and value.strip() for value in values):
        raise QuestionError(f"{where}: {name}: must be a list of texts that are not empty")
    return tuple(values)


def _by_language(row: Mapping[str, Any], name: str, where: str) -> dict[str, tuple[str, ...]]:
    table = row.get(name, {})
    if not isinstance(table, dict):
        raise QuestionError(f"{where}: {name}: must be an object with a list of texts for each language")
    found = {lang: _texts({name: terms}, name, where) for lang, terms in table.items()}
    bare = (term for terms in found.values() for text in terms for term in text.split("|"))
    if not all(found.values()) or not all(term.strip(" *") for term in bare):
        raise QuestionError(f"{where}: {name}: no list and no term between | may be empty")
    return found


def _fault(question: Question) -> str | None:
    """The first field that does not go with the others, and why; None if they agree."""
    count = len(question.photos)
    if len(question.history) % 2:
        return "history: must end with an answer: questions and answers take turns"
    for name, photos in (("photos", question.photos), ("also", question.also)):
        if any(photo in (".", "..") or re.search(r"[/\\\0]", photo) for photo in photos):
            return f"{name}: must be file names without folders"
    if len({*question.photos, *question.also}) < count + len(question.also):
        return "photos: a name occurs twice"
    if not {"one": count == 1, "several": count > 1, "none": count == 0}[question.kind]:
        return f"photos: {count} of them do not go with kind {question.kind!r}"
    if bool(question.accept) != (question.kind != "none"):
        return "accept: must be empty for kind 'none' and only then"
    if question.near_miss and question.kind != "none":
        return "near_miss: goes with kind 'none' only"
    return _key_fault(question) if question.accept else None


def _key_fault(question: Question) -> str | None:
    """What is wrong with the answer key of a question."""
    own = question.accept.get(question.lang)
    if own is None:
        return f"accept: has no parts in the question's language, {question.lang!r}"
    plain = normalised(question.answer)
    if parts_said(plain, own) < len(own):
        return "accept: a part of it is not in the answer"
    if question.forbids(question.answer):
        return "forbid: a term of it is in the answer"
    asked = normalised(question.question)
    if any(parts_said(asked, parts) for parts in question.accept.values()):
        return "accept: a part of it is in the question, so that repeating it would answer it"
    return None
