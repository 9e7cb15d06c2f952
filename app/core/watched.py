"""The service's own watch over the folders that it may index: a change begins an index job."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from app.core.jobs import ENDED, IndexJobs, JobError
from indexers.report import IndexingError
from indexers.watching import FolderChanges

log = logging.getLogger(__name__)

RETRY_S = 30.0
#: A job a day would not notice a network drive's changes soon enough, one in ten minutes would fill the list of jobs.
COMPARE_EVERY_S = 3600.0


class WatchedRoots:
    """Begins a job with a prune over each folder when it starts, and whenever it has changed and been left alone.

    One that is not there yet is waited for; one that cannot be watched is left out, as the log says. `close` ends the
    watch; jobs go on.
    """

    def __init__(self, folders: list[str], jobs: IndexJobs, collection: str) -> None:
        self._jobs, self._collection = jobs, collection
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._watch, args=(Path(folder),), name="watch root", daemon=True)
            for folder in folders
        ]
        for thread in self._threads:
            thread.start()

    def _watch(self, folder: Path) -> None:
        while not folder.is_dir():
            # A disk, perhaps, that is mounted later.
            if self._stop.wait(RETRY_S):
                return
        try:
            with FolderChanges(folder, self._stop) as changes:
                while not self._stop.is_set():
                    if not self._begin(folder):
                        self._stop.wait(RETRY_S)
                        continue
                    changes.wait(COMPARE_EVERY_S)
        except IndexingError as error:
            log.warning("%s", error)

    def _begin(self, folder: Path) -> bool:
        """Queue a job, unless one over the folder waits; False where that cannot be done now."""
        waiting = any(
            (job.source, job.collection, job.state) == (str(folder), self._collection, "queued")
            for job in self._jobs.listed()
            if job.state not in ENDED
        )
        if waiting:
            return True
        try:
            self._jobs.add(str(folder), self._collection, prune=True)
        except JobError as error:
            log.warning("the folder %s waits to be indexed: %s", folder, error)
            return False
        return True

    def close(self) -> None:
        """End the watch."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
