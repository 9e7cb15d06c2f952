"""Index jobs of the service: one at a time, watched, cancelled, and taken up again after a restart."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from app.core.telling import of_the_store, told_to_callers, without_places
from backends.errors import (
    BackendError,
    CollectionExists,
    CollectionNotFound,
    Denied,
    DimensionMismatch,
    Locked,
    ReadOnly,
    Unavailable,
    Unsupported,
)
from indexers.progress import Progress
from indexers.report import IndexingError, IndexReport
from retrieval.encoders.base import EncoderError

log = logging.getLogger(__name__)

State: TypeAlias = Literal["queued", "running", "done", "failed", "cancelled"]
ENDED = frozenset({"done", "failed", "cancelled"})
MAX_WAITING = 16
MAX_KEPT = 200
STOP_S = 60.0
#: After which pauses a job is gone on with whose database went away; it fails when none of them helped.
RETRY_AFTER_S = (2.0, 5.0, 10.0, 20.0, 30.0, 60.0)
#: An attempt that lasted so long met another outage than the one before.
ANOTHER_AFTER_S = 300.0
WAITING = "waiting for the database"
_ID = re.compile(r"[0-9a-f]{16}\Z")


class JobError(Exception):
    """A job that cannot be had as asked: one line that says why."""


class JobNotFound(JobError):
    """No job has that id."""


class TooManyJobs(JobError):
    """The queue is full: try again when a job has ended."""


@dataclass(frozen=True, slots=True)
class Job:
    """A moment of one index job; times in seconds since 1970, `source` a folder on the server.

    queued -> running -> done, failed (`error` says why) or cancelled. A job that the service was stopped
    in is queued again when it starts: indexing goes on from what is stored. So does one whose database went
    away, after some pauses in which it is running at the stage "waiting for the database". `report` is the
    `IndexReport` of the last run as JSON; a cancelled job has one as well, of what that had done.
    """

    id: str
    source: str
    collection: str
    prune: bool
    state: State
    created_s: float
    started_s: float | None = None
    ended_s: float | None = None
    progress: dict[str, Any] | None = None
    report: dict[str, Any] | None = None
    error: str | None = None


#: What does the work: brings a collection up to date with a folder, tells its progress, and stops when told.
Work: TypeAlias = Callable[[Job, Callable[[Progress], None], threading.Event], IndexReport]


class IndexJobs:
    """Runs index jobs one after the other in a thread of its own; their records are files in `folder`.

    One at a time, because the encoder is the bottleneck and one collection has one writer. At most 16
    jobs wait. The records of the last 200 ended jobs are kept. `close` has the running job store
    what it has embedded and stay queued for the next start.
    """

    def __init__(self, folder: Path, work: Work) -> None:
        self._folder = folder
        self._work = work
        self._changed = threading.Condition()
        self._jobs: dict[str, Job] = {}
        self._closing = False
        self._stop = threading.Event()
        self._cancelled: set[str] = set()
        self._held: Counter[str] = Counter()
        self._load()
        # A daemon, so that an app which was made but never served does not hold up the end of its process.
        self._thread = threading.Thread(target=self._run, name="index jobs", daemon=True)
        self._thread.start()

    def add(self, source: str, collection: str, *, prune: bool = False) -> Job:
        """Queue a job. Raises `TooManyJobs`; JobError when it cannot be recorded or the service is stopping."""
        with self._changed:
            if self._closing:
                raise JobError("the service is stopping")
            if self._held[collection]:
                raise JobError(f"the collection {collection!r} is being removed: try again in a moment")
            if sum(job.state == "queued" for job in self._jobs.values()) >= MAX_WAITING:
                raise TooManyJobs(f"{MAX_WAITING} jobs are waiting: try again when one has ended")
            job = Job(
                id=secrets.token_hex(8),
                source=source,
                collection=collection,
                prune=prune,
                state="queued",
                created_s=time.time(),
            )
            try:
                self._put(job)
            except OSError as error:
                log.warning("the job cannot be recorded in %s: %s", self._folder, error.strerror)
                raise JobError(f"the job cannot be recorded: {error.strerror}") from None
            self._changed.notify_all()
            return job

    @contextlib.contextmanager
    def without(self, collection: str) -> Iterator[bool]:
        """Let no job fill the collection within the block; whether there was none, else nothing is held up."""
        with self._changed:
            free = not any(job.collection == collection and job.state not in ENDED for job in self._jobs.values())
            self._held[collection] += free
        try:
            yield free
        finally:
            with self._changed:
                self._held[collection] -= free
                if not self._held[collection]:
                    del self._held[collection]

    def get(self, job_id: str) -> Job:
        """The job as it is now. Raises `JobNotFound`."""
        with self._changed:
            try:
                return self._jobs[job_id]
            except KeyError:
                raise JobNotFound(f"no job has the id {job_id!r}") from None

    def listed(self) -> list[Job]:
        """All jobs, newest first."""
        with self._changed:
            return sorted(self._jobs.values(), key=lambda job: (-job.created_s, job.id))

    def cancel(self, job_id: str) -> Job:
        """End a job: a queued one at once, a running one after the picture in hand; an ended one stays as it is."""
        with self._changed:
            job = self.get(job_id)
            if job.state == "queued":
                job = replace(job, state="cancelled", ended_s=time.time())
                self._save(job)
            elif job.state == "running":
                self._cancelled.add(job_id)
                self._stop.set()
            return job

    def wait(self, job_id: str, seen: Job | None, timeout_s: float) -> Job:
        """The job as soon as it differs from `seen`, or after `timeout_s` as it is. Raises `JobNotFound`."""
        self.get(job_id)
        with self._changed:
            self._changed.wait_for(lambda: self._jobs.get(job_id) is not seen or self._closing, timeout_s)
            return self.get(job_id)

    def stop(self) -> None:
        """Begin to stop, after the picture in hand; returns at once."""
        with self._changed:
            self._closing = True
            self._stop.set()
            self._changed.notify_all()

    def close(self) -> None:
        """Stop after the picture in hand; what is not ended is taken up by the next start."""
        self.stop()
        self._thread.join(STOP_S)

    def _run(self) -> None:
        while job := self._next():
            self._do(job)

    def _next(self) -> Job | None:
        with self._changed:
            while not self._closing:
                queued = [job for job in self._jobs.values() if job.state == "queued"]
                if queued:
                    # A stop that was meant for the job before is none for this one.
                    self._stop = threading.Event()
                    job = replace(
                        min(queued, key=lambda job: (job.created_s, job.id)), state="running", started_s=time.time()
                    )
                    self._save(job)
                    return job
                self._changed.wait()
            return None

    def _tell(self, job: Job, progress: Progress) -> None:
        with self._changed:
            # Not written down: a restart begins with a fresh look anyway.
            self._jobs[job.id] = replace(self._jobs[job.id], progress=asdict(progress))
            self._changed.notify_all()

    def _worked(self, job: Job) -> IndexReport:
        """The report of a run that was gone on with as often as the database went away."""
        pauses = iter(RETRY_AFTER_S)
        last = _Last(lambda progress: self._tell(job, progress))
        while True:
            began_s = time.monotonic()
            try:
                return self._work(job, last, self._stop)
            except (IndexingError, BackendError) as failure:
                if time.monotonic() - began_s > ANOTHER_AFTER_S:
                    pauses = iter(RETRY_AFTER_S)
                pause_s = next(pauses, None) if _is_away(failure) else None
                if pause_s is None:
                    raise
                log.warning("index job %s waits %g s: %s", job.id, pause_s, failure)
            last.waits()
            if self._stop.wait(pause_s):
                return IndexReport(interrupted=True)

    def _do(self, job: Job) -> None:
        report, error = None, None
        try:
            report = self._worked(job)
        except (IndexingError, BackendError, EncoderError, OSError) as failure:
            error = _told(job, failure)
        except Exception:
            log.exception("index job %s failed", job.id)
            error = "the job failed for a reason that the service's log tells"
        with self._changed:
            now = self._jobs[job.id]
            if error is not None:
                now = replace(now, state="failed", error=error, ended_s=time.time())
            elif job.id in self._cancelled and report is not None and report.interrupted:
                now = replace(now, state="cancelled", report=report.to_dict(), ended_s=time.time())
            elif report is not None and report.interrupted:
                now = replace(now, state="queued", started_s=None, progress=None)
            elif report is not None:
                now = replace(now, state="done", report=report.to_dict(), ended_s=time.time())
            self._cancelled.discard(job.id)
            self._save(now)
            self._forget_old()

    def _load(self) -> None:
        for file in self._folder.glob("*.json") if self._folder.is_dir() else ():
            try:
                job = Job(**json.loads(file.read_text("utf-8")))
            except (OSError, ValueError, TypeError):
                # Our own writes are atomic, so this is somebody else's file.
                log.warning("%s is not the record of a job; it is left out", file)
                continue
            if job.id != file.stem or not _ID.match(job.id):
                continue
            if job.state not in ENDED:
                job = replace(job, state="queued", started_s=None, progress=None)
            self._jobs[job.id] = job

    def _save(self, job: Job) -> None:
        """Keep and tell the new state; a disk that is full must not stop the work, whose results are elsewhere."""
        try:
            self._put(job)
        except OSError as error:
            log.warning("the record of job %s cannot be written: %s", job.id, error.strerror)
            self._jobs[job.id] = job
        self._changed.notify_all()

    def _put(self, job: Job) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        file = self._folder / f"{job.id}.json"
        temporary = file.with_suffix(f".{os.getpid()}.tmp")
        try:
            temporary.write_text(json.dumps(asdict(job)), "utf-8")
            temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)
        self._jobs[job.id] = job

    def _forget_old(self) -> None:
        ended = sorted((job for job in self._jobs.values() if job.state in ENDED), key=lambda job: job.ended_s or 0)
        for job in ended[: max(0, len(ended) - MAX_KEPT)]:
            (self._folder / f"{job.id}.json").unlink(missing_ok=True)
            del self._jobs[job.id]


@dataclass
class _Last:
    """Passes progress on, and keeps the last of it."""

    tell: Callable[[Progress], None]
    progress: Progress = field(
        default_factory=lambda: Progress(
            stage=WAITING, done=0, total=None, rate_per_s=0.0, remaining_s=None, quarantined=0, path=""
        )
    )

    def __call__(self, progress: Progress) -> None:
        self.progress = progress
        self.tell(progress)

    def waits(self) -> None:
        """Say that nothing goes on for now."""
        self(replace(self.progress, stage=WAITING, rate_per_s=0.0, remaining_s=None))


def _is_away(failure: Exception) -> bool:
    """Whether the store may be back in a moment."""
    cause = of_the_store(failure)
    return isinstance(cause, Unavailable) and not isinstance(cause, (Denied, Locked, ReadOnly))


def _told(job: Job, failure: Exception) -> str:
    """Why a job failed, for whoever may read; a store's address, and what its driver says, are for the log only."""
    cause = of_the_store(failure)
    if cause is None and isinstance(failure, OSError):
        log.warning("index job %s failed: %s", job.id, failure)
        return f"the job failed: {failure.strerror or type(failure).__name__}"
    if cause is None:
        # Its own folder was given by who began it; the service's files were not.
        return without_places(told_to_callers(failure), but=job.source)
    if isinstance(cause, (CollectionExists, CollectionNotFound, DimensionMismatch, Unsupported)):
        return told_to_callers(cause)
    log.warning("index job %s failed: %s", job.id, failure)
    if isinstance(cause, ReadOnly):
        return "the store lies where nothing may be written: index where it may be, or into another store"
    if isinstance(cause, Locked):
        return "another process holds the store and keeps it until it ends: end it, then begin another job"
    return "the vector database does not answer as it should; what was stored stays, another job goes on from there"
