"""What a match of words is worth: how improbable it is that a text which has nothing to do with the query has them.

The score is BM25 with the weight -log q for a word that a share q of the collection's texts has. If words came
independently, a text with some of them would be one in e^score; since there are many ways to reach a score, its tail
probability is larger, and Chernoff's bound says by how much:

    -log P(score >= b)  =  max over t of  t b - sum over the words of log(1 - q + q^(1 - t))

(Chernoff, A measure of asymptotic efficiency, Annals of Mathematical Statistics, 1952.) No score counts for more than
all words of the query together, however often a text has them. The built-in background queries, by which vectors are
judged, cannot tell it: they have three words, and a caption of ten shares more with any other.

Evidence for an item is the logarithm of its odds, `text_evidence`. A text that belongs to what is looked for may say
something else about it, so a match multiplies the odds in one half of the cases and leaves them alone in the other.
Unit is the mean of a text that has nothing to do with the query (-log of a tail probability is 1 on average), so
that an item without a text, of which nothing is known, stands beside them with 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from backends.base import Record
from backends.text import BM25_B, BM25_K1, searched_text, tokenize, wanted_words

__all__ = ["QueryWords", "WordCounts", "text_evidence"]

#: Of longer texts only so much is read: which words a language has often shows in it.
READ_CHARS = 20_000
# Beyond, the bound of a text that has nearly all words grows no more than some hundredths.
_TILTS = np.linspace(0.0, 4.0, 81)
# The mean of -log of a tail probability.
_MEAN = 1.0


@dataclass(frozen=True, slots=True)
class WordCounts:
    """Of items drawn at random: how many there are, how many have words, how many words in all, and which."""

    items: int = 0
    texts: int = 0
    words: int = 0
    texts_with: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, records: Iterable[Record]) -> WordCounts:
        """The words that keyword search reads of these records."""
        items = texts = words = 0
        texts_with: Counter[str] = Counter()
        for record in records:
            items += 1
            found = tokenize(searched_text(record.text, record.uri)[:READ_CHARS])
            texts += bool(found)
            words += len(found)
            texts_with.update(set(found))
        return cls(items, texts, words, dict(texts_with))


class QueryWords:
    """The words of a query, each with the share of a collection's texts that has it.

    counts: of a sample of each modality, with the number of items that it stands for.
    """

    def __init__(self, query: str, counts: Sequence[tuple[WordCounts, int]]) -> None:
        self.words = wanted_words(query)
        drawn = [(each, population / each.items) for each, population in counts if each.texts]
        texts = sum(each.texts * scale for each, scale in drawn)
        sampled = sum(each.texts for each, _ in drawn)
        self._mean_length = sum(each.words * scale for each, scale in drawn) / texts if texts else 1.0
        # One sampled text stands for this many; half of one for a word that none of them has.
        one = texts / sampled if sampled else 1.0
        having = np.array([sum(each.texts_with.get(word, 0) * scale for each, scale in drawn) for word in self.words])
        shares = (having + one / 2) / (texts + one)
        self._weights: NDArray[np.float64] = -np.log(shares)
        self._cumulants = np.log1p(shares * np.expm1(np.outer(_TILTS, self._weights))).sum(axis=1)

    def improbability(self, text: str | None, uri: str | None) -> float:
        """-log of the probability that an unrelated text matches as well as this one; 0 where no word is in it."""
        counted = Counter(tokenize(searched_text(text, uri)))
        found = np.array([counted[word] for word in self.words], dtype=np.float64)
        if not found.any():
            return 0.0
        length = BM25_K1 * (1 - BM25_B + BM25_B * counted.total() / self._mean_length)
        score = float(self._weights @ (found * (BM25_K1 + 1) / (found + length)))
        score = min(score, float(self._weights.sum()))
        return max(float((_TILTS * score - self._cumulants).max()), 0.0)


def text_evidence(improbability: float, *, has_text: bool) -> float:
    """The logarithm of the odds that a match of words speaks for an item; 0 where nothing is known of it."""
    if not has_text and not improbability:
        return 0.0
    return float(np.logaddexp(0.0, improbability - _MEAN) - np.log(2))
