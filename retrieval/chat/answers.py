"""From what a model wrote to what is shown: the strict rule, or the text as it is with verdicts beside it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from retrieval.chat.check.claims import IMAGE_CITATION, Claim, citations, cites_attached, sentences, strip_citations
from retrieval.chat.check.grounding import Sentence, TextSupport, Verdict
from retrieval.chat.check.image_support import MIN_PERCENTILE, ImageSupport
from retrieval.chat.check.language import language
from retrieval.chat.check.layout import cited, without_dangling
from retrieval.chat.check.quantities import states_numbers, things_asked
from retrieval.chat.check.refusals import refuses
from retrieval.chat.check.verdicts import Marker, is_counted
from retrieval.chat.evidence import Evidence
from retrieval.chat.options import ChatOptions
from retrieval.chat.sanitize import printable, strip_links, strip_links_only
from retrieval.chat.wording import REFUSALS, refusal

IMAGE_MARK = "(from the image)"
#: Of the question's content words, what the evidence must have for a weak model's answer or a quotation to stand.
LEAST_RELATED = 0.6
_MAX_QUOTE_CHARS = 400

ImageVectors = Callable[[Sequence[Evidence]], Mapping[int, NDArray[np.float32]]]

_THINKING = re.compile(r"\A\s*<think(?:ing)?>", re.IGNORECASE)
_THOUGHT = re.compile(r"\A.*</think(?:ing)?>", re.IGNORECASE | re.DOTALL)
_YES = re.compile(r"\A(?:yes|yeah|yep|correct|right|true|indeed)\W*\Z", re.IGNORECASE)
_NO = re.compile(r"\A(?:no|nope|false|incorrect|wrong)\W*\Z", re.IGNORECASE)
_OPENING = re.compile(r"\A(?:yes|no|yeah|sure|certainly|of course)\s*[,;:–—-]\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Attached:
    """The picture that came with a question: whether the model sees it, its labels, and, with `strict`, its vector."""

    seen: bool
    tags: str = ""
    vector: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class Checked:
    """A model's reply after the check: the text to show, and what was found on the way."""

    text: str
    refused: bool = False
    quoted: bool = False
    sentences: tuple[Sentence, ...] = ()
    sources: tuple[Evidence, ...] = ()
    unresolved: int = 0
    links: int = 0


class DraftFilter:
    """What of a streamed reply may be shown as its draft: no reasoning in think tags, no control characters."""

    def __init__(self) -> None:
        self._held = ""
        self._state = "start"

    def feed(self, piece: str) -> str:
        """The part of `piece`, and of what was held back before, that can be shown now."""
        self._held += piece
        if self._state == "start":
            head = self._held.lstrip()
            if "<thinking>".startswith(head.lower()):
                return ""
            self._state = "thinking" if _THINKING.match(self._held) else "text"
        if self._state == "thinking":
            match = _THOUGHT.match(self._held)
            if not match:
                return ""
            self._held, self._state = self._held[match.end() :], "begins"
        if self._state == "begins":
            # What stands between its thought and its answer may come in another piece.
            self._held = self._held.lstrip()
            self._state = "text" if self._held else "begins"
        shown, self._held = self._held, ""
        return printable(shown)


