"""`GroundedChat`: from a question to an answer that stands in what was found, or to the word that nothing does."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import AsyncGenerator, Generator, Iterable, Sequence
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable

from retrieval.chat.answers import Checker
from retrieval.chat.check.grounding import TextSupport
from retrieval.chat.check.image_support import ImageSupport
from retrieval.chat.events import Answer, ChatEvent, EvidenceFound, Final, Token
from retrieval.chat.evidence import PictureReader, Tagger
from retrieval.chat.llm_client import CancelToken, Reply
from retrieval.chat.options import ChatOptions
from retrieval.chat.rounds import with_tools
from retrieval.chat.running import RunningTurn
from retrieval.chat.searching import CollectionLanguage
from retrieval.chat.steps import QuestionImage, Steps
from retrieval.chat.translating import OwnWords
from retrieval.search.filters import Filter
from retrieval.search.retriever import Retriever
from retrieval.turn import Turn

#: A server that takes no tools is asked with some again after so long: it may be another, or set up in another way.
TOOLS_PAUSE_S = 600.0


class GroundedChat:
    """Answers questions from a collection: searches it, lets a model answer from what was found, checks the answer.

    Every [n] in an answer is one of its sources, and every sentence has a verdict; `ChatOptions.check` says whether the
    check only marks or also drops. Keeps no history: pass it in, or use a `Conversation`. Thread-safe where retriever
    and models are.

    Args:
        model: any LangChain chat model. It is asked only when something relevant was found (and to rewrite a
            follow-up question, see `ChatOptions.rewrite`; and for our own sentences in languages that are not written
            in `retrieval.chat.wording`).
        judge: the model that verifies (``check="verify"``); `model` itself unless given.
        pictures: reads the file that an item names and gives its bytes or picture, or raises `ImageError` or
            OSError for one that may not be seen, of which neither model nor encoder then gets anything but what
            is stored. Without it any file is read, so give it where others than the asker add items.

    Raises:
        ChatError: of a turn: one line, no secret, for what goes wrong with the model. `ChatTimeout`,
            `ChatCancelled` and `QuestionError` are three of its kinds.
        SearchError, ImageError, BackendError: of a turn's search.
    """

    def __init__(
        self,
        retriever: Retriever,
        model: BaseChatModel,
        options: ChatOptions | None = None,
        *,
        judge: BaseChatModel | None = None,
        pictures: PictureReader | None = None,
    ) -> None:
        self.retriever = retriever
        self.pictures = pictures
        self.model = model
        self.judge = judge or model
        self.options = options or ChatOptions()
        self._with_tools = with_tools(model) if self.options.uses_tools else None
        self._tools_again_at = 0.0
        self.spoken_there = CollectionLanguage(retriever)
        self.own_words = OwnWords(self.options)
        self.tagger = Tagger(retriever.encoder)
        self.checker = Checker(TextSupport(), ImageSupport(retriever.encoder), self.options)

    @property
    def with_tools(self) -> Runnable[Any, Any] | None:
        """The model with tools bound to it; None where it has none, or its server refused them a short while ago."""
        return self._with_tools if time.monotonic() >= self._tools_again_at else None

    def pause_tools(self) -> None:
        """Offer the model no tools for a while: its server said that it takes none, which may change."""
        self._tools_again_at = time.monotonic() + TOOLS_PAUSE_S

    def ask(
        self,
        question: str,
        *,
        image: QuestionImage | None = None,
        history: Sequence[Turn] = (),
        where: Filter = None,
        cancel: CancelToken | None = None,
    ) -> Answer:
        """The checked answer.

        Args:
            image: a picture that belongs to the question.
            history: earlier turns, oldest first.
            where: only items that match.
            cancel: ends the turn from another thread.
        """
        return _final(self.stream(question, image=image, history=history, where=where, cancel=cancel))

    def stream(
        self,
        question: str,
        *,
        image: QuestionImage | None = None,
        history: Sequence[Turn] = (),
        where: Filter = None,
        cancel: CancelToken | None = None,
    ) -> Generator[ChatEvent]:
        """`EvidenceFound`, then `Token`s (with `Retrying` before the first, if need be), then `Final`.

        A model that calls tools has its `ToolUsed`s before the tokens, or between them; what they found is numbered on.
        Tokens are pieces of the answer that stay: with ``strict`` whole sentences that have support. Of a weak model
        they are a draft, which `Final` replaces. Closing the generator, or `cancel`, ends the request to the model.
        """
        steps = Steps(self, question, image, history=tuple(history), cancel=cancel or CancelToken())
        talk = steps.by_rule(where)
        if talk is not None:
            yield EvidenceFound(steps.query, talk.evidence, steps.search_s)
            yield Final(talk)
            return
        evidence = steps.search(where)
        yield EvidenceFound(steps.query, evidence, steps.search_s)
        if not steps.can_answer:
            yield Final(steps.refusal())
            return
        # The model takes longer than this; the answer's check then need not wait.
        threading.Thread(target=self.checker.texts.warm_up, name="sightline-chat-check").start()
        shown = steps.shown()
        with contextlib.closing(steps.replies()) as told:
            while True:
                try:
                    piece = next(told)
                except StopIteration as stop:
                    reply: Reply | None = stop.value
                    break
                if not isinstance(piece, str):
                    yield piece
                elif new := shown.feed(piece):
                    yield Token(new, final=shown.final)
        if reply is None:
            yield Final(steps.refusal())
            return
        answer = steps.answer(reply)
        if shown.final and (rest := shown.rest(answer.text)):
            yield Token(rest, final=True)
        yield Final(answer)

    def stream_unsearched(self, task: str, *, cancel: CancelToken | None = None) -> Generator[ChatEvent]:
        """The events of a task for the model itself, such as a title for a conversation: nothing is searched."""
        steps = Steps(self, task, None, history=(), cancel=cancel or CancelToken())
        yield EvidenceFound(steps.query, (), 0.0)
        yield Final(steps.unsearched())

    async def astream(
        self,
        question: str,
        *,
        image: QuestionImage | None = None,
        history: Sequence[Turn] = (),
        where: Filter = None,
        cancel: CancelToken | None = None,
    ) -> AsyncGenerator[ChatEvent]:
        """As `stream`, for an event loop, which it never blocks: the turn runs in a thread of its own.

        Closing it, or cancelling the task that reads it, cancels the turn.
        """
        turn = RunningTurn(
            lambda token: self.stream(question, image=image, history=history, where=where, cancel=token),
            cancel or CancelToken(),
        )
        turn.start()
        try:
            while (event := await turn.next()) is not None:
                yield event
        finally:
            turn.cancel()


class Conversation:
    """A chat with its history: each answered question is context for the next. One thread at a time."""

    def __init__(self, chat: GroundedChat) -> None:
        self.chat = chat
        self.history: list[Turn] = []

    def ask(
        self,
        question: str,
        *,
        image: QuestionImage | None = None,
        where: Filter = None,
        cancel: CancelToken | None = None,
    ) -> Answer:
        """As `GroundedChat.ask`, in the light of what was said before."""
        return _final(self.stream(question, image=image, where=where, cancel=cancel))

    def stream(
        self,
        question: str,
        *,
        image: QuestionImage | None = None,
        where: Filter = None,
        cancel: CancelToken | None = None,
    ) -> Generator[ChatEvent]:
        """As `GroundedChat.stream`; a turn that was broken off leaves no trace in the history."""
        with contextlib.closing(
            self.chat.stream(question, image=image, history=self.history, where=where, cancel=cancel)
        ) as events:
            for event in events:
                if isinstance(event, Final):
                    self.history.append(Turn(question, event.answer.text, event.answer.query))
                yield event

    def clear(self) -> None:
        """Forget what was said."""
        self.history.clear()


def _final(events: Iterable[ChatEvent]) -> Answer:
    for event in events:
        if isinstance(event, Final):
            return event.answer
    raise AssertionError("a turn ends with its Final event or raises")
