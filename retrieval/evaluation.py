"""Recall@k and median rank of cross-modal retrieval, computed by ir-measures (trec_eval)."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Report: TypeAlias = dict[str, float | None]
CUTOFFS = (1, 5, 10)
# A run is a dict of dicts; a full COCO matrix (25,000 x 5,000) as one would take gigabytes.
_QUERIES_PER_CALL = 256


class EvaluationError(Exception):
    """An evaluation cannot be computed: one line that says why and what to do."""


def recall_report(similarity: ArrayLike, relevant: Sequence[int]) -> dict[str, Report]:
    """Report Recall@1/5/10 in percent and the median rank, text to image and image to text.

    similarity: (texts, images), higher is better, ties go to the lower index. relevant: for each text,
    the index of its image; an image may have several texts, and each image needs at least one. As in the
    image-text retrieval literature (Karpathy and Fei-Fei, CVPR 2015), a query counts as recalled at k
    when any of its relevant items is within the top k, and its rank is that of its best one, from 1.
    Raises `EvaluationError`.
    """
    scores = np.asarray(similarity, dtype=np.float32)
    targets = np.asarray(relevant, dtype=np.int64)
    _check_similarity(scores, targets)
    texts_of: list[set[str]] = [set() for _ in range(scores.shape[1])]
    for text, image in enumerate(targets.tolist()):
        texts_of[image].add(str(text))
    return {
        "text_to_image": _report(_rankings(scores), [{str(image)} for image in targets.tolist()]),
        "image_to_text": _report(_rankings(scores.T), texts_of),
    }


def ranking_report(rankings: Sequence[Sequence[str]], relevant: Sequence[Collection[str]]) -> Report:
    """Report Recall@1/5/10 in percent and the median rank of rankings that a search returned.

    rankings: for each query the ids found, best first, none twice. relevant: for each query the ids that
    answer it, at least one. A query none of whose answers was found has no rank; the median is None
    where that is so for half of the queries. Raises `EvaluationError`.
    """
    if len(rankings) != len(relevant):
        raise EvaluationError(f"there are {len(rankings)} rankings but {len(relevant)} sets of relevant ids")
    if not rankings:
        raise EvaluationError("nothing to evaluate: there are no queries")
    for query, (ranking, answers) in enumerate(zip(rankings, relevant, strict=True)):
        if not answers:
            raise EvaluationError(f"query {query} has no relevant ids")
        if len(set(ranking)) != len(ranking):
            raise EvaluationError(f"the ranking of query {query} names an id twice")
    return _report(iter(rankings), relevant)


def _check_similarity(scores: NDArray[np.float32], targets: NDArray[np.int64]) -> None:
    if scores.ndim != 2 or 0 in scores.shape:
        raise EvaluationError(f"similarity must be (texts, images) with at least one of each, not {scores.shape}")
    if targets.shape != (scores.shape[0],):
        raise EvaluationError(f"similarity has {scores.shape[0]} texts but relevant has shape {targets.shape}")
    if not np.isfinite(scores).all():
        raise EvaluationError("similarity holds NaN or infinity")
    if targets.min() < 0 or targets.max() >= scores.shape[1]:
        raise EvaluationError(f"relevant names an image outside 0..{scores.shape[1] - 1}")
    without = np.setdiff1d(np.arange(scores.shape[1]), targets)
    if without.size:
        raise EvaluationError(f"image {without[0]} has no text: leave it out, or give it one")


def _rankings(scores: NDArray[np.float32]) -> Iterator[list[str]]:
    for row in scores:
        yield [str(index) for index in np.argsort(-row, kind="stable").tolist()]


def _report(rankings: Iterator[Sequence[str]], relevant: Sequence[Collection[str]]) -> Report:
    values: dict[str, list[float]] = {}
    for start in range(0, len(relevant), _QUERIES_PER_CALL):
        answers = relevant[start : start + _QUERIES_PER_CALL]
        qrels = {str(i): dict.fromkeys(ids, 1) for i, ids in enumerate(answers)}
        # trec_eval ranks by score and breaks ties its own way: strictly falling scores keep our order.
        run = {str(i): _falling(next(rankings)) for i in range(len(answers))}
        for measure, value in _measured(qrels, run):
            values.setdefault(measure, []).append(value)
    report: Report = {f"R@{k}": round(100 * statistics.fmean(values[f"Success@{k}"]), 2) for k in CUTOFFS}
    median = statistics.median(1 / value if value > 0 else math.inf for value in values["RR"])
    return report | {"median_rank": round(median, 1) if math.isfinite(median) else None}


def _falling(ranking: Sequence[str]) -> dict[str, float]:
    return {item: float(-position) for position, item in enumerate(ranking)}


def _measured(qrels: Mapping[str, Any], run: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    try:
        import ir_measures
    except ModuleNotFoundError as error:
        raise EvaluationError("evaluation needs ir-measures: pip install 'sightline[eval]'") from error
    measures = [ir_measures.Success @ k for k in CUTOFFS] + [ir_measures.RR]
    for metric in ir_measures.iter_calc(measures, qrels, run):
        yield str(metric.measure), metric.value