class Checker:
    """Checks replies against evidence. Thread-safe."""

    def __init__(self, texts: TextSupport, images: ImageSupport, options: ChatOptions) -> None:
        self.texts = texts
        self.images = images
        self.options = options

    def check(
        self,
        question: str,
        reply: str,
        evidence: Sequence[Evidence],
        *,
        vectors: ImageVectors,
        attached: Attached | None = None,
        asked: str = "",
        findings: Sequence[str] = (),
        before: Judge | None = None,
    ) -> Checked:
        """The reply as it may be shown: by the strict rule, or as it is with a verdict for each sentence.

        Args:
            question: made to stand alone.
            vectors: gives the stored vectors of images by their evidence number, asked only when they are needed.
            attached: the picture that came with the question, a source of its own.
            asked: the question before it was made to stand alone; a weak model's answer must be about the words of
                both, and what we say ourselves is in its language.
            findings: what was counted for the model.
            before: what judged the sentences by the strict rule while they were written.
        """
        text = _THOUGHT.sub("", reply).lstrip() if "</think" in reply.lower() else reply
        text = "" if _THINKING.match(text) else printable(text)
        if self.options.check == "strict":
            judge = self.judge(question, evidence, vectors=vectors, attached=attached, findings=findings, before=before)
            return self._strict(question, text, evidence, judge=judge, asked=asked)
        return self._marked(question, text, evidence, asked=asked, attached=attached, findings=findings)

    def _marked(
        self,
        question: str,
        text: str,
        evidence: Sequence[Evidence],
        *,
        asked: str,
        attached: Attached | None,
        findings: Sequence[str],
    ) -> Checked:
        """The reply to the letter but for links and citations that name nothing; never made a refusal."""
        text, links = strip_links_only(text.strip("\n").rstrip(), _allowed(question, evidence))
        if not text.strip():
            return Checked(refusal(language(asked or question)), refused=True, links=links)
        text, removed = without_dangling(text, {piece.number for piece in evidence})
        numbers = {number for group in cited(text) for number in group.numbers}
        picture: Verdict | None = None if attached is None else "seen" if attached.seen else "cited"
        marker = Marker(self.texts, question, evidence, picture=picture, findings=findings)
        judged = () if self.options.check == "off" else marker.mark(text, removed)
        rests_on_none = not numbers and not (attached is not None and cites_attached(text))
        return Checked(
            text,
            refused=rests_on_none and refuses(text),
            sentences=judged,
            sources=tuple(piece for piece in evidence if piece.number in numbers),
            unresolved=sum(len(gone) for _, gone in removed),
            links=links,
        )

    def settled(self, question: str, reply: str, evidence: Sequence[Evidence]) -> str:
        """The text that is shown of the beginning of a reply, of which nothing more is open."""
        text, _ = strip_links_only(reply.lstrip("\n").rstrip(), _allowed(question, evidence))
        return without_dangling(text, {piece.number for piece in evidence})[0]

    def judge(
        self,
        question: str,
        evidence: Sequence[Evidence],
        *,
        vectors: ImageVectors,
        attached: Attached | None,
        findings: Sequence[str] = (),
        before: Judge | None = None,
    ) -> Judge:
        """What judges the sentences of one reply by the strict rule, each once; before: with less evidence."""
        return Judge(self, question, evidence, vectors=vectors, attached=attached, findings=findings, before=before)

    def standing(self, question: str, reply: str, evidence: Sequence[Evidence], judge: Judge) -> str:
        """The sentences with support of the beginning of a reply, without its last one, which may go on."""
        text, _ = strip_links(reply, _allowed(question, evidence))
        told = sentences(text)
        if not told or told[-1].startswith(("[", "【", "(")):
            # Perhaps a citation of the sentence before.
            told = told[:-1]
        return _assemble(judge.sentences(told[:-1]))[0]

    def _strict(self, question: str, text: str, evidence: Sequence[Evidence], *, judge: Judge, asked: str) -> Checked:
        """Only what has support; `grounding` and `image_support` of `retrieval.chat.check` have the rules.

        A citation of a number that is not there is removed. A sentence that its citations do not support is
        tried against the other evidence, and cites that instead where it has support there.
        """
        questions = [question, asked]
        said = refusal(language(asked or question))
        text, links = strip_links(text, _allowed(question, evidence))
        numbers = {piece.number for piece in evidence}
        unresolved = sum(number not in numbers for number in citations(text))
        declined = refuses(text)
        # A weak model that says so anywhere is taken at its word.
        if self.options.weak and (declined or any(words in text.lower() for words in REFUSALS)):
            return Checked(said, refused=True, unresolved=unresolved, links=links)
        judged = judge.sentences(sentences(text))
        standing = [sentence for sentence in judged if sentence.verdict in ("stated", "seen")]
        if standing and self._answers(questions, standing, evidence):
            final, placed = _assemble(judged)
            shown = set(citations(final))
            sources = tuple(piece for piece in evidence if piece.number in shown)
            return Checked(final, sentences=placed, sources=sources, unresolved=unresolved, links=links)
        best = self._best(questions, evidence) if self.options.fallback == "quote" else None
        if best is not None:
            return Checked(
                self._quote(question, best),
                quoted=True,
                sentences=judged,
                sources=(best,),
                unresolved=unresolved,
                links=links,
            )
        told = () if declined else judged
        return Checked(said, refused=True, sentences=told, unresolved=unresolved, links=links)

    def _answers(self, questions: Sequence[str], standing: Sequence[Sentence], evidence: Sequence[Evidence]) -> bool:
        """Whether a weak model's answer is about the question; a capable one is left to judge that itself."""
        if self.options.fallback != "quote":
            return True
        cited = {number for sentence in standing for number in sentence.citations}
        facts = [fact for piece in evidence if piece.number in cited for fact in (*piece.facts, piece.tags)]
        return self._related(questions, " / ".join(facts)) >= LEAST_RELATED

    def _related(self, questions: Sequence[str], text: str) -> float:
        """The least of the questions' shares in a text; 0 where it has nothing of what one asks the number of."""
        counted = [Claim(" ".join(things)) for each in questions if (things := things_asked(each))]
        if any(claim.content and not self.texts.relates(claim, text) for claim in counted):
            return 0.0
        claims = [claim for claim in map(Claim, questions) if claim.content]
        return min((self.texts.relates(claim, text) for claim in claims), default=1.0)

    def _best(self, questions: Sequence[str], evidence: Sequence[Evidence]) -> Evidence | None:
        """The evidence that has most of the questions' words, the earlier of equals; None where none has enough."""
        shares = [(self._related(questions, " / ".join(piece.facts)), piece) for piece in evidence if piece.item.text]
        passing = [(share, piece) for share, piece in shares if share >= LEAST_RELATED]
        return max(passing, key=lambda pair: pair[0])[1] if passing else None

    def _quote(self, question: str, piece: Evidence) -> str:
        """Of the captions of a photo the one that has most of the question's words, with its citation."""
        claim = Claim(question)
        # The first of equals.
        text = max(piece.facts[0].split(" / "), key=lambda part: self.texts.relates(claim, part))
        if len(text) > _MAX_QUOTE_CHARS:
            text = text[: _MAX_QUOTE_CHARS - 1].rsplit(" ", 1)[0] + "…"
        return f"“{text}” [{piece.number}]"


