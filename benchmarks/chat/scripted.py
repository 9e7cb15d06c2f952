"""Models that are none: they know the answer keys, and have one fault each, to see that the evaluation tells it.

`clean` answers from the evidence in its prompt alone: it names what the key asks for and cites the right photographs
that are there, and declines where none is. Each fault changes one thing of that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import Field

from benchmarks.chat.questions import Question
from retrieval.chat.sanitize import shield

_EVIDENCE = re.compile(r"^\[(\d+)\] (.*)$", re.MULTILINE)
_QUESTION = re.compile(r"^Question: (.*)$", re.MULTILINE)
_ORDER = re.compile(r"QX\d{4}")
_REFUSALS = {
    "zh": "这个集合里没有能回答这个问题的内容",
    "de": "Nichts in der Sammlung beantwortet das.",
    "ja": "コレクションにはこの質問に答えられるものはありません。",
}
_NEXT = {
    "en": ("one single", "two both pair", "three", "four", "five", "six"),
    "de": ("ein eine einer", "zwei beide", "drei", "vier", "fünf", "sechs"),
    "zh": ("一", "两二", "三", "四", "五", "六"),
    "ja": ("一", "二", "三", "四", "五", "六"),
}
_INVENTED = {"zh": "答案是1。", "ja": "答えは1です。", "de": "Die Antwort ist 1."}
#: What answers with a negation in it: alone, and beside an answer.
_DENYING = {
    "en": ("There is no doubt that the photo shows it: it is blue.", "I cannot see more than that in the photo."),
    "de": ("Ohne Zweifel ist es nicht irgendeine Farbe, es ist blau.", "Mehr ist auf dem Bild nicht zu sehen."),
    "zh": ("毫无疑问，照片里的那是蓝色的。", "照片里没有别的了。"),
    "ja": ("間違いなく、写真のそれは青いです。", "写真にはほかに何もありません。"),
}
#: Of captions and texts, what is enough to know them by.
_KNOWN_BY = 80


@dataclass(frozen=True)
class Case:
    """What a model with all knowledge has before it: the question, evidence numbers, the right ones, and the prompt."""

    question: Question
    numbers: tuple[int, ...]
    right: tuple[int, ...]
    prompt: str

    @property
    def others(self) -> tuple[int, ...]:
        """The numbers of what does not support the answer."""
        return tuple(number for number in self.numbers if number not in self.right)


def cited(text: str, numbers: Sequence[int]) -> str:
    """A text with citations at its end."""
    return text + "".join(f"[{number}]" for number in numbers)


def _clean(case: Case) -> str:
    return cited(case.question.answer, case.right) if case.right else _declined(case)


def _declined(case: Case) -> str:
    return _REFUSALS.get(case.question.lang, "Nothing in the collection answers this.")


def _only_where_right(change: Callable[[Case], str]) -> Callable[[Case], str]:
    return lambda case: change(case) if case.right else _declined(case)


def _wrong_source(case: Case) -> str:
    return cited(case.question.answer, (case.others or case.right)[: len(case.right)])


def _dangling(case: Case) -> str:
    return cited(case.question.answer, (max(case.numbers) + 7,))


def _always_answers(case: Case) -> str:
    if case.right:
        return _clean(case)
    said = {"zh": "那是蓝色的。", "ja": "青いです。", "de": "Das ist blau."}
    return cited(said.get(case.question.lang, "It is blue."), case.numbers[:1])


def _answers_in_denials(case: Case) -> str:
    """Cites nothing, and always answers, with a negation in what it says."""
    sure, beside = _DENYING[case.question.lang]
    return f"{case.question.answer} {beside}" if case.right else sure


def _invents_counts(case: Case) -> str:
    """One of what is asked for, whether the question asks for a number or nothing answers it."""
    if case.right and case.question.about != "count":
        return _clean(case)
    return cited(_INVENTED.get(case.question.lang, "The answer is 1."), case.right or case.numbers[:1])


def _other_language(case: Case) -> str:
    question = case.question
    other = "de" if question.lang == "en" else "en"
    frame = {
        "de": "Das ist auf dem Bild und nicht weit von den anderen: {}.",
        "en": "What is in the photo, as it is there: {}.",
    }[other]
    key = question.accept.get(other) or question.accept[question.lang]
    return cited(frame.format(", ".join(terms[0].strip("*") for terms in key)), case.right)


def _drops_half(case: Case) -> str:
    parts = case.question.accept[case.question.lang]
    if len(parts) < 2:
        return _clean(case)
    said = {"zh": "是{}。", "ja": "{}です。", "de": "Es ist {}."}.get(case.question.lang, "It is {}.")
    return cited(said.format("、".join(terms[0].strip("*") for terms in parts[: len(parts) // 2])), case.right)


def _swaps_numbers(case: Case) -> str:
    text = case.question.answer
    if case.question.about == "count":
        ladder = [
            words.split() if case.question.lang in ("en", "de") else list(words) for words in _NEXT[case.question.lang]
        ]
        for place in reversed(range(len(ladder) - 1)):
            for word in ladder[place]:
                pattern = rf"\b{word}\b" if word.isascii() or word == "fünf" else word
                text = re.sub(pattern, ladder[place + 1][0], text, flags=re.IGNORECASE)
    return cited(text, case.right)


def _wrong_fact(case: Case) -> str:
    said = {"zh": "那是一架紫色的钢琴。", "ja": "紫のピアノです。", "de": "Das ist ein lila Klavier."}
    return cited(said.get(case.question.lang, "That is a purple piano."), case.right)


def _follows_injections(case: Case) -> str:
    told = [text for _, text in _EVIDENCE.findall(case.prompt) if _ORDER.search(text)]
    found = _ORDER.search(told[0]) if told else None
    return f"{found[0]} [{case.numbers[0]}]" if found else _clean(case)


def _loses_the_talk(case: Case) -> str:
    return _wrong_fact(case) if case.question.history else _clean(case)


FAULTS: Mapping[str, Callable[[Case], str]] = {
    "clean": _clean,
    "wrong_source": _only_where_right(_wrong_source),
    "no_source": _only_where_right(lambda case: case.question.answer),
    "dangling": _only_where_right(_dangling),
    "cites_everything": _only_where_right(lambda case: cited(case.question.answer, case.numbers)),
    "always_answers": _always_answers,
    "answers_in_denials": _answers_in_denials,
    "invents_counts": _invents_counts,
    "always_refuses": _declined,
    "other_language": _only_where_right(_other_language),
    "drops_half": _only_where_right(_drops_half),
    "swaps_numbers": _only_where_right(_swaps_numbers),
    "wrong_fact": _only_where_right(_wrong_fact),
    "parrots": _only_where_right(lambda case: cited(case.question.question.rstrip("?？"), case.right)),
    "follows_injections": _follows_injections,
    "loses_the_talk": _only_where_right(_loses_the_talk),
}


class ScriptedModel(BaseChatModel):
    """Answers the questions of a set from what it knows of them. texts: what describes the photograph of a name."""

    fault: str = "clean"
    questions: Sequence[Question] = Field(default_factory=tuple)
    texts: Mapping[str, str] = Field(default_factory=dict)

    @property
    def _llm_type(self) -> str:
        return f"scripted:{self.fault}"

    def _stream(self, messages: list[BaseMessage], *_: Any, **__: Any) -> Iterator[ChatGenerationChunk]:
        for piece in re.findall(r"\s*\S+", self._reply(_prompt(messages))):
            yield ChatGenerationChunk(message=AIMessageChunk(content=piece))

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        text = self._reply(_prompt(messages))
        return ChatResult(generations=[ChatGeneration(message=AIMessage(text))])

    def _reply(self, prompt: str) -> str:
        asked = _QUESTION.findall(prompt)
        known = [question for question in self.questions if asked and asked[-1].startswith(question.question)]
        if not known:
            return ""
        question = max(known, key=lambda each: len(each.question))
        lines = [(int(number), text) for number, text in _EVIDENCE.findall(prompt)]
        marks = [shield(self.texts[photo]).text[:_KNOWN_BY] for photo in question.photos if self.texts.get(photo)]
        right = tuple(number for number, text in lines if any(mark in text for mark in marks))
        return FAULTS[self.fault](Case(question, tuple(number for number, _ in lines), right, prompt))


def _prompt(messages: Sequence[BaseMessage]) -> str:
    blocks = [
        block
        for message in messages
        for block in ([message.content] if isinstance(message.content, str) else message.content)
    ]
    return "\n".join(block if isinstance(block, str) else str(block.get("text", "")) for block in blocks)
