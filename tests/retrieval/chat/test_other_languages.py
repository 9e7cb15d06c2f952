"""Questions in another language than the collection's, follow-ups in any, and the picture of a question."""

from __future__ import annotations

from pathlib import Path

import pytest

from retrieval.chat import ChatOptions, Final, GroundedChat, Token, Turn
from retrieval.chat.rewrite import checked_rewrite, checked_translation, stands_alone
from retrieval.search.retriever import Retriever
from tests.support.chat_models import CAPTIONS, JudgedRetriever, Scripted, collection, prompt_of
from tests.support.cli import paint

CHINESE = [Turn("红色海滩上的狗在做什么？", "一只棕色的狗在红色海滩上奔跑 [1]。", "红色海滩上的狗在做什么？")]
GERMAN = [Turn("Was macht der Hund am Strand?", "Der Hund läuft am Strand [1].", "")]
ENGLISH = [Turn("What does the dog on the red beach do?", "It runs along the beach [1].", "")]
PAST = {"zh": CHINESE, "de": GERMAN, "en": ENGLISH}


@pytest.mark.parametrize(
    "question",
    ["它在哪里？", "那第二张呢？", "Und welche Farbe?", "それはどこですか？", "И где она?", "¿Y de qué color?"],
)
def test_a_model_decides_what_a_follow_up_is(question: str) -> None:
    assert not stands_alone(question, CHINESE, by_model=True)
    assert not stands_alone(question, CHINESE), "and rules know those that point back"
    assert stands_alone(question, [])


def test_what_stands_alone_by_rule() -> None:
    assert stands_alone("绿色沙发上睡着什么动物？", CHINESE)
    assert not stands_alone("绿色沙发上睡着什么动物？", CHINESE, by_model=True)


@pytest.mark.parametrize(
    ("reply", "question", "past", "query"),
    [
        ("红色海滩上的狗在哪里？", "它在哪里？", "zh", "红色海滩上的狗在哪里？"),
        ("Welche Farbe hat der Hund am Strand?", "Und welche Farbe?", "de", "Welche Farbe hat der Hund am Strand?"),
        ("狗在哪里？", "它在哪里？", "en", "狗在哪里？"),
        ("它在1843年的巴黎吗？", "它在哪里？", "zh", ""),
        ("The dog is on the beach.", "它在哪里？", "zh", ""),
        ("我不知道，请提供更多信息以便我能够帮助您完成这个任务，谢谢您的理解与支持。", "它在哪里？", "zh", ""),
        ("", "它在哪里？", "zh", ""),
    ],
)
def test_rewrites_in_other_languages_are_checked(reply: str, question: str, past: str, query: str) -> None:
    assert checked_rewrite(reply, question, PAST[past]).query == query


def test_translations_are_checked() -> None:
    assert checked_translation("Where is the dog?", "狗在哪里？", "en") == "Where is the dog?"
    assert checked_translation("Translation: Where is the dog?", "狗在哪里？", "en") == "Where is the dog?"
    for bad in ("", "狗在哪里？", "Where is dog 7?", "one\ntwo", "where " * 100):
        assert checked_translation(bad, "狗在哪里？", "en") == "", bad


def test_a_question_is_searched_for_in_the_collection_s_language_too(tmp_path: Path) -> None:
    retriever = collection(tmp_path, kind=JudgedRetriever)
    searched: list[object] = []
    search = retriever.search
    retriever.search = lambda query, *given, **more: searched.append(query) or search(query, *given, **more)  # type: ignore[method-assign, func-returns-value]
    model = Scripted(replies=["What is on the red beach?", "一只狗 [1]。"])
    answer = GroundedChat(retriever, model, ChatOptions(gate=0.5)).ask("红色海滩上有什么？")
    assert (answer.query, answer.translation) == ("红色海滩上有什么？", "What is on the red beach?")
    assert {"红色海滩上有什么？", "What is on the red beach?"} == set(map(str, searched))
    assert answer.evidence[0].item.id == "img-red", "which the words in Chinese alone do not find"
    assert "into English" in prompt_of(model.asked[0])
    assert "Question: 红色海滩上有什么？" in prompt_of(model.asked[1])
    assert answer.usage.calls == 2


