"""A circuit breaker: what needs a database that is away is refused at once instead of waiting for it, one by one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from backends.base import Backend, BackendError, Unavailable, Unsupported
from backends.wrappers.base import P, T, Wrapper

RETRY_S = 2.0


class Breaker(Wrapper):
    """A server's backend that is asked once in two seconds while it does not answer; all else is refused at once.

    A driver waits seconds for a connection, and every waiting request keeps a thread. So after a call
    that raised `Unavailable` the others raise it without a try, until one that is let through has worked. What is
    refused without asking the database, such as a bad filter, says nothing of it and changes nothing.
    (M. Nygard, Release It!, 2007.)
    """

    def __init__(self, inner: Backend) -> None:
        super().__init__(inner)
        self._lock = threading.Lock()
        self._away = False
        self._next_try_s = 0.0

    def _call(self, method: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        trying = self._enter()
        try:
            result = method(*arguments, **options)
        except Unavailable:
            with self._lock:
                self._away, self._next_try_s = True, time.monotonic() + RETRY_S
            raise
        except BackendError as error:
            if isinstance(error, Unsupported | ValueError):
                self._tell_nothing(trying)
            else:
                # It answered, whatever it said.
                self._away = False
            raise
        except BaseException:
            self._tell_nothing(trying)
            raise
        self._away = False
        return result

    def _tell_nothing(self, trying: bool) -> None:
        """After a call that was refused before the database saw it: the next one may be the try instead."""
        if trying:
            with self._lock:
                self._next_try_s = 0.0

    def _enter(self) -> bool:
        """Whether this call is the try; raises `Unavailable` for one that is not while the database is away."""
        with self._lock:
            if not self._away:
                return False
            now_s = time.monotonic()
            if now_s < self._next_try_s:
                raise Unavailable("the database did not answer a moment ago")
            # This call is the try; others wait for what comes of it, or for its time to be up.
            self._next_try_s = now_s + RETRY_S
            return True
