"""What one answer is worth by its key: where it says beside it that something cannot be told."""

from __future__ import annotations

import pytest

from benchmarks.chat.judging import judge
from benchmarks.chat.questions import Question
from retrieval.chat import Answer
from retrieval.chat.events import Counts, Usage


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("It is brown [1].", "right"),
        ("It is brown, but I can't tell its breed [1].", "right"),
        ("I don't know the breed; it is brown.", "right"),
        ("Es ist braun, aber die Rasse lässt sich nicht bestimmen [1].", "right"),
        ("它是棕色的，但无法确定品种[1]。", "right"),
        ("茶色ですが、犬種はわかりません[1]。", "right"),
        ("I'm sorry, but I can't tell whether it is brown.", "declined"),
        ("I can't tell from the photos, brown or not.", "declined"),
        ("It may be a dog, but I can't tell its colour.", "declined"),
        ("It is black, but I can't tell its breed [1].", "wrong"),
        ("It is black [1].", "wrong"),
        ("Nothing in the collection answers this.", "declined"),
    ],
)
@pytest.mark.parametrize("refused", [False, True])
def test_what_cannot_be_told_beside_a_right_answer_leaves_it_right(text: str, status: str, refused: bool) -> None:
    key = {"en": (("brown",),), "de": (("braun*",),), "zh": (("棕",),), "ja": (("茶色",),)}
    question = Question("q", "en", "one", "Which colour?", ("1.png",), "It is brown.", key, {"en": ("black",)})
    answer = Answer(
        question=question.question,
        query=question.question,
        text=text,
        refused=refused,
        quoted=False,
        sentences=(),
        sources=(),
        evidence=(),
        counts=Counts(),
        usage=Usage(),
    )
    assert judge(question, answer, "right").status == status
