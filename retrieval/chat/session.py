"""`GroundedChat`: from a question to an answer that stands in what was found, or to the word that nothing does."""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import AsyncGenerator, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from langchain_core.language_models import BaseChatModel
from numpy.typing import NDArray
from PIL import Image

from retrieval.chat.answers import Checked, Checker, DraftFilter
from retrieval.chat.budget import prepare_picture, text_tokens
from retrieval.chat.check.grounding import TextSupport
from retrieval.chat.check.image_support import ImageSupport
from retrieval.chat.errors import ChatCancelled, ChatError, QuestionError
from retrieval.chat.events import Answer, ChatEvent, Counts, EvidenceFound, Final, Retrying, Token, Usage
from retrieval.chat.evidence import Evidence, PictureReader, Tagger, find, prepare
from retrieval.chat.llm_client import Caller, CancelToken, Reply
from retrieval.chat.options import REFUSAL, ChatOptions
from retrieval.chat.prompt import Prompt, build_prompt, evidence_budget
from retrieval.chat.rewrite import checked_rewrite, rewrite_by_rules, rewrite_messages, stands_alone
from retrieval.chat.running import RunningTurn
from retrieval.chat.sanitize import printable
from retrieval.images.decode import load_image
from retrieval.search.filters import Filter
from retrieval.search.query import Query, Term
from retrieval.search.retriever import Retriever
from retrieval.turn import Turn

QuestionImage: TypeAlias = Path | bytes | Image.Image
MAX_QUESTION_CHARS = 4_000


class GroundedChat:
    """Answers questions from a collection: searches it, lets a model answer from what was found, checks the answer.

    Every [n] in an answer is one of its sources; an answer without support is `REFUSAL`. Keeps no history: pass it
    in, or use a `Conversation`. Thread-safe where retriever and model are.

    Args:
        model: any LangChain chat model. It is asked only when something relevant was found (and to rewrite a
            follow-up question, see `ChatOptions.rewrite`).
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
        pictures: PictureReader | None = None,
    ) -> None:
        self.retriever = retriever
        self.pictures = pictures
        self.model = model
        self.options = options or ChatOptions()
        self._tagger = Tagger(retriever.encoder)
        self._checker = Checker(TextSupport(), ImageSupport(retriever.encoder), self.options)

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

        Tokens are a draft, not yet checked: `Final` replaces them. Closing the generator, or `cancel`, ends
        the request to the model.
        """
        steps = _Steps(self, question, image, history=tuple(history), cancel=cancel or CancelToken())
        evidence = steps.search(where)
        yield EvidenceFound(steps.query, evidence, steps.search_s)
        if not evidence:
            yield Final(steps.refusal())
            return
        prompt = steps.prompt(evidence)
        # The model takes longer than this; the answer's check then need not wait.
        threading.Thread(target=self._checker.texts.warm_up, name="sightline-chat-check").start()
        draft = DraftFilter()
        with contextlib.closing(steps.caller.stream(prompt.messages)) as pieces:
            while True:
                try:
                    piece = next(pieces)
                except StopIteration as stop:
                    reply: Reply = stop.value
                    break
                if isinstance(piece, Retrying):
                    yield piece
                elif shown := draft.feed(piece):
                    yield Token(shown)
        yield Final(steps.answer(reply, prompt, evidence))

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


@dataclass(frozen=True, slots=True)
class _Spent:
    """What rewriting cost, to be added to the answer's own."""

    input_tokens: int = 0
    output_tokens: int = 0
    estimated: bool = False


