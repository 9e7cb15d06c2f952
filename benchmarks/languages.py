"""How well `compact` reads each language: ``python -m benchmarks.languages [DATASET_DIR CAPTIONS]``.

Without arguments, on what is in the packages:

- routing: of the background queries of relevance in each language (short, two to five words), how many are read as
  another language than English, and in how many the language is known; of English texts, how many are not read as
  English. There must be none of those;
- meaning: how many of a language's queries are nearest to the English query of the same meaning, of 96;
  The same for 24 queries each in languages that nothing is promised for;
- passages: how many of 30 Chinese questions are nearest to the passage that answers them.

With a folder as for ``benchmarks.encoders`` and a file of captions in other languages, JSON lines with "file", "lang"
and "text", also how often its caption finds a photograph, and captions of the same photograph find each other across
languages. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.encoders import Dataset, DatasetError, read_dataset
from benchmarks.suite.tables import markdown_table
from retrieval.encoders import DEFAULT_ENCODER, EncoderError, load_encoder
from retrieval.encoders.base import Encoder
from retrieval.images.decode import ImageError
from retrieval.relevance.background import BACKGROUND_LANGUAGES, background_texts, text_language

Rows = NDArray[np.float32]
_RANKS = (1, 5, 10)


@dataclass(frozen=True)
class Captions:
    """Captions in one language, and the index of each one's photograph."""

    language: str
    texts: list[str]
    image_of: list[int]


def read_captions(path: Path, dataset: Dataset) -> list[Captions]:
    """The captions of a file by language, in its order; raises `DatasetError`."""
    places = {file.relative_to(dataset.files[0].parents[1]).as_posix(): n for n, file in enumerate(dataset.files)}
    found: dict[str, Captions] = {}
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            captions = found.setdefault(row["lang"], Captions(row["lang"], [], []))
            captions.texts.append(row["text"])
            captions.image_of.append(places[row["file"]])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{path}: not JSON lines with file, lang and text of {dataset.name}: {error!r}") from None
    return list(found.values())


def ranks(queries: Rows, items: Rows, query_of: Sequence[int], item_of: Sequence[int]) -> NDArray[np.int64]:
    """The rank, from 1, of the best of each query's own items: those of the same number."""
    scores = queries @ items.T
    own = np.array(query_of)[:, None] == np.array(item_of)[None, :]
    best = np.where(own, scores, -np.inf).max(axis=1, keepdims=True)
    # Of equal scores the other comes first: rows of zeros find nothing.
    return np.asarray(1 + ((scores >= best) & ~own).sum(axis=1))


def recalls(found: NDArray[np.int64]) -> dict[str, float]:
    """Recall@1/5/10 in percent."""
    return {f"R@{k}": 100 * float(np.mean(found <= k)) for k in _RANKS}


def recall_by_language(encoder: Encoder, dataset: Dataset, captions: Sequence[Captions]) -> dict[str, dict[str, Any]]:
    """Text to image for the dataset's own captions, called ``en``, and those of each language."""
    images = encoder.encode_images(dataset.files)
    every = [Captions("en", dataset.captions, dataset.image_of), *captions]
    places = range(len(images))
    return {
        each.language: {"captions": len(each.texts)}
        | recalls(ranks(encoder.encode_texts(each.texts), images, each.image_of, places))
        for each in every
    }


def across_languages(encoder: Encoder, dataset: Dataset, captions: Sequence[Captions]) -> dict[str, dict[str, float]]:
    """Captions that find a caption of the same photograph in English, and the other way round, by language."""
    english = encoder.encode_texts(dataset.captions)
    found = {}
    for each in captions:
        theirs = encoder.encode_texts(each.texts)
        asked = [n for n, image in enumerate(dataset.image_of) if image in set(each.image_of)]
        owners = [dataset.image_of[n] for n in asked]
        to_english = recalls(ranks(theirs, english, each.image_of, dataset.image_of))
        from_english = recalls(ranks(english[asked], theirs, owners, each.image_of))
        found[each.language] = {"to": to_english["R@1"], "from": from_english["R@1"], "from10": from_english["R@10"]}
    return found


def routing(encoder: Encoder) -> dict[str, dict[str, float]]:
    """By language the shares of its background queries that are read as not English, and as this language."""
    found = {}
    for language in BACKGROUND_LANGUAGES:
        read = [text_language(encoder, text) for text in background_texts(language)]
        found[language] = {
            "other": float(np.mean([each != "en" for each in read])),
            "known": float(np.mean([each == language for each in read])),
        }
    return found