class Judge:
    """The check of one reply's sentences, one after another; a sentence that it knows is not judged again.

    before: what judged them when there was less evidence. Its verdicts stay: what was shown, or left out, is behind us.
    """

    def __init__(
        self,
        checker: Checker,
        question: str,
        evidence: Sequence[Evidence],
        *,
        vectors: ImageVectors,
        attached: Attached | None,
        findings: Sequence[str],
        before: Judge | None,
    ) -> None:
        self.checker = checker
        self.question = question
        self.findings = tuple(findings)
        self.by_number = {piece.number: piece for piece in evidence}
        self.attached = attached
        self._load = vectors
        self._judged: dict[str, Sentence] = {}
        self._placed: dict[tuple[int, str], Sentence] = before._placed if before is not None else {}
        self._vectors: Mapping[int, NDArray[np.float32]] | None = None

    def sentences(self, told: Sequence[str]) -> tuple[Sentence, ...]:
        """The verdicts, corrected citations and support of the sentences of a reply from its beginning on."""
        for place in enumerate(told):
            if place not in self._placed:
                self._placed[place] = self._sentence_of(place[1])
        return tuple(self._placed[place] for place in enumerate(told))

    def _sentence_of(self, written: str) -> Sentence:
        if written not in self._judged:
            self._judged[written] = self._sentence(written)
        return self._judged[written]

    def _sentence(self, written: str) -> Sentence:
        cited = tuple(number for number in citations(written) if number in self.by_number)
        text = _tidy(strip_citations(written))
        claim = self._claim(text)
        attached = self.attached if cites_attached(written) else None
        if claim is None:
            verdict = "unsupported" if _NO.match(text) else "no_claim"
            return Sentence(text, verdict)  # type: ignore[arg-type]
        support = self._support(claim, cited)
        if support:
            return Sentence(text, "stated", citations=cited, support=support)
        if is_counted(text, self.question, self.findings):
            return Sentence(text, "stated", citations=cited, support=1.0)
        if attached is not None and (attached.seen or self.checker.texts.judge(claim, [attached.tags])):
            return Sentence(text, "seen", citations=cited, attached=True)
        other, best = self._elsewhere(claim)
        if other is not None:
            return Sentence(text, "stated", citations=(other,), support=best, corrected=True)
        return self._from_tags(text, claim, cited) or self._from_image(text, claim, cited)

    def _claim(self, text: str) -> Claim | None:
        """What a sentence claims; a bare yes claims what was asked. None where nothing can be checked."""
        if _YES.match(text):
            return Claim(self.question)
        if _NO.match(text) or text.endswith(":"):
            return None
        claim = Claim(_OPENING.sub("", text), self.question)
        return claim if claim.content or claim.names or states_numbers(claim) else None

    def _support(self, claim: Claim, cited: Sequence[int]) -> float:
        """Of one of the cited alone where that is enough, else of all of them together."""
        facts = [self.by_number[number].facts for number in cited]
        alone = max((self.checker.texts.judge(claim, each) for each in facts), default=0.0)
        if alone or len(facts) < 2:
            return alone
        return self.checker.texts.judge(claim, [fact for each in facts for fact in each])

    def _elsewhere(self, claim: Claim) -> tuple[int | None, float]:
        scores = [(self.checker.texts.judge(claim, piece.facts), -n) for n, piece in self.by_number.items()]
        best, number = max(scores, default=(0.0, 0))
        return (-number, best) if best else (None, 0.0)

    def _from_tags(self, text: str, claim: Claim, cited: tuple[int, ...]) -> Sentence | None:
        """From the image too is what stands in the encoder's own labels of it, which are all a blind model has."""
        for number, piece in self.by_number.items():
            if piece.tags and (not cited or number in cited):
                support = self.checker.texts.judge(claim, [*piece.facts, piece.tags])
                if support:
                    corrected = number not in cited
                    return Sentence(text, "seen", citations=(number,), support=support, corrected=corrected)
        return None

    def _from_image(self, text: str, claim: Claim, cited: tuple[int, ...]) -> Sentence:
        seen = [piece for number, piece in self.by_number.items() if piece.picture and (not cited or number in cited)]
        known = Claim(" / ".join([self.question, *(fact for piece in self.by_number.values() for fact in piece.facts)]))
        vector = self.attached.vector if self.attached is not None else None
        # Nearness says nothing of a number, and there is nothing else that a bare one could be near to.
        if (seen or vector is not None) and claim.content and claim.names <= known.stems:
            if self._vectors is None:
                self._vectors = self._load([piece for piece in self.by_number.values() if piece.picture])
            placed = [
                (self.checker.images.percentile(claim.text, self._vectors[piece.number]), piece.number)
                for piece in seen
                if piece.number in self._vectors
            ]
            if vector is not None and not cited:
                placed.append((self.checker.images.percentile(claim.text, vector), 0))
            share, number = max(placed, default=(0.0, 0))
            if share >= MIN_PERCENTILE:
                return Sentence(
                    text,
                    "seen",
                    citations=(number,) if number else (),
                    support=share,
                    corrected=number not in (*cited, 0),
                )
        return Sentence(text, "unsupported")


