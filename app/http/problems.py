"""Problem documents (RFC 9457): how every refusal and failure of the service looks, and how OpenAPI says so."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.routing import Match, Mount
from starlette.types import Scope

from app.core.fetch import FetchError
from app.core.jobs import JobError, JobNotFound, TooManyJobs
from app.core.keys import KeyStoreError
from app.core.roots import RootsError
from app.core.telling import of_the_store, told_to_callers
from backends.base import BackendError, CollectionExists, CollectionNotFound, Unsupported
from backends.errors import CollectionInUse, Locked, ReadOnly
from indexers.report import IndexingError
from retrieval.encoders.base import EncoderError
from retrieval.encoders.batching import Overloaded
from retrieval.images.decode import ImageError
from retrieval.search.query import SearchError, UnreadableQuery
from retrieval.search.retriever import EncoderMismatch, ItemNotFound, ItemWithoutVector

log = logging.getLogger(__name__)

PROBLEM = "application/problem+json"
SCHEMA: dict[str, Any] = {
    "type": "object",
    "title": "Problem",
    "description": "A problem document as of RFC 9457.",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference", "examples": ["about:blank"]},
        "title": {"type": "string", "examples": ["Not Found"]},
        "status": {"type": "integer", "examples": [404]},
        "detail": {"type": "string", "examples": ["no item 'img-0' in collection 'default'"]},
    },
}
#: What each status means here, for the description of the API.
MEANINGS = {
    400: "The request is malformed, or its Host header names another machine.",
    401: "The route needs an API key, and none or an unknown one was given.",
    403: "The key's scope does not allow this, or a path is outside the allowed folders.",
    404: "There is no such item, collection, job or image.",
    408: "The body arrived too slowly.",
    409: "It is there already, in use, or filled by another encoder.",
    413: "The body is larger than this route takes.",
    415: "The body is of another content type than this route takes.",
    416: "The range lies outside of the image.",
    422: "The request is well formed, but says something impossible; `detail` tells where.",
    429: "Too many requests or jobs: wait for the seconds in Retry-After.",
    431: "The headers are larger than 16 KiB.",
    500: "The service failed; its log says why.",
    502: "The model that answers refused or failed; `detail` says how.",
    503: "Too busy, stopping, no model, or the vector database or the encoder does not answer: see Retry-After.",
    504: "The model that answers took too long.",
}


@dataclass(frozen=True, slots=True)
class Kind:
    """A type of problems of our own, as RFC 9457 means it: ``urn:sightline:NAME``, and its title."""

    name: str
    title: str


METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
FAILED = "the service failed on this request; its log says why"
_AWAY = "the vector database does not answer as it should: try again in a moment; the service's log says why"
READ_ONLY = "this store lies where nothing may be written, so it can only be searched: the log says where"
HELD = "another process holds the store and keeps it until it ends, so nothing can be written here: the log says which"

#: Status, seconds for Retry-After, and what is told instead of the error, by class; the first that fits counts.
_OURS: list[tuple[type[Exception], int, int | None, str | None]] = [
    (ItemNotFound, 404, None, None),
    (CollectionNotFound, 404, None, None),
    (JobNotFound, 404, None, None),
    (RootsError, 403, None, None),
    (EncoderMismatch, 409, None, None),
    (CollectionExists, 409, None, None),
    (CollectionInUse, 409, None, None),
    (SearchError, 422, None, None),
    (ImageError, 422, None, None),
    (FetchError, 422, None, None),
    (IndexingError, 422, None, None),
    (Unsupported, 422, None, None),
    (TooManyJobs, 429, 30, None),
    (JobError, 503, 30, None),
    (Overloaded, 503, 1, None),
    (EncoderError, 503, 10, "the encoder does not work: the service's log says why"),
    (KeyStoreError, 503, 30, "the API keys cannot be read: the service's log says why"),
    # No Retry-After: that process keeps it.
    (Locked, 503, None, HELD),
    (ReadOnly, 503, None, READ_ONLY),
    # Its address, and what its driver says, are for the log only.
    (BackendError, 503, 2, _AWAY),
]


#: The problems that a program should tell from others of their status: the name in their type, and their title.
KINDS: list[tuple[type[Exception], Kind]] = [
    (UnreadableQuery, Kind("unreadable-query", "The encoder cannot read the query")),
    (ItemWithoutVector, Kind("item-without-vector", "The item has no vector")),
]


class Refused(HTTPException):
    """A request that is answered with a problem document; the one way in which routes refuse."""

    def __init__(
        self, status: int, detail: str, headers: Mapping[str, str] | None = None, kind: Kind | None = None
    ) -> None:
        super().__init__(status, detail, headers)
        self.kind = kind


def refusal_of(error: Exception, *, may_write: bool = False) -> Refused | None:
    """An error that a route may raise as the refusal that it means; None for one that nobody foresaw.

    may_write: who holds the store is told to who may write to it.
    """
    if isinstance(error, IndexingError):
        error = of_the_store(error) or error
    if isinstance(error, HTTPException):
        detail = error.detail if isinstance(error.detail, str) else json.dumps(error.detail)
        return Refused(error.status_code, detail, error.headers)
    if isinstance(error, RequestValidationError):
        place, message, others = invalid(error)
        more = f" (and {others} more)" if others else ""
        return Refused(422, f"{'.'.join(place)}: {message}{more}"[:1000])
    for kind, status, retry_s, told in _OURS:
        if isinstance(error, kind):
            if told is not None:
                log.warning("%s: %s", type(error).__name__, error)
            if isinstance(error, Locked) and may_write:
                told = f"{error.holder} holds the store and keeps it until it ends: end it, or write through it"
            headers = {"Retry-After": str(retry_s)} if retry_s else None
            return Refused(status, told or told_to_callers(error), headers, _kind_of(error))
    return None


def _kind_of(error: Exception) -> Kind | None:
    return next((kind for of_type, kind in KINDS if isinstance(error, of_type)), None)


def invalid(error: RequestValidationError) -> tuple[list[str], str, int]:
    """Where a request is wrong, in the names that its sender knows; what is wrong there, and how many other places.

    Pydantic's places also name the branches of a union, as in ``body.messages.0.content.list[Part].0.type``:
    what is not in the request is left out, and of several branches the one that came the furthest counts.
    """
    found = [(_place(one["loc"], error.body, one["type"]), str(one["msg"])) for one in error.errors()]
    first = found[0][0]
    place, message = max((one for one in found if one[0][: len(first)] == first), key=lambda one: len(one[0]))
    places = {tuple(one[0]) for one in found if place[: len(one[0])] != one[0]}
    message = _CLASS.sub("an object", message.removeprefix("Value error, "))
    return place, message, len(places)


# "a valid dictionary or instance of Part"; "… or object to extract fields from".
_CLASS = re.compile(r"a valid dictionary or (?:instance of \w+|object to extract fields from)")


def _place(loc: Sequence[int | str], body: Any, kind: str) -> list[str]:
    source, *parts = loc
    if source != "body":
        return [str(part) for part in loc[:2]]
    if kind == "json_invalid":
        return ["body"]
    place, value = ["body"], body
    for number, part in enumerate(parts, 1):
        if isinstance(value, Mapping | list):
            try:
                value = value[part]  # type: ignore[index]
            except (LookupError, TypeError):
                # A branch of a union; what is missing is no branch, though.
                if kind != "missing" or number < len(parts):
                    continue
            place.append(str(part)[:80])
    return place


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None, kind: Kind | None = None) -> Response:
    """An RFC 9457 problem document."""
    # In ASCII, as what is quoted from a request may be no valid Unicode.
    return Response(
        json.dumps(document(status, detail, kind)).encode("ascii"),
        status_code=status,
        headers=headers,
        media_type=PROBLEM,
    )


def problem_of(error: Exception) -> dict[str, Any]:
    """The problem document of an error that comes when the response has begun; a 500 for one that nobody foresaw."""
    refusal = refusal_of(error)
    if refusal is None:
        log.error("a request failed", exc_info=error)
        return document(500, FAILED)
    return document(refusal.status_code, refusal.detail, refusal.kind)


def document(status: int, detail: str, kind: Kind | None = None) -> dict[str, Any]:
    """The problem document of a status, as an object."""
    type_, title = (f"urn:sightline:{kind.name}", kind.title) if kind else ("about:blank", HTTPStatus(status).phrase)
    return {"type": type_, "title": title, "status": status, "detail": detail}


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may refuse with these statuses."""
    content = {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": MEANINGS[status], "content": content} for status in sorted(statuses)}


def install_problem_handlers(app: FastAPI) -> None:
    """Answer every error that is raised in a route with a problem document."""

    async def handler(request: Request, error: Exception) -> Response:
        refusal = refusal_of(error, may_write=bool(request.scope.get("state", {}).get("may_write")))
        assert refusal is not None
        headers = dict(refusal.headers or {})
        if refusal.status_code == 405:
            headers["Allow"] = ", ".join(_methods(app, request.scope)) or headers.get("Allow", "")
        return problem(refusal.status_code, refusal.detail, headers, refusal.kind)

    for kind in (*(row[0] for row in _OURS), RequestValidationError, HTTPException):
        app.add_exception_handler(kind, handler)


def _methods(app: FastAPI, scope: Scope) -> list[str]:
    """The methods that a path has, of all routes: each knows only of its own."""
    routes = [route for route in app.routes if not isinstance(route, Mount)]
    return [
        method
        for method in METHODS
        if any(route.matches({**scope, "method": method})[0] is Match.FULL for route in routes)
    ]
