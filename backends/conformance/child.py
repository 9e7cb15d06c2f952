"""The second process of the suite: ``python -m backends.conformance.child MODULE:CLASS URL TASK NAME [N]``.

Prints one JSON object a line. Tasks: `read` says what a collection holds, `describe` its spec; `write N` upserts N
records once; `pour START` upserts batches without end, from batch START, and acknowledges each;
`fork 'SECONDS URL'` is `conformance.forking`.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from backends.base import Backend, BackendError
from backends.conformance.forking import fork
from backends.conformance.oracle import payload
from backends.conformance.samples import poured, some


def say(answer: dict[str, Any]) -> None:
    """One line, at once."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def read(backend: Backend, name: str, _: str) -> None:
    """Payloads of all records, sums of their vectors, and the ids of one search for all."""
    found = [r for page in backend.scan(name) for r in page.records]
    dim = backend.describe(name).dim
    (hits,) = backend.search(name, np.ones((1, dim), np.float32), max(1, len(found)))
    say(
        {
            "collections": backend.collections(),
            "records": sorted(payload(r) for r in found),
            "sums": {r.id: float(np.sum(r.vector)) for r in found if r.vector is not None},
            "hits": [hit.id for hit in hits],
        }
    )


def describe(backend: Backend, name: str, _: str) -> None:
    """The spec as another process sees it."""
    say({"spec": backend.describe(name).to_json()})


def write(backend: Backend, name: str, n: str) -> None:
    """Upsert n records called c00000 and up."""
    backend.upsert(name, some(int(n), seed=3, prefix="c"))
    say({"written": int(n)})


def write_until_killed(backend: Backend, name: str, start: str) -> None:
    """Upsert until killed."""
    batch = int(start)
    while True:
        backend.upsert(name, poured(batch))
        say({"acknowledged": batch})
        batch += 1


def fork_(backend: Backend, name: str, argument: str) -> None:
    """Fork while the store is in use."""
    seconds, _, url = argument.partition(" ")
    say(fork(backend, url, name, float(seconds)))


TASKS: dict[str, Callable[[Backend, str, str], None]] = {
    "read": read,
    "describe": describe,
    "write": write,
    "write_until_killed": write_until_killed,
    "fork": fork_,
}


def main(target: str, url: str, task: str, name: str, argument: str = "") -> None:
    """Open, do the task, close; a `BackendError` is an answer too."""
    module, _, path = target.partition(":")
    cls: Any = importlib.import_module(module)
    for part in path.split("."):
        cls = getattr(cls, part)
    try:
        with cls.connect(url) as backend:
            TASKS[task](backend, name, argument)
    except BackendError as error:
        say({"error": type(error).__name__, "message": str(error)})


if __name__ == "__main__":
    main(*sys.argv[1:])
