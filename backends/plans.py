"""How a search was answered: by an index or by a scan, how wide it looked, how many it compared.

Nobody pays for it who does not ask::

    with explain() as plans:
        backend.search("photos", vectors, 10, where=where)
    print(plans[0].line)

It works through wrappers and through `retrieval.Retriever`, which may search more than once. An engine says what it did
with `note_plan`, once for each query; of one that says nothing, the protocol tells what its hits show.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields, replace
from functools import wraps
from typing import Any, Literal, TypeVar

from backends.filters import Where, format_where

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How the search for one query vector was answered.

    `kind`: ``scan`` where everything that matches was compared, so that hits are exact; ``index`` otherwise.
    `width`: the candidate list of the index (ef, num_candidates, lists to probe); None for a scan, and where the engine
    does not say. `candidates`: how many records were compared or came out of the index; None where not known.
    `share`: how much of the collection passes the filter, from 0 to 1, as the engine estimated or counted it.
    `note`: what else there is to say, in the engine's own terms. `k` and `where` are what was asked for.
    """

    kind: Literal["index", "scan"]
    width: int | None = None
    candidates: int | None = None
    share: float | None = None
    note: str = ""
    k: int = 0
    where: Where | None = None

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain JSON types."""
        plain = {item.name: getattr(self, item.name) for item in fields(self)}
        return {**plain, "where": None if self.where is None else format_where(self.where)}

    @property
    def line(self) -> str:
        """All of it in one line for people."""
        parts: list[str] = [self.kind]
        if self.width is not None:
            parts.append(f"width {self.width:,}")
        if self.candidates is not None:
            parts.append(f"{self.candidates:,} candidates")
        if self.share is not None:
            parts.append(f"{100 * self.share:.3g}% of the records match")
        if self.note:
            parts.append(self.note)
        asked = f" for {json.dumps(format_where(self.where), ensure_ascii=False)}" if self.where is not None else ""
        return f"{', '.join(parts)}; {self.k:,} wanted{asked}"


_plans: ContextVar[list[Plan] | None] = ContextVar("plans", default=None)
#: The backend whose search is being told of.
_told: ContextVar[Any] = ContextVar("told", default=None)


@contextmanager
def explain() -> Iterator[list[Plan]]:
    """A list that gets a `Plan` for each query vector which this thread searches with inside."""
    plans: list[Plan] = []
    token = _plans.set(plans)
    try:
        yield plans
    finally:
        _plans.reset(token)


def explaining() -> bool:
    """Whether somebody wants to know; for an engine that would have to look for what it tells."""
    return _plans.get() is not None


def note_plan(
    kind: Literal["index", "scan"],
    *,
    queries: int = 1,
    width: int | None = None,
    candidates: int | None = None,
    share: float | None = None,
    note: str = "",
) -> None:
    """What an engine says of the search in hand, in the order of its queries; `queries` of them at once."""
    plans = _plans.get()
    if plans is not None:
        plan = Plan(kind=kind, width=width, candidates=candidates, share=share, note=note)
        plans += [plan] * queries


def note_answers(
    answers: Sequence[Sequence[Any]], *, width: int | None, share: float | None = None, note: str = ""
) -> None:
    """The same of answers some of which an index gave, as wide as this, and some a scan, as their hits say."""
    if explaining():
        for hits in answers:
            if hits and all(hit.exact for hit in hits):
                note_plan("scan")
            else:
                note_plan("index", width=width, share=share, note=note)


def explained(search: F) -> F:
    """`Backend.search` whose plans are complete: one for each query, with what was asked for and how much matches."""

    @wraps(search)
    def guarded(self: Any, name: str, vectors: Any, k: int, *, where: Any = None, effort: Any = None) -> Any:
        plans = _plans.get()
        if plans is None or _told.get() is self:
            # Asked by nobody; or by the same engine's subclass, which sees to it.
            return search(self, name, vectors, k, where=where, effort=effort)
        before = len(plans)
        token = _told.set(self)
        try:
            answers = search(self, name, vectors, k, where=where, effort=effort)
        finally:
            _told.reset(token)
        # What was begun anew, since something had changed meanwhile, has been told twice.
        told = plans[before:][-len(answers) :] if answers else []
        plans[before:] = told or [_evident(hits) for hits in answers]
        for i in range(before, len(plans)):
            if not plans[i].k:
                plans[i] = _completed(replace(plans[i], k=int(k), where=where), self, name)
        return answers

    return guarded  # type: ignore[return-value]


def _completed(plan: Plan, backend: Any, name: str) -> Plan:
    """The plan with what the engine left out, counted: for one who asked, time matters less."""
    share, candidates = plan.share, plan.candidates
    if share is None:
        total = backend.count(name) if plan.where is not None else 0
        share = backend.count(name, plan.where) / total if total else 1.0
    if candidates is None and plan.kind == "scan":
        candidates = backend.count(name, plan.where)
    return replace(plan, share=share, candidates=candidates)


def _evident(hits: list[Any]) -> Plan:
    """What can be said of an engine that told nothing."""
    return Plan(kind="scan" if all(hit.exact for hit in hits) else "index")
