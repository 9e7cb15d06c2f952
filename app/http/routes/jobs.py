"""Index jobs: begin, list, watch and cancel them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import FastAPI, Path
from fastapi.responses import StreamingResponse

from app.core.jobs import ENDED, Job, JobNotFound
from app.http.context import Service
from app.http.routes.base import PlacedStream, operation
from app.http.schemas.common import FoldersBody, JobBody, JobsBody, NewJob

LOOK_EVERY_S = 0.2
KEEP_ALIVE_S = 15.0

JobId = Annotated[str, Path(max_length=64, description="The job's id.", examples=["0123456789abcdef"])]
_STREAM: dict[int, dict[str, Any]] = {
    200: {
        "description": "Server-sent events named `job`, each a job as JSON: now, at every change, and at its end.",
        "content": {
            "text/event-stream": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "event": {"type": "string", "const": "job"},
                        "data": {"type": "string", "description": "A JobBody as JSON."},
                    },
                }
            }
        },
    }
}


def add_routes(app: FastAPI, service: Service) -> None:
    """``/v1/index`` and ``/v1/jobs``."""

    @app.get("/v1/index", tags=["jobs"], **operation("read"))
    def folders() -> FoldersBody:
        """The folders that may be indexed."""
        return FoldersBody(folders=service.roots.folders())

    @app.post("/v1/index", tags=["jobs"], status_code=202, **operation("write", 409, body="small"))
    def start_job(body: NewJob) -> JobBody:
        """Bring a collection up to date with a folder; one job runs at a time, the others wait."""
        folder = service.roots.folder(body.folder)
        return JobBody.of(service.jobs.add(str(folder), body.collection or service.collection, prune=body.prune))

    @app.get("/v1/jobs", tags=["jobs"], **operation("read"))
    def list_jobs() -> JobsBody:
        """All jobs, newest first; without the lists of what was skipped."""
        return JobsBody(jobs=[JobBody.of(job, reported=0) for job in service.jobs.listed()])

    @app.get(
        "/v1/jobs/{job_id}/events",
        tags=["jobs"],
        response_class=StreamingResponse,
        **operation("read", 404, 422, responses=_STREAM),
    )
    async def job_events(job_id: JobId) -> StreamingResponse:
        """Watch a job: an event at every change, until it ends or the service does."""
        service.jobs.get(job_id)
        return PlacedStream(service.stream_place(), _events(service, job_id))

    @app.get("/v1/jobs/{job_id}", tags=["jobs"], **operation("read", 404, 422))
    def job(job_id: JobId) -> JobBody:
        """One job."""
        return JobBody.of(service.jobs.get(job_id))

    @app.delete("/v1/jobs/{job_id}", tags=["jobs"], status_code=202, **operation("write", 404, 422))
    def cancel_job(job_id: JobId) -> JobBody:
        """Cancel a job: a waiting one at once, a running one after the picture in hand; what is stored stays."""
        return JobBody.of(service.jobs.cancel(job_id))


async def _events(service: Service, job_id: str) -> AsyncIterator[bytes]:
    # Looked at now and then rather than waited for: a thread for each watcher would be the scarcer thing.
    seen: Job | None = None
    told_s = time.monotonic()
    while not service.stopping.is_set():
        try:
            job = service.jobs.get(job_id)
        except JobNotFound:
            return
        if job is not seen:
            seen, told_s = job, time.monotonic()
            yield b"event: job\ndata: " + json.dumps(JobBody.of(job).model_dump()).encode("ascii") + b"\n\n"
            if job.state in ENDED:
                return
        elif time.monotonic() - told_s > KEEP_ALIVE_S:
            told_s = time.monotonic()
            yield b": still there\n\n"
        await asyncio.sleep(LOOK_EVERY_S)
