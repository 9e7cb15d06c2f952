"""What is still to be measured, and which of it fits into the time that is left."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from benchmarks.suite.plan import Planned, Slot, trimmed
from benchmarks.suite.progress import Pace
from benchmarks.suite.runs import Point

CHOOSE_EVERY_S = 3.0


class Scheduler:
    """The points that are not measured yet.

    What fits is chosen anew every few seconds, by what the points so far took: a point that had to be given up after
    a slow start comes back when there turns out to be time for it.
    """

    def __init__(self, todo: Iterable[Planned], until_s: float | None = None) -> None:
        """`until_s` is when all is to be done, by `time.monotonic`; None gives all the time that it takes."""
        self.todo: dict[Point, Planned] = {plan.point: plan for plan in todo}
        self._until_s = until_s
        self._pace = Pace()
        self._begun: set[Slot] = set()
        self._chosen: dict[Point, Planned] = dict(self.todo)
        self._chosen_s = 0.0

    @property
    def left_s(self) -> float:
        """About how long what was chosen will take."""
        return sum(self._cost_s(plan) for plan in self._chosen.values())

    @property
    def points_left(self) -> int:
        """How many points are chosen."""
        return len(self._chosen)

    def next(self, order: Sequence[Planned]) -> Planned | None:
        """The first of the points in `order` that is not measured yet and fits; None when there is none."""
        for fresh in (False, True):
            self._choose(fresh)
            for plan in order:
                if plan.point in self._chosen:
                    self.begin(plan)
                    return plan
        return None

    def fits(self, plan: Planned) -> bool:
        """Whether the point is not measured yet and fits."""
        self._choose(True)
        return plan.point in self._chosen

    def begin(self, plan: Planned) -> None:
        """From now on the point's slot stays, for all engines alike."""
        self._begun.add(plan.slot)

    def done(self, plan: Planned, took_s: float) -> None:
        """The point was measured."""
        self._pace.learn(plan.point.engine, plan.point.case, plan.place, plan.expected_s, took_s)
        self.drop(plan)

    def drop(self, plan: Planned) -> None:
        """The point is not to be measured any more."""
        self.todo.pop(plan.point, None)
        self._chosen.pop(plan.point, None)

    def _choose(self, fresh: bool) -> None:
        now_s = time.monotonic()
        if self._until_s is None or (not fresh and now_s - self._chosen_s < CHOOSE_EVERY_S):
            return
        self._chosen_s = now_s
        kept, _ = trimmed(list(self.todo.values()), self._until_s - now_s, self._cost_s, self._begun)
        self._chosen = {plan.point: plan for plan in kept}

    def _cost_s(self, plan: Planned) -> float:
        point = plan.point
        return min(plan.most_s, plan.expected_s * self._pace.of(point.engine, point.case, plan.place))
