"""Groundedness: whether what a sentence says stands in the evidence that it cites.

A sentence has support in a text when all of these hold (`TextSupport`):

- every number in it, in digits or words, is in the text beside the same thing (`retrieval.chat.check.quantities`);
- every name in it, a word with a capital inside the sentence, is in the text;
- no word is negated on one side and not on the other;
- every other content word is in the text: by its stem, by `retrieval.chat.check.lexicon` ("child" by "girl", but
  never "red" by "blue"), or by a near meaning, a cosine of at least `NEAR_WORD` between the two words'
  all-MiniLM-L6-v2 embeddings;
- the cosine of the embeddings of the sentence and of some part of the text is at least `MIN_COSINE`,
  unless every content word is in the text itself.

It is the word alignment of BERTScore (Zhang et al., ICLR 2020) made strict, because in short answers one
wrong word is what makes them wrong. Its limits: it does not parse, so who does what to whom, and which
colour belongs to which thing, are not checked ("a dog chases a man" has support in "a man chases a dog");
the lists are English; world knowledge is no support. Measured figures: docs/chat.md.

all-MiniLM-L6-v2 is what `compact` carries anyway. It is used whatever encoder searches, so that the
thresholds mean the same: the text towers of CLIP models put almost any two sentences near each other.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from retrieval.chat.check.claims import Claim
from retrieval.chat.check.lexicon import supports
from retrieval.chat.check.quantities import counted_alike, states_numbers

#: stated: a source says so. seen: it cites an image that the model was shown. cited: it cites a text, in other words.
#: uncited, contradicted, dangling (its citations named nothing), unsupported (strict and verify only), no_claim.
Verdict: TypeAlias = Literal[
    "stated", "seen", "cited", "uncited", "contradicted", "dangling", "unsupported", "no_claim"
]
TextVectors: TypeAlias = Callable[[Sequence[str]], NDArray[np.float32]]

NEAR_WORD = 0.60
MIN_COSINE = 0.35
_KEPT_VECTORS = 4096


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence of an answer after the check; docs/chat.md says what each verdict means.

    text: as the model wrote it; in an answer that is `strict`, without its citations. citations: numbers of the
    evidence that it cites, corrected where `corrected` says so. start, end: where it is in the answer's text, in
    characters; None for one that is not there. removed: numbers that it cited and that name no source. conflict: of
    `contradicted`, the words that conflict, and conflict_source the number of their source. verified: the verdict is
    a model's (`check="verify"`). attached: it cites the picture that came with the question. support: 0 to 1, of
    `TextSupport.judge`, or the percentile of `retrieval.chat.check.image_support`.
    """

    text: str
    verdict: Verdict
    citations: tuple[int, ...] = ()
    support: float = 0.0
    corrected: bool = False
    start: int | None = None
    end: int | None = None
    removed: tuple[int, ...] = ()
    conflict: str = ""
    conflict_source: int | None = None
    verified: bool = False
    attached: bool = False


@lru_cache(maxsize=1)
def _mini_lm() -> TextVectors:
    from retrieval.encoders.compact_text import SentenceEncoder
    from retrieval.encoders.threads import encoder_threads

    return SentenceEncoder(encoder_threads()).encode


class TextSupport:
    """Judges claims against texts. Thread-safe; keeps the vectors of the words it met last.

    vectors: (n, d) unit rows of n texts; by default all-MiniLM-L6-v2, loaded at the first use.
    """

    def __init__(self, vectors: TextVectors | None = None) -> None:
        self._vectors = vectors
        self._lock = threading.Lock()
        self._kept: dict[str, NDArray[np.float32]] = {}

    def warm_up(self) -> None:
        """Load the embedding model, so that the first check does not wait for it."""
        # What fails here, also because the process ends meanwhile, fails again where it is needed, and is told there.
        with contextlib.suppress(Exception):
            self._embedded(["a"])

    def judge(self, claim: Claim, texts: Sequence[str]) -> float:
        """How far `texts` together support a claim: 0 where any rule is broken, else from 0.5 to 1.

        1 where all its content words are in the texts themselves, 0.5 where all are there by meaning only. A claim
        without content words has the support of its numbers alone: 1 or 0.
        """
        source = Claim(" / ".join(texts))
        if not claim.names <= source.stems or not counted_alike(claim, texts):
            return 0.0
        if not claim.content:
            return 1.0 if states_numbers(claim) else 0.0
        if contradicts(claim, source):
            return 0.0
        if self.unaligned(claim, source):
            return 0.0
        literal = len(set(claim.content) & source.stems) / len(claim.content)
        return (1 + literal) / 2 if literal == 1 or self._near(claim.text, texts) else 0.0

    def unaligned(self, claim: Claim, source: Claim) -> set[str]:
        """Stems of the claim's content words of which `source` has neither the stem nor a near meaning."""
        missing = set()
        if claim.language != "en":
            # Lists and embedding know English: any two words that they do not know are near each other in it.
            return set(claim.content) - source.stems
        for word in set(claim.content) - source.stems:
            known = {other: supports(word, other) for other in source.content}
            if True in known.values():
                continue
            near = [source.content[other] for other in known if len(other) > 1 and other.isascii()]
            # Where the source has another member of the same kind, nearness is what would mislead.
            if False in known.values() or not near or not word.isascii() or not self._means(claim.content[word], near):
                missing.add(word)
        return missing

    def _means(self, word: str, others: Sequence[str]) -> bool:
        vectors = self._embedded([word, *others])
        return float((vectors[1:] @ vectors[0]).max()) >= NEAR_WORD

    def relates(self, question: Claim, text: str) -> float:
        """The share of a question's content words that a text has, by stem or near meaning; 0 where there are none."""
        if not question.content:
            return 0.0
        return 1 - len(self.unaligned(question, Claim(text))) / len(question.content)

    def _near(self, sentence: str, texts: Sequence[str]) -> bool:
        parts = [part for text in texts for part in text.split(" / ") if part.strip()]
        if not parts:
            return False
        vectors = self._embedded([sentence, *parts])
        return float((vectors[1:] @ vectors[0]).max()) >= MIN_COSINE

    def _embedded(self, texts: Sequence[str]) -> NDArray[np.float32]:
        with self._lock:
            new = [text for text in dict.fromkeys(texts) if text not in self._kept]
            if len(self._kept) + len(new) > _KEPT_VECTORS:
                self._kept.clear()
                new = list(dict.fromkeys(texts))
            if new:
                self._vectors = self._vectors or _mini_lm()
                self._kept.update(zip(new, self._vectors(new), strict=True))
            return np.stack([self._kept[text] for text in texts])


def contradicts(claim: Claim, source: Claim) -> bool:
    """Whether a content word is negated on one side, and on the other there and never negated."""
    ours, theirs = claim.negated, source.negated
    denied = ours & source.stems - theirs
    asserted = (set(claim.content) - ours) & theirs
    # Captions side by side may say "no people" and "a bench": what is both is not contradicted.
    return bool(denied) or any(_only_negated(stem, source) for stem in asserted)


def _only_negated(stem: str, source: Claim) -> bool:
    plain = [part for part in source.text.split(" / ") if stem in Claim(part).stems and stem not in Claim(part).negated]
    return not plain