class _Steps:
    """One question on its way to its answer: what each step finds, the next ones use."""

    def __init__(
        self,
        chat: GroundedChat,
        question: str,
        image: QuestionImage | None,
        *,
        history: tuple[Turn, ...],
        cancel: CancelToken,
    ) -> None:
        self.started = time.monotonic()
        self.chat, self.options = chat, chat.options
        self.question = printable(question).strip()
        if not self.question:
            raise QuestionError("the question is empty: say what you want to know")
        if len(question) > MAX_QUESTION_CHARS:
            raise QuestionError(f"the question has {len(question):,} characters; the limit is {MAX_QUESTION_CHARS:,}")
        self.image = load_image(image) if image is not None else None
        self.history = history
        self.cancel = cancel
        self.caller = Caller(chat.model, self.options, cancel)
        self.query = self.question
        self.search_s = 0.0
        self._notices: tuple[str, ...] = ()
        self._rewriting = _Spent()
        see = self.options.vision and self.image is not None
        budget = (self.options.max_image_side, self.options.max_image_bytes)
        self._attached = prepare_picture(self.image, *budget) if see and self.image is not None else None

    def search(self, where: Filter) -> tuple[Evidence, ...]:
        """Rewrite, search, gate, and fit into the context."""
        self.cancel.check()
        started = time.monotonic()
        rewriting_s = self._make_stand_alone()
        budget = evidence_budget(self.query, self.history, attached=self._attached, options=self.options)
        terms: Query = self.query if self.image is None else [Term(self.query), Term(self.image)]
        found = find(self.chat.retriever, terms, self.options, where=where)
        self._notices = (*self.chat.retriever.notices, *found.notices)
        prepared = functools.partial(prepare, tagger=self.chat._tagger, options=self.options, read=self.chat.pictures)
        evidence = prepared(found, budget=budget)
        if not evidence and prepared(found[:1], budget=10**9):
            raise QuestionError(
                f"the context of {self.options.context_tokens} tokens has room for none of the evidence: ask "
                "shorter, or use a model with a longer context"
            )
        self.search_s = time.monotonic() - started - rewriting_s
        self.cancel.check()
        return evidence

    def _make_stand_alone(self) -> float:
        """Set the stand-alone query; returns the seconds that the model took for it."""
        has_image = self.image is not None
        if self.options.rewrite == "off" or stands_alone(self.question, self.history, has_image=has_image):
            return 0.0
        started = time.monotonic()
        told = self._ask_to_rewrite() if self.options.rewrite == "model" else None
        self.query = told or rewrite_by_rules(self.question, self.history)
        return time.monotonic() - started if self.options.rewrite == "model" else 0.0

    def _ask_to_rewrite(self) -> str | None:
        messages = rewrite_messages(self.question, self.history, self.options.history_tokens)
        try:
            reply = self.caller.complete(messages)
        except ChatCancelled:
            raise
        except ChatError:
            # The rules serve; and what is wrong with the model is told when it is asked for the answer.
            return None
        asked = sum(text_tokens(str(message.content)) for message in messages)
        self._rewriting = _spent(reply, asked)
        return checked_rewrite(DraftFilter().feed(reply.text), self.question, self.history)

    def prompt(self, evidence: Sequence[Evidence]) -> Prompt:
        """What the model is asked."""
        self.caller.first_token_at = None
        tags = ""
        if self.image is not None and self._attached is None:
            tags = self.chat._tagger.tags(self.image, self.options.tags)
        return build_prompt(
            self.query,
            self.history,
            evidence,
            attached=self._attached,
            options=self.options,
            attached_tags=tags,
        )

    def refusal(self) -> Answer:
        """The answer where nothing relevant was found."""
        return self._answer(Checked(REFUSAL, refused=True), evidence=(), reply=Reply(), asked=0, called=False)

    def answer(self, reply: Reply, prompt: Prompt, evidence: tuple[Evidence, ...]) -> Answer:
        """The reply checked, with its counts."""
        attached = None
        if self._attached is not None and self.image is not None:
            attached = self.chat.retriever.encoder.encode_images([self.image])[0]
        checked = self.chat._checker.check(
            self.query, reply.text, evidence, vectors=self._vectors, attached=attached, asked=self.question
        )
        return self._answer(checked, evidence=evidence, reply=reply, asked=prompt.tokens, called=True)

    def _vectors(self, pieces: Sequence[Evidence]) -> Mapping[int, NDArray[np.float32]]:
        retriever = self.chat.retriever
        records = retriever.backend.get(retriever.collection, [piece.item.id for piece in pieces], with_vectors=True)
        by_id = {record.id: record.vector for record in records if record.has_vector}
        return {p.number: _unit(v) for p in pieces if (v := by_id.get(p.item.id)) is not None}

    def _answer(
        self, checked: Checked, *, evidence: tuple[Evidence, ...], reply: Reply, asked: int, called: bool
    ) -> Answer:
        images = sum(piece.picture is not None for piece in evidence) + (self._attached is not None and called)
        verdicts = [sentence.verdict for sentence in checked.sentences]
        spent = _spent(reply, asked) if called else _Spent()
        counts = Counts(
            evidence=len(evidence),
            images=images,
            citations=sum(len(s.citations) for s in checked.sentences if not checked.refused)
            if not checked.quoted
            else 1,
            unresolved=checked.unresolved,
            corrected=sum(sentence.corrected for sentence in checked.sentences),
            unsupported=verdicts.count("unsupported"),
            from_image=verdicts.count("from_image"),
            links=checked.links,
            withheld=sum(piece.withheld for piece in evidence),
        )
        usage = Usage(
            input_tokens=spent.input_tokens + self._rewriting.input_tokens,
            output_tokens=spent.output_tokens + self._rewriting.output_tokens,
            images=images,
            calls=self.caller.calls,
            retries=self.caller.retries,
            estimated=spent.estimated or self._rewriting.estimated,
        )
        first = self.caller.first_token_at if called else None
        return Answer(
            question=self.question,
            query=self.query,
            text=checked.text,
            refused=checked.refused,
            quoted=checked.quoted,
            sentences=checked.sentences,
            sources=checked.sources,
            evidence=evidence,
            counts=counts,
            usage=usage,
            truncated=reply.truncated,
            search_s=self.search_s,
            first_token_s=None if first is None else first - self.started,
            total_s=time.monotonic() - self.started,
            notices=self._notices,
        )


def _final(events: Iterable[ChatEvent]) -> Answer:
    for event in events:
        if isinstance(event, Final):
            return event.answer
    raise AssertionError("a turn ends with its Final event or raises")


def _spent(reply: Reply, asked: int) -> _Spent:
    if reply.input_tokens is not None and reply.output_tokens is not None:
        return _Spent(reply.input_tokens, reply.output_tokens)
    return _Spent(asked, text_tokens(reply.text), estimated=True)


def _unit(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    norm = float(np.linalg.norm(vector))
    return vector if norm == 0 else vector / np.float32(norm)