def english_texts() -> list[str]:
    """All English texts at hand: background queries, and those that measure relevance."""
    texts = list(background_texts())
    for name in ("coco100_absent", "coco100_present", "fsa100_absent", "fsa100_present"):
        lines = (files("benchmarks") / "data" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        texts += [json.loads(line)["query"] for line in lines]
    return texts


def meaning(encoder: Encoder) -> dict[str, float]:
    """By language the share of background queries nearest to the English one of the same meaning."""
    english = encoder.encode_texts(parallel_english())
    places = range(len(english))
    return {
        language: float(np.mean(ranks(encoder.encode_texts(background_texts(language)), english, places, places) == 1))
        for language in BACKGROUND_LANGUAGES
    }


def others(encoder: Encoder) -> dict[str, dict[str, float]]:
    """The same for languages that nothing is promised for, and the share of their queries that are not read at all."""
    data: dict[str, list[str]] = json.loads(
        (files("benchmarks") / "data" / "parallel_others.json").read_text(encoding="utf-8")
    )
    every = parallel_english()
    places = [every.index(text) for text in data.pop("en")]
    english = encoder.encode_texts(every)
    found = {}
    for language, texts in data.items():
        vectors = encoder.encode_texts(texts)
        found[language] = {
            "found": float(np.mean(ranks(vectors, english, places, range(len(every))) == 1)),
            "unread": float(np.mean(~vectors.any(axis=1))),
        }
    return found


def parallel_english() -> list[str]:
    """The English background queries of which the other languages have translations, in their order."""
    lines = (files("benchmarks") / "data" / "parallel_en.json").read_text(encoding="utf-8")
    texts: list[str] = json.loads(lines)
    return texts


def passages(encoder: Encoder) -> dict[str, float]:
    """Of Chinese questions over Chinese passages, Recall@1/5/10."""
    lines = (files("benchmarks") / "data" / "passages_zh.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    questions = encoder.encode_texts([row["question"] for row in rows])
    places = range(len(rows))
    return recalls(ranks(questions, encoder.encode_texts([row["passage"] for row in rows]), places, places))


def recall_table(found: dict[str, dict[str, Any]]) -> str:
    """Text to image by language, as a Markdown table."""
    rows = [[language, str(row["captions"]), _shown(row)] for language, row in found.items()]
    return "\n".join(markdown_table(("language", "captions", "text to image R@1/5/10"), rows)) + "\n"


def _shown(row: dict[str, Any]) -> str:
    return " / ".join(f"{row[f'R@{k}']:.0f}" for k in _RANKS)


def report(encoder: Encoder) -> str:
    """What is measured without photographs, as Markdown."""
    routed, meant = routing(encoder), meaning(encoder)
    header = (
        "language",
        "short queries read as not English, %",
        "as this language, %",
        "nearest to its translation, %",
    )
    rows = [
        [language, f"{100 * row['other']:.0f}", f"{100 * row['known']:.0f}", f"{100 * meant[language]:.0f}"]
        for language, row in routed.items()
    ]
    texts = english_texts()
    lost = [text for text in texts if text_language(encoder, text) != "en"]
    return "\n".join(
        [
            *markdown_table(header, rows),
            "",
            *markdown_table(
                ("not promised", "queries not read, %", "nearest to its translation, %"),
                [
                    [language, f"{100 * row['unread']:.0f}", f"{100 * row['found']:.0f}"]
                    for language, row in others(encoder).items()
                ],
            ),
            "",
            f"English texts read as another language: {len(lost)} of {len(texts)} {lost[:5] if lost else ''}".rstrip(),
            f"Chinese questions over Chinese passages, R@1/5/10: {_shown(passages(encoder))}\n",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the measurement; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.languages", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("dataset", type=Path, nargs="?", metavar="DATASET_DIR", help="folder with captions.jsonl")
    parser.add_argument("captions", type=Path, nargs="?", metavar="CAPTIONS", help="JSON lines: file, lang, text")
    parser.add_argument("--encoder", default=DEFAULT_ENCODER, help=f"{DEFAULT_ENCODER} unless given")
    options = parser.parse_args(arguments)
    if (options.dataset is None) != (options.captions is None):
        parser.error("a folder goes with a file of captions")
    try:
        encoder = load_encoder(options.encoder)
        sys.stdout.write(report(encoder))
        if options.dataset is not None:
            dataset = read_dataset(options.dataset)
            captions = read_captions(options.captions, dataset)
            sys.stdout.write(f"\n{recall_table(recall_by_language(encoder, dataset, captions))}\n")
            for language, row in across_languages(encoder, dataset, captions).items():
                shares = f"to English {row['to']:.0f}, from English {row['from']:.0f} (R@10 {row['from10']:.0f})"
                sys.stdout.write(f"{language}: captions of the same photograph, R@1: {shares}\n")
    except (DatasetError, EncoderError, ImageError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
