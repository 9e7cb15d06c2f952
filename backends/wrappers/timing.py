"""Timing: how long calls of a backend take, told to whoever measures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

from backends.base import Backend
from backends.wrappers.base import P, T, Wrapper


class TimedBackend(Wrapper):
    """A backend whose calls are measured as stages.

    Args:
        stages: the stage's name by the method's; a method that is not there is not measured.
        measure: gives the context for the call of a stage, by its name.
    """

    def __init__(
        self, inner: Backend, stages: Mapping[str, str], measure: Callable[[str], AbstractContextManager[None]]
    ) -> None:
        super().__init__(inner)
        self._stages, self._measure = stages, measure

    def _call(self, method: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        stage = self._stages.get(method.__name__)
        if stage is None:
            return method(*arguments, **options)
        with self._measure(stage):
            return method(*arguments, **options)
