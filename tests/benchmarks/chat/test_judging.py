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
    assert judge(question, said(question, text, refused=refused), "right").status == status


DECLINED = [
    "None of the photos shows a horse.",
    "There are no photos of an orchestra, and none of a conductor.",
    "I can't tell: the photos do not show who took them.",
    "Sorry, but nothing in the collection shows that. Would you like me to look for something else?",
    "抱歉，我无法确定照片是谁拍的。",
    "集合中没有大象的照片。",
    "对不起，照片里没有消防车。",
    "Keines der Fotos zeigt einen Elefanten.",
    "Auf den Bildern ist kein Elefant zu sehen, das lässt sich nicht beantworten.",
    "Aucune photo ne montre d'éléphant.",
    "No hay fotos de elefantes en la colección.",
    "写真に象は写っていません。",
    "申し訳ありませんが、写真からはわかりません。",
]
ANSWERED = [
    "There is no doubt that the photo shows a blue truck.",
    "I cannot tell the year, but it is blue.",
    "I cannot see more in the photo, it is blue.",
    "The photo shows a man without a hat, not a woman.",
    "The photo does not show a horse but a cow.",
    "Not only the first photo: it is blue in all of them.",
    "毫无疑问，照片里的车是蓝色的。",
    "照片里不是马，它是一头牛。",
    "照片里有一个没戴帽子的人。",
    "我无法确定年份，但车是蓝色的。",
    "Ohne Frage: Das Bild zeigt nicht irgendein Auto, es ist ein blaues.",
    "Ich kann das Jahr nicht sagen, aber es ist blau.",
    "Sans aucun doute, la photo montre un camion bleu.",
    "Je ne vois pas l'année sur la photo, mais il est bleu.",
    "Sin duda, la foto muestra un camión azul.",
    "No veo el año en la foto, pero es azul.",
    "写真では年はわかりませんが、青いです。",
]


@pytest.mark.parametrize(("text", "declined"), [(t, True) for t in DECLINED] + [(t, False) for t in ANSWERED])
def test_a_negation_in_an_answer_declines_nothing(text: str, declined: bool) -> None:
    question = Question("q", "en", "none", "Which colour?", (), "None.")
    assert judge(question, said(question, text), "search").status == ("right" if declined else "wrong")


def said(question: Question, text: str, *, refused: bool = False) -> Answer:
    return Answer(
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
