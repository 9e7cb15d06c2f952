"""What `qdrant-client` raises, as `BackendError`s with one line that names address and remedy."""

from __future__ import annotations

import json
from typing import Any

import httpx
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

from backends.errors import BackendError, CollectionExists, CollectionNotFound, Denied, Unavailable
from backends.redaction import redact

MAX_MESSAGE = 500
_REFUSED = (httpx.LocalProtocolError, httpx.UnsupportedProtocol)
# What the server read and will not do. The text may repeat the request, and so any words.
_BAD_REQUEST = {400, 405, 411, 413, 414, 415, 422, 431}
# gRPC's status codes as the HTTP ones that Qdrant's REST interface uses for the same.
OF_GRPC = {
    "INVALID_ARGUMENT": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "DEADLINE_EXCEEDED": 408,
    "ALREADY_EXISTS": 409,
    "RESOURCE_EXHAUSTED": 429,
    "UNAVAILABLE": 503,
}


def _status_and_text(error: Exception) -> tuple[int, str]:
    """The HTTP status (0 for none) and what the server says."""
    if isinstance(error, UnexpectedResponse):
        try:
            status: Any = json.loads(error.content)["status"]
            text = str(status["error"] if isinstance(status, dict) else status)
        except (ValueError, KeyError, TypeError):
            text = error.content.decode("utf-8", "replace") or error.reason_phrase
        return error.status_code or 0, text
    if isinstance(error, ResourceExhaustedResponse):
        return 429, str(error)
    if isinstance(error, ResponseHandlingException):
        # The client wraps all that goes wrong with a request, also what it refuses itself, such as a bad header.
        away = isinstance(error.source, httpx.TransportError) and not isinstance(error.source, _REFUSED)
        return 503 if away else 0, str(error.source) or type(error.source).__name__
    code = getattr(error, "code", None)
    if callable(code):
        details = getattr(error, "details", None)
        return OF_GRPC.get(getattr(code(), "name", ""), 500), str(details() if callable(details) else error)
    return 0, str(error)


def as_backend_error(error: Exception, address: str, *, name: str | None) -> BackendError:
    """The `BackendError` for what the client raised in a call about the collection `name`."""
    status, text = _status_and_text(error)
    text = " ".join(redact(text, foreign=True).split())[:MAX_MESSAGE]
    lower = text.lower()
    missing = "not found" in lower or "doesn't exist" in lower or "does not exist" in lower
    if name is not None and (status == 404 or (status in (0, 400) and missing and "collection" in lower)):
        return CollectionNotFound(f"no collection {name!r} in {address}")
    if status == 409:
        return CollectionExists(f"collection {name!r} is already in {address}: {text}")
    if status in (401, 403):
        return Denied(
            f"{address} refused the API key: give the right one in SIGHTLINE_QDRANT_API_KEY (Qdrant says: {text})"
        )
    if status in _BAD_REQUEST or (status == 429 and "larger than max" in lower):
        return BackendError(f"{address}: Qdrant refuses the request: {text}")
    if status == 507 or "no space left" in lower or "disk is full" in lower or "not enough space" in lower:
        return Unavailable(f"{address}: the server's disk is full: make room there and try again (Qdrant says: {text})")
    if status == 408 or "timed out" in lower or "deadline exceeded" in lower:
        return Unavailable(f"{address} did not answer in time: look at its load, or connect with ?timeout_s= more")
    if status == 429:
        return Unavailable(f"{address} takes no more requests now: {text}")
    if status in (502, 503, 504):
        return Unavailable(f"{address} does not answer: is the Qdrant server running? ({text})")
    if isinstance(error, ApiException) or status:
        return BackendError(f"{address}: Qdrant says: {text}")
    return BackendError(f"{address}: {type(error).__name__}: {text}")
