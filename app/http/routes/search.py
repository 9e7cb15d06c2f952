"""Search and look-up: words, an image, or weighted terms of both."""

from __future__ import annotations

import base64
import binascii
import contextlib
from collections.abc import Mapping
from functools import partial
from typing import Annotated

import numpy as np
from fastapi import FastAPI, File, Form, UploadFile
from numpy.typing import NDArray
from PIL import Image

from app.http.context import Service, picture_size
from app.http.routes.base import operation
from app.http.schemas.common import (
    Collection,
    FacetBody,
    HitBody,
    HitsBody,
    K,
    Offset,
    PlanBody,
    SearchBody,
    SearchHitsBody,
)
from app.http.turns import Picture
from backends.plans import explain
from retrieval.images.decode import open_image
from retrieval.search.query import (
    Query,
    SearchError,
    Stored,
    Term,
    UnreadableQuery,
    query_items,
    query_vector,
    query_words,
)
from retrieval.search.reasons import why_nothing
from retrieval.search.results import Found
from retrieval.search.retriever import Retriever

FACET_VALUES = 20


def add_routes(app: FastAPI, service: Service) -> None:
    """``POST /v1/search`` and ``POST /v1/lookup``."""

    @app.post("/v1/search", tags=["search"], **operation("read", 404, 409, body="json"))
    def search(body: SearchBody, collection: Collection = None) -> SearchHitsBody:
        """Find images and texts by words, by an image, or by weighted terms of both and of stored items."""
        return searched(service, body, collection)

    @app.post("/v1/lookup", tags=["search"], **operation("read", 404, 409, body="image"))
    def lookup(
        image: Annotated[UploadFile, File(description="The image to describe.")],
        k: Annotated[K, Form()] = 10,
        offset: Annotated[Offset, Form()] = 0,
        collection: Collection = None,
    ) -> HitsBody:
        """The stored texts that describe an uploaded image best."""
        return looked_up(service, image.file.read(), k=k, offset=offset, collection=collection)


def searched(service: Service, body: SearchBody, collection: str | None) -> SearchHitsBody:
    """What a search finds. Raises what the retriever raises, and `ImageError`."""
    given = [name for name in ("text", "image", "image_url", "terms") if getattr(body, name) is not None]
    if len(given) != 1:
        raise SearchError(
            f"a search takes exactly one of text, image, image_url and terms, not {given or 'none of them'}"
        )
    retriever = service.retriever(collection)
    has_image = given[0].startswith("image") or any(term.image is not None for term in body.terms or [])
    with contextlib.ExitStack() as held:
        read = picture(service, body.image, body.image_url)
        data = held.enter_context(read()) if read is not None else None
        if has_image:
            held.enter_context(service.decoding())
        stored = retriever.stored([term.item for term in body.terms or [] if term.item is not None])
        query = _query(service, retriever, body, image=data, stored=stored)
        vector = None
        if body.facets and body.mode != "keyword":
            # Once for hits and facets; what cannot be read is the search's to refuse, or to look for by its words.
            with contextlib.suppress(UnreadableQuery):
                vector = query_vector(query, retriever.encoder)
        with explain() if body.explain else contextlib.nullcontext() as plans:
            hits = _hits(retriever, query, body, vector)
        facets = _facets(retriever, query, body, vector) if body.facets else None
    nothing = None
    if not hits:
        nothing = why_nothing(
            retriever,
            where=body.where,
            modality=body.modality,
            offset=body.offset,
            min_relevance=body.min_relevance,
            asked_words=query_words(query) if body.mode == "keyword" or hits.words_only else None,
            left_out=len(query_items(query)),
        )
    notices = [*retriever.notices, *hits.notices]
    return SearchHitsBody(
        hits=[HitBody.of(hit) for hit in hits],
        facets=facets,
        plans=None if plans is None else [PlanBody(**plan.to_dict()) for plan in plans],
        nothing=nothing,
        notices=notices,
    )


def looked_up(service: Service, image: bytes, *, k: int, offset: int, collection: str | None) -> HitsBody:
    """The texts that describe an image best. Raises what the retriever raises, and `ImageError`."""
    with service.decoding():
        # First, as it is quick: a collection that is not there needs no picture decoded.
        retriever = service.retriever(collection)
        picture = service.load(image, picture_size(retriever.encoder))
        hits = retriever.lookup(picture, k, offset=offset)
    nothing = None if hits else why_nothing(retriever, modality="text", offset=offset)
    return HitsBody(hits=[HitBody.of(hit) for hit in hits], nothing=nothing, notices=list(retriever.notices))


def _hits(retriever: Retriever, query: Query, body: SearchBody, vector: NDArray[np.float32] | None) -> Found:
    return retriever.search(
        query,
        body.k,
        where=body.where,
        modality=body.modality,
        offset=body.offset,
        effort=body.effort,
        min_relevance=body.min_relevance,
        mode=body.mode,
        fusion=body.fusion,
        diversity=body.diversity,
        group_duplicates=body.group_duplicates,
        vector=vector,
    )


def _facets(
    retriever: Retriever, query: Query, body: SearchBody, vector: NDArray[np.float32] | None
) -> dict[str, FacetBody]:
    counted = retriever.facets(
        body.facets or [],
        query,
        where=body.where,
        modality=body.modality,
        mode=body.mode,
        fusion=body.fusion,
        top=FACET_VALUES,
        vector=vector,
    )
    return {name: FacetBody.of(facet) for name, facet in counted.items()}


def _query(
    service: Service, retriever: Retriever, body: SearchBody, *, image: bytes | None, stored: Mapping[str, Stored]
) -> Query:
    if body.text is not None:
        return [Term(body.text)]
    if image is not None:
        return service.load(image, picture_size(retriever.encoder))
    terms = []
    left_pixels = service.limits.max_pixels
    for number, term in enumerate(body.terms or []):
        if sum(value is not None for value in (term.text, term.image, term.item)) != 1:
            raise SearchError(f"terms[{number}] takes exactly one of text, image and item")
        value: str | Image.Image | Stored
        if term.image is None:
            value = stored[term.item] if term.item is not None else term.text or ""
        else:
            # The bound is on all of them together.
            data = decoded(term.image)
            with open_image(data, max_pixels=left_pixels) as header:
                pixels = header.width * header.height
            value = service.load(data, picture_size(retriever.encoder), max_pixels=left_pixels)
            left_pixels -= pixels
        terms.append(Term(value, term.weight))
    return terms


def picture(service: Service, image: str | None, image_url: str | None) -> Picture | None:
    """What gives the picture that a request has as base64 or by its address; None where it has none.

    Raises `SearchError` for both of them, and `FetchError` for an address that is not fetched.
    """
    if image is not None and image_url is not None:
        raise SearchError("a request takes one of image and image_url, not both")
    if image_url is not None:
        return partial(service.fetched, service.fetcher.check(image_url))
    return None if image is None else lambda: contextlib.nullcontext(decoded(image))


def decoded(data: str) -> bytes:
    """The bytes of an image in base64. Raises `SearchError`."""
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise SearchError(f"image is not base64: {error}") from None
