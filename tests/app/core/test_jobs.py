"""Index jobs: order, progress, cancelling, and going on after a restart."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from app.core.jobs import MAX_WAITING, WAITING, IndexJobs, Job, JobError, JobNotFound, TooManyJobs
from backends.errors import Denied, Unavailable
from indexers.progress import Progress
from indexers.report import IndexingError, IndexReport
from tests.support.jobs import Work, ended


@pytest.fixture
def work() -> Work:
    return Work()


def test_jobs_run_in_order_and_report(work: Work, tmp_path: Path) -> None:
    jobs = IndexJobs(tmp_path / "jobs", work)
    first, second = jobs.add("/a", "c"), jobs.add("/b", "c", prune=True)
    assert work.started.acquire(timeout=10)
    assert [jobs.get(j.id).state for j in (first, second)] == ["running", "queued"]
    work.go.release(2)
    assert ended(jobs, second).report["indexed"] == 2  # type: ignore[index]
    assert work.done == ["/a", "/b"]
    assert [job.id for job in jobs.listed()] == [second.id, first.id]
    jobs.close()


def test_waiting_ends_with_a_change(work: Work, tmp_path: Path) -> None:
    jobs = IndexJobs(tmp_path, work)
    job = jobs.add("/a", "c")
    assert work.started.acquire(timeout=10)
    seen = None
    while seen is None or seen.progress is None:
        seen = jobs.wait(job.id, seen, 10)
    assert seen.progress["path"] == "a.jpg"
    started = time.monotonic()
    assert jobs.wait(job.id, jobs.get(job.id), 0.05) == jobs.get(job.id)
    assert time.monotonic() - started < 5
    jobs.close()


def test_failures_say_why_but_bugs_do_not_leak(work: Work, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    jobs = IndexJobs(tmp_path, work)
    bad, bug, good = (jobs.add(source, "c") for source in ("/bad", "/bug", "/good"))
    work.go.release(3)
    assert ended(jobs, good).state == "done"
    assert jobs.get(bad.id).error == "/bad is not a folder"
    assert "secret" not in (jobs.get(bug.id).error or "secret")
    assert "a secret detail" in caplog.text
    jobs.close()


def test_a_job_whose_database_goes_away_goes_on_when_it_is_back(
    work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("app.core.jobs.RETRY_AFTER_S", (0.01, 0.01))
    failures = [Unavailable("postgresql://host:5432 does not answer"), IndexingError("storing stopped")]
    failures[1].__cause__ = Unavailable("postgresql://host:5432 does not answer")
    stages: list[str] = []

    def away(job: Job, tell: Callable[[Progress], None], stop: threading.Event) -> IndexReport:
        stages.append((jobs.get(job.id).progress or {}).get("stage", ""))
        tell(Progress("indexing", 1, 2, 1.0, 1.0, 0, "a.jpg"))
        if job.source == "/denied":
            raise Denied("postgresql://host:5432 refuses the password")
        if failures or job.source == "/gone":
            raise failures.pop(0) if failures else Unavailable("postgresql://host:5432 does not answer")
        return work(job, tell, stop)

    jobs = IndexJobs(tmp_path, away)
    first = jobs.add("/a", "c")
    work.go.release()
    now = ended(jobs, first)
    assert (now.state, now.error, now.report["indexed"]) == ("done", None, 2)  # type: ignore[index]
    assert stages == ["", WAITING, WAITING]
    # Not for ever, and not where waiting does not help. Where the database is stands in the log alone.
    stages.clear()
    gone, denied = ended(jobs, jobs.add("/gone", "c")), ended(jobs, jobs.add("/denied", "c"))
    assert (len(stages), gone.state, denied.state) == (4, "failed", "failed")
    assert "5432" not in f"{gone.error} {denied.error}"
    assert "another job goes on" in (gone.error or "")
    assert "5432 does not answer" in caplog.text
    jobs.close()


def test_a_job_that_waits_for_its_database_can_be_cancelled_and_stopped(tmp_path: Path) -> None:
    def away(job: Job, tell: Callable[[Progress], None], stop: threading.Event) -> IndexReport:
        raise Unavailable("gone")

    def waiting(job: Job) -> None:
        deadline = time.monotonic() + 10
        while (jobs.get(job.id).progress or {}).get("stage") != WAITING:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    jobs = IndexJobs(tmp_path, away)
    first, second = jobs.add("/a", "c"), jobs.add("/b", "c")
    waiting(first)
    jobs.cancel(first.id)
    assert ended(jobs, first).state == "cancelled"
    waiting(second)
    jobs.close()
    assert jobs.get(second.id).state == "queued"


def test_cancelling(work: Work, tmp_path: Path) -> None:
    jobs = IndexJobs(tmp_path, work)
    running, queued = jobs.add("/a", "c"), jobs.add("/b", "c")
    assert work.started.acquire(timeout=10)
    assert jobs.cancel(queued.id).state == "cancelled"
    jobs.cancel(running.id)
    now = ended(jobs, running)
    assert (now.state, now.report["indexed"]) == ("cancelled", 1)  # type: ignore[index]
    assert jobs.cancel(running.id) == now
    # The next one does not inherit the stop.
    after = jobs.add("/c", "c")
    work.go.release()
    assert ended(jobs, after).state == "done"
    assert work.done == ["/c"]
    jobs.close()


def test_a_stop_of_the_service_loses_nothing(work: Work, tmp_path: Path) -> None:
    jobs = IndexJobs(tmp_path, work)
    running, queued = jobs.add("/a", "c"), jobs.add("/b", "c")
    assert work.started.acquire(timeout=10)
    jobs.close()
    assert [jobs.get(j.id).state for j in (running, queued)] == ["queued", "queued"]
    with pytest.raises(JobError, match="stopping"):
        jobs.add("/c", "c")
    work.go.release(2)
    again = IndexJobs(tmp_path, work)
    assert [ended(again, j).state for j in (running, queued)] == ["done", "done"]
    assert work.done == ["/a", "/b"]
    again.close()
    kept = IndexJobs(tmp_path, work)
    assert {job.state for job in kept.listed()} == {"done"}
    kept.close()


def test_a_crash_of_the_service_loses_nothing(work: Work, tmp_path: Path) -> None:
    jobs = IndexJobs(tmp_path, work)
    running = jobs.add("/a", "c")
    assert work.started.acquire(timeout=10)
    # What a killed process leaves behind: a record that says running.
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / f"{running.id}.json").write_text((tmp_path / f"{running.id}.json").read_text())
    (copy / "notes.json").write_text("{")
    assert '"running"' in (copy / f"{running.id}.json").read_text()
    work.go.release(2)
    again = IndexJobs(copy, work)
    assert ended(again, running).state == "done"
    again.close()
    jobs.close()


def test_a_full_queue_and_unknown_ids_are_refused(work: Work, tmp_path: Path) -> None:
    jobs = IndexJobs(tmp_path, work)
    jobs.add("/a", "c")
    assert work.started.acquire(timeout=10)
    for number in range(MAX_WAITING):
        jobs.add(f"/{number}", "c")
    with pytest.raises(TooManyJobs, match="16 jobs are waiting"):
        jobs.add("/one too many", "c")
    for call in (jobs.get, jobs.cancel, lambda job: jobs.wait(job, None, 0)):
        with pytest.raises(JobNotFound, match="no job has the id"):
            call("../../etc")
    jobs.close()


def test_only_so_many_ended_jobs_are_kept(work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.core.jobs.MAX_KEPT", 2)
    jobs = IndexJobs(tmp_path, work)
    work.go.release(4)
    made = [jobs.add(f"/{number}", "c") for number in range(4)]
    ended(jobs, made[-1])
    jobs.close()
    assert len(jobs.listed()) == 2
    assert len(list(tmp_path.glob("*.json"))) == 2
