"""A report's recall beside what a public library of retrieval measures makes of the same raw ids."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np

from benchmarks.suite.runs import Block, Point, Run, RunError, Value
from benchmarks.suite.selectivity import Filter
from benchmarks.suite.summaries import CUTOFFS, part, results
from benchmarks.suite.truth import TIE, Truth

# Of the others the neighbours change meanwhile, or are not of vectors alone.
CHECKED = ("frontier", "filtered", "concurrency", "open_loop", "baseline", "plain_loop", "quality", "end_to_end")
TOLERANCE = 1e-9

Key = tuple[str, str, str, tuple[tuple[str, Value], ...]]


@dataclass(frozen=True)
class Checked:
    """One figure of a report, and the same figure computed by ir-measures."""

    case: str
    dataset: str
    engine: str
    figure: str
    queries: int
    told: float
    theirs: float

    @property
    def agrees(self) -> bool:
        """Whether both are the same but for rounding."""
        return abs(self.told - self.theirs) <= TOLERANCE


def check(run: Run) -> list[Checked]:
    """Every recall that is measured against neighbours kept in the run, and every R@k and MRR of captions.

    A row at least as near as the k-th best counts as relevant, so that ties are fair here, too. Raises RunError where
    ir-measures is not installed.
    """
    try:
        import ir_measures
    except ModuleNotFoundError:
        raise RunError("checking needs ir-measures: pip install 'sightline[eval]'") from None
    told = {_key(row.case, row.dataset, row.engine, row.params): row for row in results(run).rows}
    theirs: dict[tuple[Key, str], list[float]] = defaultdict(list)
    queries: dict[Key, int] = defaultdict(int)
    truths: dict[tuple[str, str], Truth] = {}
    for point, block in _blocks(run):
        key = _key(point.case, point.dataset, point.engine, point.params)
        name = _filter_name(point)
        if (point.dataset, name) not in truths:
            truths[point.dataset, name] = run.truth(point.dataset, name)
        queries[key] += len(block.arrays["rows"])
        theirs[key, "recall"].append(_recall(ir_measures, block, truths[point.dataset, name]))
        if point.case == "quality":
            for figure, value in _quality(ir_measures, block).items():
                theirs[key, figure].append(value)
    return [
        Checked(
            key[0],
            key[1],
            key[2],
            figure,
            queries[key],
            told[key].summary.recall.value if figure == "recall" else told[key].extra[figure],
            # As in the report, the median over repetitions.
            float(np.median(values)),
        )
        for (key, figure), values in theirs.items()
    ]


def _key(case: str, dataset: str, engine: str, params: Any) -> Key:
    return case, dataset, engine, tuple(sorted(params.items()))


def _filter_name(point: Point) -> str:
    if point.case != "filtered":
        return "all"
    return Filter(str(point.params["column"]), float(point.params["selectivity"] or 0)).name


def _blocks(run: Run) -> Iterator[tuple[Point, Block]]:
    for point, block in run.blocks():
        if point.case == "baseline":
            for side, name in enumerate(block.facts["sides"]):
                own = Point(point.case, point.dataset, point.engine, {**point.params, "side": name}, point.repetition)
                yield own, part(block, block.arrays["side"] == side)
        elif point.case in CHECKED:
            yield point, block


def _ranking(rows: Sequence[Sequence[int]]) -> dict[str, dict[str, float]]:
    """Every list as its own query; an id that stands twice counts where it stands first."""
    return {
        str(number): {str(row): -float(place) for place, row in reversed(list(enumerate(own))) if row != -1}
        for number, own in enumerate(rows)
    }


def _recall(measures: Any, block: Block, truth: Truth) -> float:
    rows, k = block.arrays["rows"].tolist(), block.facts["k"]
    expected = min(k, truth.matching)
    if not expected:
        return 1.0
    kth = truth.kth(k)
    relevant = {}
    for number, query in enumerate(block.arrays["query"].tolist()):
        near = truth.scores[query] >= kth[query] - TIE * max(1.0, abs(float(kth[query])))
        relevant[str(number)] = {str(row): 1 for row in truth.rows[query][near].tolist() if row >= 0}
    found = {
        metric.query_id: k * metric.value for metric in measures.iter_calc([measures.P @ k], relevant, _ranking(rows))
    }
    # Where more than k tie, k of them are the whole answer. A list that is empty is not among theirs.
    return float(np.mean([min(found.get(number, 0.0), expected) / expected for number in relevant]))


def _quality(measures: Any, block: Block) -> dict[str, float]:
    relevant = {str(number): {str(row): 1} for number, row in enumerate(block.arrays["answer"].tolist())}
    wanted = {f"R@{cutoff}": measures.Success @ cutoff for cutoff in CUTOFFS} | {"MRR": measures.RR @ block.facts["k"]}
    ranking = _ranking(block.arrays["rows"].tolist())
    sums: dict[Any, float] = defaultdict(float)
    for metric in measures.iter_calc(list(wanted.values()), relevant, ranking):
        sums[metric.measure] += metric.value
    return {name: sums[measure] / len(relevant) for name, measure in wanted.items()}


def told(checked: Sequence[Checked]) -> list[str]:
    """What a check came to, in lines: how much was compared, the largest difference, and whatever does not agree."""
    lines = []
    for what, own in (
        ("recall", [one for one in checked if one.figure == "recall"]),
        ("R@1, R@5, R@10 and MRR", [one for one in checked if one.figure != "recall"]),
    ):
        if own:
            queries = sum(one.queries for one in own if one.figure in ("recall", "MRR"))
            largest = max(abs(one.told - one.theirs) for one in own)
            lines.append(
                f"{what}: {len(own):,} figures over {queries:,} queries recomputed from the stored ids by ir-measures "
                f"{version('ir-measures')}; the largest difference is {largest:.2g}"
            )
    lines += [
        f"differs: {one.engine} on {one.dataset}, {one.case}, {one.figure}: {one.told:.6f} here, {one.theirs:.6f} there"
        for one in checked
        if not one.agrees
    ]
    return lines or ["nothing to check: no case whose neighbours were kept"]
