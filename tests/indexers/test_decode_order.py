"""Pictures are decoded in the order in which they are taken: one that is out of turn never holds up the next."""

from __future__ import annotations

import threading
from collections.abc import Callable

from indexers.planner import Room


def _never() -> bool:
    raise AssertionError("waited, where there was room")


def _once_asked(asked: threading.Event) -> Callable[[], bool]:
    """Whether a run is stopped, asked by who waits: it never is."""

    def stopped() -> bool:
        asked.set()
        return False

    return stopped


def test_as_many_pictures_as_there_is_room_for_are_decoded_ahead() -> None:
    room, asked = Room(2), threading.Event()
    room.enter(0, _never)
    room.enter(1, _never)
    room.enter(2, lambda: asked.set() is None)  # stopped: it had to wait
    assert asked.is_set()
    room.leave()
    room.enter(2, _never)


def test_the_next_picture_has_room_whoever_came_before_it() -> None:
    room = Room(2)
    asked = [threading.Event() for _ in range(2)]
    later = [
        threading.Thread(target=room.enter, args=(number, _once_asked(event)), daemon=True)
        for number, event in zip((3, 2), asked, strict=True)
    ]
    for thread, event in zip(later, asked, strict=True):
        thread.start()
        assert event.wait(30)
    # Both wait for room already, and more than it holds: the first two are let in all the same.
    room.enter(1, _never)
    room.enter(0, _never)
    room.leave()
    later[1].join(30)
    assert not later[1].is_alive()
    assert later[0].is_alive()
    room.leave()
    later[0].join(30)
    assert not later[0].is_alive()
