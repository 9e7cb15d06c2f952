"""What each layer of relevance earns: ``python -m benchmarks.relevance_ablation DATASET_DIR...``.

DATASET_DIR holds captions.jsonl as for ``benchmarks.relevance``, whose collections and queries are measured again with
one layer of relevance left out at a time: photographs alone, photographs alone judged by a sample of half of them, and
captioned ones searched for images (the first of five folds). A layer earns something where what is told apart gets
worse without it (absent queries empty at 5% false empties), or where the gate no longer keeps its promise: of absent
queries, about as many must be empty as the gate says. Prints Markdown.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from backends.base import Hit
from benchmarks.captioned import CachingEncoder, Collections
from benchmarks.encoders import DatasetError, read_dataset
from benchmarks.relevance import at_false_empties, best_by_modality, read_queries
from retrieval import Retriever
from retrieval.encoders import DEFAULT_ENCODER, EncoderError, load_encoder
from retrieval.encoders.base import Encoder
from retrieval.images.decode import ImageError
from retrieval.relevance import nulls, sample, scorer
from retrieval.relevance.scorer import RELEVANT, RelevanceScorer

Values = NDArray[np.float64]

LAYERS = ("nothing", "hubness", "typical scores", "extremes", "size", "two modalities", "captions")


@contextlib.contextmanager
def without(layer: str) -> Iterator[None]:
    """Relevance without one of the `LAYERS`, within the block and in this process."""

    def no_hubness(table: Values) -> tuple[Values, Values]:
        return table.max(axis=1), np.zeros(table.shape[1])

    def own(_self: RelevanceScorer, _hit: Hit, relevance: float | None) -> float | None:
        return relevance

    with contextlib.ExitStack() as patched:
        if layer == "hubness":
            patched.enter_context(patch.object(nulls, "_best_above_hubness", no_hubness))
        elif layer == "typical scores":
            patched.enter_context(patch.object(nulls, "_slope", lambda _typical, _best: 0.0))
        elif layer == "extremes":
            # Fitted to all background queries, those that do have an answer among them.
            patched.enter_context(patch.object(nulls, "_FITTED", np.linspace(0.05, 0.95, 19)))
        elif layer == "size":
            patched.enter_context(patch.object(nulls, "_tail", lambda _table: 0.0))
        elif layer == "two modalities":
            patched.enter_context(patch.object(scorer, "extremal_coefficient", lambda *_nulls: 1.0))
        elif layer == "captions":
            patched.enter_context(patch.object(RelevanceScorer, "_with_captions", own))
        yield


def measure(collections: Collections, name: str) -> list[tuple[float, float]]:
    """For each collection the shares of absent queries empty at 5% false empties, and at the default gate."""
    absent = [each.query for each in read_queries(name, "absent")]
    found = []
    for size in (sample.SAMPLE_SIZE, len(collections.images) // 2):
        retriever = collections.photographs()
        assert retriever.calibrator is not None
        retriever.calibrator._cache.size = size
        found.append(tuple(best(retriever, queries) for queries in (collections.dataset.captions, absent)))
    fold = next(collections.folds())
    found.append(tuple(best_by_modality(fold.retriever, queries)["image"] for queries in (fold.queries, absent)))
    return [
        (at_false_empties(present, lacking, 0.05), float(np.mean(lacking < RELEVANT))) for present, lacking in found
    ]


def best(retriever: Retriever, queries: Sequence[str]) -> Values:
    """The relevance of each query's best image, in a collection of images alone."""
    found = (retriever.search(query, 1, modality="image", mode="vector")[0] for query in queries)
    return np.array([hit.relevance or 0.0 for hit in found])


def table(folder: Path, encoder: Encoder) -> Iterator[str]:
    """The lines of one dataset, as they are measured."""
    dataset = read_dataset(folder)
    collections = Collections.of(folder, dataset, CachingEncoder(encoder))
    yield f"\n{dataset.name}, `{encoder.name}`: absent queries empty at 5% false empties / at the gate {RELEVANT:g}\n"
    yield "| left out | photographs alone | judged by half of them | with captions |\n|---|---|---|---|"
    for layer in LAYERS:
        with without(layer):
            cells = [f"{100 * told:.1f}% / {100 * gated:.1f}%" for told, gated in measure(collections, dataset.name)]
        yield f"| {layer} | {' | '.join(cells)} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the measurement; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.relevance_ablation", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("datasets", type=Path, nargs="+", metavar="DATASET_DIR", help="folders with captions.jsonl")
    parser.add_argument("--encoder", default=DEFAULT_ENCODER, help=f"{DEFAULT_ENCODER} unless given")
    options = parser.parse_args(arguments)
    try:
        encoder = load_encoder(options.encoder)
        for folder in options.datasets:
            for line in table(folder, encoder):
                sys.stdout.write(line + "\n")
                sys.stdout.flush()
    except (DatasetError, EncoderError, ImageError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
