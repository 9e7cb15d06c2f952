"""Questions of count and metadata, answered by rule where no tools are called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from backends.base import Record
from retrieval.chat import Answer, ChatOptions, GroundedChat, Turn
from retrieval.chat.evidence import prepare
from retrieval.chat.metadata_follow_ups import asked_in_talk
from retrieval.chat.metadata_questions import Asked, Period, metadata_question
from retrieval.search.retriever import Retriever
from tests.support.chat_models import Calling, JudgedRetriever, Scripted, collection

YEAR = Period("2013", "2014")
PLAIN = ChatOptions(tools=False)


@pytest.mark.parametrize(
    ("question", "asked"),
    [
        ("how many photos show dogs?", Asked("count", topic="dogs")),
        ("How many pictures of dogs are there?", Asked("count", topic="dogs")),
        ("how many photos of dogs were taken in 2013?", Asked("count", topic="dogs", period=YEAR)),
        ("How many photos were taken with a Nikon D90 in 2013?", Asked("count", period=YEAR, camera="Nikon D90")),
        ("有多少张照片有狗？", Asked("count", topic="狗")),
        ("有几张狗的照片？", Asked("count", topic="狗")),
        ("狗的照片有多少张？", Asked("count", topic="狗")),
        ("2013年拍了多少张照片？", Asked("count", period=YEAR)),
        ("which were taken in 2013?", Asked("list", period=YEAR)),
        ("Which photos were taken in May 2013?", Asked("list", period=Period("2013-05", "2013-06"))),
        ("photos from December 2013", Asked("list", period=Period("2013-12", "2014"))),
        ("what was taken before 2013?", Asked("list", period=Period("", "2013"))),
        ("which pictures were taken between 2010 and 2013", Asked("list", period=Period("2010", "2014"))),
        ("2013年拍的有哪些？", Asked("list", period=YEAR)),
        ("2013年5月拍的照片有哪些？", Asked("list", period=Period("2013-05", "2013-06"))),
        ("哪些照片是2013年拍的？", Asked("list", period=YEAR)),
        ("which cameras were used?", Asked("values", field="camera")),
        ("用了哪些相机？", Asked("values", field="camera")),
        ("how large is it?", Asked("size", of="it")),
        ("它有多大？", Asked("size", of="it")),
        ("how big is the photo of the cat?", Asked("size", of="the cat")),
        ("when was the second one taken?", Asked("taken", of="#2")),
        ("这张照片是什么时候拍的？", Asked("taken", of="it")),
        ("第二张是用什么相机拍的？", Asked("camera", of="#2")),
        ("Which camera was it taken with?", Asked("camera", of="it")),
        ("in which folder is it?", Asked("folder", of="it")),
        ("它在哪个文件夹里？", Asked("folder", of="it")),
    ],
)
def test_what_asks_for_counts_and_metadata(question: str, asked: Asked) -> None:
    assert metadata_question(question, follows=True) == asked


@pytest.mark.parametrize(
    "question",
    [
        "how many dogs are on the beach?",
        "how many people are in the photo?",
        "how big is the dog?",
        "what is the dog doing?",
        "which photos show a dog?",
        "what happened in 2013?",
        "what was built in 1843?",
        "when was the house built?",
        "它在哪里？",
        "照片里有几只狗？",
        "那第二张呢？",
        "有多少人？",
        "2013年发生了什么？",
        "how many photos " + "of dogs " * 100,
    ],
)
def test_what_is_a_question_like_any_other(question: str) -> None:
    assert metadata_question(question, follows=True) is None


def test_it_is_nothing_without_a_talk() -> None:
    assert metadata_question("how large is it?") is None
    assert metadata_question("它有多大？") is None


DOGS = "how many photos show dogs?"
ZH_DOGS = "有多少张照片有狗？"


@pytest.mark.parametrize(
    ("question", "before", "asked"),
    [
        ("and how many show coffee?", DOGS, Asked("count", topic="coffee")),
        ("What about cats?", DOGS, Asked("count", topic="cats")),
        ("and cats?", DOGS, Asked("count", topic="cats")),
        ("and in 2013?", DOGS, Asked("count", topic="dogs", period=YEAR)),
        ("how many of them were taken in 2013?", DOGS, Asked("count", topic="dogs", period=YEAR)),
        ("how many of those show cats?", DOGS, Asked("count", topic="dogs", also=("cats",))),
        ("which of them show cats?", DOGS, Asked("list", topic="dogs", also=("cats",))),
        ("which one?", DOGS, Asked("list", topic="dogs")),
        ("Which ones are they?", DOGS, Asked("list", topic="dogs")),
        ("show me those", DOGS, Asked("list", topic="dogs")),
        ("其中有几张猫的？", ZH_DOGS, Asked("count", topic="狗", also=("猫",))),
        ("其中有几张是2013年拍的？", ZH_DOGS, Asked("count", topic="狗", period=YEAR)),
        ("有几张有咖啡？", ZH_DOGS, Asked("count", topic="咖啡")),
        ("那猫呢？", ZH_DOGS, Asked("count", topic="猫")),
        ("哪一张？", ZH_DOGS, Asked("list", topic="狗")),
        ("是哪几张？", ZH_DOGS, Asked("list", topic="狗")),
        ("哪些？", ZH_DOGS, Asked("list", topic="狗")),
        ("how large is it?", DOGS, Asked("size", of="it")),
        ("how many photos show boats?", DOGS, Asked("count", topic="boats")),
        ("那第二张呢？", ZH_DOGS, None),
        ("那只狗呢？", ZH_DOGS, None),
        ("它在哪里？", ZH_DOGS, None),
        ("and what colour is it?", DOGS, None),
        ("and the dog?", DOGS, None),
        ("and why?", DOGS, None),
        ("how many dogs are on the beach?", DOGS, None),
        ("which one?", "what is the dog doing?", None),
        ("and how many show coffee?", "what is the dog doing?", None),
    ],
)
def test_what_goes_on_from_a_count(question: str, before: str, asked: Asked | None) -> None:
    assert asked_in_talk(question, [before]) == asked
    assert asked_in_talk(question, ["hello", "how many photos show birds?", before]) == asked
    assert asked_in_talk(question, []) in (None, metadata_question(question))


def test_a_follow_up_goes_on_from_a_follow_up() -> None:
    assert asked_in_talk("which one?", [DOGS, "and how many show coffee?"]) == Asked("list", topic="coffee")
    assert asked_in_talk("which one?", [DOGS, "what does it do?"]) is None


@pytest.mark.parametrize(
    "question", ["有咖啡吗？", "有没有咖啡？", "哪些照片里有咖啡？", "咖啡的照片有哪些？", "找咖啡的照片"]
)
def test_what_lists_in_chinese_for_a_weak_model(question: str) -> None:
    assert metadata_question(question, lists=True) == Asked("list", topic="咖啡")
    assert metadata_question(question) is None


@pytest.mark.parametrize(
    "question",
    ["这里有什么？", "照片里有几只狗？", "它有尾巴吗？", "你有名字吗？", "狗在做什么？", "which photos show a dog?"],
)
def test_what_lists_nothing(question: str) -> None:
    assert metadata_question(question, lists=True) is None


@pytest.fixture
def retriever(tmp_path: Path) -> Retriever:
    retriever = collection(tmp_path, kind=JudgedRetriever)
    facts: dict[str, dict[str, Any]] = {
        "red": {"taken": "2013-05-03T10:20:30", "camera": "NIKON D90", "width": 640, "height": 480, "bytes": 123_456},
        "green": {"taken": "2013-12-31T23:59:59", "camera": "NIKON D7000", "folder": "cats"},
        "blue": {"taken": "2014-01-01T00:00:00", "camera": "Leica M9"},
    }
    for record in retriever.backend.get("c", [f"img-{colour}" for colour in facts], with_vectors=True):
        told = {**{k: v for k, v in record.metadata.items() if k != "year"}, **facts[record.id[4:]]}
        fields = (record.vector, record.modality, record.text, record.uri, told)
        retriever.backend.upsert("c", [Record(record.id, *fields)])
    return retriever


def asked(retriever: Retriever, question: str, history: list[Turn] | None = None, **options: Any) -> Answer:
    model = Scripted(replies=["The model said so."])
    answer = GroundedChat(retriever, model, PLAIN).ask(question, history=history or [], **options)
    assert (model.asked == []) is (answer.text != "The model said so."), "no model is asked for it"
    return answer


def ids(answer: Answer) -> set[str]:
    return {source.item.id for source in answer.sources}


def test_counts_and_lists(retriever: Retriever) -> None:
    counted = asked(retriever, "how many photos were taken in 2013?")
    assert counted.text.startswith("From 2013: 2 photos. For example: “")
    assert ids(counted) == {"img-red", "img-green"}
    assert [sentence.verdict for sentence in counted.sentences] == ["stated"]
    assert ids(asked(retriever, "which were taken in May 2013?")) == {"img-red"}
    assert ids(asked(retriever, "which photos were taken after 2013?")) == {"img-blue"}
    assert asked(retriever, "how many photos were taken with a Nikon in 2013?").text.startswith(
        "From 2013, taken with Nikon: 2 photos."
    )
    assert asked(retriever, "how many photos were taken in 1950?").text == "From 1950: none."
    chinese = asked(retriever, "2013年拍的有哪些？")
    assert chinese.text.startswith("2013 拍摄：2 张照片。")
    assert ids(chinese) == {"img-red", "img-green"}
    assert ids(asked(retriever, "which were taken in 2013?", where={"folder": "cats"})) == {"img-green"}


def test_what_relevance_counts_is_at_least(retriever: Retriever) -> None:
    answer = asked(retriever, "how many photos show a red beach?")
    assert answer.text.startswith("About “a red beach”: at least 1 photo. That is an estimate by relevance")
    assert ids(answer) == {"img-red"}
    assert asked(retriever, "有多少张照片有red beach？").text.startswith("关于“red beach”：至少 1 张照片。")


def test_follow_ups_of_counts_are_counted_and_shown(retriever: Retriever) -> None:
    talk = [
        Turn("how many photos show a red beach?", "About “a red beach”: at least 1 photo. For example: “a” [1].", "")
    ]
    green = asked(retriever, "and how many show a green sofa?", talk)
    assert green.text.startswith("About “a green sofa”: at least 1 photo.")
    assert ids(green) == {"img-green"}
    assert ids(asked(retriever, "which one?", talk)) == {"img-red"}
    assert ids(asked(retriever, "哪一张？", talk)) == {"img-red"}
    both = asked(retriever, "how many of them show a green sofa?", talk)
    assert both.text == "About “a red beach”, about “a green sofa”: none."
    further = [*talk, Turn("and how many show a green sofa?", green.text, "and how many show a green sofa?")]
    assert ids(asked(retriever, "which one?", further)) == {"img-green"}
    assert ids(asked(retriever, "when was it taken?", further)) == {"img-green"}


def test_a_weak_model_lists_in_chinese_what_is_found(retriever: Retriever) -> None:
    weak = ChatOptions(check="strict", fallback="quote", rewrite="rules", gate=0.5)
    chat = GroundedChat(retriever, Scripted(replies=["no"]), weak)
    found = chat.ask("这里有没有red？")
    assert found.text.startswith("关于“red”：至少 1 张照片。")
    assert ids(found) == {"img-red"}
    retriever.judge = lambda hit: 0.8 * hit.score  # type: ignore[attr-defined]
    unsure = chat.ask("哪些照片里有red beach？")
    assert unsure.text.startswith("关于“red beach”：没有可以确定的；按相关度，可能有关的有 1 条。例如：")
    assert ids(unsure) == {"img-red"}
    assert not unsure.refused


def test_what_cannot_be_counted_is_left_to_the_model(tmp_path: Path) -> None:
    unjudged = collection(tmp_path)
    assert asked(unjudged, "how many photos show a red beach?").text == "The model said so."
    assert asked(unjudged, "how many photos were taken with a Nikon?").text == "The model said so."
    assert asked(unjudged, "which were taken in 1991?").text.startswith("From 1991: 1 photo.")
    with_none = asked(unjudged, "which were taken in 2013?", where={"heading": "Houses"})
    assert with_none.text == "Nothing in this collection says when it was taken."


def test_values(retriever: Retriever) -> None:
    assert (
        asked(retriever, "which cameras were used?").text
        == "Under “camera”: Leica M9 (1), NIKON D7000 (1), NIKON D90 (1)."
    )
    assert asked(retriever, "which years are there?").text == "Under “year”: 2013 (2), 2014 (1)."
    assert asked(retriever, "which lenses were used?").text == "Nothing in this collection has “lens”."


def test_values_of_a_large_collection_are_told_as_a_sample(
    retriever: Retriever, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("counting", "facts", "metadata_answers"):
        monkeypatch.setattr(f"retrieval.chat.{module}.MOST_READ", 4)
    for question in ("which cameras were used?", "which years are there?"):
        assert asked(retriever, question).text.endswith(" Counted over a sample of 4.")
    # None of those that are read has the field, which says nothing of the others.
    assert "lens" not in asked(retriever, "which lenses were used?").text


def test_a_citation_of_nothing_points_to_no_item(retriever: Retriever) -> None:
    talk = [Turn("which photo shows a red beach?", "A dog runs along a red beach [0].", "red beach")]
    assert ids(asked(retriever, "how large is it?", talk)) == {"img-red"}


def test_one_item(retriever: Retriever) -> None:
    talk = [Turn("which photo shows a red beach?", "A dog runs along a red beach [1].", "red beach")]
    assert asked(retriever, "how large is it?", talk).text == "640 x 480 pixels (123 kB) [1]."
    assert ids(asked(retriever, "how large is it?", talk)) == {"img-red"}
    assert asked(retriever, "它有多大？", talk).text == "640 x 480 像素（123 kB）[1]。"
    assert asked(retriever, "when was it taken?", talk).text == "Taken on 2013-05-03 10:20:30 [1]."
    assert asked(retriever, "what camera was it taken with?", talk).text == "Taken with NIKON D90 [1]."
    assert asked(retriever, "in which folder is it?", talk).text == "That is not stored of [1]."
    assert asked(retriever, "how large is the photo of the green sofa?").text == "That is not stored of [1]."


def test_a_model_with_tools_counts_itself(retriever: Retriever) -> None:
    model = Calling(replies=[[("count", {"filters": '{"camera": "Leica M9"}'})], "There is 1 photo."])
    answer = GroundedChat(retriever, model, ChatOptions()).ask("how many photos were taken in 2014?")
    assert answer.text == "There is 1 photo."
    assert [used.name for used in answer.tools] == ["count"]


def test_sizes_are_in_the_evidence_of_a_capable_model(retriever: Retriever) -> None:
    found = retriever.search("red", 1, modality="image")
    tagger = GroundedChat(retriever, Scripted(replies=["x"])).tagger
    (piece,) = prepare(found, tagger=tagger, options=ChatOptions(), budget=9999)
    assert (
        "| camera: NIKON D90 | taken: 2013-05-03T10:20:30 | size: 640 x 480 pixels | file size: 123 kB" in piece.shown
    )
    weak = ChatOptions(check="strict", fallback="quote")
    (piece,) = prepare(found, tagger=tagger, options=weak, budget=9999)
    assert "pixels" not in piece.shown
