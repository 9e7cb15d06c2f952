"""Adding items over HTTP: files are checked, kept in the home under the hash of their content, embedded, stored."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

from fastapi import FastAPI, File, Form, UploadFile
from pydantic import TypeAdapter, ValidationError

from app.core.references import ReferencesError
from app.core.uploaded import Hold
from app.http.context import Service, picture_size
from app.http.problems import Refused
from app.http.routes.base import operation
from app.http.schemas.common import AddedBody, AddedItem, Collection, NewItem
from backends.base import CollectionExists, CollectionNotFound, CollectionSpec, Record
from backends.checks import check_metadata
from indexers.items import EntryRefused, Item, Planned, Reader, caption_id, digest_of, image_reason
from indexers.planner import RGB_BYTES
from indexers.sources import Entry, Source
from retrieval.encoders.batching import BatchedEncoder
from retrieval.encoders.text_side import to_store
from retrieval.images.decode import ImageError, open_image
from retrieval.images.plan import result_pixels
from retrieval.places import places_of

log = logging.getLogger(__name__)

#: Images and texts in one call of the encoder, and the memory their pixels may take.
ENCODED_TOGETHER = 16
DECODED_BYTES = 96 * 1024 * 1024
MAX_CAPTION_LINES = 1000
_SUFFIXES = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "TIFF": "tif", "BMP": "bmp"}
_ITEMS = TypeAdapter(list[NewItem])
_EXAMPLE = '[{"file": "dog.jpg", "text": "a dog on a beach", "metadata": {"year": 2024}}, {"text": "a note"}]'


@dataclass
class _Pending:
    """One thing to add, as far as it came."""

    name: str
    about: NewItem
    data: bytes | None = None
    content: str = ""
    item: Item | None = None
    error: str | None = None
    #: Whether an item of its id was there before.
    was_there: bool = False
    #: How many of its texts the encoder cannot read.
    unreadable: int = 0
    #: Said the same before in this request: what became of that counts for this.
    same: _Pending | None = None


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
        with service.uploads.holding() as hold:
            _add(service, name, hold, pending)
        stored = [one for one in pending if one.same is None and one.error is None]
        return AddedBody(
            added=len(stored),
            updated=sum(one.was_there for one in stored),
            unreadable=sum(one.unreadable for one in stored),
            failed=sum((one.same or one).error is not None for one in pending),
            items=[AddedItem(name=one.name, id=_id(one.same or one), error=(one.same or one).error) for one in pending],
        )


def _add(service: Service, name: str, hold: Hold, pending: Sequence[_Pending]) -> None:
    """Read, embed and store, some at a time; what is not taken has an error then."""
    batch: list[_Pending] = []
    seen: dict[str, _Pending] = {}
    encoder = service.encoder_of(name)
    for one in pending:
        _read(service, name, hold, one, seen)
        if batch and (len(batch) == ENCODED_TOGETHER or _decoded_bytes(encoder, [*batch, one]) > DECODED_BYTES):
            with service.decoding():
                _store(service, encoder, name, hold, batch)
            batch = []
        batch.append(one)
    with service.decoding():
        _store(service, encoder, name, hold, batch)


def _described(text: str) -> list[NewItem]:
    try:
        return _ITEMS.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise Refused(422, f"items{'.' if place else ''}{place}: {first['msg']}"[:1000]) from None


def _pending(files: Sequence[UploadFile], described: list[NewItem], limit: int) -> list[_Pending]:
    """Each file with what is said of it, then what `described` says of no file, or again of one."""
    about: dict[str, int] = {}
    others: list[_Pending] = []
    for number, item in enumerate(described):
        if item.file is None:
            others.append(_Pending(f"items[{number}]", item))
        elif about.setdefault(item.file, number) != number:
            told = f"items[{about[item.file]}] describes the file {item.file[:255]!r} already: describe each file once"
            others.append(_Pending(f"items[{number}]", item, error=told))
    if len(files) + len(others) > limit:
        raise Refused(413, f"a request adds up to {limit} files and texts, not {len(files) + len(others)}")
    if not files and not others:
        raise Refused(422, "there is nothing to add: give files, or items with a text")
    unknown = about.keys() - {file.filename for file in files}
    if unknown:
        raise Refused(422, f"items: no file {sorted(unknown)[0]!r} was uploaded")
    return [*_uploaded(files, described, about), *others]


def _uploaded(files: Sequence[UploadFile], described: list[NewItem], about: dict[str, int]) -> list[_Pending]:
    """Each file with what is said of it; of several of one name nobody knows which was meant, so the first has it."""
    nothing = NewItem.model_validate({})
    names: set[str] = set()
    pending = []
    for file in files:
        name = file.filename or ""
        if name in about and name in names:
            told = f"another file of this request has this name, and items[{about[name]}] describes it: name them apart"
            pending.append(_Pending(name[:255], nothing, error=told))
            continue
        names.add(name)
        item = described[about[name]] if name in about else nothing
        pending.append(_Pending(name[:255], item, data=file.file.read()))
    return pending


def _collection(service: Service, name: str) -> None:
    """Make sure of a collection that this encoder fills; only the service's own is made by itself."""
    try:
        service.retriever(name)
    except CollectionNotFound:
        if name != service.collection:
            raise
        spec = CollectionSpec(name, service.encoder.dim, metric="cosine", encoder=service.encoder.fingerprint)
        # Another first upload, or a job, may have made it meanwhile.
        with contextlib.suppress(CollectionExists):
            service.backend.create(spec)
        service.retriever(name)


