"""Ranking engines for a stated need, such as ``recall >= 0.95, 10% filter, p99``, and saying so in words."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.suite.summaries import Row

DEFAULT_NEED = "recall >= 0.95, p99"
GOALS = ("p50", "p90", "p95", "p99", "p99.9", "throughput")


class NeedError(ValueError):
    """A need cannot be understood: one line that says what it may say."""


@dataclass(frozen=True)
class Need:
    """At least this recall, under a filter of this selectivity (None: no filter), and best by `goal`."""

    recall: float
    selectivity: float | None
    goal: str

    def __str__(self) -> str:
        under = "" if self.selectivity is None else f", {100 * self.selectivity:g}% filter"
        return f"recall >= {self.recall:g}{under}, {self.goal}"


@dataclass(frozen=True)
class Ranked:
    """An engine's best point for a need; `meets` says whether it reaches the recall."""

    engine: str
    row: Row
    value: float
    meets: bool


def parse_need(text: str) -> Need:
    """``recall >= 0.95, 10% filter, p99``: parts in any order, each at most once. Raises NeedError."""
    found: dict[str, float | str] = {}
    value: float | str
    for part in (piece.strip().lower() for piece in text.split(",")):
        if match := re.fullmatch(r"recall\s*(?:>=|≥)\s*(0?\.\d+|1(?:\.0*)?|0)", part):
            key, value = "recall", float(match[1])
        elif match := re.fullmatch(r"(\d+(?:\.\d+)?)\s*%\s*filter", part):
            key, value = "selectivity", float(match[1]) / 100
        elif part in GOALS:
            key, value = "goal", part
        else:
            raise NeedError(
                f"{part!r} is no part of a need: say recall >= 0.95, 10% filter, and one of {', '.join(GOALS)}"
            )
        if key in found:
            raise NeedError(f"the need names {'the ' + key} twice: {text!r}")
        found[key] = value
    selectivity = found.get("selectivity")
    return Need(
        float(found.get("recall", 0.95)),
        None if selectivity is None else float(selectivity),
        str(found.get("goal", "p99")),
    )


def rank(rows: Sequence[Row], need: Need, dataset: str) -> list[Ranked]:
    """Each engine's best point on a data set, the engines that meet the recall first.

    Of one engine the best by the goal among its points that reach the recall counts; where none does, the one of
    the highest recall. Of filters of one selectivity the worst of its columns counts.
    """
    fitting = [
        row
        for row in rows
        if row.dataset == dataset and row.case == ("frontier" if need.selectivity is None else "filtered")
    ]
    if need.selectivity is not None:
        fitting = [row for row in fitting if math.isclose(float(row.params["selectivity"] or 0), need.selectivity)]
        fitting = _worst_column(fitting, need)
    ranked = []
    for engine in dict.fromkeys(row.engine for row in fitting):
        own = [row for row in fitting if row.engine == engine]
        # A failed query is no answer, so an engine with failures does not meet a need, however fast it failed.
        good = [row for row in own if row.summary.recall.value >= need.recall and not row.summary.errors]
        if good:
            best = min(good, key=lambda row: _cost(row, need.goal))
        else:
            best = max(own, key=lambda row: row.summary.recall.value)
        ranked.append(Ranked(engine, best, value_of(best, need.goal), bool(good)))
    return sorted(
        ranked, key=lambda r: (not r.meets, _cost(r.row, need.goal) if r.meets else -r.row.summary.recall.value)
    )


def value_of(row: Row, goal: str) -> float:
    """The goal's figure: milliseconds, or queries a second."""
    return row.summary.per_second.value if goal == "throughput" else row.summary.percentiles_ms[goal]


def _cost(row: Row, goal: str) -> float:
    return -value_of(row, goal) if goal == "throughput" else value_of(row, goal)


def _worst_column(rows: Sequence[Row], need: Need) -> list[Row]:
    worst: dict[str, Row] = {}
    for row in rows:
        other = worst.get(row.engine)
        if other is None or (row.summary.recall.value >= need.recall, -_cost(row, need.goal)) < (
            other.summary.recall.value >= need.recall,
            -_cost(other, need.goal),
        ):
            worst[row.engine] = row
    return list(worst.values())


def recommendation(ranked: Sequence[Ranked], need: Need, dataset: str) -> str:
    """What the ranking says, in plain words with the numbers behind it."""
    if not ranked:
        return f"For “{need}” nothing was measured on {dataset}."
    meeting = [entry for entry in ranked if entry.meets]
    if not meeting:
        best = ranked[0]
        return (
            f"For “{need}” on {dataset} no engine is enough: the nearest is {best.engine} with recall "
            f"{best.row.summary.recall.value:.3f} at {_figure(best, need)} ({setting(best.row)})."
        )
    first = meeting[0]
    recall = first.row.summary.recall
    text = (
        f"For “{need}” on {dataset} take {first.engine} ({setting(first.row)}): {_figure(first, need)} at recall "
        f"{recall.value:.3f} (95% interval {recall.low:.3f} to {recall.high:.3f})"
    )
    if len(meeting) > 1:
        second = meeting[1]
        ratio = second.value / first.value if need.goal != "throughput" else first.value / second.value
        close = " — too close to call" if _overlap(first, second, need) else ""
        text += f"; {second.engine} is next with {_figure(second, need)}, {ratio:.1f} times as much{close}"
        if need.goal == "throughput":
            text = text.replace("times as much", "times less")
    text += "."
    failing = [entry for entry in ranked if not entry.meets]
    if failing:
        told = ", ".join(
            f"{entry.engine} ({entry.row.summary.errors} failed queries)"
            if entry.row.summary.errors
            else f"{entry.engine} ({entry.row.summary.recall.value:.3f})"
            for entry in failing
        )
        text += f" Below the recall: {told}."
    return text


def setting(row: Row) -> str:
    """How a point was set, e.g. ``build m16, effort 0.3``."""
    effort = row.params.get("effort")
    told = f"build {row.params.get('build')}"
    if row.case == "filtered":
        return f"{told}, default effort, column {row.params['column']}"
    return f"{told}, " + ("default effort" if effort is None else f"effort {effort:g}")


def _figure(entry: Ranked, need: Need) -> str:
    if need.goal == "throughput":
        return f"{entry.value:,.0f} queries/s"
    return f"{need.goal} {entry.value:.2f} ms"


def _overlap(first: Ranked, second: Ranked, need: Need) -> bool:
    def interval(entry: Ranked) -> tuple[float, float] | None:
        if need.goal == "throughput":
            return entry.row.summary.per_second.low, entry.row.summary.per_second.high
        found = entry.row.summary.latency_ms.get(need.goal)
        return None if found is None else (found.low, found.high)

    one, other = interval(first), interval(second)
    return one is not None and other is not None and one[0] <= other[1] and other[0] <= one[1]
