"""Decoding pictures in processes that can be ended: a few, started when they are needed, and kept.

A thread inside a decoder written in C cannot be stopped, and neither can one in a parser that holds Python's lock.
So what strangers send, and what stands in a folder that is indexed, is decoded by processes of their own: one that
takes too long, takes too much memory or crashes costs its own picture and nothing else.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from retrieval.images.budget import PROCESS_BUDGET, Budget, DecodingBusy
from retrieval.images.decode import ImageError, available_cores, planned
from retrieval.images.parts import PartOfFile
from retrieval.images.plan import Wanted
from retrieval.images.worker import receive_head, send

__all__ = ["DecodePool", "DecodingBusy", "shared_pool"]

#: Seconds of a processor that one picture may take, and how many times as long on the clock.
CPU_S = 60.0
_CLOCK = 3.0
#: How long an idle process is waited for when the pool ends, in seconds.
_END_S = 2.0
# The package itself would import encoders and engines: its place is enough.
_PROGRAM = """
import json, sys, types
path, place = json.loads(sys.argv[1])
sys.path[:] = path
package = types.ModuleType("retrieval")
package.__path__ = [place]
sys.modules["retrieval"] = package
from retrieval.images.worker import main
main()
"""
#: Freed memory up to this size is kept for the next picture: its pages, had from the system anew, would take longer
#: than decoding a picture of 640 x 480. After large pictures `worker` gives it back.
KEPT_BYTES = 16 * 1024 * 1024
_ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(KEPT_BYTES),
    "MALLOC_TRIM_THRESHOLD_": str(KEPT_BYTES),
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one picture may take.

    max_pixels: as in `load_image`. cpu_s: seconds of a processor. largest_bytes: memory while it is decoded; None lets
    in whatever `max_pixels` does, alone if it is more than the budget. wait_s: how long others are waited for; None for
    as long as it takes.
    """

    max_pixels: int | None = None
    cpu_s: float = CPU_S
    largest_bytes: int | None = None
    wait_s: float | None = None


WHOLE = Wanted()
USUAL = Bounds()


class DecodePool:
    """Up to `places` processes that decode, within a budget of memory. Thread-safe.

    Pictures are decoded in the order in which they come, as `Budget` has it.
    """

    def __init__(self, places: int | None = None, budget: Budget = PROCESS_BUDGET) -> None:
        self._places = max(4, min(8, available_cores())) if places is None else places
        self._turns = Budget(1, self._places)
        self._budget = budget
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._busy: set[_Worker] = set()
        self._closed = False
        _POOLS.add(self)

    def load(self, data: bytes, wanted: Wanted = WHOLE, bounds: Bounds = USUAL, *, part: str = "") -> Image.Image:
        """The picture of an image file's bytes, or of a `part` of the file, as `load_image` gives it.

        Raises `ImageError`, also for a picture that takes too long or too much memory, and `DecodingBusy`.
        """
        with planned(PartOfFile(data, part) if part else data, wanted, max_pixels=bounds.max_pixels) as plan:
            need = plan.peak_bytes
            request = {
                "bytes": len(data),
                "part": part,
                "wanted": asdict(wanted),
                "max_pixels": bounds.max_pixels,
                "peak_bytes": need,
                "header": plan.header,
                "cpu_s": bounds.cpu_s,
            }
        if bounds.largest_bytes is not None and need > bounds.largest_bytes:
            raise ImageError(
                f"image of {len(data)} bytes: needs {_mib(need)} MiB of memory to be decoded, more than the "
                f"{_mib(bounds.largest_bytes)} MiB allowed: make it smaller, or save it as JPEG"
            )
        until = None if bounds.wait_s is None else time.monotonic() + bounds.wait_s
        with self._turns.lease(0, bounds.wait_s):
            left = None if until is None else max(0.0, until - time.monotonic())
            with self._budget.lease(need + len(data), left):
                return self._decoded(data, request, bounds)

    def close(self) -> None:
        """End all processes; pictures in work are refused, and so are later ones."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            busy = list(self._busy)
        for worker in busy:
            worker.stop()  # who waits for it clears it away
        for worker in idle:
            worker.end()

    def forget(self) -> None:
        """Begin anew in a process that was forked."""
        self._turns, self._lock = Budget(1, self._places), threading.Lock()
        self._budget = Budget(self._budget.total)
        self._idle, self._busy = [], set()

    def _decoded(self, data: bytes, request: dict[str, Any], bounds: Bounds) -> Image.Image:
        name = f"image of {len(data)} bytes"
        worker = self._worker(name)
        answer = None
        try:
            answer = worker.ask(data, request)
        except OSError:
            answer = None  # it ended while it was told
        finally:
            with self._lock:
                self._busy.discard(worker)
                kept = answer is not None and not self._closed
                if kept:
                    self._idle.append(worker)
            if not kept:
                worker.kill()
        if answer is None:
            raise ImageError(f"{name}: {self._ending(worker, bounds)}")
        if isinstance(answer, str):
            raise ImageError(answer)
        return answer

    def _ending(self, worker: _Worker, bounds: Bounds) -> str:
        if self._closed:
            return "not decoded: what decodes it is ending"
        if worker.is_late or worker.ended_by == "SIGXCPU":
            return f"takes over {bounds.cpu_s:g} s to decode"
        return f"cannot be decoded: its decoder failed ({worker.ended_by})"

    def _worker(self, name: str) -> _Worker:
        while True:
            with self._lock:
                if self._closed:
                    raise ImageError(f"{name}: not decoded: what decodes it is ending")
                worker = self._idle.pop() if self._idle else None
                if worker is not None and worker.is_alive:
                    self._busy.add(worker)
                    return worker
            if worker is None:
                break
            worker.kill()  # it was ended from outside
        try:
            worker = _Worker()
        except OSError as error:
            raise ImageError(f"{name}: no process to decode it in can be started: {error.strerror}") from None
        with self._lock:
            self._busy.add(worker)
        return worker


class _Worker:
    """One process, used by one thread at a time."""

    def __init__(self) -> None:
        path = json.dumps([_search_path(), str(Path(__file__).resolve().parents[1])])
        # In a group of its own, so that Ctrl-C in a terminal reaches only who started it, who then says what ends.
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **_ENVIRONMENT},
            start_new_session=os.name == "posix",
            creationflags=_new_group(),
        )
        self.is_late = False
        self.ended_by = "it ended"

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, data: bytes, request: dict[str, Any]) -> Image.Image | str | None:
        """The picture, why there is none, or None if the process ended. Raises OSError."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with _WATCH.over(self, _CLOCK * request["cpu_s"]):
            send(self._process.stdin, request, data)
            answer = receive_head(self._process.stdout)
            if answer is None or "error" in answer:
                return None if answer is None else str(answer["error"])
            width, height = answer["size"]
            pixels = self._process.stdout.read(3 * width * height)
        return Image.frombytes("RGB", (width, height), pixels) if len(pixels) == 3 * width * height else None

    def late(self) -> None:
        """End it, as its time is over. From any thread."""
        self.is_late = True
        self.stop()

    def stop(self) -> None:
        """End it now. From any thread; who uses it sees that."""
        self._process.kill()

    def kill(self) -> None:
        """End it now, and leave nothing of it."""
        self.stop()
        self._gone()

    def end(self) -> None:
        """Let it end, as it has nothing to do."""
        with contextlib.suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._gone()

    def _gone(self) -> None:
        code = self._process.wait()
        self.ended_by = _signal_name(-code) if code < 0 else f"it ended with {code}"
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError, ValueError):
                if stream is not None:
                    stream.close()


