"""How well relevance says no in other languages: ``python -m benchmarks.relevance_languages DATASET_DIR CAPTIONS``.

DATASET_DIR holds captions.jsonl as for ``benchmarks.encoders``, CAPTIONS captions in other languages as for
``benchmarks.languages``. For each language of which this package has absent queries for a folder of that name
(data/NAME_absent_LANGUAGE.jsonl), they are asked of the photographs alone and of the collection with its own captions,
which are in English; and so are the captions in that language, and short queries that have an answer. A false empty is
one of those that finds nothing at the gate. Prints Markdown.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from backends import connect
from backends.base import CollectionSpec, Record
from benchmarks.captioned import COLLECTION, CachingEncoder, Collections
from benchmarks.encoders import DatasetError, read_dataset
from benchmarks.languages import Captions, read_captions
from benchmarks.relevance import best_by_modality, curve, read_queries, table
from retrieval import Retriever
from retrieval.encoders import DEFAULT_ENCODER, EncoderError, load_encoder
from retrieval.encoders.base import Encoder
from retrieval.images.decode import ImageError


def has_queries(dataset: str, language: str) -> bool:
    """Whether this package has absent queries in a language for a dataset."""
    return (files("benchmarks") / "data" / f"{dataset}_absent_{language}.jsonl").is_file()


def measure(folder: Path, captions: Sequence[Captions], encoder: Encoder) -> dict[str, dict[str, Any]]:
    """The curves by language and collection: ``photographs``, and ``captioned``. Raises `DatasetError`."""
    dataset = read_dataset(folder)
    collections = Collections.of(folder, dataset, CachingEncoder(encoder))
    retrievers = {
        "photographs": collections.photographs(),
        "captioned": _retriever(collections.encoder, [*collections.images, *collections.texts.values()]),
    }
    found: dict[str, dict[str, Any]] = {}
    for each in captions:
        if has_queries(dataset.name, each.language):
            short, absent = (
                [labelled.query for labelled in read_queries(f"{dataset.name}", f"{which}_{each.language}")]
                for which in ("present", "absent")
            )
            found[each.language] = {
                name: _curve(retriever, each.texts, absent, short) for name, retriever in retrievers.items()
            }
    return found


def _retriever(encoder: Encoder, records: Sequence[Record]) -> Retriever:
    backend = connect("exact://")
    backend.create(CollectionSpec(COLLECTION, encoder.dim, encoder=encoder.fingerprint))
    backend.upsert(COLLECTION, [replace(record) for record in records])
    return Retriever(backend, encoder, COLLECTION)


def _curve(retriever: Retriever, present: Sequence[str], absent: Sequence[str], short: Sequence[str]) -> dict[str, Any]:
    asked, missing, brief = (best_by_modality(retriever, queries)["all"] for queries in (present, absent, short))
    return curve(np.asarray(asked), np.asarray(missing), np.asarray(brief))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the measurement; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.relevance_languages", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("dataset", type=Path, metavar="DATASET_DIR", help="folder with captions.jsonl")
    parser.add_argument("captions", type=Path, metavar="CAPTIONS", help="JSON lines: file, lang, text")
    parser.add_argument("--encoder", default=DEFAULT_ENCODER, help=f"{DEFAULT_ENCODER} unless given")
    options = parser.parse_args(arguments)
    try:
        captions = read_captions(options.captions, read_dataset(options.dataset))
        found = measure(options.dataset, captions, load_encoder(options.encoder))
    except (DatasetError, EncoderError, ImageError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    for language, curves in found.items():
        for name, each in curves.items():
            sys.stdout.write("\n".join(table(f"{language}, {name}", each, "false empties, captions")) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
