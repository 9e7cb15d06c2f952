"""What can be seen of the service from outside: request ids, a log line a request, metrics, spans of each stage."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.http.problems import FAILED, METHODS, problem
from backends.redaction import redact

log = logging.getLogger(__name__)
requests_log = logging.getLogger("app.requests")

CLOSED_BY_CLIENT = 499
_SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")
_LATENCY_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)


class JsonLines(logging.Formatter):
    """A log record as one line of JSON; what `extra` gave as ``fields`` stands beside the message."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, in ASCII, so that nothing in it ends a line or drives a terminal."""
        row: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redact(_message(record)),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            row["trace"] = redact(self.formatException(record.exc_info), foreign=True)
        if record.stack_info:
            row["stack"] = redact(self.formatStack(record.stack_info), foreign=True)
        try:
            return json.dumps(row, default=repr, allow_nan=False)
        except ValueError:
            # Not-a-number is none in JSON.
            return json.dumps({name: value if isinstance(value, str) else repr(value) for name, value in row.items()})


def _message(record: logging.LogRecord) -> str:
    """The message, also where its arguments do not fit it."""
    try:
        return record.getMessage()
    except Exception:
        return f"{record.msg} {record.args!r}"


class Metrics:
    """The service's figures for Prometheus, and OpenTelemetry spans where a `tracer` is given."""

    def __init__(self, tracer: Any = None) -> None:
        self.registry = CollectorRegistry()
        self.tracer = tracer
        # Resident memory, processor time and open files, where the platform tells them.
        ProcessCollector(registry=self.registry)
        self.requests = Histogram(
            "sightline_request_seconds",
            "Time to the end of the response.",
            ("method", "route", "status"),
            buckets=_LATENCY_S,
            registry=self.registry,
        )
        self.stages = Histogram(
            "sightline_stage_seconds",
            "Time of one stage of a request: encode, search or fetch.",
            ("stage",),
            buckets=_LATENCY_S,
            registry=self.registry,
        )
        self.errors = Counter(
            "sightline_errors",
            "Stages that raised, by the class of the error.",
            ("stage", "error"),
            registry=self.registry,
        )
        self.batches = Histogram(
            "sightline_encoder_batch_texts",
            "Texts in one call of the encoder.",
            buckets=_BATCHES,
            registry=self.registry,
        )
        self.thumbnails = Counter(
            "sightline_thumbnails",
            "Thumbnails served, by whether they were in the cache.",
            ("cached",),
            registry=self.registry,
        )

    def gauge(self, name: str, about: str, value: Callable[[], float]) -> None:
        """A figure that is asked for when somebody looks."""
        Gauge(name, about, registry=self.registry).set_function(value)

    def jobs(self, count: Callable[[], Mapping[str, int]]) -> None:
        """Index jobs by state, counted when somebody looks."""
        gauge = Gauge("sightline_jobs", "Index jobs on record, by state.", ("state",), registry=self.registry)
        for state in ("queued", "running", "done", "failed", "cancelled"):
            gauge.labels(state).set_function(lambda state=state: count().get(state, 0))  # type: ignore[misc]

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure one stage, whether it ends well or raises."""
        start_s = time.perf_counter()
        span = self.tracer.start_as_current_span(name) if self.tracer is not None else contextlib.nullcontext()
        with span:
            try:
                yield
            except Exception as error:
                self.errors.labels(name, type(error).__name__).inc()
                raise
            finally:
                self.stages.labels(name).observe(time.perf_counter() - start_s)


class TimedProxy:
    """An object whose calls of some methods are measured as stages; in all else it is that object.

    stages: the stage's name by the method's.
    """

    def __init__(self, target: Any, metrics: Metrics, stages: Mapping[str, str]) -> None:
        self._target = target
        for method, stage in stages.items():
            setattr(self, method, _measured(getattr(target, method), metrics, stage))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)


def _measured(function: Callable[..., Any], metrics: Metrics, stage: str) -> Callable[..., Any]:
    def measured(*arguments: Any, **options: Any) -> Any:
        with metrics.stage(stage):
            return function(*arguments, **options)

    return measured


class RequestMetricsMiddleware:
    """Gives each request an id, measures it, logs it in one line, and answers what no route could with a 500.

    The line holds id, method, the route's template, status, milliseconds and the key's id: no path,
    query, body, header or key.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self.app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _SANE_ID.match(given) else secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id
        status = 0
        start_s = time.perf_counter()

        async def with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        try:
            with self._span(scope):
                await self.app(scope, receive, with_id)
        except Exception:
            log.exception("a request failed", extra={"fields": {"request_id": request_id}})
            if not status:
                await problem(500, FAILED)(scope, receive, with_id)
        finally:
            seconds = time.perf_counter() - start_s
            self._note(scope, request_id, status=status or CLOSED_BY_CLIENT, seconds=seconds)

    def _span(self, scope: Scope) -> Any:
        tracer = self._metrics.tracer
        if tracer is None:
            return contextlib.nullcontext()
        from opentelemetry import propagate, trace

        carrier = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        return tracer.start_as_current_span(
            "request",
            context=propagate.extract(carrier),
            kind=trace.SpanKind.SERVER,
            attributes={"http.request.method": scope["method"]},
        )

    def _note(self, scope: Scope, request_id: str, *, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", None) or (
            "/static" if scope["path"].startswith("/static/") else "none"
        )
        method = scope["method"] if scope["method"] in METHODS else "other"
        self._metrics.requests.labels(method, route, str(status)).observe(seconds)
        fields = {
            "request_id": request_id,
            "method": method,
            "route": route,
            "status": status,
            "ms": round(seconds * 1000, 1),
            "key": scope.get("state", {}).get("key_id"),
        }
        requests_log.info("request", extra={"fields": fields})