class _Watch:
    """Ends workers that are over their time; one thread for all of them, while there are any."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._until: dict[_Worker, float] = {}
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def over(self, worker: _Worker, seconds: float) -> Iterator[None]:
        """End `worker` unless the block is left within so many seconds."""
        with self._changed:
            self._until[worker] = time.monotonic() + seconds
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="decode-watch", daemon=True)
                self._thread.start()
            self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._until.pop(worker, None)

    def _run(self) -> None:
        while True:
            with self._changed:
                now = time.monotonic()
                late = [worker for worker, until in self._until.items() if until <= now]
                for worker in late:
                    del self._until[worker]
                    worker.late()
                # Woken by what is new only: what was left before it was late costs one look at most.
                soonest = min(self._until.values(), default=None)
                self._changed.wait(None if soonest is None else max(0.0, soonest - now))


class _Shared:
    """The pool that all of this process use together, for as long as anybody does."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._pool: DecodePool | None = None

    @contextlib.contextmanager
    def use(self) -> Iterator[DecodePool]:
        """The pool, which ends when its last user leaves."""
        with self._lock:
            self._users += 1
            if self._pool is None:
                self._pool = DecodePool()
            pool = self._pool
        try:
            yield pool
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    self._pool = None
                    pool.close()


def shared_pool() -> contextlib.AbstractContextManager[DecodePool]:
    """The pool of this process, so that all that is decoded in it shares one budget; it ends with its last user."""
    return _SHARED.use()


def _search_path() -> list[str]:
    """Where this process finds its modules, with the working folder by its name, if there still is one."""
    try:
        here = [str(Path.cwd())]
    except OSError:
        here = []
    return [found for entry in sys.path for found in ([entry] if entry else here)]


def _new_group() -> int:
    return int(getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0) | getattr(subprocess, "CREATE_NO_WINDOW", 0))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _mib(size_bytes: int) -> int:
    return -(-size_bytes // (1024 * 1024))


_POOLS: weakref.WeakSet[DecodePool] = weakref.WeakSet()
_WATCH = _Watch()
_SHARED = _Shared()


@atexit.register
def _end_all() -> None:
    for pool in list(_POOLS):
        pool.close()


def _after_fork() -> None:
    """A forked process has no threads and no children of its own: the processes and their pipes are its parent's."""
    global _WATCH, _SHARED
    for pool in list(_POOLS):
        pool.forget()
    _WATCH, _SHARED = _Watch(), _Shared()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