def _read(service: Service, name: str, hold: Hold, one: _Pending, seen: dict[str, _Pending]) -> None:
    """Check one thing and plan its records; a file is kept on disk then. `seen` has what came before, by its id."""
    if one.error is not None:
        return
    about = one.about
    try:
        check_metadata(about.id or one.name, about.metadata)
        if one.data is None and not (about.text or "").strip():
            raise ValueError("has neither a file nor a text")
        if _is_told_again(one, seen):
            return
        source = Source("folder", "uploads", root=(service.uploads.folder / name).resolve())
        reader = Reader(source, ledger=None, max_words=0, max_pixels=service.limits.max_pixels)
        read = reader.read(_entry(service, name, hold, one))
    except ImageError as error:
        one.error = image_reason(error)
    except ValueError as error:
        one.error = str(error)
    except OSError as error:
        one.error = f"cannot be kept: {error.strerror}"
    except ReferencesError as error:
        log.warning("not kept: %s", error)
        one.error = "cannot be kept: the service's log says why"
    else:
        if isinstance(read, EntryRefused):
            one.error = read.reason
        else:
            one.item = read[0]


def _is_told_again(one: _Pending, seen: dict[str, _Pending]) -> bool:
    """Whether all of it was said before in this request. Raises ValueError where its id was, of something else."""
    content = digest_of((one.about.text or "").encode() if one.data is None else one.data)
    item_id = one.about.id or f"{'txt' if one.data is None else 'img'}-{content}"
    one.content = content
    first = seen.get(item_id)
    if first is None or first.error is not None:
        seen[item_id] = one
        return False
    if (first.content, _said(first)) == (content, _said(one)):
        one.same, one.data = first, None
        return True
    if one.about.id is None and first.about.id is None:
        raise ValueError(f"{first.name!r} of this request has the same content, and says something else of it")
    raise ValueError(f"its id {item_id[:80]!r} is taken by {first.name!r} of this request")


def _said(one: _Pending) -> tuple[object, ...]:
    return one.about.id, one.about.text, one.about.metadata


def _entry(service: Service, name: str, hold: Hold, one: _Pending) -> Entry:
    """What the indexers' reader takes; a file is kept for that."""
    about = one.about
    if one.data is None:
        return Entry(one.name, "text", metadata=about.metadata, text=about.text, id=about.id)
    with open_image(one.data, max_pixels=service.limits.max_pixels) as image:
        suffix = _SUFFIXES.get(image.format or "", (image.format or "img").lower())
    file = f"{one.content}.{suffix}"
    service.uploads.keep(hold, name, file, one.data)
    return Entry(file, "image", captions=(about.text,) if about.text else (), metadata=about.metadata, id=about.id)


def _store(service: Service, encoder: BatchedEncoder, name: str, hold: Hold, batch: list[_Pending]) -> None:
    """Embed and store what was read; a picture that turns out broken is refused by itself."""
    pictures, images, texts = [], [], []
    for one in batch:
        try:
            for planned in _planned(one):
                if planned.embed is None:
                    pictures.append(service.load(one.data or b"", picture_size(encoder)))
                    images.append(planned.record)
                    one.data = None
        except ImageError as error:
            one.error = image_reason(error)
    texts = [(planned.record, planned.embed) for one in batch for planned in _planned(one) if planned.embed is not None]
    rows = _with_vectors(images, encoder.encode_images(pictures)) if pictures else []
    if texts:
        vectors = encoder.encode_texts([text for _, text in texts])
        rows += _with_vectors([record for record, _ in texts], to_store(vectors))
    unread = {record.id for record in rows if not record.has_vector}
    for one in batch:
        one.unreadable = sum(planned.record.id in unread for planned in _planned(one))
    if rows:
        _replace(service, name, hold, batch, rows)


def _replace(service: Service, name: str, hold: Hold, batch: list[_Pending], rows: list[Record]) -> None:
    """Store records; what items of the same ids had and these have not, files and captions, goes."""
    ids = [item_id for one in batch if (item_id := _id(one)) is not None]
    before = {record.id: record for record in service.backend.get(name, ids)}
    service.backend.upsert(name, rows)
    hold.stored(service.uploads.files_of(rows))
    for one in batch:
        one.was_there = _id(one) in before
    captions = {caption_id(record.id, caption) for record in before.values() for caption in _captions(record)}
    stale = captions - {record.id for record in rows}
    if stale:
        service.backend.delete(name, ids=sorted(stale))
    hold.replaced(service.uploads.files_of(before.values()) - service.uploads.files_of(rows))


def _captions(record: Record) -> list[str]:
    """What may be the caption that an uploaded image came with, which has a record of its own.

    It begins the image's text; how many lines it has is not known, as the words that the file itself has stand below.
    """
    if record.modality != "image" or all(place.source != "uploads" for place in places_of(record)):
        return []
    lines = (record.text or "").split("\n")[:MAX_CAPTION_LINES]
    return ["\n".join(lines[:count]) for count in range(1, len(lines) + 1)]


def _decoded_bytes(encoder: BatchedEncoder, batch: Sequence[_Pending]) -> int:
    """Memory of the batch's pictures as they are decoded for the encoder."""
    facts = [one.item.records[0].record.metadata for one in batch if one.item is not None and one.data is not None]
    return sum(
        RGB_BYTES
        * result_pixels((int(str(f["width"])), int(str(f["height"]))), str(f["format"]), picture_size(encoder))
        for f in facts
    )


def _planned(one: _Pending) -> list[Planned]:
    return one.item.records if one.item is not None and one.error is None else []


def _with_vectors(records: list[Record], vectors: Any) -> list[Record]:
    return [replace(record, vector=vector) for record, vector in zip(records, vectors, strict=True)]


def _id(one: _Pending) -> str | None:
    return one.item.records[0].record.id if one.item is not None and one.error is None else None
