"""From a question to what is relevant to it: made to stand alone, searched for in the collection's language too."""

from __future__ import annotations

import functools
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image

from retrieval.chat.answers import DraftFilter
from retrieval.chat.budget import text_tokens
from retrieval.chat.check.language import UNKNOWN, language
from retrieval.chat.counting import matching
from retrieval.chat.errors import ChatCancelled, ChatError
from retrieval.chat.evidence import find
from retrieval.chat.llm_client import Caller, Reply
from retrieval.chat.options import ChatOptions
from retrieval.chat.rewrite import (
    NAMES,
    Rewritten,
    checked_rewrite,
    checked_translation,
    rewrite_by_rules,
    rewrite_messages,
    stands_alone,
    translation_messages,
)
from retrieval.search.filters import Filter
from retrieval.search.query import Query, Term, UnreadableQuery
from retrieval.search.results import Found, Result
from retrieval.search.retriever import Retriever, reciprocal_rank_fusion
from retrieval.turn import Turn

_READ = 200
_LOOK_EVERY_S = 300.0
#: Of the texts, how many must be in one language for it to be the collection's.
_LEAST_SHARE = 0.6


class CollectionLanguage:
    """Which language the captions and texts of a collection are in. Thread-safe; looked at again every 5 minutes."""

    def __init__(self, retriever: Retriever) -> None:
        self._retriever = retriever
        self._lock = threading.Lock()
        self._code, self._looked_at = "", -_LOOK_EVERY_S

    def code(self) -> str:
        """The code of most of the first texts' language; "" where there is none. Raises `BackendError`."""
        with self._lock:
            if time.monotonic() - self._looked_at >= _LOOK_EVERY_S:
                texts = (record.text for record in matching(self._retriever, None, most=_READ) if record.text)
                votes = Counter(language(text) for text in texts)
                code, most = votes.most_common(1)[0] if votes else ("", 0)
                self._code = code if most >= _LEAST_SHARE * votes.total() and code != UNKNOWN else ""
                self._looked_at = time.monotonic()
            return self._code


@dataclass(frozen=True, slots=True)
class Sought:
    """What was searched for, and what is relevant to it.

    translation: the query in the collection's language, searched for as well; "" where that is the question's. model_s:
    what the model took for both.
    """

    query: str
    found: Found
    translation: str = ""
    model_s: float = 0.0


class Search:
    """The search of one question. spend: told what a call of the model cost, with our estimate of its prompt."""

    def __init__(
        self,
        retriever: Retriever,
        options: ChatOptions,
        caller: Caller,
        *,
        spoken_there: CollectionLanguage,
        spend: Callable[[Reply, int], None],
    ) -> None:
        self._retriever, self._options, self._caller = retriever, options, caller
        self._spoken_there, self._spend = spoken_there, spend

    def seek(self, question: str, image: Image.Image | None, history: Sequence[Turn], where: Filter) -> Sought:
        """Rewrite, translate, search and fuse. Raises what a search raises, and `ChatCancelled`."""
        how = self._options.rewrite
        follows = how != "off" and not stands_alone(
            question, history, has_image=image is not None, by_model=how == "model"
        )
        other = self._other_language(question) if how == "model" else ""
        started = time.monotonic()
        told = Rewritten()
        if how == "model" and (follows or other):
            told = self._asked(question, history if follows else (), other)
        model_s = time.monotonic() - started
        query = told.query or (rewrite_by_rules(question, history) if follows else question)
        search = functools.partial(self._find, image=image, where=where)
        found = search(query)
        if told.translation:
            found = self._fused(found, search(told.translation))
        if follows and not told.query:
            found = self._beside(found, history[-1], where, query)
        return Sought(query, found, told.translation, model_s)

    def _find(self, text: str, *, image: Image.Image | None, where: Filter) -> Found:
        terms: Query = text if image is None else [Term(text), Term(image)]
        return find(self._retriever, terms, self._options, where)

    def _other_language(self, question: str) -> str:
        """The collection's language, where the question is in another."""
        spoken, there = language(question), self._spoken_there.code()
        return there if there in NAMES and spoken != there else ""

    def _asked(self, question: str, history: Sequence[Turn], other: str) -> Rewritten:
        if history:
            messages = rewrite_messages(question, history, self._options.history_tokens, other=other)
        else:
            messages = translation_messages(question, other)
        try:
            reply = self._caller.complete(messages)
        except ChatCancelled:
            raise
        except ChatError:
            # The rules serve; and what is wrong with the model is told when it is asked for the answer.
            return Rewritten()
        self._spend(reply, sum(text_tokens(str(message.content)) for message in messages))
        said = DraftFilter().feed(reply.text)
        if not history:
            return Rewritten(question, checked_translation(said, question, other))
        return checked_rewrite(said, question, history, other=other)

    def _fused(self, one: Found, other: Found) -> Found:
        """Two searches for the same as one list, each item once with the better of its relevances."""
        both: dict[str, Result] = {}
        for hit in (*one, *other):
            known = both.get(hit.id)
            better = known is None or (hit.relevance or 0.0) > (known.relevance or 0.0)
            both[hit.id] = hit if better else both[hit.id]
        if all(hit.relevance is not None for hit in both.values()):
            merged = sorted(both.values(), key=lambda hit: -(hit.relevance or 0.0))
        else:
            merged = [both[hit.id] for hit in reciprocal_rank_fusion([list(one), list(other)])]
        notices = tuple(dict.fromkeys((*one.notices, *other.notices)))
        return Found(merged[: self._options.max_evidence], notices=notices)

    def _beside(self, found: Found, last: Turn, where: Filter, query: str) -> Found:
        """What the last question found beside what this one does, as no model has said what it is about."""
        try:
            before = find(self._retriever, last.topic, self._options, where)
        except UnreadableQuery:
            return found
        new = {hit.id for hit in found}
        older = [hit for hit in before if hit.id not in new]
        most = self._options.max_evidence
        # The rules put the last topic into an English query; elsewhere the new words are searched for alone.
        kept = most if language(query) == "en" else max(1, most // 2)
        merged = [*found[:kept], *older]
        merged += found[kept:]
        return Found(merged[:most], notices=found.notices)
