"""Evidence: what a search found that is relevant, numbered, prepared for the model, and within its budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from backends.base import Hit, Modality, Record, matches
from backends.filters import MetadataValue
from backends.text import tokenize
from retrieval.chat.budget import Picture, cut, prepare_picture, text_tokens
from retrieval.chat.options import ChatOptions
from retrieval.chat.sanitize import shield
from retrieval.encoders.base import Encoder
from retrieval.images.decode import ImageError, ImageSource, load_image
from retrieval.images.parts import Place, file_of, located
from retrieval.places import existing_uri, uris_of
from retrieval.relevance.captions import describes, image_of
from retrieval.search.filters import Filter, as_where
from retrieval.search.query import Query, UnreadableQuery, as_terms, query_vector, query_words
from retrieval.search.results import Found, Result
from retrieval.search.retriever import Retriever, reciprocal_rank_fusion

_MAX_FIELDS = 12
_MAX_VALUE_CHARS = 120
#: Fields that the indexer adds for itself, which say nothing about what an item shows.
INTERNAL_FIELDS = frozenset(
    {"image", "content_hash", "bytes", "format", "source", "path", "places", "passage", "line", "width", "height"}
)
#: What numbering, labels and line breaks of one piece of evidence cost.
_LABEL_TOKENS = 16
_TAGS_LABEL = "looks like"
LEAST_TAG_PROBABILITY = 0.3
_KEPT_TAGS = 4096

PictureReader: TypeAlias = Callable[[Place], ImageSource]


@dataclass(frozen=True, slots=True)
class Evidence:
    """One found item under the number that answers cite.

    item: as stored; show its `text` as untrusted. shown: the line that the model got for it, made safe by
    `retrieval.chat.sanitize`. facts: of that, what supports a claim: caption or passage, and metadata, each
    apart. tags: what the encoder takes the image for, which is a guess. withheld: sentences that read like
    instructions and were left out. picture: the image the model saw, if it did. tokens: what all that costs,
    estimated.
    """

    number: int
    item: Result
    shown: str
    facts: tuple[str, ...]
    tags: str
    withheld: int
    picture: Picture | None
    tokens: int

    @property
    def relevance(self) -> float | None:
        """Calibrated relevance to the query, 0 to 1; None where it was not judged."""
        return self.item.relevance


def find(
    retriever: Retriever, query: Query, options: ChatOptions, where: Filter = None, *, k: int | None = None
) -> Found:
    """What is relevant, best first: images and texts searched apart, and captions replaced by their image.

    By relevance where all were judged; else the two rankings merged by rank, as their scores cannot be
    compared. A caption found stands for the image it describes, which has that caption among its own, so that
    a model sees the photo, and one photo is one item of evidence; its relevance is the best of both.

    Where the encoder cannot read the question, its picture alone is searched for, or else its words, and `notices`
    say so. k: how many at most; `max_evidence` unless given.
    """
    most = k or options.max_evidence
    vector: NDArray[np.float32] | None = None
    notices: tuple[str, ...] = ()
    try:
        vector = query_vector(query, retriever.encoder)
    except UnreadableQuery as unread:
        pictures = [term for term in as_terms(query) if not isinstance(term.value, str)]
        if not pictures and not (retriever.backend.capabilities.keyword and tokenize(query_words(query))):
            raise
        searched = "its picture was" if pictures else "its words were"
        notices = (f"{unread.encoder} cannot read the question: only {searched} searched for",)
        if pictures:
            query, vector = pictures, query_vector(pictures, retriever.encoder)
    search = partial(_search, retriever, query, options, k=most, vector=vector, where=where)
    images = search(modality="image")
    texts = search(modality="text")
    texts = _with_owners(texts, images, retriever=retriever, where=where)
    best: dict[str, float] = {}
    for hit in (*images, *texts):
        best[hit.id] = max(best.get(hit.id, 0.0), hit.relevance or 0.0)
    merged = reciprocal_rank_fusion([images, texts])
    if all(hit.relevance is not None for hit in merged):
        merged = sorted((replace(hit, relevance=best[hit.id]) for hit in merged), key=lambda hit: -best[hit.id])
    seen = {hit.id: hit for hit in merged if hit.modality == "image"}
    return Found([hit for hit in merged if not _is_caption(hit, seen)][:most], notices=notices)


def _with_owners(
    texts: Sequence[Result], images: Sequence[Result], *, retriever: Retriever, where: Filter
) -> list[Result]:
    """The texts, captions replaced by their image where it is stored and the filter lets it through; each once."""
    known: dict[str, Hit | Record] = {image.id: image for image in images}
    missing = {image for hit in texts if (image := image_of(hit)) is not None} - known.keys()
    clause = as_where(where)
    for record in retriever.backend.get(retriever.collection, sorted(missing)) if missing else ():
        if record.modality == "image" and matches(clause, record.metadata, record.modality):
            known[record.id] = record
    found: dict[str, Result] = {}
    for hit in texts:
        owner = known.get(image_of(hit) or "")
        if owner is not None and describes(hit.text, owner):
            hit = replace(hit, id=owner.id, modality="image", text=owner.text, uri=owner.uri, metadata=owner.metadata)
        found.setdefault(hit.id, hit)
    return list(found.values())


def _search(
    retriever: Retriever,
    query: Query,
    options: ChatOptions,
    *,
    k: int,
    vector: NDArray[np.float32] | None,
    where: Filter,
    modality: Modality,
) -> list[Result]:
    if vector is None:
        return retriever.search(query, k, modality=modality, where=where, mode="keyword")
    # Passages are also found by their words: names and numbers mean little to an encoder.
    by_words = modality == "text" and retriever.backend.capabilities.keyword
    return retriever.search(
        query,
        k,
        modality=modality,
        where=where,
        min_relevance=options.gate,
        mode="hybrid" if by_words else "vector",
        vector=vector,
    )


def _is_caption(hit: Hit, images: Mapping[str, Hit]) -> bool:
    """Whether a text is a caption of one of `images` that does not say so in its metadata."""
    if hit.modality != "text" or not hit.text:
        return False
    return any(describes(hit.text, image) for image in images.values() if hit.uri and hit.uri in uris_of(image))


def prepare(
    found: Sequence[Result],
    *,
    tagger: Tagger,
    options: ChatOptions,
    budget: int,
    read: PictureReader | None = None,
    first: int = 1,
    images: int | None = None,
) -> tuple[Evidence, ...]:
    """The found items as evidence numbered from `first`, as many as `budget` tokens hold, in their order.

    read: see `GroundedChat`; a file that it does not give is as one that is not there.

    An item whose image does not fit, is not readable, or comes after `images` others (`max_images` unless given), is
    given as text.
    Items that say nothing at all (no text, no tags, no metadata, no image) are left out.
    """
    evidence: list[Evidence] = []
    left, pictures = budget, 0
    most = options.max_images if images is None else images
    for item in found:
        may_see = options.vision and pictures < most
        make = partial(_piece, first + len(evidence), item, tagger=tagger, options=options, read=read)
        piece = make(may_see=may_see)
        if piece is not None and piece.tokens > left and piece.picture is not None:
            piece = make(may_see=False)
        if piece is None:
            continue
        if piece.tokens > left:
            break
        left -= piece.tokens
        pictures += piece.picture is not None
        evidence.append(piece)
    return tuple(evidence)


def _piece(
    number: int, item: Result, *, tagger: Tagger, options: ChatOptions, read: PictureReader | None, may_see: bool
) -> Evidence | None:
    path = image_path(item)
    tags = None if path is None else tagger.known(path, options.tags)
    source = _source(path, read) if may_see or (tags is None and tagger.knows_labels and options.tags) else None
    picture = None
    if may_see and source is not None:
        try:
            picture = prepare_picture(source, options.max_image_side, options.max_image_bytes)
        except ImageError:
            # Moved or damaged since it was indexed: what is stored of it still serves.
            source, tags = None, ""
    text = shield(item.text or "")
    withheld = text.withheld
    label = "caption" if item.modality == "image" else "text"
    lines = [(label, cut(text.text, options.max_passage_tokens))] if text.text else []
    if picture is not None:
        tags = ""
    elif tags is None:
        tags = tagger.tags(source, options.tags, path) if source is not None else ""
    if tags:
        lines.append((_TAGS_LABEL, tags))
    told_of = fields_of(item.metadata) + ([] if options.weak else sizes_of(item.metadata))
    for name, value in told_of:
        field, content = shield(name), shield(value)
        withheld += field.withheld + content.withheld
        if field.text and content.text:
            lines.append((field.text, content.text))
    if not lines and picture is None:
        return None
    kind = "photo" if item.modality == "image" else "passage"
    shown = f"[{number}] {kind}" + "".join(f" | {name}: {content}" for name, content in lines)
    tokens = text_tokens(shown) + _LABEL_TOKENS + (picture.tokens if picture else 0)
    told = [(name, content) for name, content in lines if name != _TAGS_LABEL]
    facts = tuple(content if name == label else f"{name} {content}" for name, content in told)
    return Evidence(
        number, item, shown=shown, facts=facts, tags=tags, withheld=withheld, picture=picture, tokens=tokens
    )


class Tagger:
    """The encoder's own zero-shot labels of images, where it has `zero_shot_labels`; the last ones are kept.

    Only labels of a probability of at least 0.3: one that is a guess misleads model and check alike.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._labels = getattr(encoder, "zero_shot_labels", None)
        self._kept: dict[tuple[str, int, int], str] = {}

    @property
    def knows_labels(self) -> bool:
        """Whether the encoder has labels at all."""
        return self._labels is not None

    def known(self, file: Place, count: int) -> str | None:
        """The labels of a file that were asked for before, if it is there and unchanged: it need not be decoded."""
        try:
            return self._kept.get((str(file), file_of(file).stat().st_mtime_ns, count))
        except OSError:
            return None

    def tags(self, image: ImageSource, count: int, file: Place | None = None) -> str:
        """At most `count` labels, with commas between; empty where the encoder knows none, or nothing fits.

        file: where the image is from, by which its labels are kept.
        """
        if self._labels is None or not count:
            return ""
        try:
            key = (str(file), file_of(file).stat().st_mtime_ns, count) if file is not None else None
            if key is not None and key in self._kept:
                return self._kept[key]
            # Bytes and open images are decoded here, as encoders take pictures and paths.
            told = self._labels(image if isinstance(image, Path) else load_image(image), count)
        except (ImageError, OSError):
            return ""
        tags = ", ".join(label for label, probability in told if probability >= LEAST_TAG_PROBABILITY)
        if key is not None:
            if len(self._kept) >= _KEPT_TAGS:
                self._kept.clear()
            self._kept[key] = tags
        return tags


