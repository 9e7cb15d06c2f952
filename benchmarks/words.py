"""Keyword search over Chinese captions beside English ones of the same bytes, and what taking words costs.

    python -m benchmarks.words FOLDER [--captions 100000] [--backend faiss] [--queries 100] [--rounds 3]

Captions are made, not downloaded: words drawn by Zipf's law from a vocabulary of 20,000, English ones of letters by
their frequency in English, Chinese ones of one to four characters, these drawn by Zipf's law from 3,000. Each caption
fills 54 bytes, as those of COCO do. A query is two neighbouring words of a caption, in Chinese without a space as
people type it. FOLDER then has `words.json`, and the stores.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from backends import connect, engines
from backends.base import CollectionSpec, Record
from backends.text import tokenize

CAPTION_BYTES = 54
VOCABULARY, CHARACTERS = 20_000, 3_000
BATCH, DIM, K = 5_000, 8, 10
# Letters of English text, the most frequent first; each about nine tenths as frequent as the one before.
LETTERS = "etaoinsrhldcumfpgwybvkxjqz"
# Lengths of words and their shares, of running text.
ENGLISH_LENGTHS = {1: 3, 2: 17, 3: 21, 4: 16, 5: 11, 6: 8, 7: 8, 8: 6, 9: 4, 10: 3, 11: 2, 12: 1}
CHINESE_LENGTHS = {1: 30, 2: 62, 3: 5, 4: 3}


@dataclass(frozen=True)
class Language:
    """How captions of a language are made."""

    name: str
    alphabet: str
    weights: Sequence[float]
    lengths: dict[int, int]
    space: str

    def vocabulary(self, draw: random.Random) -> list[str]:
        """Different words, the most frequent first; those of one letter are among these."""
        made: dict[str, None] = {}
        weights = list(itertools.accumulate(self.weights))
        while len(made) < VOCABULARY:
            (length,) = draw.choices(list(self.lengths), list(self.lengths.values()))
            if length > 1 or len(made) < VOCABULARY // 20:
                made["".join(draw.choices(self.alphabet, cum_weights=weights, k=length))] = None
        return list(made)

    def captions(self, draw: random.Random, count: int) -> list[list[str]]:
        """The words of each caption, which fill `CAPTION_BYTES`."""
        words, weights = self.vocabulary(draw), list(itertools.accumulate(zipf(VOCABULARY)))
        found = []
        for _ in range(count):
            drawn = draw.choices(words, cum_weights=weights, k=CAPTION_BYTES)
            caption: list[str] = []
            size = 0
            while size < CAPTION_BYTES:
                caption.append(drawn[len(caption)])
                size += len(caption[-1].encode()) + len(self.space)
            found.append(caption)
        return found


def zipf(count: int) -> list[float]:
    """Weights that fall as one over the rank."""
    return [1 / rank for rank in range(1, count + 1)]


ENGLISH = Language("English", LETTERS, [0.9**i for i in range(26)], ENGLISH_LENGTHS, " ")
CHINESE = Language(
    "Chinese", "".join(chr(0x4E00 + 5 * i) for i in range(CHARACTERS)), zipf(CHARACTERS), CHINESE_LENGTHS, ""
)


@dataclass(frozen=True)
class Measured:
    """Times of one language: of taking the words of a MB, of storing all captions, and of queries."""

    language: str
    bytes: int
    words_ms_per_mb: float
    store_s: float
    p50_ms: float
    p95_ms: float
    hits: float


def measure(language: Language, url: str, captions: int, queries: int, rounds: int) -> Measured:
    """Fill a new collection, and search it."""
    draw = random.Random(7)  # noqa: S311 - no secret
    made = language.captions(draw, captions)
    texts = [language.space.join(caption) for caption in made]
    size = sum(len(text.encode()) for text in texts)
    with connect(url) as backend:
        name = language.name.lower()
        backend.drop(name)
        backend.create(CollectionSpec(name, DIM))
        vectors = np.random.default_rng(7).standard_normal((captions, DIM)).astype(np.float32)
        records = [Record(f"{i:07}", vectors[i], "text", text) for i, text in enumerate(texts)]
        start = time.perf_counter()
        for i in range(0, captions, BATCH):
            backend.upsert(name, records[i : i + BATCH])
        store_s = time.perf_counter() - start
        backend.flush(name)
        asked = [_neighbours(caption, language.space, draw) for caption in draw.sample(made, queries)]
        hits = [len(backend.search_text(name, query, K)) for query in asked]
        times = [_timed(lambda q=query: backend.search_text(name, q, K)) for _ in range(rounds) for query in asked]  # type: ignore[misc]
    return Measured(
        language=language.name,
        bytes=size,
        words_ms_per_mb=1e9 * _words_s(texts) / size,
        store_s=store_s,
        p50_ms=1e3 * statistics.median(times),
        p95_ms=1e3 * float(np.percentile(times, 95)),
        hits=statistics.fmean(hits),
    )


def _neighbours(caption: Sequence[str], space: str, draw: random.Random) -> str:
    first = draw.randrange(max(1, len(caption) - 1))
    return space.join(caption[first : first + 2])


def _words_s(texts: Sequence[str]) -> float:
    """Seconds to take the words of all texts, at best of three."""
    return min(_timed(lambda: [tokenize(text) for text in texts]) for _ in range(3))


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure both languages, print a table and write `words.json`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.words", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--captions", type=int, default=100_000)
    parser.add_argument("--backend", default="faiss", help="the scheme of an engine in a folder")
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args(arguments)
    folder = given.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    url = engines()[given.backend].template.replace("{dir}", str(folder / "store"))
    found = [measure(language, url, given.captions, given.queries, given.rounds) for language in (ENGLISH, CHINESE)]
    (folder / "words.json").write_text(json.dumps([asdict(one) for one in found], indent=2) + "\n", encoding="utf-8")
    lines = ["language  MB    words ms/MB  store s  p50 ms  p95 ms  hits"]
    lines += [
        f"{m.language:9} {m.bytes / 1e6:<5.1f} {m.words_ms_per_mb:11.1f} {m.store_s:8.1f} "
        f"{m.p50_ms:7.2f} {m.p95_ms:7.2f} {m.hits:5.1f}"
        for m in found
    ]
    lines.append(f"p50 of Chinese is {found[1].p50_ms / found[0].p50_ms:.2f} times that of English")
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
