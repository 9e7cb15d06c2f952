"""One question on its way to its answer: rewriting, searching, asking the model, checking, counting."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from langchain_core.messages import HumanMessage
from numpy.typing import NDArray
from PIL import Image

from retrieval.chat.answers import Checked, DraftFilter
from retrieval.chat.budget import prepare_picture, text_tokens
from retrieval.chat.check.grounding import Sentence, Verdict
from retrieval.chat.check.language import language
from retrieval.chat.check.layout import cited
from retrieval.chat.check.verify import JUDGE_TOKENS, judgement
from retrieval.chat.errors import ChatCancelled, ChatError, QuestionError
from retrieval.chat.events import Answer, Counts, Usage
from retrieval.chat.evidence import Evidence, find, prepare
from retrieval.chat.llm_client import Caller, CancelToken, Reply, with_room
from retrieval.chat.options import Check
from retrieval.chat.prompt import Prompt, build_prompt, evidence_budget
from retrieval.chat.rewrite import checked_rewrite, rewrite_by_rules, rewrite_messages, stands_alone
from retrieval.chat.sanitize import printable, strip_links
from retrieval.chat.small_talk import kind_of_talk, overview
from retrieval.chat.streaming import Draft, SettledText, Shown
from retrieval.chat.wording import ENGLISH, REFUSAL, WRITTEN, refusal, words
from retrieval.images.decode import load_image
from retrieval.llms import traits
from retrieval.search.filters import Filter
from retrieval.search.query import Query, Term
from retrieval.turn import Turn

if TYPE_CHECKING:
    from retrieval.chat.session import GroundedChat

QuestionImage: TypeAlias = Path | bytes | Image.Image
MAX_QUESTION_CHARS = 4_000


@dataclass(frozen=True, slots=True)
class _Spent:
    """What calls beside that for the answer cost: rewriting, translating, verifying."""

    input_tokens: int = 0
    output_tokens: int = 0
    estimated: bool = False


class Steps:
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
        # "Thanks" is no topic that "and its colour?" could be about.
        self.history = tuple(turn for turn in history if kind_of_talk(turn.question) in (None, "overview"))
        self.cancel = cancel
        self.caller = Caller(chat.model, self.options, cancel)
        self.query = self.question
        self.search_s = 0.0
        self._notices: tuple[str, ...] = ()
        self._beside = _Spent()
        self._judging_calls = 0
        self._encoded: NDArray[np.float32] | None = None
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
        prepared = functools.partial(prepare, tagger=self.chat.tagger, options=self.options, read=self.chat.pictures)
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
        self._add(reply, asked)
        return checked_rewrite(DraftFilter().feed(reply.text), self.question, self.history)

    def prompt(self, evidence: Sequence[Evidence]) -> Prompt:
        """What the model is asked."""
        self.caller.first_token_at = None
        tags = ""
        if self.image is not None and self._attached is None:
            tags = self.chat.tagger.tags(self.image, self.options.tags)
        return build_prompt(
            self.query,
            self.history,
            evidence,
            attached=self._attached,
            options=self.options,
            attached_tags=tags,
        )

    def small_talk(self, where: Filter) -> Answer | None:
        """The answer to courtesy and to questions about the collection or the assistant; None for other questions."""
        kind = kind_of_talk(self.question, follows=bool(self.history)) if self.image is None else None
        if kind is None:
            return None
        self.cancel.check()
        started = time.monotonic()
        spoken = language(self.question)
        written = spoken if spoken in WRITTEN else ENGLISH
        text, shown = words(kind, written) if kind != "overview" else "", ()
        evidence: tuple[Evidence, ...] = ()
        if kind == "overview":
            told = overview(self.chat.retriever, where, written)
            text, shown = told.text, told.shown  # type: ignore[assignment]
            plain = replace(self.options, vision=False, tags=0, max_evidence=len(shown) or 1)
            evidence = prepare(shown, tagger=self.chat.tagger, options=plain, budget=10**9, read=self.chat.pictures)
        self.search_s = time.monotonic() - started
        text = self._translated(text, spoken)
        verdict: Verdict = "stated" if evidence else "no_claim"
        cites = tuple(piece.number for piece in evidence)
        said = Sentence(text, verdict, citations=cites, support=float(bool(cites)), start=0, end=len(text))
        return self._answer(
            Checked(text, sentences=(said,), sources=evidence), evidence=evidence, reply=Reply(), asked=0, called=False
        )

    def unsearched(self) -> Answer:
        """What the model itself says: nothing is searched, cited or checked, and links are taken out."""
        reply = self.caller.complete([HumanMessage(self.question)])
        said = printable(reply.text.rpartition("</think>")[2]).strip()
        text, links = strip_links(said, [self.question])
        asked = text_tokens(self.question)
        return self._answer(Checked(text, links=links), evidence=(), reply=reply, asked=asked, called=True, check="off")

    def _translated(self, text: str, spoken: str) -> str:
        """A sentence of ours in the question's language, by the model where it is capable."""
        translated, reply = self.chat.own_words.translated(text, spoken, self.question, self.caller)
        if reply is not None:
            self._add(reply, text_tokens(self.question) + text_tokens(text))
        return translated

    def _add(self, reply: Reply, asked: int) -> None:
        spent, before = _spent(reply, asked), self._beside
        self._beside = _Spent(
            before.input_tokens + spent.input_tokens,
            before.output_tokens + spent.output_tokens,
            before.estimated or spent.estimated,
        )

    def shown(self, evidence: tuple[Evidence, ...]) -> Shown:
        """What of the reply can be shown while it is written."""
        if self.options.check != "strict":
            return SettledText(lambda raw: self.chat.checker.settled(self.query, raw, evidence))
        if self.options.weak:
            return Draft()
        judge = self.chat.checker.judge(self.query, evidence, vectors=self._vectors, attached=self._attached_vector())
        return SettledText(lambda raw: self.chat.checker.standing(self.query, raw, evidence, judge))

    def _attached_vector(self) -> NDArray[np.float32] | None:
        if self._attached is None or self.image is None or self.options.check != "strict":
            return None
        if self._encoded is None:
            self._encoded = self.chat.retriever.encoder.encode_images([self.image])[0]
        return self._encoded

    def refusal(self) -> Answer:
        """The answer where nothing relevant was found."""
        spoken = language(self.question)
        text = self._translated(refusal(spoken), spoken)
        return self._answer(Checked(text, refused=True), evidence=(), reply=Reply(), asked=0, called=False)

    def answer(self, reply: Reply, prompt: Prompt, evidence: tuple[Evidence, ...]) -> Answer:
        """The reply checked, with its counts."""
        checked = self.chat.checker.check(
            self.query,
            reply.text,
            evidence,
            vectors=self._vectors,
            attached=self._attached_vector(),
            asked=self.question,
        )
        if checked.refused and checked.text == REFUSAL:
            checked = replace(checked, text=self._translated(REFUSAL, language(self.question)))
        verified = self._verified(checked, evidence) if self.options.check == "verify" else None
        if verified is not None:
            checked = replace(checked, sentences=verified)
        done: Check = "mark" if self.options.check == "verify" and verified is None else self.options.check
        return self._answer(checked, evidence=evidence, reply=reply, asked=prompt.tokens, called=True, check=done)

    def _verified(self, checked: Checked, evidence: Sequence[Evidence]) -> tuple[Sentence, ...] | None:
        """The sentences with a model's verdicts; None where it gives none that can be believed."""
        same = self.chat.judge is self.chat.model
        vision = self.options.vision if same else traits(self.chat.judge).vision
        asked = judgement(checked.sentences, evidence, vision=vision)
        if asked is None:
            return None
        judge = Caller(with_room(self.chat.judge, JUDGE_TOKENS), replace(self.options, retries=0), self.cancel)
        try:
            reply = judge.complete(asked.messages)
        except ChatCancelled:
            raise
        except ChatError:
            return None
        finally:
            self._judging_calls += judge.calls
        self._add(reply, sum(text_tokens(str(message.content)) for message in asked.messages[:1]))
        return asked.read(reply.text)

    def _vectors(self, pieces: Sequence[Evidence]) -> Mapping[int, NDArray[np.float32]]:
        retriever = self.chat.retriever
        records = retriever.backend.get(retriever.collection, [piece.item.id for piece in pieces], with_vectors=True)
        by_id = {record.id: record.vector for record in records if record.has_vector}
        return {p.number: _unit(v) for p in pieces if (v := by_id.get(p.item.id)) is not None}

    def _answer(
        self,
        checked: Checked,
        *,
        evidence: tuple[Evidence, ...],
        reply: Reply,
        asked: int,
        called: bool,
        check: Check | None = None,
    ) -> Answer:
        images = sum(piece.picture is not None for piece in evidence) + (self._attached is not None and called)
        verdicts = [sentence.verdict for sentence in checked.sentences]
        spent = _spent(reply, asked) if called else _Spent()
        counts = Counts(
            evidence=len(evidence),
            images=images,
            citations=sum(len(group.numbers) for group in cited(checked.text)),
            unresolved=checked.unresolved,
            corrected=sum(sentence.corrected for sentence in checked.sentences),
            stated=verdicts.count("stated"),
            seen=verdicts.count("seen"),
            uncited=verdicts.count("uncited"),
            contradicted=verdicts.count("contradicted"),
            unsupported=verdicts.count("unsupported"),
            links=checked.links,
            withheld=sum(piece.withheld for piece in evidence),
        )
        usage = Usage(
            input_tokens=spent.input_tokens + self._beside.input_tokens,
            output_tokens=spent.output_tokens + self._beside.output_tokens,
            images=images,
            calls=self.caller.calls + self._judging_calls,
            retries=self.caller.retries,
            estimated=spent.estimated or self._beside.estimated,
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
            check=check or self.options.check,
            truncated=reply.truncated,
            search_s=self.search_s,
            first_token_s=None if first is None else first - self.started,
            total_s=time.monotonic() - self.started,
            notices=self._notices,
        )


def _spent(reply: Reply, asked: int) -> _Spent:
    if reply.input_tokens is not None and reply.output_tokens is not None:
        return _Spent(reply.input_tokens, reply.output_tokens)
    return _Spent(asked, text_tokens(reply.text), estimated=True)


def _unit(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    norm = float(np.linalg.norm(vector))
    return vector if norm == 0 else vector / np.float32(norm)
