"""The HTTP service: search, look-up, items and their thumbnails over one backend and one encoder."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
from collections.abc import Sequence
from enum import IntEnum
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, File, Form, Query, Request, UploadFile
from fastapi.responses import HTMLResponse, Response
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, ConfigDict, Field
from starlette.middleware.trustedhost import TrustedHostMiddleware

from app.http_guard import BodyLimit, SecurityHeaders, install_problem_handlers
from app.output import local_path
from backends.base import Backend, BackendError, CollectionNotFound, Modality, Unsupported
from retrieval.encoders.base import Encoder
from retrieval.images import ImageError, load_image
from retrieval.query import Query as SearchQuery
from retrieval.query import SearchError, Term
from retrieval.results import Result
from retrieval.search import EncoderMismatch, ItemNotFound, Retriever

MAX_BODY_BYTES = 32 * 1024 * 1024
MAX_PIXELS = 50_000_000

K = Annotated[int, Field(ge=1, le=200, description="How many hits to return.")]
Offset = Annotated[int, Field(ge=0, le=9_800, description="How many hits to skip.")]
Collection = Annotated[str | None, Query(description="Which collection; the service's own when left out.")]


class ThumbnailSize(IntEnum):
    """The sizes a thumbnail comes in, in pixels of the square it fits into."""

    SMALL = 160
    MEDIUM = 320
    LARGE = 640
    FULL = 1280


class TermBody(BaseModel):
    """One weighted part of a composed query: text, or an image in base64."""

    model_config = ConfigDict(extra="forbid")
    text: str | None = None
    image: str | None = Field(None, description="An image file's bytes in base64.")
    weight: float = Field(1.0, allow_inf_nan=False, description="Negative to steer away.")


class SearchBody(BaseModel):
    """A search: exactly one of `text`, `image` and `terms`."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"text": "a dog on a beach", "k": 5, "modality": "image"}]}
    )
    text: str | None = None
    image: str | None = Field(None, description="An image file's bytes in base64.")
    terms: list[TermBody] | None = Field(None, max_length=64)
    k: K = 10
    offset: Offset = 0
    where: dict[str, Any] | None = Field(None, examples=[{"year": {"$gte": 1990}}])
    modality: Modality | None = None
    effort: float | None = Field(None, gt=0, le=1)
    min_relevance: float | None = Field(
        None, ge=0, le=1, description="Leave out what is less relevant; nothing is left out unless this is given."
    )


class HitBody(BaseModel):
    """One result; `score` is higher for better hits, `relevance` the share of unrelated queries that find less."""

    id: str
    score: float
    relevance: float | None = None
    modality: Modality
    uri: str | None
    text: str | None
    metadata: dict[str, Any]
    exact: bool


class HitsBody(BaseModel):
    """Results, best first."""

    hits: list[HitBody]


class ItemBody(BaseModel):
    """One stored item, without its vector."""

    id: str
    modality: Modality
    uri: str | None
    text: str | None
    metadata: dict[str, Any]


class CollectionBody(BaseModel):
    """One collection and what fills it."""

    name: str
    count: int
    dim: int
    metric: str
    encoder: str
    searchable: bool = Field(description="Whether this service's encoder is the one that filled it.")


def _body(hit: Result) -> HitBody:
    return HitBody(
        id=hit.id, score=hit.score, relevance=hit.relevance, modality=hit.modality, uri=hit.uri, text=hit.text,
        metadata=dict(hit.metadata), exact=hit.exact,
    )  # fmt: skip


