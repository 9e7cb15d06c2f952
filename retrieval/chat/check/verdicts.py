"""A verdict for each sentence of an answer that stays as the model wrote it: what its sources say of it."""

# A pattern is read as a whole.
# ruff: noqa: E501

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from retrieval.chat.check.claims import Claim, cites_attached, strip_citations
from retrieval.chat.check.conflicts import Told, conflict
from retrieval.chat.check.denials import says_nothing
from retrieval.chat.check.grounding import Sentence, TextSupport, Verdict
from retrieval.chat.check.layout import Span, cited, sentence_spans
from retrieval.chat.check.quantities import quantities, states_numbers
from retrieval.chat.evidence import Evidence, fields_of, sizes_of
from retrieval.chat.sanitize import shield

# Sentences that are about the talk, or say that the collection has nothing: they need no source.
_TALK = re.compile(
    r"[?？؟]\W*\Z|\A(?:sure|certainly|of course|yes|okay)\W*\Z|\b(?:let me know|feel free|hope (?:this|that) helps|happy to help|(?:would|do) you (?:like|want)|thank you|"
    r"let me (?:search|look|check|find|count|open|see)|i(?:'ll| will) (?:search|look|check|find|count|open)|you(?:'re| are) welcome|(?:i(?:'m| am) )?sorry|unfortunately|based on (?:the|these)|here (?:is|are)|as follows)\b"
    r"|让我|我来|希望|如果您|如果你|不客气|抱歉|对不起|以下是|如下|申し訳|お役に立て|以下(?:の|は)|gern geschehen|leider|hoffe|"
    r"lassen sie|n'hésitez|désolé|lo siento|espero que",
    re.IGNORECASE,
)
_PHOTO = re.compile(
    r"\A(?:photos?|images?|fotos?|bild(?:er)?|im[aá]gen(?:es)?|textos?|textes?|texte?)\Z|照片|图|圖|相片|文字|写真|画像"
)
_OF_ATTACHED = re.compile(
    r"\b(?:your|the attached|the uploaded) (?:image|picture|photo(?:graph)?)\b|\b(?:image|picture|photo) (?:that )?you "
    r"(?:attached|sent|uploaded|gave|shared)\b|(?:你|您)(?:上传|发送?|提供|附上|给出?)的(?:这张|那张)?(?:图片|照片|图)|附(?:上的)?图|\bdein\w* bild\b",
    re.IGNORECASE,
)
#: Stands for the picture that came with the question among the numbers that a sentence cites.
_ATTACHED = 0
_ENDED = re.compile(r"[.!?。！？…؟।][\s\"'”’)»*_」』）]*\Z")


def is_counted(text: str, question: str, findings: Sequence[str]) -> bool:
    """Whether a sentence tells numbers that were counted for the model (`findings`), of what was counted."""
    claim = Claim(text)
    if not findings or not claim.numbers:
        return False
    counted = Claim(" / ".join(findings))
    if not claim.numbers <= counted.numbers | ({1.0} & counted.all_numbers):
        return False
    if claim.language == "en":
        return set(claim.content) <= counted.stems | Claim(question).stems
    told = f"{question} / {counted.text}".lower()
    numbers = [each for each in quantities(claim.text, claim.language) if each.written]
    return all(not each.things or any(_PHOTO.search(t) or t in told for t in each.things) for each in numbers)


@dataclass(frozen=True, slots=True)
class _Placed:
    span: Span
    text: str
    own: tuple[int, ...]
    removed: tuple[int, ...]