def _source(path: Place | None, read: PictureReader | None) -> ImageSource | None:
    """What to decode for the file of an image item; None where there is none, or it may not be read."""
    if path is None or read is None:
        return path
    try:
        return read(path)
    except (ImageError, OSError):
        return None


def fields_of(metadata: Mapping[str, MetadataValue]) -> list[tuple[str, str]]:
    """The metadata worth telling, as text: at most 12 fields of at most 120 characters."""
    told = []
    for name in sorted(metadata):
        value = metadata[name]
        if name not in INTERNAL_FIELDS and value not in ("", [], None):
            text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            told.append((name.replace("_", " "), text[:_MAX_VALUE_CHARS]))
    return told[:_MAX_FIELDS]


def sizes_of(metadata: Mapping[str, MetadataValue]) -> list[tuple[str, str]]:
    """How large an image and its file are, where that is known."""
    told = []
    width, height, size = (metadata.get(name) for name in ("width", "height", "bytes"))
    if isinstance(width, int) and isinstance(height, int):
        told.append(("size", f"{width} x {height} pixels"))
    if isinstance(size, int):
        told.append(("file size", bytes_told(size)))
    return told


def bytes_told(size: int) -> str:
    """A number of bytes as people say it: "123 kB", "4.5 MB"."""
    return f"{size / 1e6:.1f} MB" if size >= 1_000_000 else f"{max(1, round(size / 1000))} kB"


def stored_vectors(retriever: Retriever, pieces: Sequence[Evidence]) -> dict[int, NDArray[np.float32]]:
    """The stored vectors of evidence by its numbers, of length one; without those that are stored no more."""
    records = retriever.backend.get(retriever.collection, [piece.item.id for piece in pieces], with_vectors=True)
    by_id = {record.id: record.vector for record in records if record.has_vector}
    return {piece.number: _unit(v) for piece in pieces if (v := by_id.get(piece.item.id)) is not None}


def _unit(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    norm = float(np.linalg.norm(vector))
    return vector if norm == 0 else vector / np.float32(norm)


def image_path(item: Hit) -> Place | None:
    """The local file of an image item, or the part of one; None for texts, and for addresses, never fetched."""
    if item.modality != "image":
        return None
    return located(existing_uri(item))
