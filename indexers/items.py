"""From an entry of a source to the records it should have: content-hash ids, texts, URIs, metadata.

The ids: ``img-`` an image's content; ``cap-`` an image's id and a caption; ``txt-`` a document's content,
the splitting rule and the passage's number, or a text item's words. Each is 32 hexadecimal digits, the
first 128 bits of SHA-256: among a billion items two collide with a chance of one in 10^21.

An image record has as `text`, for keyword search, a line each: its captions, the words that its file itself has
(`indexers.embedded`), and the names of further files of the same content. Every caption is also a text record of its
own, so that an image finds words; `image` is the id of the image it belongs to. Content that lies at several places is
one item, whose places `retrieval.places` describes; `indexers.copies` puts it together.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from backends.base import MAX_TEXT_BYTES, Record
from backends.checks import payload
from indexers.embedded import words_of
from indexers.fields import Metadata
from indexers.files import (
    MAX_IMAGE_BYTES,
    Stamp,
    Unreadable,
    check_regular,
    check_size,
    decode_guessed,
    display,
    explain,
    file_uri,
    guessed_note,
    read_bounded,
    stamp_of,
)
from indexers.files import (
    MAX_TEXT_BYTES as MAX_DOCUMENT_BYTES,
)
from indexers.kinds import HEAD_BYTES, IMAGE, MARKDOWN_SUFFIXES, by_content, reader_of
from indexers.ledger import Ledger
from indexers.passages import RULE_VERSION, split_passages
from indexers.photos import Photo, read_photo
from indexers.report import escaped_line
from indexers.sources import Entry, Source
from retrieval.images.decode import ImageError, TooManyPixels
from retrieval.images.parts import with_part
from retrieval.places import Place, place_fields

DIGEST_CHARS = 32


@dataclass(frozen=True, slots=True)
class Planned:
    """A record an item should have, without its vector; `embed` is the text to embed, None for the image itself."""

    record: Record
    embed: str | None = None


@dataclass(slots=True)
class Item:
    """An entry with the records it should have, the image's first.

    `digest` is its content's, `words` are those that the file has in itself, `notes` what its owner should know of what
    was taken of it.
    """

    entry: Entry
    digest: str
    records: list[Planned]
    fresh: tuple[str, Stamp, int, str] | None = None
    notes: tuple[str, ...] = ()
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EntryRefused:
    """An entry that cannot be used, and why."""

    entry: Entry
    reason: str


class OtherKind(Exception):
    """A file whose content is of another kind than its name says, one that is read."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads entries of one source. Thread-safe.

    more_pixels: what is told, behind the reason, of a picture with more than `max_pixels`.
    """

    source: Source
    ledger: Ledger | None
    max_words: int
    max_pixels: int | None = None
    more_pixels: str = ""

    def read(self, entry: Entry) -> list[Item] | EntryRefused:
        """The items of an entry, one for most, and which records they should have; reads its file unless the ledger
        knows it.
        """
        try:
            if entry.kind == "text":
                return [self.text(entry)]
            try:
                return reader_of(entry.kind)(self, entry)
            except OtherKind as other:
                return reader_of(other.kind)(self, replace(entry, kind=other.kind))
        except OtherKind as other:
            return EntryRefused(entry, f"is neither {entry.kind} nor {other.kind}")
        except (Unreadable, ValueError) as error:
            return EntryRefused(entry, escaped_line(str(error)))
        except ImageError as error:
            return EntryRefused(entry, image_reason(error, self.more_pixels))

    def content(self, entry: Entry, digest: str) -> bytes:
        """The bytes of an image file. Raises `Unreadable` if they are not those of `digest` any more."""
        data, _ = read_bounded(self.source.root / entry.path, MAX_IMAGE_BYTES)
        if part_digest(digest_of(data), entry.part) != digest:
            raise Unreadable("changed while it was being indexed: run again")
        return data

    def _facts(self, entry: Entry) -> tuple[Metadata, tuple[str, Stamp, int, str] | None]:
        """Digest and measured fields of an image, from the ledger or from its bytes."""
        path = self.source.root / entry.path
        if self.ledger is not None:
            try:
                status = path.stat()
            except (OSError, ValueError) as error:
                raise Unreadable(explain(error)) from None
            check_regular(status, MAX_IMAGE_BYTES)
            known = self.ledger.get(self.source.root, entry.path, stamp_of(status))
            if known is not None:
                facts: Metadata = json.loads(known)
                # Bounds may be tighter than when it was read.
                if self.max_pixels is None or _pixels(facts) <= self.max_pixels:
                    return facts, None
        read_ns = time.time_ns()
        data, stamp = read_bounded(path, MAX_IMAGE_BYTES)
        try:
            photo = read_photo(data, max_pixels=self.max_pixels)
        except ImageError:
            check_kind(data, IMAGE.name)
            raise
        facts = {"digest": digest_of(data), **photo.facts, **_held(photo)}
        return facts, (entry.path, stamp, read_ns, json.dumps(facts, ensure_ascii=False))

    def images(self, entry: Entry) -> list[Item]:
        """The items of a picture file: one, or one for each page of a TIFF."""
        facts, fresh = self._facts(entry)
        digest, pages = str(facts.pop("digest")), facts.pop(_PAGES, None)
        notes = facts.pop(_NOTES, None)
        first = self._image(entry, facts, digest)
        first.fresh, first.notes = fresh, tuple(notes) if isinstance(notes, list) else ()
        items = [first]
        for page in pages if isinstance(pages, list) else ():
            part, width, height = page.split(" ")
            sizes: Metadata = {"width": int(width), "height": int(height), "page": int(part.partition("=")[2])}
            of_page = replace(entry, part=part, captions=(), id=f"{entry.id}#{part}" if entry.id else None)
            items.append(self._image(of_page, {**facts, **sizes}, part_digest(digest, part)))
        return items

    def _image(self, entry: Entry, facts: Metadata, digest: str) -> Item:
        image_id = entry.id or f"img-{digest}"
        uri, place = self._place(entry.path, entry.part)
        # The manifest corrects EXIF; it cannot name what is measured, `indexers.fields` sees to that.
        metadata: Metadata = {**entry.hints, **facts, **entry.metadata, **place}
        if entry.id:
            metadata["content_hash"] = digest
        # What the manifest says instead is not the file's own.
        words = words_of({name: value for name, value in facts.items() if name not in entry.metadata})
        text = joined([*entry.captions, *words])
        records = [Planned(Record(image_id, None, "image", text, uri, metadata))]
        for caption in entry.captions:
            about: Metadata = {**entry.metadata, **place, "image": image_id}
            records.append(Planned(Record(caption_id(image_id, caption), None, "text", caption, uri, about), caption))
        return Item(entry, digest, records, words=words)

    def document(self, entry: Entry) -> Item:
        """The item of a text file: its passages."""
        path = self.source.root / entry.path
        data, _ = read_bounded(path, MAX_IMAGE_BYTES)
        check_kind(data, "document")
        check_size(len(data), MAX_DOCUMENT_BYTES)
        markdown = PurePosixPath(entry.path).suffix.lower() in MARKDOWN_SUFFIXES
        text, guessed = decode_guessed(data, self.source.options.encoding)
        passages = split_passages(text, markdown=markdown, max_words=self.max_words)
        if not passages:
            raise Unreadable("has no words")
        digest, (uri, place) = digest_of(data), self._place(entry.path)
        rule = f"{RULE_VERSION}/{'markdown' if markdown else 'plain'}/{self.max_words}"
        records = []
        for number, passage in enumerate(passages, start=1):
            about: Metadata = {**entry.metadata, **place, "passage": number, "line": passage.line}
            if passage.heading:
                about["heading"] = passage.heading
            passage_id = f"txt-{digest_of(json.dumps([digest, rule, number]).encode())}"
            records.append(Planned(Record(passage_id, None, "text", passage.text, uri, about), passage.embedded))
        return Item(entry, digest, records, notes=(guessed_note(guessed),) if guessed else ())

    def text(self, entry: Entry) -> Item:
        """The item of a text that a manifest holds."""
        text = entry.text or ""
        digest = digest_of(text.encode())
        metadata: Metadata = {**entry.metadata, "source": self.source.name}
        record = Record(entry.id or f"txt-{digest}", None, "text", text, metadata=metadata)
        return Item(entry, digest, [Planned(record, text)])

    def _place(self, path: str, part: str = "") -> tuple[str | None, Metadata]:
        """The address of a file of the source, or of a part of it, and the metadata that says where it is."""
        uri = with_part(file_uri(self.source.root / path), part)
        return place_fields([Place(uri, display(path), self.source.name)])


def read_image(reader: Reader, entry: Entry) -> list[Item]:
    """What `indexers.kinds` has for pictures."""
    return reader.images(entry)


def read_document(reader: Reader, entry: Entry) -> list[Item]:
    """What `indexers.kinds` has for texts."""
    return [reader.document(entry)]


def check_kind(data: bytes, kind: str) -> None:
    """Raise `OtherKind` for content of another kind that is read, `Unreadable` for one that is not."""
    proved = by_content(data[:HEAD_BYTES])
    if proved is None or proved.name == kind:
        return
    if proved.is_read:
        raise OtherKind(proved.name)
    if kind == IMAGE.name:
        raise Unreadable(f"is no picture: its content is that of {proved.what}")


def digest_of(data: bytes) -> str:
    """The first 128 bits of SHA-256, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()[:DIGEST_CHARS]


