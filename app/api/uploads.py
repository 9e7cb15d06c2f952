"""Adding items over HTTP: files are checked, kept in the home under the hash of their content, embedded, stored."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, File, Form, UploadFile
from pydantic import TypeAdapter, ValidationError

from app.api.context import Service
from app.api.problems import Refused
from app.api.routes import operation
from app.api.schemas import AddedBody, AddedItem, Collection, NewItem
from app.output import local_path
from backends.base import CollectionExists, CollectionNotFound, CollectionSpec, Record
from backends.checks import check_metadata
from indexers.items import Item, Planned, Reader, digest_of, image_reason
from indexers.items import Refused as NotUsed
from indexers.sources import Entry, Source
from retrieval.images import ImageError, load_image, open_image

#: Images and texts in one call of the encoder, and the memory their pixels may take.
ENCODED_TOGETHER = 16
DECODED_BYTES = 192 * 1024 * 1024
_SUFFIXES = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "TIFF": "tif", "BMP": "bmp"}
_ITEMS = TypeAdapter(list[NewItem])
_EXAMPLE = '[{"file": "dog.jpg", "text": "a dog on a beach", "metadata": {"year": 2024}}, {"text": "a note"}]'


@dataclass
class _Pending:
    """One thing to add, as far as it came."""

    name: str
    about: NewItem
    data: bytes | None = None
    item: Item | None = None
    made: Path | None = None
    error: str | None = None


def add_routes(app: FastAPI, service: Service) -> None:
    """``POST /v1/items``."""

    @app.post("/v1/items", tags=["items"], **operation("write", 404, 409, body="upload"))
    def add_items(
        files: Annotated[list[UploadFile] | None, File(description="Image files, up to 200.")] = None,
        items: Annotated[
            str, Form(max_length=1_000_000, description=f"What is known of them, and texts: {_EXAMPLE}")
        ] = "[]",
        collection: Collection = None,
    ) -> AddedBody:
        """Add images and texts; each is taken or refused by itself.

        An image is kept in the service's home, once for the same content. Its `text` is a caption and is
        found as a text as well. The same upload again changes nothing.
        """
        pending = _pending(files or [], _described(items), service.limits.max_files)
        name = collection or service.collection
        _collection(service, name)
        folder = service.uploads / name
        batch: list[_Pending] = []
        for one in pending:
            _read(service, folder, one)
            if batch and (len(batch) == ENCODED_TOGETHER or _decoded_bytes([*batch, one]) > DECODED_BYTES):
                with service.decoding():
                    _store(service, name, batch)
                batch = []
            batch.append(one)
        with service.decoding():
            _store(service, name, batch)
        return AddedBody(
            added=sum(one.error is None for one in pending),
            failed=sum(one.error is not None for one in pending),
            items=[AddedItem(name=one.name, id=_id(one), error=one.error) for one in pending],
        )


def discard(service: Service, collection: str, record: Record) -> None:
    """Remove the file of a deleted record, if it was uploaded into this collection."""
    path = local_path(record.uri)
    if path is not None and path.parent == (service.uploads / collection).resolve():
        path.unlink(missing_ok=True)


def _described(text: str) -> list[NewItem]:
    try:
        return _ITEMS.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise Refused(422, f"items{'.' if place else ''}{place}: {first['msg']}"[:1000]) from None


def _pending(files: Sequence[UploadFile], described: list[NewItem], limit: int) -> list[_Pending]:
    about = {item.file: item for item in described if item.file is not None}
    texts = [(number, item) for number, item in enumerate(described) if item.file is None]
    if len(files) + len(texts) > limit:
        raise Refused(413, f"a request adds up to {limit} files and texts, not {len(files) + len(texts)}")
    if not files and not texts:
        raise Refused(422, "there is nothing to add: give files, or items with a text")
    unknown = about.keys() - {file.filename for file in files}
    if unknown:
        raise Refused(422, f"items: no file {sorted(unknown)[0]!r} was uploaded")
    nothing = NewItem.model_validate({})
    pending = []
    for file in files:
        name = file.filename or ""
        pending.append(_Pending(name[:255], about.get(name, nothing), file.file.read()))
    return pending + [_Pending(f"items[{number}]", item) for number, item in texts]


def _collection(service: Service, name: str) -> None:
    """Make sure of a collection that this encoder fills; only the service's own is made by itself."""
    try:
        service.retriever(name)
    except CollectionNotFound:
        if name != service.collection:
            raise
        # Another upload may be faster.
        with suppress(CollectionExists):
            service.backend.create(CollectionSpec(name, service.encoder.dim, "cosine", service.encoder.fingerprint))
        service.retriever(name)


