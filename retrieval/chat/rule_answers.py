"""What is answered by rule, without a search for evidence and without a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from backends.base import Where
from retrieval.chat.check.language import language
from retrieval.chat.metadata_answers import MetadataAnswers
from retrieval.chat.metadata_follow_ups import asked_in_talk
from retrieval.chat.options import ChatOptions
from retrieval.chat.small_talk import kind_of_talk, overview
from retrieval.chat.wording import ENGLISH, WRITTEN, words
from retrieval.search.filters import Filter, as_where
from retrieval.search.query import SearchError
from retrieval.search.results import Result
from retrieval.search.retriever import Retriever
from retrieval.turn import Turn


@dataclass(frozen=True, slots=True)
class Ruled:
    """What is said, the items that it cites by numbers from 1, and whether it rests on counts or metadata."""

    text: str
    shown: Sequence[Result] = ()
    counted: bool = False


class RuleAnswers:
    """Small talk, and questions of count and metadata. history: what was said before."""

    def __init__(self, retriever: Retriever, options: ChatOptions, history: Sequence[Turn]) -> None:
        self._retriever, self._options, self._history = retriever, options, history

    def answer(self, question: str, where: Filter, *, has_tools: bool) -> Ruled | None:
        """The answer in a language that is written here; None for other questions.

        has_tools: the model counts and looks at metadata itself.
        """
        clause = _clause(where)
        spoken = language(question)
        written = spoken if spoken in WRITTEN else ENGLISH
        kind = kind_of_talk(question, follows=bool(self._history))
        if kind == "overview":
            told = overview(self._retriever, clause, written)
            return Ruled(told.text, told.shown)
        if kind is not None:
            return Ruled(words(kind, written))
        # A weak model says nothing of English captions in Chinese.
        before = [turn.question for turn in self._history]
        asked = None if has_tools else asked_in_talk(question, before, lists=self._options.weak)
        if asked is None:
            return None
        answers = MetadataAnswers(self._retriever, self._options, clause, written)
        found = answers.answer(asked, self._history)
        return Ruled(found.text, found.shown, counted=True) if found is not None else None


def _clause(where: Filter) -> Where | None:
    try:
        return as_where(where)
    except (ValueError, TypeError) as error:
        raise SearchError(f"the filter is not usable: {error}") from None
