"""The pictures of a report."""

from __future__ import annotations

from benchmarks.suite.figures import COLOURS, _looks


def test_no_two_engines_look_the_same_however_many_there_are() -> None:
    looks = _looks([f"engine{number}" for number in range(3 * len(COLOURS))])
    assert len({tuple(sorted(look.items())) for look in looks.values()}) == len(looks)
    assert len({(look["color"], look["marker"]) for look in looks.values()}) == len(looks)
