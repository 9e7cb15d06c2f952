"""The check of a capable model's answer: every verdict, the form kept to the letter, languages, and citations."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.answer_set import STRUCTURED
from retrieval.chat import REFUSAL, Answer, ChatOptions, GroundedChat
from retrieval.chat.check.claims import Claim
from retrieval.chat.check.conflicts import Told, conflict
from retrieval.chat.check.language import language
from retrieval.chat.check.layout import cited, literal_spans, sentence_spans, without_dangling
from retrieval.chat.sanitize import strip_links_only
from tests.support.chat_models import Scripted, collection

QUESTION = "What is on the red photo?"


def answered(folder: Path, reply: str, *, question: str = QUESTION, vision: bool = True, **options: object) -> Answer:
    chosen = ChatOptions(vision=vision, max_image_side=32, **options)  # type: ignore[arg-type]
    return GroundedChat(collection(folder), Scripted(replies=[reply]), chosen).ask(question)


@pytest.mark.parametrize(
    ("reply", "verdicts"),
    [
        ("A dog runs along a beach [1].", ["stated"]),
        ("The photo was taken in 1990 [1].", ["stated"]),
        ("It has a ginger tail and clearly looks happy [1].", ["seen"]),
        ("It has a ginger tail.", ["uncited"]),
        ("It has a ginger tail [77].", ["dangling"]),
        ("It has a ginger tail [1, 77].", ["seen"]),
        ("The beach is green [1].", ["contradicted"]),
        ("The photo was taken in 1999 [1].", ["contradicted"]),
        ("There is no dog [1].", ["contradicted"]),
        # What needs no source of its own.
        ("Here is what I found:\n- it looks happy [1]", ["no_claim", "seen"]),
        ("A dog runs [1]. A dog, then, runs.", ["stated", "no_claim"]),
        ("None of the photos shows a horse. Shall I look for a cow?", ["no_claim", "no_claim"]),
        ("It looks old. It is made of wood [1].", ["seen", "seen"]),
        # What stands behind the last citation rests on none.
        ("It is made of wood [1]. It looks old.", ["seen", "uncited"]),
    ],
)
def test_each_verdict(tmp_path: Path, reply: str, verdicts: list[str]) -> None:
    answer = answered(tmp_path, reply)
    assert [sentence.verdict for sentence in answer.sentences] == verdicts
    assert not answer.refused
    for sentence in answer.sentences:
        assert answer.text[sentence.start : sentence.end] == sentence.text


@pytest.mark.parametrize(
    "said",
    [
        "There are no rabbits in the collection.",
        "No rabbits appear in the photos.",
        "I can't make out the text on the sign.",
        "Sure!",
        "Ich habe keine Kaninchen gefunden.",
        "Nein, auf den Fotos ist kein Skifahrer zu sehen.",
        "Non, il n'y a pas de lapin dans les photos.",
        "No hay conejos en las fotos.",
        "没有，照片里没有滑雪的人。",
        "图中没有兔子。",
        "いいえ、写真にはウサギは写っていません。",
        "You're welcome!",
    ],
)
def test_what_says_that_there_is_nothing_needs_no_source(tmp_path: Path, said: str) -> None:
    answer = answered(tmp_path, f"A dog runs [1]. {said}")
    assert [sentence.verdict for sentence in answer.sentences] == ["stated", "no_claim"]


def test_a_summary_of_what_was_cited_needs_no_source(tmp_path: Path) -> None:
    reply = (
        "The dog is brown [1]. The cat is white [2].\n\nBoth are there; there are two. The dog is brown. There are 5."
    )
    answer = answered(tmp_path, reply)
    assert [sentence.verdict for sentence in answer.sentences][2:] == ["no_claim", "no_claim", "uncited"]
    opened = answered(tmp_path, "They come in two kinds.\n\n- a dog [1]\n- a cat [2]")
    assert opened.sentences[0].verdict == "seen"


def test_a_conflict_has_the_words_and_the_number_of_its_source(tmp_path: Path) -> None:
    answer = answered(tmp_path, "It is hot [1]. The beach is green [1].")
    right, wrong = answer.sentences
    assert (wrong.conflict, wrong.conflict_source) == ("a brown dog runs along a red beach", 1)
    assert (right.conflict, right.conflict_source) == ("", None)
    assert answer.counts.contradicted == 1


def test_a_text_in_other_words_is_cited_and_not_seen(tmp_path: Path) -> None:
    answer = answered(tmp_path, "It has a ginger tail [1].", vision=False)
    assert [sentence.verdict for sentence in answer.sentences] == ["cited"]


@pytest.mark.parametrize(
    ("reply", "text", "removed"),
    [
        ("A dog [9] runs [1].", "A dog runs [1].", (9,)),
        ("A dog runs [1, 9].", "A dog runs [1].", (9,)),
        ("A dog runs [1][9].", "A dog runs [1].", (9,)),
        ("A dog runs [1-9].", "A dog runs [1, 2, 3, 4].", (5, 6, 7, 8, 9)),
        ("[9] A dog runs [1].", "A dog runs [1].", (9,)),
        ("狗在跑【9】。[1]", "狗在跑。[1]", (9,)),
        ("狗在跑[1、9]。", "狗在跑[1]。", (9,)),
        ("狗在跑[1，9]。", "狗在跑[1]。", (9,)),
        ("狗在跑［9］。［1］", "狗在跑。［1］", (9,)),
        ("狗在跑[来源9]。[图1]", "狗在跑。[图1]", (9,)),
        ("Ein Hund läuft [Quelle 9] [Bild 1].", "Ein Hund läuft [Bild 1].", (9,)),
        ("A dog of [1990] runs [1].", "A dog of [1990] runs [1].", ()),
        ("`a[9]` and $b_{[9]}$ [1].", "`a[9]` and $b_{[9]}$ [1].", ()),
        ("A dog runs [4][2] [1].", "A dog runs [4][2] [1].", ()),
    ],
)
def test_only_dangling_citations_go(tmp_path: Path, reply: str, text: str, removed: tuple[int, ...]) -> None:
    for check in ("mark", "off"):
        answer = answered(tmp_path, reply, check=check)
        assert answer.text == text
        assert answer.counts.unresolved == len(removed)
    marked = answered(tmp_path, reply)
    assert [number for sentence in marked.sentences for number in sentence.removed] == list(removed)


def test_structured_answers_are_kept_to_the_letter(tmp_path: Path) -> None:
    rows = [json.loads(line) for line in STRUCTURED.read_text("utf-8").splitlines()]
    assert len(rows) == 20
    for row in rows:
        answer = answered(tmp_path, row["answer"])
        # The scripted model adds a space, and a reply's own end is no part of its form.
        assert answer.text == row["answer"].rstrip(), row["form"]
        warned = [each.text for each in answer.sentences if each.verdict in ("uncited", "dangling", "contradicted")]
        assert warned == [], row["form"]
        assert answer.counts.unresolved == 0


def test_what_is_no_answer_stays_what_the_model_said(tmp_path: Path) -> None:
    answer = answered(tmp_path, "I don't know.")
    assert (answer.text, answer.refused, answer.sources) == ("I don't know.", True, ())
    assert answered(tmp_path, "").text == REFUSAL
    assert answered(tmp_path, "", question="红色照片里有什么？").text == "这个集合里没有能回答这个问题的内容"
    off = answered(tmp_path, "The moon is made of cheese.", check="off")
    assert (off.text, off.sentences, off.check) == ("The moon is made of cheese.", (), "off")


def test_chinese_sentences_end_with_their_own_marks() -> None:
    text = "沙发是橙色的[1]。上面有一只猫！2只狗也在[2]？对"
    spans = [text[span.start : span.end] for span in sentence_spans(text)]
    assert spans == ["沙发是橙色的[1]。", "上面有一只猫！", "2只狗也在[2]？", "对"]


def test_a_sentence_may_begin_with_its_citation(tmp_path: Path) -> None:
    text = "[1] shows a dog. [2] shows a cat. [3][1] show men."
    spans = [text[span.start : span.end] for span in sentence_spans(text)]
    assert spans == ["[1] shows a dog.", "[2] shows a cat.", "[3][1] show men."]
    told = answered(tmp_path, "[1] shows a brown dog. [2] shows a white cat.").sentences
    assert [(sentence.citations, sentence.verdict) for sentence in told] == [((1,), "stated"), ((2,), "stated")]


def test_layout_tells_code_from_prose() -> None:
    text = "See [1].\n```\na[2]\n```\nand `b[3]` of [4].\n\n    c[5]\n"
    assert [group.numbers for group in cited(text)] == [(1,), (4,)]
    assert without_dangling(text, {1}) == (text.replace(" of [4].", " of."), [(text.index(" of [4]") + 3, (4,))])
    # A block in which a line is indented less than its fence is none.
    assert literal_spans("  ```\na[2]\nb") == []
    assert literal_spans("x\n```\na[2]\n\nb") == [(2, 13)]


@pytest.mark.parametrize(
    "hidden",
    [
        "- ```\n  code\n  ```\n![x](https://evil.example/a)\n```",
        "- a\n  ```\n![x](https://evil.example/a)\n  ```",
        "`![x](https://evil.example/a)`",
        "$![x](https://evil.example/a)$",
        '<a href="`">![x](https://evil.example/a)`',
        "<b>\n<img src=https://evil.example/a>",
        "$<img src=//evil.example/a>$",
        "[1]: https://evil.example/a",
        "a<b and src=https://evil.example/a>b",
        "a<img src=evil.example/a.png>",
        "file:///evil.example/a",
        "file:%2f%2fevil.example/a",
        "photo.jpg.evil.example/IMG.png",
        "| ![x](https://evil.example/a) | b | c |",
    ],
)
def test_no_form_lets_a_link_through(hidden: str) -> None:
    text, links = strip_links_only(hidden, [])
    assert links >= 1
    for trace in ("evil.example", "![", "<img", "<a "):
        assert trace not in text, text


@pytest.mark.parametrize(
    "kept",
    [
        "```html\n<a href='https://here.example/'>x</a> ![i](j)\n```",
        "`vector<int>` and `<br>`",
        "$p<q$ and $r>s$",
        "a table's<br>line, H<sub>2</sub>O",
        "[^1]: what the caption says",
        "[1]: 一只狗\n[2]: 一只白猫睡在沙发上。",
        "[1]: Dogs",
        "If a<b and c>d then [1]",
        "It is a List<String> [1]",
        "The files photo.jpg/IMG.png and file:IMG_1.jpg [1]",
        "```\n![x](https://here.example/a)",
    ],
)
def test_code_formulas_and_plain_tags_stay(kept: str) -> None:
    assert strip_links_only(kept, []) == (kept, 0)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("What is the dog doing?", "en"),
        ("dog", "en"),
        ("12", "en"),
        ("婴儿旁边是什么玩具？", "zh"),
        ("Scott Brown 在哪里？", "zh"),
        ("電車は何色ですか", "ja"),
        ("Wer wirbt auf dem blauen Bus?", "de"),
        ("Quelle est la couleur du train ?", "fr"),
        ("¿De qué color es el tren?", "es"),
        ("Где собака?", "ru"),
        ("أين الكلب؟", "ar"),
        ("Con chó đang chạy", "other"),
    ],
)
def test_languages(text: str, code: str) -> None:
    assert language(text) == code


CAPTIONS = (
    "two giraffes stand near a barn",
    "Two giraffes, one grown and one young",
    "a man in a brown shirt feeds two giraffes",
)
CAT = ("A cat lies in a suitcase.", "An orange cat in an open suitcase.", "A cat is lying on clothes")


@pytest.mark.parametrize(
    ("sentence", "question", "parts", "words"),
    [
        ("There are three giraffes.", "", CAPTIONS, CAPTIONS[0]),
        ("Three tall giraffes stand there.", "", CAPTIONS, CAPTIONS[0]),
        ("Two giraffes stand there.", "", CAPTIONS, None),
        ("Two of the three birds fly.", "", CAPTIONS, None),
        ("He wears a blue shirt.", "", ("a man in a brown shirt",), "a man in a brown shirt"),
        ("He wears a reddish, orange shirt.", "", ("a man in a brown shirt",), None),
        ("The shirt is brown and white.", "", ("a man in a brown shirt",), None),
        ("He wears a blue shirt.", "", ("two men, one in a brown shirt",), None),
        ("Behind him is a blue barn.", "", ("a red barn",), None),
        ("A second, black cat sits next to it.", "", CAT, CAT[0]),
        ("There are two cats.", "", CAT, CAT[0]),
        ("The cat has two ears.", "", CAT, None),
        ("No giraffe is there.", "", CAPTIONS, CAPTIONS[0]),
        ("The barn has no windows.", "", CAPTIONS, None),
        ("There are no giraffe signs.", "", CAPTIONS, None),
        ("There are no giraffes on the roof.", "", CAPTIONS, None),
        ("No, the shirt is brown.", "Is the barn brown?", ("a man in a brown shirt near a red barn",), None),
        ("The sign reads “GO”.", "", ('a sign that says "stop"', 'another sign that says "go"'), None),
        ("Two giraffes look left and three look right.", "", CAPTIONS, None),
        ("No, he is bare-chested.", "Does the man wear a brown shirt?", CAPTIONS, CAPTIONS[2]),
        ("No, he is bare-chested.", "Does the man wear a hat?", CAPTIONS, None),
        ("The sign reads “GO”.", "", ('a sign that says "stop"',), 'a sign that says "stop"'),
        ("The sign reads “Stop”.", "", ('a sign that says "stop"',), None),
        ("The poster shows Ann Miller.", "Who is on the poster?", ("a poster of Bob Jones",), "a poster of Bob Jones"),
        ("The poster shows Ann Miller.", "What is there?", ("a poster of Bob Jones",), None),
        ("Auf dem Plakat ist Ann Miller.", "Wer ist zu sehen?", ("a poster of Bob Jones",), "a poster of Bob Jones"),
        # German nouns are no names, and English words are not compared with German ones.
        ("Auf dem Plakat ist ein Hund mit Hut.", "Wer ist zu sehen?", ("a poster of Bob Jones",), None),
        ("Die drei Giraffen sind blau.", "", CAPTIONS, None),
        ("这里有三只狗。", "", ("两只狗在草地上",), "两只狗在草地上"),
        ("这里有两只猫。", "", ("两只狗在草地上",), None),
        ("两只狗在前面，三只狗在后面。", "", ("两只狗在草地上",), None),
        ("长颈鹿有三只。", "", CAPTIONS, None),
    ],
)
def test_specific_conflicts(sentence: str, question: str, parts: Sequence[str], words: str | None) -> None:
    found = conflict(sentence, question, [Told(3, tuple(parts))])
    assert (found.words if found else None) == words
    assert found is None or found.source == 3


@pytest.mark.parametrize(
    ("sentence", "wrong"),
    [
        ("The photo was taken in 2013.", True),
        ("The photo was taken in 2011.", False),
        ("The banner says 2013.", False),
        ("The photo was taken beside a car made in 1957.", False),
        ("The photo was taken on May 3, 2013.", True),
        ("这张照片拍摄于2013年。", True),
        ("Das Foto wurde 2013 aufgenommen.", True),
        ("The iso is 400.", True),
        ("The iso is 200.", False),
        ("The photographer is Ann Miller.", True),
        ("The photographer is Bob Jones.", False),
        ("The photographer of this photo stood near Paris.", False),
    ],
)
def test_conflicts_with_metadata(sentence: str, wrong: bool) -> None:
    fields = (("date taken", "2011-05-03"), ("iso", "200"), ("photographer", "Bob Jones"))
    assert (conflict(sentence, "", [Told(1, (), fields)]) is not None) is wrong


def test_numbers_with_a_mark_inside_are_one() -> None:
    assert Claim("The clock reads 3:20, at 1,500 m and 2.5 km.").numbers == {1500, 2.5}
    assert Claim("Take 3 of 5.").numbers == {3, 5}


def test_a_text_tells_more_than_one_sentence_of_it() -> None:
    parts = ("Three dogs live on the farm. The barn is red.",)
    for sentence in ("There are five dogs.", "The barn is blue.", "There is no barn."):
        assert conflict(sentence, "", [Told(1, parts, captions=False)]) is None
    assert conflict("There are five dogs.", "", [Told(1, parts)]) is not None


def test_sources_that_do_not_all_disagree_are_no_conflict() -> None:
    told = [Told(1, (), (("year", "1990"),)), Told(2, (), (("year", "1991"),))]
    assert conflict("Both were taken in 1991.", "", told) is None
    assert conflict("Both were taken in 1999.", "", told) is not None
