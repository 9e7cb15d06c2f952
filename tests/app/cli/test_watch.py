"""`sightline watch` and the service's own watch, to their end."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.core.jobs import IndexJobs, Job
from app.core.settings import Settings, SettingsError
from app.core.watched import WatchedRoots
from indexers import IndexReport
from indexers.watching import watch
from tests.support.cli import Run, paint

pytest.importorskip("watchfiles")
LONGEST_S = 60.0


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LONGEST_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_it_follows_a_folder_until_ctrl_c(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = tmp_path / "photos"
    paint(photos / "red.png", "red")
    seen: list[IndexReport] = []

    def watching(*arguments: Any, told: Callable[[IndexReport], None], **options: Any) -> None:
        def both(report: IndexReport) -> None:
            seen.append(report)
            told(report)

        watch(*arguments, told=both, settle_s=0.2, **options)

    def somebody() -> None:
        until(lambda: bool(seen))
        paint(photos / "blue.png", "blue")
        until(lambda: any(report.found == 2 for report in seen))
        (photos / "red.png").unlink()
        until(lambda: any(report.pruned for report in seen))
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("indexers.watching.watch", watching)
    thread = threading.Thread(target=somebody)
    thread.start()
    done = run("watch", photos, "--json")
    thread.join()
    assert done.code == 0
    assert next(json.loads(line)["indexed"] for line in done.out.splitlines()) == 1
    assert "Ctrl-C ends it" in done.err
    assert "stopped; the next run goes on from here" in done.err
    hits = run("search", "red", "--min-relevance", 0, "--json").json["hits"]
    assert [hit["uri"].rpartition("/")[2] for hit in hits] == ["blue.png"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_file_cannot_be_watched(run: Run, tmp_path: Path) -> None:
    refused = run("watch", paint(tmp_path / "red.png", "red"))
    assert refused.code == 1
    assert "only folders can be watched" in refused.err


def test_the_service_begins_a_job_at_its_start_and_for_each_change(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    paint(photos / "red.png", "red")
    done: list[Job] = []

    def work(job: Job, *_: object) -> IndexReport:
        done.append(job)
        return IndexReport()

    jobs = IndexJobs(tmp_path / "jobs", work)
    watched = WatchedRoots([str(photos), str(tmp_path / "nowhere")], jobs, "c")
    try:
        until(lambda: len(done) == 1)
        paint(photos / "blue.png", "blue")
        until(lambda: len(done) == 2)
        assert {(job.source, job.collection, job.prune) for job in done} == {(str(photos), "c", True)}
    finally:
        watched.close()
        jobs.close()
    paint(photos / "green.png", "green")
    assert len(done) == 2


def test_the_setting_is_yes_or_no(tmp_path: Path) -> None:
    assert Settings.load(env={"SIGHTLINE_WATCH": "yes", "SIGHTLINE_HOME": str(tmp_path)}).watch == "yes"
    with pytest.raises(SettingsError, match="watch must be yes or no, not 'maybe'"):
        Settings.load(env={"SIGHTLINE_WATCH": "maybe", "SIGHTLINE_HOME": str(tmp_path)})