class Marker:
    """Judges the sentences of one answer, of which it changes nothing.

    question: as it was searched for. picture: the verdict of what cites the picture that came with the question, None
    where none did. findings: what was counted for the model.
    """

    def __init__(
        self,
        texts: TextSupport,
        question: str,
        evidence: Sequence[Evidence],
        *,
        picture: Verdict | None = None,
        findings: Sequence[str] = (),
    ) -> None:
        self._texts = texts
        self._question = question
        self._picture = picture
        self._findings = findings
        self._evidence = {piece.number: piece for piece in evidence}

    def mark(self, text: str, removed: Sequence[tuple[int, tuple[int, ...]]] = ()) -> tuple[Sentence, ...]:
        """A verdict for each sentence of `text`; removed: where citations were taken out, and of which numbers."""
        groups = cited(text)
        placed = []
        spans = sentence_spans(text)
        gone: dict[Span, tuple[int, ...]] = {}
        for place, numbers in removed:
            # What stood before a sentence belongs to it, what stood at its end as well.
            span = next((span for span in spans if place <= span.end), None)
            if span is not None:
                gone[span] = (*gone.get(span, ()), *numbers)
        for span in spans:
            inside = [n for group in groups if span.start <= group.start < span.end for n in group.numbers]
            own = tuple(dict.fromkeys(number for number in inside if number in self._evidence))
            if self._picture and cites_attached(text[span.start : span.end]):
                own = (*own, _ATTACHED)
            placed.append(_Placed(span, text[span.start : span.end], own, gone.get(span, ())))
        return tuple(self._sentence(number, placed) for number in range(len(placed)))

    def _sentence(self, number: int, placed: Sequence[_Placed]) -> Sentence:
        each = placed[number]
        verdict, support, words, source = self._verdict(number, placed)
        return Sentence(
            each.text,
            verdict,
            citations=tuple(number for number in each.own if number != _ATTACHED),
            support=support,
            start=each.span.start,
            end=each.span.end,
            removed=each.removed,
            conflict=words,
            conflict_source=source,
            attached=_ATTACHED in each.own,
        )

    def _verdict(self, number: int, placed: Sequence[_Placed]) -> tuple[Verdict, float, str, int | None]:
        each = placed[number]
        if each.own:
            pieces = [self._evidence[n] for n in each.own if n != _ATTACHED]
            claim = Claim(strip_citations(each.text).replace("*", ""), self._question)
            support = self._support(claim, pieces)
            if support:
                return "stated", support, "", None
            if self._picture and _ATTACHED in each.own:
                # Which of them shows it, no rule can tell.
                return self._picture, 0.0, "", None
            found = conflict(each.text, self._question, [_told(piece) for piece in pieces])
            if found is not None:
                return "contradicted", 0.0, found.words, found.source
            return ("seen" if any(piece.picture for piece in pieces) else "cited"), 0.0, "", None
        if each.removed:
            return "dangling", 0.0, "", None
        if is_counted(each.text, self._question, self._findings):
            return "stated", 1.0, "", None
        if self._needs_none(number, placed):
            return "no_claim", 0.0, "", None
        covering = _covering(number, placed)
        if covering:
            return self._by(covering), 0.0, "", None
        if self._picture and _OF_ATTACHED.search(each.text):
            return self._picture, 0.0, "", None
        return "uncited", 0.0, "", None

    def _by(self, numbers: Sequence[int]) -> Verdict:
        """The verdict of what rests on these sources, of which none says it in its words."""
        if any(n != _ATTACHED and self._evidence[n].picture for n in numbers):
            return "seen"
        return self._picture if self._picture and _ATTACHED in numbers else "cited"

    def _support(self, claim: Claim, pieces: Sequence[Evidence]) -> float:
        if not (claim.content or claim.names or states_numbers(claim)):
            return 0.0
        alone = max((self._texts.judge(claim, piece.facts) for piece in pieces), default=0.0)
        if alone or len(pieces) < 2:
            return alone
        return self._texts.judge(claim, [fact for piece in pieces for fact in piece.facts])

    def _needs_none(self, number: int, placed: Sequence[_Placed]) -> bool:
        """Whether a sentence without citations claims nothing that one would have to look up."""
        each = placed[number]
        if each.span.leads or _TALK.search(each.text) or says_nothing(each.text):
            return True
        claim = Claim(each.text, self._question)
        if not (claim.content or claim.names or states_numbers(claim)):
            return True
        if _is_fragment(each) and len(claim.content) < 2 and not claim.numbers:
            return True
        before = Claim(" / ".join([self._question, *(other.text for other in placed[:number])]))
        if not set(claim.content) <= before.stems:
            return False
        # What sums up what was said and cited adds nothing to it, nor does counting that.
        cites = {number for other in placed for number in other.own}
        citing = {other.span.item for other in placed if other.own}
        counts = {float(len(cites)), float(len(citing)), *([2.0] if "both" in claim.text.lower() else [])}
        return bool(cites) and claim.numbers <= before.all_numbers | counts


def _covering(number: int, placed: Sequence[_Placed]) -> tuple[int, ...]:
    """What a sentence without citations rests on: what the rest of its paragraph, or its list's first line, cites.

    A paragraph may have its citations at its end, an item of a list or a row of a table at the line before the list.
    """
    each = placed[number]
    block = [other for other in placed if other.span.block == each.span.block]
    after = [other for other in block if other.span.start > each.span.start and other.span.item == each.span.item]
    leading = [other for other in block if other.span.leads and other.span.start < each.span.start]
    following: list[_Placed] = []
    if number == 0:
        following = list(placed[1:])
    elif _is_fragment(each):
        following = block if any(other.own for other in block) else list(placed[number + 1 : number + 2])
    elif not any(other.own for other in (*after, *leading)) and _is_first(each, block):
        # An opening sentence is carried by the list or the sentences that it opens.
        following = [other for other in block if other.span.start > each.span.start]
    return tuple(dict.fromkeys(n for other in (*after, *leading, *following) for n in other.own))


def _is_fragment(each: _Placed) -> bool:
    """Whether it is no whole sentence: a label, a nested item, or what goes on behind a formula."""
    return not _ENDED.search(strip_citations(each.text))


def _is_first(each: _Placed, block: Sequence[_Placed]) -> bool:
    return all(other.span.item == each.span.item or other.span.start > each.span.start for other in block)


def _told(piece: Evidence) -> Told:
    parts: list[str] = []
    if piece.item.text and piece.facts:
        parts = [part.strip() for part in piece.facts[0].split(" / ") if part.strip()]
    fields = [
        (shield(name).text, shield(value).text)
        for name, value in fields_of(piece.item.metadata) + sizes_of(piece.item.metadata)
    ]
    return Told(
        piece.number,
        tuple(parts),
        tuple((name, value) for name, value in fields if name and value),
        piece.item.modality == "image",
    )
