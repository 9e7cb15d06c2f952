"""Stored items: one by its id, what is similar to it, its picture, and its end."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Annotated, Any

from fastapi import FastAPI, Path, Request, Response

from app.core.roots import RootsError
from app.http.context import Service
from app.http.problems import Refused
from app.http.routes.base import operation
from app.http.schemas.common import (
    Collection,
    DeletedBody,
    HitBody,
    HitsBody,
    ItemBody,
    K,
    Offset,
    Removal,
    RemovalBody,
    ThumbnailSize,
)
from app.http.thumbnails import thumbnail_tag
from backends.base import MAX_ID_BYTES, Compare, Modality, Record
from backends.filters import check_string
from backends.urls import local_path
from indexers.items import caption_id
from indexers.removing import remove
from retrieval.images.parts import part_of
from retrieval.images.plan import Wanted
from retrieval.places import existing_uri
from retrieval.search.reasons import why_nothing
from retrieval.search.retriever import ItemNotFound

ItemId = Annotated[
    str,
    Path(
        description="The item's id, percent-encoded; slashes may stay as they are, unless the id itself ends in "
        "/image or /similar.",
        examples=["img-0123456789abcdef0123456789abcdef"],
    ),
]
_RANGE = re.compile(r"bytes=(\d{0,15})-(\d{0,15})\Z", re.ASCII)
_JPEG = {"content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}}
_PICTURE: dict[int, dict[str, Any]] = {
    200: {"description": "The whole thumbnail.", **_JPEG},
    206: {"description": "The range of it that was asked for.", **_JPEG},
    304: {"description": "The client has it: If-None-Match names its ETag."},
}


def add_routes(app: FastAPI, service: Service) -> None:
    """``/v1/items/{item_id}`` and what lies below."""

    @app.get(
        "/v1/items/{item_id:path}/image",
        tags=["items"],
        response_class=Response,
        **operation("read", 404, 409, 416, 422, responses=_PICTURE),
    )
    def item_image(
        request: Request, item_id: ItemId, size: ThumbnailSize = ThumbnailSize.MEDIUM, collection: Collection = None
    ) -> Response:
        """A JPEG of the item's image that fits into `size` x `size` pixels."""
        return _picture(service, request, item_id, size=size, collection=collection)

    @app.head(
        "/v1/items/{item_id:path}/image",
        tags=["items"],
        response_class=Response,
        **operation("read", 404, 409, 416, 422, responses={200: {"description": "Its headers."}, 304: _PICTURE[304]}),
    )
    def item_image_head(
        request: Request, item_id: ItemId, size: ThumbnailSize = ThumbnailSize.MEDIUM, collection: Collection = None
    ) -> Response:
        """The headers of that JPEG: its tag and length."""
        return _picture(service, request, item_id, size=size, collection=collection)

    @app.get("/v1/items/{item_id:path}/similar", tags=["items"], **operation("read", 404, 409, 422))
    def similar(
        item_id: ItemId, k: K = 10, offset: Offset = 0, modality: Modality | None = None, collection: Collection = None
    ) -> HitsBody:
        """The items nearest to a stored one, of its own modality unless said otherwise."""
        return neighbours(service, item_id, k=k, offset=offset, modality=modality, collection=collection)

    @app.get("/v1/items/{item_id:path}", tags=["items"], **operation("read", 404, 409, 422))
    def item(item_id: ItemId, collection: Collection = None) -> ItemBody:
        """One stored item."""
        return ItemBody.of(stored(service, item_id, collection))

    @app.delete("/v1/items/{item_id:path}", tags=["items"], **operation("write", 404, 409, 422))
    def delete_item(item_id: ItemId, collection: Collection = None) -> DeletedBody:
        """Remove an item, and of an image its captions; its uploaded file as well, unless another item has it.

        The next index job over its folder brings a file that is still there back.
        """
        record = stored(service, item_id, collection)
        return DeletedBody(deleted=_deleted(service, collection or service.collection, record))

    @app.post("/v1/remove", tags=["items"], **operation("write", 404, 409, body="json"))
    def remove_items(body: Removal, collection: Collection = None) -> RemovalBody:
        """Remove items by path, ids or filter; of images the captions too. The files stay, but for uploaded ones.

        An image that lies elsewhere too only loses the places below `path`, with the captions that it had from them.
        The next index job over a folder brings back what is still in it.
        """
        name = collection or service.collection
        if body.path is not None and not PurePath(body.path).is_absolute():
            raise Refused(422, "path must be given from the root on, such as /srv/photos/2019: it is the server's")
        try:
            report = remove(service.backend, name, path=body.path, ids=body.ids, where=body.where, dry_run=body.dry_run)
        except ValueError as error:
            raise Refused(422, str(error)) from None
        if not body.dry_run:
            named = (service.uploads.named(uri) for uri in report.uris)
            service.uploads.release({file for file in named if file is not None})
        return RemovalBody(**report.to_dict(), dry_run=body.dry_run)