def _read(service: Service, folder: Path, one: _Pending) -> None:
    """Check one thing and plan its records; a file is kept on disk then."""
    about = one.about
    try:
        check_metadata(about.id or one.name, about.metadata)
        if one.data is None:
            entry = Entry(one.name, "text", metadata=about.metadata, text=about.text, id=about.id)
            if not (about.text or "").strip():
                raise ValueError("has neither a file nor a text")
        else:
            captions = (about.text,) if about.text else ()
            file, one.made = _keep(folder, one.data, service.limits.max_pixels)
            entry = Entry(file, "image", captions, about.metadata, id=about.id)
        folder_now = folder.resolve()
        source = Source("folder", "uploads", folder_now)
        read = Reader(source, None, 0, service.limits.max_pixels).read(entry)
    except ImageError as error:
        one.error = image_reason(error)
    except ValueError as error:
        one.error = str(error)
    except OSError as error:
        one.error = f"cannot be kept: {error.strerror}"
    else:
        if isinstance(read, NotUsed):
            one.error = read.reason
        else:
            one.item = read
    if one.error is not None:
        _undo(one)


def _keep(folder: Path, data: bytes, max_pixels: int) -> tuple[str, Path | None]:
    """The name of the file in `folder` that holds `data`, and its path if it was not there before."""
    with open_image(data, max_pixels=max_pixels) as image:
        suffix = _SUFFIXES.get(image.format or "", (image.format or "img").lower())
    name = f"{digest_of(data)}.{suffix}"
    file = folder / name
    if file.is_file():
        return name, None
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{name}.{os.getpid()}.{threading.get_ident()}.tmp"
    try:
        with temporary.open("xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
    return name, file


def _store(service: Service, name: str, batch: list[_Pending]) -> None:
    """Embed and store what was read; a picture that turns out broken is refused by itself."""
    pictures, images, texts = [], [], []
    size = getattr(service.encoder, "decode_size", None)
    for one in batch:
        try:
            for planned in _planned(one):
                if planned.embed is None:
                    pictures.append(load_image(one.data or b"", max_pixels=service.limits.max_pixels, target_size=size))
                    images.append(planned.record)
                    one.data = None
        except ImageError as error:
            one.error = image_reason(error)
            _undo(one)
    texts = [(planned.record, planned.embed) for one in batch for planned in _planned(one) if planned.embed is not None]
    try:
        rows = _with_vectors(images, service.encoder.encode_images(pictures)) if pictures else []
        if texts:
            vectors = service.batched.encode_texts([text for _, text in texts])
            rows += _with_vectors([record for record, _ in texts], vectors)
        if rows:
            service.backend.upsert(name, rows)
    except BaseException:
        for one in batch:
            _undo(one)
        raise


def _decoded_bytes(batch: Sequence[_Pending]) -> int:
    return sum(one.item.decoded_bytes for one in batch if one.item is not None)


def _planned(one: _Pending) -> list[Planned]:
    return one.item.records if one.item is not None and one.error is None else []


def _with_vectors(records: list[Record], vectors: Any) -> list[Record]:
    return [replace(record, vector=vector) for record, vector in zip(records, vectors, strict=True)]


def _undo(one: _Pending) -> None:
    if one.made is not None:
        one.made.unlink(missing_ok=True)
        one.made = None


def _id(one: _Pending) -> str | None:
    return one.item.records[0].record.id if one.item is not None and one.error is None else None
