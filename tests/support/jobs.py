"""The work of index jobs, which a test lets go on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from app.core.jobs import IndexJobs, Job
from indexers.progress import Progress
from indexers.report import IndexingError, IndexReport


class Work:
    """Does nothing until it is let go, or told to stop."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.go = threading.Semaphore(0)
        self.started = threading.Semaphore(0)

    def __call__(self, job: Job, tell: Callable[[Progress], None], stop: threading.Event) -> IndexReport:
        self.started.release()
        tell(Progress("indexing", 1, 2, 1.0, 1.0, 0, "a.jpg"))
        while not self.go.acquire(timeout=0.01):
            if stop.is_set():
                return IndexReport(found=2, indexed=1, interrupted=True)
        if job.source == "/bad":
            raise IndexingError("/bad is not a folder")
        if job.source == "/bug":
            raise RuntimeError("a secret detail")
        self.done.append(job.source)
        return IndexReport(found=2, indexed=2)


def ended(jobs: IndexJobs, job: Job) -> Job:
    deadline = time.monotonic() + 10
    while (now := jobs.get(job.id)).ended_s is None:
        assert time.monotonic() < deadline, now
        jobs.wait(job.id, now, 0.1)
    return now