def test_a_collection_in_the_question_s_language_needs_no_translation(tmp_path: Path) -> None:
    captions = dict.fromkeys(CAPTIONS, "一只狗在海滩上奔跑") | {
        "green": "一只白猫在沙发上睡觉",
        "blue": "两个男人在厨房做饭",
    }
    model = Scripted(replies=["一只狗 [1]。"])
    answer = GroundedChat(collection(tmp_path, captions), model).ask("海滩上有什么？")
    assert (answer.translation, len(model.asked)) == ("", 1)


def test_a_follow_up_is_rewritten_and_translated_in_one_call(tmp_path: Path) -> None:
    model = Scripted(replies=["红色海滩上的狗在哪里？\nWhere is the dog on the red beach?", "在海滩上 [1]。"])
    answer = GroundedChat(collection(tmp_path), model).ask("它在哪里？", history=CHINESE)
    assert (answer.query, answer.translation) == ("红色海滩上的狗在哪里？", "Where is the dog on the red beach?")
    assert len(model.asked) == 2
    assert answer.evidence[0].item.id == "img-red"


@pytest.mark.parametrize("question", ["它在哪里？", "Und welche Farbe?", "And its colour?"])
def test_a_weak_model_keeps_what_was_found_before(tmp_path: Path, question: str) -> None:
    options = ChatOptions(gate=0.5, check="strict", fallback="quote", rewrite="rules", max_evidence=4)
    retriever: Retriever = collection(tmp_path, kind=JudgedRetriever)
    past = [Turn("red", "A brown dog runs along a red beach [1].", "red")]
    answer = GroundedChat(retriever, Scripted(replies=["A brown dog runs along a red beach [1]."]), options).ask(
        question, history=past
    )
    assert "img-red" in [piece.item.id for piece in answer.evidence]


# The picture that comes with a question


def test_an_attached_picture_is_a_source_of_its_own(tmp_path: Path) -> None:
    picture = paint(tmp_path / "mine.png", "green")
    reply = "Your picture shows a green square [image]. A white cat sleeps on a sofa [1]. It is nice."
    for check in ("mark", "strict"):
        model = Scripted(replies=[reply])
        chat = GroundedChat(collection(tmp_path), model, ChatOptions(vision=True, check=check))  # type: ignore[arg-type]
        events = list(chat.stream("What is this, and what is like it?", image=picture))
        final = events[-1]
        assert isinstance(final, Final)
        answer = final.answer
        assert answer.text.startswith("Your picture shows a green square [image]. A white cat sleeps on a sofa [1].")
        assert [source.item.id for source in answer.sources] == ["img-green"]
        first, second = answer.sentences[:2]
        assert (first.verdict, first.citations, first.attached) == ("seen", (), True)
        assert (second.verdict, second.citations, second.attached) == ("stated", (1,), False)
        shown = "".join(event.text for event in events if isinstance(event, Token))
        assert "[image]" in shown
        assert "[image] The picture that comes with the question:" in prompt_of(model.asked[0])


def test_sentences_about_the_picture_are_neither_refused_nor_cited_to_another(tmp_path: Path) -> None:
    picture = paint(tmp_path / "mine.png", "green")
    for reply in (
        "It is a brown dog on a red beach [image].",
        "这是一只狗 [image]。",
        "The picture you sent shows a dog.",
    ):
        answer = GroundedChat(collection(tmp_path), Scripted(replies=[reply]), ChatOptions(vision=True)).ask(
            "What is this?", image=picture
        )
        assert (answer.text, answer.refused, answer.sources) == (reply, False, ())
        assert [sentence.verdict for sentence in answer.sentences] == ["seen"]


def test_a_picture_that_nothing_is_like_is_still_answered_about(tmp_path: Path) -> None:
    picture = paint(tmp_path / "mine.png", "purple")
    options = ChatOptions(vision=True, gate=0.9999, rewrite="rules")
    model = Scripted(replies=["A purple square [image]."])
    answer = GroundedChat(collection(tmp_path, kind=JudgedRetriever), model, options).ask(
        "What is this?", image=picture
    )
    assert (answer.text, answer.refused, answer.evidence) == ("A purple square [image].", False, ())
    blind = GroundedChat(collection(tmp_path, kind=JudgedRetriever), model, ChatOptions(gate=0.9999))
    assert blind.ask("What is this?", image=picture).refused


def test_without_a_picture_nothing_cites_one(tmp_path: Path) -> None:
    answer = GroundedChat(collection(tmp_path), Scripted(replies=["It is a yellow submarine [image]."])).ask("red dog")
    assert [(sentence.verdict, sentence.attached) for sentence in answer.sentences] == [("uncited", False)]
