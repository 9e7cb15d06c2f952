"""One question on its way to its answer: rewriting, searching, asking the model, checking, counting."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from langchain_core.messages import HumanMessage
from langchain_core.runnables import Runnable
from numpy.typing import NDArray
from PIL import Image

from backends.base import Where
from retrieval.chat.answers import Attached, Checked, Judge
from retrieval.chat.budget import prepare_picture, text_tokens
from retrieval.chat.check.grounding import Sentence, Verdict
from retrieval.chat.check.language import language
from retrieval.chat.check.layout import cited
from retrieval.chat.check.verify import JUDGE_TOKENS, judgement
from retrieval.chat.errors import ChatCancelled, ChatError, QuestionError
from retrieval.chat.events import Answer, Counts, Usage
from retrieval.chat.evidence import Evidence, prepare, stored_vectors
from retrieval.chat.llm_client import Caller, CancelToken, Reply, with_room
from retrieval.chat.options import Check
from retrieval.chat.prompt import Prompt, build_prompt, evidence_budget
from retrieval.chat.rounds import Rounds, Told, told_reply
from retrieval.chat.rule_answers import RuleAnswers
from retrieval.chat.sanitize import printable, strip_links
from retrieval.chat.searching import Search
from retrieval.chat.small_talk import kind_of_talk
from retrieval.chat.spending import Spent, spent
from retrieval.chat.streaming import Draft, SettledText, Shown
from retrieval.chat.toolbox import SCHEMA_TOKENS, Toolbox
from retrieval.chat.wording import REFUSAL, refusal
from retrieval.images.decode import load_image
from retrieval.llms import traits
from retrieval.search.filters import Filter, as_where
from retrieval.search.results import Result
from retrieval.turn import Turn

if TYPE_CHECKING:
    from retrieval.chat.session import GroundedChat

QuestionImage: TypeAlias = Path | bytes | Image.Image
MAX_QUESTION_CHARS = 4_000


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
        self._beside = Spent()
        self._judging_calls = 0
        self._encoded: NDArray[np.float32] | None = None
        self.translation, self._tags = "", ""
        self._where: Where | None = None
        self._through: Runnable[Any, Any] | None = None
        self._rounds: Rounds | None = None
        self._found: tuple[Evidence, ...] = ()
        self._judged: tuple[tuple[Evidence, ...], Judge] | None = None
        see = self.options.vision and self.image is not None
        budget = (self.options.max_image_side, self.options.max_image_bytes)
        self._attached = prepare_picture(self.image, *budget) if see and self.image is not None else None

    def search(self, where: Filter) -> tuple[Evidence, ...]:
        """Rewrite, search, gate, and fit into the context."""
        self.cancel.check()
        started = time.monotonic()
        search = Search(
            self.chat.retriever,
            self.options,
            self.caller,
            spoken_there=self.chat.spoken_there,
            spend=self._add,
        )
        sought = search.seek(self.question, self.image, self.history, where)
        self.query, self.translation = sought.query, sought.translation
        self._notices = (*self.chat.retriever.notices, *sought.found.notices)
        self._where = as_where(where)
        self._through = self.chat.with_tools
        budget = evidence_budget(
            self.query,
            self.history,
            attached=self._attached,
            options=self.options,
            tools=self._through is not None,
        )
        evidence = self._prepare(sought.found, budget=budget, images=self._images_left())
        if not evidence and self._prepare(sought.found[:1], budget=10**9):
            raise QuestionError(
                f"the context of {self.options.context_tokens} tokens has room for none of the evidence: ask "
                "shorter, or use a model with a longer context"
            )
        self._found = evidence
        self.search_s = time.monotonic() - started - sought.model_s
        self.cancel.check()
        return evidence

    def _prepare(
        self, found: Sequence[Result], *, budget: int, first: int = 1, images: int | None = None
    ) -> tuple[Evidence, ...]:
        return prepare(
            found,
            tagger=self.chat.tagger,
            options=self.options,
            budget=budget,
            read=self.chat.pictures,
            first=first,
            images=images,
        )

    def _images_left(self) -> int:
        """The pictures that may be given beside those that are, at most `max_images` at a time."""
        most, given = self.options.request_images, sum(piece.picture is not None for piece in self._found)
        room = self.options.max_images if most is None else most - given - (self._attached is not None)
        return max(0, min(self.options.max_images, room))

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """All that the model has got so far, by number."""
        return self._rounds.toolbox.evidence if self._rounds is not None else self._found

    @property
    def _findings(self) -> Sequence[str]:
        """What was counted for the model so far."""
        return self._rounds.toolbox.findings if self._rounds is not None else ()

    def _as_known(self, text: str) -> str:
        return self._rounds.as_known(text) if self._rounds is not None else text

    @property
    def can_answer(self) -> bool:
        """Whether there is something to answer from, or something to find it with."""
        return bool(self._found) or self._attached is not None or self._through is not None

    def replies(self) -> Generator[Told, None, Reply | None]:
        """Ask the model: text to show, and what it looked for; then its reply, None where that rests on nothing."""
        # Of what a rewrite took, nobody saw a token.
        self.caller.first_token_at = None
        if self._through is None:
            self._asked = self._prompt(self._found)
            return (yield from told_reply(self.caller, self._asked.messages))
        prompt = self._prompt(self._found, tools=True)
        left = self.options.context_tokens - self.options.max_answer_tokens - prompt.tokens - SCHEMA_TOKENS
        toolbox = Toolbox(
            self.chat.retriever,
            self.options,
            self._where,
            prepare=self._prepare,
            evidence=self._found,
            left=left,
            images=self._images_left(),
        )
        self._rounds = Rounds(
            self.caller,
            self._through,
            toolbox,
            prompt=prompt,
            plain=lambda evidence, findings: self._prompt(evidence, findings=findings),
            has_picture=self._attached is not None,
        )
        reply = yield from self._rounds.run()
        for earlier in self._rounds.earlier:
            self._add(earlier.reply, earlier.asked)
        self._asked = self._rounds.asked
        if self._rounds.refused and reply is not None:
            # It answered without: so the tools were what its server would not take.
            self.chat.pause_tools()
        return reply

    def _prompt(self, evidence: Sequence[Evidence], *, tools: bool = False, findings: Sequence[str] = ()) -> Prompt:
        """What the model is asked."""
        if self.image is not None and self._attached is None and not self._tags:
            self._tags = self.chat.tagger.tags(self.image, self.options.tags)
        return build_prompt(
            self.query,
            self.history,
            evidence,
            attached=self._attached,
            options=self.options,
            attached_tags=self._tags,
            tools=tools,
            findings=findings,
        )

    def by_rule(self, where: Filter) -> Answer | None:
        """The answer to courtesy, to questions about the collection or the assistant, and of count and metadata where
        the model calls no tools for them; None for other questions.
        """
        if self.image is not None:
            return None
        self.cancel.check()
        started = time.monotonic()
        ruled = RuleAnswers(self.chat.retriever, self.options, self.history).answer(
            self.question, where, has_tools=self.chat.with_tools is not None
        )
        if ruled is None:
            return None
        evidence: tuple[Evidence, ...] = ()
        if ruled.shown:
            plain = replace(self.options, vision=False, tags=0, max_evidence=len(ruled.shown))
            evidence = prepare(
                ruled.shown, tagger=self.chat.tagger, options=plain, budget=10**9, read=self.chat.pictures
            )
        self.search_s = time.monotonic() - started
        text = self._translated(ruled.text, language(self.question))
        cites = tuple(piece.number for piece in evidence)
        verdict: Verdict = "stated" if evidence or ruled.counted else "no_claim"
        support = float(verdict == "stated")
        said = Sentence(text, verdict, citations=cites, support=support, start=0, end=len(text))
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
        self._beside = self._beside.plus(spent(reply, asked))

    def shown(self) -> Shown:
        """What of the reply can be shown while it is written."""
        if self.options.check != "strict":
            return SettledText(lambda raw: self.chat.checker.settled(self.query, self._as_known(raw), self.evidence))
        if self.options.weak:
            return Draft()
        return SettledText(lambda raw: self.chat.checker.standing(self.query, raw, self.evidence, self._judge()))

    def _judge(self) -> Judge:
        """What judges sentences by all that was found and counted so far."""
        evidence, findings = self.evidence, self._findings
        known = self._judged
        if known is None or known[0] is not evidence or len(known[1].findings) != len(findings):
            judge = self.chat.checker.judge(
                self.query,
                evidence,
                vectors=self._vectors,
                attached=self._as_source(),
                findings=findings,
                before=known[1] if known is not None else None,
            )
            self._judged = known = (evidence, judge)
        return known[1]

    def _as_source(self) -> Attached | None:
        """The picture that came with the question, as the check takes it."""
        if self.image is None:
            return None
        if self._attached is not None and self.options.check == "strict" and self._encoded is None:
            self._encoded = self.chat.retriever.encoder.encode_images([self.image])[0]
        return Attached(seen=self._attached is not None, tags=self._tags, vector=self._encoded)

    def refusal(self) -> Answer:
        """The answer where nothing relevant was found."""
        spoken = language(self.question)
        text = self._translated(refusal(spoken), spoken)
        return self._answer(Checked(text, refused=True), evidence=(), reply=Reply(), asked=0, called=False)

    def answer(self, reply: Reply) -> Answer:
        """The reply checked, with its counts."""
        evidence = self.evidence
        checked = self.chat.checker.check(
            self.query,
            # The strict rule knows by itself what it judged before.
            reply.text if self.options.check == "strict" else self._as_known(reply.text),
            evidence,
            vectors=self._vectors,
            attached=self._as_source(),
            asked=self.question,
            findings=self._findings,
            before=self._judged[1] if self._judged is not None else None,
        )
        if checked.refused and checked.text == REFUSAL:
            checked = replace(checked, text=self._translated(REFUSAL, language(self.question)))
        verified = self._verified(checked, evidence) if self.options.check == "verify" else None
        if verified is not None:
            checked = replace(checked, sentences=verified)
        done: Check = "mark" if self.options.check == "verify" and verified is None else self.options.check
        return self._answer(checked, evidence=evidence, reply=reply, asked=self._asked.tokens, called=True, check=done)

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
        return stored_vectors(self.chat.retriever, pieces)

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
        cost = spent(reply, asked) if called else Spent()
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
            input_tokens=cost.input_tokens + self._beside.input_tokens,
            output_tokens=cost.output_tokens + self._beside.output_tokens,
            images=images,
            calls=self.caller.calls + self._judging_calls,
            retries=self.caller.retries,
            estimated=cost.estimated or self._beside.estimated,
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
            translation=self.translation,
            tools=tuple(self._rounds.used) if self._rounds is not None else (),
        )