def part_digest(digest: str, part: str) -> str:
    """What stands for the content of a part of a file, of the file's digest."""
    return digest_of(f"{digest}#{part}".encode()) if part else digest


#: What a ledger's facts hold beside a picture's metadata: each page's part and size in a word, and what is told of it.
_PAGES, _NOTES = "#pages", "#notes"


def _held(photo: Photo) -> Metadata:
    held: Metadata = (
        {_PAGES: [f"{part} {width} {height}" for part, width, height in photo.pages]} if photo.pages else {}
    )
    return {**held, _NOTES: list(photo.notes)} if photo.notes else held


def _pixels(facts: Metadata) -> int:
    return int(str(facts["width"])) * int(str(facts["height"]))


def caption_id(image_id: str, caption: str) -> str:
    """The id of the text record of an image's caption."""
    return f"cap-{digest_of(json.dumps([image_id, caption]).encode())}"


def image_reason(error: ImageError, more_pixels: str = "") -> str:
    """Why an image given as bytes was refused, without the name that `retrieval.images.decode` gives to bytes.

    more_pixels: how to allow more, for one that has too many.
    """
    reason = str(error)
    head, separator, rest = reason.partition(": ")
    if isinstance(error, TooManyPixels) and more_pixels:
        rest += f": {more_pixels}"
    return escaped_line(rest if separator and head.startswith("image of ") else reason)


def joined(lines: Iterable[str]) -> str | None:
    """Captions and other words on a line each, as many as the text of a record may hold; each line once."""
    kept: list[str] = []
    size_bytes = 0
    for line in dict.fromkeys(lines):
        size_bytes += len(line.encode("utf-8")) + 1
        if size_bytes > MAX_TEXT_BYTES:
            break
        kept.append(line)
    return "\n".join(kept) or None


def same_vector(stored: Record, planned: Planned, digest: str) -> bool:
    """Whether the vector of `stored` is that of `planned`: the same content was embedded."""
    record = planned.record
    if stored.modality != record.modality:
        return False
    if planned.embed is None:
        return record.id == f"img-{digest}" or stored.metadata.get("content_hash") == digest
    return stored.text == record.text and stored.metadata.get("heading") == record.metadata.get("heading")


def same_record(stored: Record, planned: Planned) -> bool:
    """Whether all but the vector is stored as planned."""
    return payload(stored) == payload(planned.record)
