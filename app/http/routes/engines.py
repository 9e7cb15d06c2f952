"""What is behind the service: its own engine with its collections, and every other one that is installed or answers."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from fastapi import FastAPI

from app.core.settings import Settings
from app.http.context import Service
from app.http.routes.base import operation
from app.http.routes.collections import described
from app.http.schemas.common import BackendBody, EngineBody, EnginesBody, ServerBody, SizedCollection
from backends.base import BackendError, Capabilities, CollectionNotFound, Compare
from backends.registry import canonical

log = logging.getLogger(__name__)

#: Asking every server takes seconds, and an address here is no way to make this machine call others often.
FRESH_S = 15.0
FLOAT32_BYTES = 4


def add_routes(app: FastAPI, service: Service, settings: Settings | None) -> None:
    """``GET /v1/engines``; without `settings` no server is asked, and the scheme is not known."""
    looked = _Kept(lambda: _look(settings))

    @app.get("/v1/engines", tags=["service"], **operation("read"))
    def engines() -> EnginesBody:
        """What is behind the service: its engine, that engine's collections, and which other engines are there.

        Servers are asked at most every 15 seconds. No address is told. A database that does not answer is no
        error here: `backend.answers` is false then, and there are no collections.
        """
        rows = looked.get()
        scheme = canonical(settings.backend).partition("://")[0] if settings else None
        own = next((row for row in rows if row["scheme"] == scheme), None)
        collections, answers = _collections(service)
        return EnginesBody(
            backend=_backend(service.backend.capabilities, own, answers),
            collections=collections,
            engines=[_engine(row) for row in rows],
        )


class _Kept:
    """What `make` gives, made at most every `FRESH_S`, by one thread at a time."""

    def __init__(self, make: Callable[[], list[dict[str, Any]]]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._kept: list[dict[str, Any]] = []
        self._made_s = -FRESH_S

    def get(self) -> list[dict[str, Any]]:
        with self._lock:
            if time.monotonic() - self._made_s >= FRESH_S:
                self._kept, self._made_s = self._make(), time.monotonic()
            return self._kept


def _look(settings: Settings | None) -> list[dict[str, Any]]:
    from app.core.engine_status import installed, look

    return installed() if settings is None else look(settings)


def _backend(capabilities: Capabilities, own: dict[str, Any] | None, answers: bool) -> BackendBody:
    from app.core.engine_status import can

    version = None
    if own is not None:
        used = [server["version"] for server in own["servers"] if server["used"]]
        version = own["version"] or (used[0] if used else None)
    plain = {name: sorted(v) if isinstance(v, frozenset) else v for name, v in asdict(capabilities).items()}
    return BackendBody(
        scheme=own["scheme"] if own is not None else None,
        summary=own["summary"] if own is not None else None,
        version=version,
        answers=answers,
        can=can(capabilities),
        capabilities=plain,
    )


def _collections(service: Service) -> tuple[list[SizedCollection], bool]:
    """The collections of the backend, and whether it answers."""
    found: list[SizedCollection] = []
    try:
        for name in service.backend.collections():
            try:
                found.append(_sized(service, name))
            except CollectionNotFound:
                # Dropped by somebody else since.
                continue
    except BackendError as error:
        log.warning("%s: %s", type(error).__name__, error)
        return found, False
    return found, True


def _sized(service: Service, name: str) -> SizedCollection:
    one = described(service, name)
    images = service.backend.count(name, Compare("modality", "eq", "image"))
    return SizedCollection(**one.model_dump(), images=images, vectors_bytes=one.count * one.dim * FLOAT32_BYTES)


def _engine(row: dict[str, Any]) -> EngineBody:
    servers: Sequence[dict[str, Any]] = row["servers"]
    told = [ServerBody(origin=s["origin"], state=s["state"], version=s["version"], used=s["used"]) for s in servers]
    fields = ("scheme", "summary", "installed", "install", "client", "version", "can")
    return EngineBody(**{name: row[name] for name in fields}, servers=told)