def _allowed(question: str, evidence: Sequence[Evidence]) -> list[str]:
    """Where an address that an answer may have must stand."""
    return [question, *(piece.shown for piece in evidence)]


def _tidy(text: str) -> str:
    """A sentence without the space that a removed citation left before its full stop."""
    return re.sub(r"\s+([.,;:!?])", r"\1", " ".join(text.split()))


def _assemble(judged: Sequence[Sentence]) -> tuple[str, tuple[Sentence, ...]]:
    """The sentences with support as one text, and all sentences with their places in it."""
    text = ""
    placed: dict[Sentence, Sentence] = {}
    for sentence in judged:
        if sentence in placed:
            continue
        placed[sentence] = sentence
        if sentence.verdict in ("stated", "seen"):
            marks = ["".join(f"[{number}]" for number in sentence.citations)]
            source = IMAGE_CITATION if sentence.attached else IMAGE_MARK
            told = _with(sentence.text, *marks, *([source] if sentence.verdict == "seen" else []))
            text += " " * bool(text) + told
            placed[sentence] = replace(sentence, start=len(text) - len(told), end=len(text))
    return text, tuple(placed[sentence] for sentence in judged)


def _with(sentence: str, *marks: str) -> str:
    """A sentence with marks before its full stop, where a reader expects them."""
    words = sentence.rstrip(".!?。！？")
    return " ".join(filter(None, (words, *marks))) + sentence[len(words) :]
