"""A turn in a thread of its own, read on an event loop, which it never blocks."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import AsyncIterator, Callable, Generator
from typing import Any

from retrieval.chat.events import Answer, ChatEvent, Final
from retrieval.chat.llm_client import CancelToken


class RunningTurn:
    """One turn in a thread of its own, read on the event loop on which it was made.

    events: what the thread goes through, and closes. ended: called in the thread when nothing of the turn runs any
    more. The thread has the context of the one that made it, so that spans and callbacks belong to the same request.
    """

    def __init__(
        self,
        events: Callable[[CancelToken], Generator[ChatEvent]],
        token: CancelToken,
        ended: Callable[[RunningTurn], None] | None = None,
    ) -> None:
        self._source, self._token, self._ended = events, token, ended
        self._loop = asyncio.get_running_loop()
        self._received: asyncio.Queue[Any] = asyncio.Queue()
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._work,), name="sightline-turn", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def cancel(self) -> None:
        """End the turn and its request to the model; from any thread, and as often as one likes."""
        self._token.cancel()

    def join(self, within_s: float) -> None:
        """Wait for the thread's end."""
        self._thread.join(within_s)

    async def next(self) -> ChatEvent | None:
        """The next event, None after the last. Raises what the turn raised."""
        item: ChatEvent | Exception | None = await self._received.get()
        if isinstance(item, Exception):
            raise item
        return item

    async def events(self, quiet_s: float) -> AsyncIterator[ChatEvent | None]:
        """The events to the last; None whenever nothing came for `quiet_s`. Raises what the turn raised."""
        while True:
            try:
                event = await asyncio.wait_for(self.next(), quiet_s)
            except TimeoutError:
                yield None
                continue
            if event is None:
                return
            yield event

    async def answer(self) -> Answer:
        """The checked answer, without what comes before it. Raises what the turn raised."""
        answer = None
        while (event := await self.next()) is not None:
            if isinstance(event, Final):
                answer = event.answer
        assert answer is not None, "a turn ends with its Final event or raises"
        return answer

    def _work(self) -> None:
        last: Exception | None = None
        try:
            with contextlib.closing(self._source(self._token)) as events:
                for event in events:
                    self._put(event)
        except Exception as error:
            last = error
        finally:
            # First, so that who has read the end finds room for another turn.
            if self._ended is not None:
                self._ended(self)
        self._put(last)

    def _put(self, item: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has gone, and its reader with it
            self._loop.call_soon_threadsafe(self._received.put_nowait, item)
