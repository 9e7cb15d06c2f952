"""Numbers have support beside what they count alone: digits and words, in several languages."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from retrieval.chat import ChatOptions, GroundedChat
from retrieval.chat.check.claims import Claim
from retrieval.chat.check.denials import says_nothing
from retrieval.chat.check.quantities import counted_alike, things_asked
from retrieval.chat.check.verdicts import is_counted
from tests.support.chat_models import Scripted, collection

#: What is said, to which question, over which captions, and whether its numbers are in them.
SAID = [
    ("有三只猫。", "有几只猫？", "两只狗和三只猫在院子里", True),
    ("有两只猫。", "有几只猫？", "两只狗和三只猫在院子里", False),
    ("两匹。", "有几匹马？", "两匹吃草的马", True),
    ("It was taken on May 3, 2013.", "When was it taken?", "taken 2013-05-03T10:20:30", True),
    ("It was taken on May 4, 2013.", "When was it taken?", "taken 2013-05-03T10:20:30", False),
    ("A couple sits on the bench.", "", "a couple sitting on a bench", True),
    ("The answer is 1.", "How many dogs run?", "a brown beach / a dog", True),
    ("The answer is 1.", "How many dogs run?", "a brown beach", False),
    ("The answer is 1.", "How many dogs run?", "two dogs on a beach", False),
    ("The answer is one.", "How many dogs run?", "two dogs on a beach", False),
    ("There is one.", "How many dogs run?", "a black dog on a beach", True),
    ("One dog runs.", "How many dogs run?", "two dogs on a beach", False),
    ("There is a dog.", "How many dogs run?", "two dogs on a beach", False),
    ("One of the dogs is black.", "How many dogs run?", "two dogs on a beach", True),
    ("One of them.", "How many dogs run?", "two dogs on a beach", True),
    ("Two.", "How many cats?", "two dogs and a cat", False),
    ("Two.", "How many dogs?", "two brown dogs and a cat", True),
    ("2", "How many dogs?", "two large brown dogs and a cat", True),
    ("There are 2 dogs.", "How many dogs?", "a cat on 2 tables with dogs", False),
    ("1 baseball player", "How many baseball players?", "a baseball", False),
    ("1 player", "How many baseball players?", "a baseball player swinging", True),
    ("3", "How many dogs are on the bed?", "three pillows on a bed and two dogs", False),
    ("2013", "What year was it taken?", "taken 2013-05-01T10:20:30", True),
    ("It was taken in 2012.", "What year was it taken?", "taken 2013-05-01T10:20:30", False),
    ("2013", "How many dogs?", "taken 2013-05-01T10:20:30", False),
    ("The clock shows 10:30.", "What time is it?", "a clock showing 10:15", False),
    ("The clock shows 10:30.", "What time is it?", "a clock showing 10:30", True),
    ("It is number 42.", "What number is on the bus?", "a bus with number 42 on it", True),
    ("It is 640 x 480 pixels.", "how large?", "size 640 x 480 pixels", True),
    ("It is 640 pixels wide.", "how large?", "size 640 x 480 pixels", True),
    ("Un.", "Combien de chiens ?", "un chat sur un lit", False),
    ("Un.", "Combien de chiens ?", "un chien sur un lit", True),
    ("Deux.", "Combien de chiens y a-t-il ?", "deux chats et un chien", False),
    ("Il y en a deux.", "Combien de chiens y a-t-il ?", "deux grands chiens", True),
    ("La réponse est 1.", "Combien de chiens y a-t-il ?", "il va à la plage, elle a un ballon", False),
    ("La respuesta es 1.", "¿Cuántos perros hay?", "va a la playa", False),
    ("Uno.", "¿Cuántos perros hay?", "un gato en una cama", False),
    ("Dos.", "¿Cuántos perros hay?", "dos perros negros en una cama", True),
    ("Zwei.", "Wie viele Hunde sind da?", "zwei Hunde auf einem Bett", True),
    ("Zwei.", "Wie viele Katzen sind da?", "zwei Hunde auf einem Bett", False),
    ("Eins.", "Wie viele Hunde sind da?", "eine Katze", False),
    ("一个。", "有几个男人？", "一个女人在打球", False),
    ("一个。", "有几个男人？", "一个男人在打球", True),
    ("答案是1。", "有几只狗？", "一只猫躺在床上", False),
    ("答案是1。", "有几只狗？", "一只棕色的狗躺在床上", True),
    ("有3只狗。", "有几只狗？", "两只狗躺在床上", False),
    ("3只狗", "有几只狗？", "两只狗躺在床上", False),
    ("有两只狗。", "有几只狗？", "2只狗躺在床上", True),
    ("1", "有几只狗？", "a dog on a bed", False),
    ("五艘。", "港口里有几艘船？", "五艘白色的船停在港口", True),
    ("其中一只是黑色的", "", "两只狗", True),
    ("2匹です。", "犬は何匹いますか？", "二匹の犬が走る", True),
    ("2匹です。", "猫は何匹いますか？", "二匹の犬が走る", False),
    ("照片拍摄于2013年", "", "taken 2013-05-01", True),
    ("照片拍摄于2012年", "", "taken 2013-05-01", False),
    ("Both dogs run", "", "two dogs run", True),
    ("One dog is black", "", "two dogs, one black and one white", True),
    ("There are twenty-two boats", "", "22 boats in a harbour", True),
    ("two-story house", "", "a two story house", True),
    ("A pair of dogs", "", "two dogs", True),
    ("Three people", "", "three men cook", True),
    ("One person", "", "a man cooks", True),
    ("1 dog", "", "a dog's bowl", False),
    ("It has 12 buses", "", "bus number 12", False),
]


@pytest.mark.parametrize(("said", "question", "captions", "holds"), SAID)
def test_a_number_is_looked_for_beside_what_it_counts(said: str, question: str, captions: str, holds: bool) -> None:
    assert counted_alike(Claim(said, question), [captions]) is holds


@pytest.mark.parametrize(
    ("question", "things"),
    [
        ("How many baseball players are on the field?", {"players"}),
        ("how many are there?", set()),
        ("Combien de chiens y a-t-il ?", {"chiens"}),
        ("Combien d'oiseaux ?", {"oiseaux"}),
        ("¿Cuántos perros hay?", {"perros"}),
        ("港口里有几艘船？", {"船"}),
        ("船有几艘？", {"船"}),
        ("犬は何匹いますか？", {"犬"}),
        ("What colour is the dog?", None),
        ("狗是什么颜色？", None),
    ],
)
def test_what_a_question_asks_the_number_of(question: str, things: set[str] | None) -> None:
    found = things_asked(question)
    assert (found if found is None else set(found)) == things


INVENTED = [
    ("how many dogs are on the red beach?", "The answer is 3 [1]."),
    ("how many cats are on the red beach?", "The answer is 1 [1]."),
    ("how many cats are on the red beach?", "1 [1]."),
    ("how many cats are on the red beach?", "One [1]."),
    ("how many cats are on the red beach?", "There is one."),
    ("red 海滩上有几只猫？", "一个[1]。"),
    ("red 海滩上有几只猫？", "答案是1[1]。"),
    ("Combien de chats sur la plage red ?", "Un [1]."),
    ("Combien de chats sur la plage red ?", "La réponse est 1 [1]."),
    ("¿Cuántos gatos hay en la playa red?", "Uno [1]."),
]


@pytest.mark.parametrize(("question", "said"), INVENTED)
def test_the_strict_check_lets_no_invented_number_pass(tmp_path: Path, question: str, said: str) -> None:
    retriever = collection(tmp_path, {"red": "a brown dog runs along a red beach", "green": "a man on a green sofa"})
    answer = GroundedChat(retriever, Scripted(replies=[said]), ChatOptions(gate=None, check="strict")).ask(question)
    assert answer.refused
    marked = GroundedChat(retriever, Scripted(replies=[said]), ChatOptions(gate=None)).ask(question)
    assert "stated" not in [sentence.verdict for sentence in marked.sentences]


def test_a_right_number_stands(tmp_path: Path) -> None:
    retriever = collection(tmp_path)
    for said in ("The answer is 1 [1].", "One dog [1].", "There is one [1].", "1 [1]."):
        model = Scripted(replies=[said])
        answer = GroundedChat(retriever, model, ChatOptions(gate=None, check="strict")).ask("how many dogs, red?")
        assert (answer.text, answer.refused) == (said, False)


def test_a_weak_model_is_not_helped_out_by_a_caption_of_other_things(tmp_path: Path) -> None:
    captions = {"red": "a brown dog walks over the dry grass of a red beach"}
    options = ChatOptions(gate=None, check="strict", fallback="quote", rewrite="rules")
    chat = GroundedChat(collection(tmp_path, captions), Scripted(replies=["Seven."]), options)
    assert chat.ask("How many birds walk over the dry grass of the red beach?").refused
    assert chat.ask("How many dogs walk over the dry grass of the red beach?").quoted


@pytest.mark.parametrize(
    ("said", "question", "counted"),
    [
        ("有2张狗的照片。", "有多少张照片有狗？", True),
        ("2013年有2张。", "2013年拍了多少张？", False),
        ("有2只猫。", "有多少张照片有狗？", False),
        ("有2只狗。", "有多少张照片有狗？", True),
        ("Il y a 2 photos.", "Combien de photos ?", True),
        ("Il y a 2 chats.", "Combien de photos ?", False),
        ("There are 2 photos of dogs.", "how many photos show dogs?", True),
        ("There is 1 photo of dogs.", "how many photos show dogs?", False),
        ("There are 2 cats.", "how many photos show dogs?", False),
    ],
)
def test_what_was_counted_is_of_what_was_counted(said: str, question: str, counted: bool) -> None:
    finding = "At least 2 photos and 0 texts about “a dog / 狗”: an estimate by relevance."
    assert is_counted(said, question, [finding]) is counted


def test_what_an_image_is_near_to_says_nothing_of_a_bare_number(tmp_path: Path) -> None:
    options = ChatOptions(gate=None, check="strict", vision=True)
    chat = GroundedChat(collection(tmp_path), Scripted(replies=["The answer is 7 [1]."]), options)
    chat.checker.images.percentile = lambda *_: 1.0  # type: ignore[method-assign]
    assert chat.ask("how many cats, red?").refused


@pytest.mark.parametrize(
    "text", ["两只" * 20_000, "1 " * 20_000, "是" * 40_000 + "？", "有" * 40_000, "two dogs " * 10_000]
)
def test_long_texts_take_no_longer_than_they_are(text: str) -> None:
    started = time.process_time()
    counted_alike(Claim(text, "有几只狗？"), [text])
    says_nothing(text)
    assert time.process_time() - started < 20
