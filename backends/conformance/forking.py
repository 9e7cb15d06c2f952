"""What the suite's second process does for the check of forks: it forks while its threads use the store.

The fork is made there, not in the test's own process, so that the child can end as programs do, with all that
Python and the clients do at their end, and so that one that hangs holds up nobody.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from backends.base import Backend, BackendError, CollectionSpec, Record
from backends.conformance.collections import ON_A_COLLECTION
from backends.conformance.samples import some

FORKS = 3
POLL_S = 0.01
RECORDS = 20
WORKED, HANGS = "worked", "hangs"
HARMLESS = ("describe", "upsert", "upsert nothing", "get", "get nothing", "delete no ids", "count", "search", "scan")


@contextmanager
def busy(backend: Backend, name: str, records: list[Record]) -> Iterator[None]:
    """Threads that search and write all the time, so that a fork finds locks held."""
    done = threading.Event()

    def use(call: Callable[[], Any]) -> None:
        while not done.is_set():
            call()

    calls = (
        lambda: backend.search(name, np.ones((1, 8), np.float32), 3),
        lambda: backend.upsert(name, records),
    )
    threads = [threading.Thread(target=use, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join()


def outcome(call: Callable[[], Any]) -> str:
    """``worked``, ``BackendError`` for a refusal of whatever kind, or what else was raised."""
    try:
        call()
    except BackendError as error:
        return BackendError.__name__ if "\n" not in str(error) else f"a message of many lines: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return WORKED


def opened_anew(backend: Backend, url: str) -> None:
    """What a refusal advises."""
    with type(backend).connect(url) as own:
        own.collections()


def try_everything(backend: Backend, url: str, name: str, begun: Iterator[Any], *, anew: bool) -> dict[str, str]:
    """What becomes of each call; of those that remove something only where the others are refused.

    anew: try a store that the child opens itself, too.
    """
    found = {call: outcome(lambda call=call: ON_A_COLLECTION[call](backend, name)) for call in HARMLESS}  # type: ignore[misc]
    found["a scan begun before"] = outcome(lambda: list(begun))
    found["collections"] = outcome(backend.collections)
    if WORKED not in found.values():
        found |= {call: outcome(lambda call=call: ON_A_COLLECTION[call](backend, name)) for call in ON_A_COLLECTION}  # type: ignore[misc]
        found["create"] = outcome(lambda: backend.create(CollectionSpec(f"{name}x", 8)))
        found["drop"] = outcome(lambda: backend.drop(name))
    found["close"] = outcome(backend.close)
    if anew:
        found["connect"] = outcome(lambda: opened_anew(backend, url))
    return found


def in_a_child(backend: Backend, url: str, name: str, hangs_s: float, *, anew: bool = False) -> dict[str, str]:
    """Fork, try everything in the child, and say what it told; `HANGS` for what it did not come to tell."""
    begun = backend.scan(name, batch=1)
    next(begun)
    read, write = os.pipe()
    with warnings.catch_warnings():
        # Python warns of what this is about.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if not pid:
        os.close(read)
        os.write(write, json.dumps(try_everything(backend, url, name, begun, anew=anew)).encode())
        # Not `os._exit`: what Python and the clients do at the end must not harm the parent either.
        sys.exit(0)
    os.close(write)
    return told_by(pid, read, hangs_s)


def told_by(pid: int, read: int, hangs_s: float) -> dict[str, str]:
    """What a child told before it ended."""
    ended = False
    deadline = time.monotonic() + hangs_s
    while not ended and time.monotonic() < deadline:
        ended = os.waitpid(pid, os.WNOHANG)[0] == pid
        time.sleep(POLL_S)
    if not ended:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read()
    told: dict[str, str] = json.loads(said) if said else {"a call": HANGS}
    return told if ended else {**told, "the end": HANGS}


def second_writer(backend: Backend, url: str, name: str) -> dict[str, Any]:
    """What another process is told that writes while this one, whose child has ended, has the store open."""
    cls = type(backend)
    command = [sys.executable, "-m", "backends.conformance.child", f"{cls.__module__}:{cls.__qualname__}"]
    ended = subprocess.run([*command, url, "write", name, "5"], capture_output=True, text=True, check=True)
    answer: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return answer


def fork(backend: Backend, url: str, name: str, hangs_s: float) -> dict[str, Any]:
    """Use the store, fork, let the child try everything, and say how it and this process fared.

    A child that is not done after `hangs_s` is killed, and was the last.
    """
    records = some(RECORDS)
    backend.create(CollectionSpec(name, 8, min(backend.capabilities.metrics)))
    backend.upsert(name, records)
    with busy(backend, name, records):
        children: list[dict[str, str]] = []
        while len(children) < FORKS and not any(HANGS in told.values() for told in children):
            children.append(in_a_child(backend, url, name, hangs_s))
    # A library's own locks, SQLite's or malloc's, are copied as they are, and nobody can promise that it works in a
    # child that was forked while another thread was in it. So what a child opens itself counts when none was.
    if not any(HANGS in told.values() for told in children):
        children.append(in_a_child(backend, url, name, hangs_s, anew=True))
    backend.upsert(name, some(RECORDS, prefix="after"))
    (hits,) = backend.search(name, np.ones((1, 8), np.float32), 3)
    counted = backend.count(name)
    writer = second_writer(backend, url, name) if backend.capabilities.persistent else None
    return {"children": children, "count": counted, "hits": len(hits), "second writer": writer}
