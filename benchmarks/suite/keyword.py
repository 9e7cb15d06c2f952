"""Keyword queries and what BM25 says of them, from the texts alone."""

from __future__ import annotations

import math
from collections import Counter, defaultdict

import numpy as np
from numpy.typing import NDArray

from backends.text import BM25_B, BM25_K1, tokenize, wanted_words
from benchmarks.suite.datasets import DataSet


class Bm25:
    """BM25 as in Lucene (Robertson and Zaragoza 2009) over all texts of a data set."""

    def __init__(self, texts: list[str]) -> None:
        self._postings: dict[str, list[tuple[int, int]]] = defaultdict(list)
        lengths = []
        for row, text in enumerate(texts):
            found = Counter(tokenize(text))
            lengths.append(found.total())
            for word, count in found.items():
                self._postings[word].append((row, count))
        self._n = len(texts)
        self._lengths = np.array(lengths, np.float64)
        self._mean = float(self._lengths.mean()) or 1.0

    def scores(self, query: str) -> NDArray[np.float64]:
        """The score of every row, 0 for those without a word of the query: (n,)."""
        total = np.zeros(self._n)
        for word in wanted_words(query):
            entries = self._postings.get(word)
            if not entries:
                continue
            rows, counts = (np.array(column) for column in zip(*entries, strict=True))
            weight = math.log(1 + (self._n - len(rows) + 0.5) / (len(rows) + 0.5))
            norm = BM25_K1 * (1 - BM25_B + BM25_B * self._lengths[rows] / self._mean)
            total[rows] += weight * counts * (BM25_K1 + 1) / (counts + norm)
        return total


def keyword_queries(data: DataSet, count: int, seed: int) -> list[str]:
    """Captions where the data set has some, otherwise two words of a text each; seeded."""
    rng = np.random.default_rng(seed + 11)
    if data.captions:
        return [data.captions[i] for i in rng.permutation(len(data.captions))[:count]]
    queries = []
    for row in rng.integers(0, len(data.texts), count):
        own = data.texts[row].split()
        queries.append(" ".join(own[i] for i in sorted(rng.permutation(len(own))[:2])))
    return queries