def _deleted(service: Service, name: str, record: Record) -> int:
    """Delete a record, and what belongs to it; returns how many records went."""
    if record.modality != "image":
        return service.backend.delete(name, ids=[record.id])
    # In one call, so that an upload of the same picture comes before it or after it with all that it stores.
    captions = [caption_id(record.id, caption) for caption in (record.text or "").split("\n") if caption]
    deleted = service.backend.delete(name, ids=[record.id, *captions])
    if not service.backend.get(name, [record.id]):
        deleted += service.backend.delete(name, where=Compare("image", "eq", record.id))
    service.uploads.release(service.uploads.files_of([record]))
    return deleted


def _check(item_id: str) -> None:
    try:
        check_string(item_id, "an id", limit_bytes=MAX_ID_BYTES)
    except ValueError as error:
        raise ItemNotFound(str(error)) from None
    if not item_id:
        raise ItemNotFound("no item has an empty id")


def stored(service: Service, item_id: str, collection: str | None) -> Record:
    """One item. Raises `ItemNotFound`, and what the retriever raises."""
    _check(item_id)
    return service.retriever(collection).get(item_id)


def neighbours(
    service: Service, item_id: str, *, k: int, offset: int, modality: Modality | None, collection: str | None
) -> HitsBody:
    """What is similar to an item. Raises `ItemNotFound`, and what the retriever raises."""
    _check(item_id)
    retriever = service.retriever(collection)
    hits = retriever.similar(item_id, k, offset=offset, modality=modality)
    nothing = None
    if not hits:
        own = retriever.get(item_id).modality
        left_out = int(modality in (None, own))
        nothing = why_nothing(retriever, modality=modality or own, offset=offset, left_out=left_out)
    return HitsBody(hits=[HitBody.of(hit) for hit in hits], nothing=nothing, notices=list(retriever.notices))


def thumbnail(service: Service, record: Record, size: int) -> bytes:
    """A JPEG of an item's image within `size` x `size` pixels. Raises `ItemNotFound`, `ImageError`."""
    data, tag, part = _opened(service, record, size)
    return _made(service, data, tag=tag, size=size, part=part)


def _opened(service: Service, record: Record, size: int) -> tuple[bytes, str, str]:
    """The bytes of an item's image file, what names its thumbnail, and which part of the file it is."""
    uri = existing_uri(record)
    path, part = local_path(uri), part_of(uri)
    if path is None or record.modality != "image":
        raise ItemNotFound(f"item {record.id!r} has no local image file")
    try:
        data, status = service.roots.open_image(path)
    except RootsError as error:
        # Not told apart from what is not there.
        raise ItemNotFound(str(error)) from None
    except OSError as error:
        raise ItemNotFound(f"the image file of this item cannot be read any more: {error.strerror}") from None
    return data, thumbnail_tag(path, status, size, part), part


def _made(service: Service, data: bytes, *, tag: str, size: int, part: str) -> bytes:
    kept = service.thumbnails.get(tag)
    service.metrics.thumbnails.labels("no" if kept is None else "yes").inc()
    if kept is not None:
        return kept
    return service.thumbnails.keep(tag, service.load_stored(data, Wanted(fit=size), part=part))


def _picture(service: Service, request: Request, item_id: str, *, size: int, collection: str | None) -> Response:
    record = stored(service, item_id, collection)
    data, tag, part = _opened(service, record, size)
    headers = {"ETag": f'"{tag[:32]}"', "Cache-Control": "private, max-age=3600", "Accept-Ranges": "bytes"}
    known = {part.strip().removeprefix("W/") for part in request.headers.get("if-none-match", "").split(",")}
    if headers["ETag"] in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return _ranged(request, _made(service, data, tag=tag, size=size, part=part), headers)


def _ranged(request: Request, data: bytes, headers: dict[str, str]) -> Response:
    """The bytes, or the one range of them that is asked for (RFC 9110, section 14); HEAD gets no bytes."""
    wanted = _RANGE.match(request.headers.get("range", ""))
    condition = request.headers.get("if-range")
    options: dict[str, Any] = {"media_type": "image/jpeg", "headers": headers}
    if request.method == "HEAD":
        headers["Content-Length"] = str(len(data))
        return Response(b"", 200, **options)
    if wanted is None or not (wanted[1] or wanted[2]) or condition not in (None, headers["ETag"]):
        return Response(data, 200, **options)
    if wanted[1]:
        first, last = int(wanted[1]), min(int(wanted[2] or len(data)), len(data) - 1)
        if wanted[2] and int(wanted[2]) < first:
            return Response(data, 200, **options)
    else:
        first, last = max(0, len(data) - int(wanted[2])), len(data) - 1
    if first >= len(data):
        raise Refused(416, f"the image has {len(data)} bytes", {"Content-Range": f"bytes */{len(data)}"})
    headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
    return Response(data[first : last + 1], 206, **options)