def _decode(data: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error as error:
        raise SearchError(f"image is not base64: {error}") from None


def _as_query(body: SearchBody) -> SearchQuery:
    given = [name for name in ("text", "image", "terms") if getattr(body, name) is not None]
    if len(given) != 1:
        raise SearchError(f"a search takes exactly one of text, image and terms, not {given or 'none of them'}")
    if body.text is not None:
        return Term(body.text).value
    if body.image is not None:
        return _picture(_decode(body.image))
    terms = []
    for number, term in enumerate(body.terms or []):
        if (term.text is None) == (term.image is None):
            raise SearchError(f"terms[{number}] takes exactly one of text and image")
        value = term.text if term.text is not None else _picture(_decode(term.image or ""))
        terms.append(Term(value, term.weight))
    return terms


def _picture(data: bytes) -> Any:
    return load_image(data, max_pixels=MAX_PIXELS)


def create_app(
    backend: Backend,
    encoder: Encoder,
    collection: str,
    *,
    hosts: Sequence[str] = ("127.0.0.1", "localhost"),
    samples: Path | None = None,
) -> FastAPI:
    """The service over `backend`, searching with `encoder`, `collection` being the default one.

    Every error is an RFC 9457 problem document. Bodies are bounded to 32 MiB, images to 50 million
    pixels. Images leave the service only as thumbnails of stored items, decoded and encoded anew.
    `hosts` are the names a request's Host header may give, ``*`` for any: a web page that makes its own
    domain point here (DNS rebinding) is refused. `samples` is where `Retriever` keeps what relevance is judged by.
    """
    app = FastAPI(title="Sightline", version="1", docs_url=None, redoc_url=None)
    retrievers: dict[str, Retriever] = {}

    def retriever(name: str | None) -> Retriever:
        wanted = name or collection
        if wanted not in retrievers:
            retrievers[wanted] = Retriever(backend, encoder, wanted, samples=samples)
        return retrievers[wanted]

    @app.get("/healthz")
    def healthz() -> dict[str, str]:
        """Answers as long as the process lives."""
        return {"status": "ok"}

    @app.get("/readyz")
    def readyz() -> dict[str, str]:
        """200 when the backend answers and holds the default collection; 503 or 404 saying what is missing."""
        backend.describe(collection)
        return {"status": "ready"}

    @app.get("/v1/collections")
    def list_collections() -> list[CollectionBody]:
        """Every collection of the backend with its size and encoder."""
        specs = [backend.describe(name) for name in backend.collections()]
        return [
            CollectionBody(
                name=spec.name, count=backend.count(spec.name), dim=spec.dim, metric=spec.metric,
                encoder=spec.encoder, searchable=spec.encoder == encoder.fingerprint,
            )
            for spec in specs
        ]  # fmt: skip

    @app.post("/v1/search")
    def search(body: SearchBody, collection: Collection = None) -> HitsBody:
        """Find images and texts by words, by an image, or by weighted terms of both."""
        hits = retriever(collection).search(
            _as_query(body), body.k, where=body.where, modality=body.modality, offset=body.offset,
            effort=body.effort, min_relevance=body.min_relevance,
        )  # fmt: skip
        return HitsBody(hits=[_body(hit) for hit in hits])

    @app.post("/v1/lookup")
    def lookup(
        image: Annotated[UploadFile, File(description="The image to describe.")],
        k: Annotated[K, Form()] = 10,
        collection: Collection = None,
    ) -> HitsBody:
        """The stored texts that describe an uploaded image best."""
        picture = _picture(image.file.read(MAX_BODY_BYTES))
        return HitsBody(hits=[_body(hit) for hit in retriever(collection).lookup(picture, k)])

    @app.get(
        "/v1/items/{item_id:path}/image", response_class=Response, responses={200: {"content": {"image/jpeg": {}}}}
    )
    def item_image(
        request: Request, item_id: str, size: ThumbnailSize = ThumbnailSize.MEDIUM, collection: Collection = None
    ) -> Response:
        """A JPEG of the item's image that fits into `size` x `size` pixels."""
        item = retriever(collection).get(item_id)
        path = local_path(item.uri)
        if path is None or item.modality != "image":
            raise ItemNotFound(f"item {item_id!r} has no local image file")
        return _thumbnail(path, size, request.headers.get("if-none-match"))

    @app.get("/v1/items/{item_id:path}/similar")
    def similar(item_id: str, k: K = 10, modality: Modality | None = None, collection: Collection = None) -> HitsBody:
        """The items nearest to a stored one, of its own modality unless said otherwise."""
        return HitsBody(hits=[_body(hit) for hit in retriever(collection).similar(item_id, k, modality=modality)])

    @app.get("/v1/items/{item_id:path}")
    def item(item_id: str, collection: Collection = None) -> ItemBody:
        """One stored item."""
        record = retriever(collection).get(item_id)
        return ItemBody(
            id=record.id, modality=record.modality, uri=record.uri, text=record.text, metadata=dict(record.metadata)
        )

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    def page() -> str:
        return files("app").joinpath("static/page.html").read_text("utf-8")

    app.mount("/static", StaticFiles(packages=[("app", "static")]), name="static")
    app.add_middleware(BodyLimit, limit_bytes=MAX_BODY_BYTES)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)
    app.add_middleware(SecurityHeaders)
    install_problem_handlers(
        app,
        {
            ItemNotFound: 404,
            CollectionNotFound: 404,
            EncoderMismatch: 409,
            SearchError: 422,
            ImageError: 422,
            Unsupported: 422,
            BackendError: 503,
        },
    )
    return app


def _thumbnail(path: Path, size: int, known: str | None) -> Response:
    try:
        stat = path.stat()
    except OSError as error:
        raise ItemNotFound(f"the image file of this item cannot be read any more: {error.strerror}") from None
    tag = hashlib.sha256(f"{path}\0{stat.st_mtime_ns}\0{stat.st_size}\0{size}".encode("utf-8", "surrogateescape"))
    headers = {"ETag": f'"{tag.hexdigest()[:32]}"', "Cache-Control": "private, max-age=3600"}
    if known == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    image = load_image(path, max_pixels=MAX_PIXELS, target_size=size)
    image.thumbnail((size, size))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return Response(buffer.getvalue(), media_type="image/jpeg", headers=headers)
