"""Whether the service lives, whether it can work, and its figures."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from fastapi import FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST

from app.http.context import Service
from app.http.problems import documented, problem
from app.http.routes.base import operation
from app.http.schemas.common import HealthBody, ReadyBody

log = logging.getLogger(__name__)

ANSWER_WITHIN_S = 3.0
FRESH_S = 1.0


class Probe:
    """Asks a part of the service whether it answers, in a thread of its own and never twice at a time."""

    def __init__(self, name: str, check: Callable[[], object]) -> None:
        self._name, self._check = name, check
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=f"probe {name}")
        self._asked: Future[object] | None = None
        self._asked_s = 0.0

    async def failure(self) -> str | None:
        """Why it is not ready, None when it is; an answer counts for a second."""
        if self._asked is None or (self._asked.done() and time.monotonic() - self._asked_s > FRESH_S):
            self._asked, self._asked_s = self._pool.submit(self._check), time.monotonic()
        try:
            await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(self._asked)), ANSWER_WITHIN_S)
        except TimeoutError:
            return f"the {self._name} does not answer"
        except Exception as error:
            log.warning("the %s is not ready: %s: %s", self._name, type(error).__name__, error)
            return f"the {self._name} fails"
        return None

    def close(self) -> None:
        """Ask no more."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def add_routes(app: FastAPI, service: Service) -> list[Probe]:
    """``/healthz``, ``/readyz`` and ``/metrics``; the probes are to be closed at the end."""
    backend = Probe("backend", lambda: service.backend.collections())
    encoder = Probe("encoder", lambda: service.encoder.encode_texts(["ready"]))

    @app.get("/healthz", tags=["service"], responses=documented(400, 431, 500))
    async def healthz() -> HealthBody:
        """Answers as long as the process lives."""
        return HealthBody(status="ok")

    @app.get("/readyz", tags=["service"], response_model=ReadyBody, responses=documented(400, 431, 500, 503))
    async def readyz() -> ReadyBody | Response:
        """200 when backend and encoder answer; 503 that says which does not."""
        if service.stopping.is_set():
            return problem(503, "the service is stopping", {"Retry-After": "5"})
        failures = [why for why in await asyncio.gather(backend.failure(), encoder.failure()) if why]
        if failures:
            return problem(503, "not ready: " + "; ".join(failures), {"Retry-After": "2"})
        return ReadyBody(status="ready", backend="ok", encoder="ok")

    text = {"description": "Prometheus' text format.", "content": {"text/plain": {"schema": {"type": "string"}}}}

    @app.get("/metrics", tags=["service"], response_class=Response, **operation("read", responses={200: text}))
    def metrics() -> Response:
        """Latencies of routes and stages, queue, batches, errors, jobs, memory."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    return [backend, encoder]
