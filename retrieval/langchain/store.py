"""A LangChain vector store, with images, over any engine."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.runnables import run_in_executor
from langchain_core.vectorstores import VectorStore
from numpy.typing import NDArray

from backends import connect
from backends.base import (
    MODALITIES,
    Backend,
    CollectionExists,
    CollectionNotFound,
    CollectionSpec,
    Hit,
    IndexSpec,
    Metric,
    Modality,
    Record,
)
from backends.kit.stored_records import with_vector
from retrieval.encoders.text_side import earlier_texts_notice, has_earlier_texts, to_store
from retrieval.images.decode import ImageSource
from retrieval.langchain.documents import as_many, as_texts, batches, document_of, records_of
from retrieval.langchain.embeddings import ImageEmbeddings, SightlineEmbeddings, embeddings_fingerprint, image_uris
from retrieval.search.diversity import diverse_neighbours
from retrieval.search.filters import Filter, and_modality, as_where
from retrieval.search.fusion import reciprocal_rank_fusion
from retrieval.search.retriever import DESCRIBE_EVERY_S, EncoderMismatch

log = logging.getLogger(__name__)

#: Maps scores to [0, 1], monotonically: LangChain's scale, without calibration.
RELEVANCE: dict[Metric, Callable[[float], float]] = {
    "cosine": lambda score: min(1.0, max(0.0, (1.0 + score) / 2.0)),
    "l2": lambda score: 1.0 / (1.0 - min(score, 0.0)),
    "dot": lambda score: (1.0 + math.tanh(score / 2.0)) / 2.0,
}

#: An engine's index is brought up to date once this store has added so many items, and this share of what was there.
INDEX_AFTER, INDEX_SHARE = 10_000, 0.25


class SightlineVectorStore(VectorStore):
    """A LangChain vector store in one collection of any Sightline engine, with any LangChain embeddings.

    The collection is made by the first documents added, for vectors of their length; until then searches
    find nothing. It keeps `embeddings_fingerprint` (or `fingerprint`, where you know better), and other
    embeddings are refused with `EncoderMismatch`, at once or at the next use. `metric` and `index` count
    when it is made. All that is added is checked and embedded before anything is written.

    Metadata may be any JSON and comes back as it was; see `portable_metadata` for what can be filtered by.
    A document that is an image carries ``modality`` and, where known, ``uri`` in its metadata besides.

    Every search takes these keywords, and refuses others with TypeError:
    `filter`: a `Where` or its JSON form, ``{"year": {"$gte": 1990}, "tags": {"$in": ["a"]}}``.
    `modality`: ``"text"`` or ``"image"`` to find only these. Without it, and with embeddings that see images,
    each is searched and the two rankings are merged by rank, since their scores cannot be compared: such a
    list is not sorted by score. `effort`: as in `Backend.search`.

    Raises ValueError for arguments, `BackendError` for the engine's troubles. Thread-safe when the backend
    and the embeddings are; the backend stays the caller's to close.
    """

    def __init__(
        self,
        backend: Backend,
        embeddings: Embeddings,
        collection: str = "langchain",
        *,
        fingerprint: str | None = None,
        metric: Metric = "cosine",
        index: IndexSpec | None = None,
        relevance_score_fn: Callable[[float], float] | None = None,
    ) -> None:
        self.backend = backend
        self.collection = collection
        self.fingerprint = fingerprint or embeddings_fingerprint(embeddings)
        self._embeddings = embeddings
        # Asked once: a protocol is looked up name by name.
        self._sees_images = isinstance(embeddings, ImageEmbeddings)
        # Its checks of name, metric and fingerprint are wanted now, not at the first document.
        self._template = CollectionSpec(
            collection, dim=1, metric=metric, encoder=self.fingerprint, index=index or IndexSpec()
        )
        self._relevance_score_fn = relevance_score_fn
        self._known: tuple[float, CollectionSpec] | None = None
        # How many items were there when the engine was last told to index them, and how many were added since.
        self._indexed = self._added = 0
        self._spec()

    @property
    def embeddings(self) -> Embeddings:
        """The embeddings that texts and queries go through."""
        return self._embeddings

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        backend: Backend | None = None,
        **kwargs: Any,
    ) -> Self:
        """A store with these texts, in `backend` or else in memory; other keywords are the constructor's."""
        store = cls(connect("exact://") if backend is None else backend, embedding, **kwargs)
        store.add_texts(texts, metadatas, ids=ids)
        return store

    # Writing

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        batch_size: int | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Embed the texts, `batch_size` at a time, and store them, replacing those whose id is there.

        Returns:
            Their ids; one that is None becomes a random UUID.

        Raises:
            ValueError: metadatas or ids are more or fewer than the texts, or an id is given twice.
        """
        _refuse(kwargs)
        listed = as_texts(texts)
        made = records_of(listed, metadatas, ids)
        vectors = [row for each in batches(listed, batch_size) for row in self._embeddings.embed_documents(each)]
        self._store(made, vectors)
        return [record.id for record in made]

    async def aadd_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        batch_size: int | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """`add_texts`, with the asynchronous side of the embeddings."""
        _refuse(kwargs)
        listed = as_texts(texts)
        made = records_of(listed, metadatas, ids)
        vectors = [row for each in batches(listed, batch_size) for row in await self._embeddings.aembed_documents(each)]
        await run_in_executor(None, self._store, made, vectors)
        return [record.id for record in made]

    def add_images(
        self,
        images: Iterable[ImageSource],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        captions: Sequence[str | None] | None = None,
        ids: Sequence[str | None] | None = None,
        uris: Sequence[str | None] | None = None,
    ) -> list[str]:
        """Embed the images and store them, replacing those whose id is there.

        Args:
            images: paths, ``file:`` URIs, bytes or PIL images.
            captions: become the `page_content` of the documents, for keyword search; the vector is the
                picture's alone.
            uris: where the bytes are; the paths given, where left out.

        Returns:
            Their ids.

        Raises:
            ImageError: one cannot be read; nothing is stored.
            TypeError: the embeddings see no images.
        """
        if isinstance(images, str | bytes):
            raise ValueError("images must be a list, not one image")
        listed = list(images)
        places = image_uris(listed) if uris is None else uris
        told = as_many(captions, len(listed), name="captions")
        made = records_of(told, metadatas, ids, modality="image", uris=places)
        self._store(made, self._embed_images(listed) if listed else [])
        return [record.id for record in made]

    async def aadd_images(self, images: Iterable[ImageSource], *args: Any, **kwargs: Any) -> list[str]:
        """`add_images`, in a thread."""
        return await run_in_executor(None, self.add_images, images, *args, **kwargs)

    def delete(self, ids: list[str] | None = None, *, filter: Filter = None, **kwargs: Any) -> bool:
        """Delete by id, or all that match `filter`. Ids that are not there are ignored; returns True.

        With neither it raises ValueError. LangChain's base class lets that mean everything, which has
        cost people their collections: a None that nobody meant. ``backend.drop(collection)`` says it.
        """
        _refuse(kwargs)
        if ids is not None and filter is not None:
            raise ValueError("delete takes ids or a filter, not both")
        where = as_where(filter)
        if ids is None and where is None:
            raise ValueError(
                f"delete was told neither ids nor a filter; to remove everything, drop the collection "
                f"{self.collection!r} in its backend"
            )
        if self._spec() is not None:
            try:
                self.backend.delete(self.collection, ids=ids, where=where)
            except CollectionNotFound:
                self._known = None
        return True

    # Reading

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """The documents of these ids, each once, in their order; missing ones are skipped."""
        try:
            records = self.backend.get(self.collection, list(dict.fromkeys(ids))) if self._spec() else []
        except CollectionNotFound:
            return []
        return [document_of(record) for record in records]

    def similarity_search(self, query: str, k: int = 4, filter: Filter = None, **kwargs: Any) -> list[Document]:
        """The k documents nearest to the query's words."""
        return self.similarity_search_by_vector(self._embeddings.embed_query(query), k, filter, **kwargs)

    async def asimilarity_search(self, query: str, k: int = 4, filter: Filter = None, **kwargs: Any) -> list[Document]:
        """`similarity_search`, with the asynchronous side of the embeddings."""
        vector = await self._embeddings.aembed_query(query)
        return await run_in_executor(None, self.similarity_search_by_vector, vector, k, filter, **kwargs)

    def similarity_search_with_score(
        self, query: str, k: int = 4, filter: Filter = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """The k nearest documents and their scores: cosine, dot product or minus the distance; higher is better."""
        return self.similarity_search_with_score_by_vector(self._embeddings.embed_query(query), k, filter, **kwargs)

    async def asimilarity_search_with_score(
        self, query: str, k: int = 4, filter: Filter = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """`similarity_search_with_score`, with the asynchronous side of the embeddings."""
        vector = await self._embeddings.aembed_query(query)
        return await run_in_executor(None, self.similarity_search_with_score_by_vector, vector, k, filter, **kwargs)

    def similarity_search_by_vector(
        self, embedding: list[float], k: int = 4, filter: Filter = None, **kwargs: Any
    ) -> list[Document]:
        """The k documents nearest to a vector."""
        return [document for document, _ in self.similarity_search_with_score_by_vector(embedding, k, filter, **kwargs)]

    def similarity_search_with_score_by_vector(
        self, embedding: list[float], k: int = 4, filter: Filter = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """The k documents nearest to a vector, and their scores."""
        hits = reciprocal_rank_fusion(self._rankings(embedding, k, filter, **kwargs))[:k]
        return [(document_of(hit), hit.score) for hit in hits]

    def similarity_search_by_image(
        self, image: ImageSource, k: int = 4, filter: Filter = None, **kwargs: Any
    ) -> list[Document]:
        """The k documents nearest to an image: a path, a ``file:`` URI, bytes or a PIL image."""
        return self.similarity_search_by_vector(self._embed_images([image])[0], k, filter, **kwargs)

    async def asimilarity_search_by_image(
        self, image: ImageSource, k: int = 4, filter: Filter = None, **kwargs: Any
    ) -> list[Document]:
        """`similarity_search_by_image`, in a thread."""
        return await run_in_executor(None, self.similarity_search_by_image, image, k, filter, **kwargs)

    def max_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """k of the `fetch_k` nearest documents, chosen to be near the query and unlike each other.

        (Carbonell and Goldstein, SIGIR 1998.) `lambda_mult` is 1 for nearness alone, 0 for diversity
        alone. Of images and texts each are chosen among their kind, then merged by rank.
        """
        vector = self._embeddings.embed_query(query)
        return self.max_marginal_relevance_search_by_vector(
            vector, k=k, fetch_k=fetch_k, lambda_mult=lambda_mult, **kwargs
        )

    async def amax_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """`max_marginal_relevance_search`, with the asynchronous side of the embeddings."""
        vector = await self._embeddings.aembed_query(query)
        search = self.max_marginal_relevance_search_by_vector
        return await run_in_executor(None, search, vector, k=k, fetch_k=fetch_k, lambda_mult=lambda_mult, **kwargs)

    def max_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: Filter = None,
        **kwargs: Any,
    ) -> list[Document]:
        """`max_marginal_relevance_search` for a vector."""
        if not 0 <= lambda_mult <= 1:
            raise ValueError(f"lambda_mult must be in [0, 1], not {lambda_mult!r}")
        rankings = self._rankings(embedding, max(k, fetch_k), filter, **kwargs)
        chosen = [self._diverse(embedding, hits, k=k, lambda_mult=lambda_mult) for hits in rankings]
        return [document_of(hit) for hit in reciprocal_rank_fusion(chosen)[:k]]

    # Parts

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        """Maps scores to [0, 1], monotonically: no calibration, only LangChain's scale."""
        if self._relevance_score_fn is not None:
            return self._relevance_score_fn
        spec = self._spec()
        return RELEVANCE[self._template.metric if spec is None else spec.metric]

    def _embed_images(self, images: list[ImageSource]) -> list[list[float]]:
        if not isinstance(self._embeddings, ImageEmbeddings):
            raise TypeError(
                f"{type(self._embeddings).__name__} has no embed_images: for pictures use SightlineEmbeddings "
                "or other embeddings that have it"
            )
        return self._embeddings.embed_images(images)

    def _spec(self) -> CollectionSpec | None:
        """The collection as it is, looked at every few seconds; None where there is none yet."""
        now = time.monotonic()
        if self._known is not None and now - self._known[0] < DESCRIBE_EVERY_S:
            return self._known[1]
        try:
            spec = self.backend.describe(self.collection)
        except CollectionNotFound:
            self._known = None
            return None
        own = self._embeddings.encoder if isinstance(self._embeddings, SightlineEmbeddings) else None
        if own is not None and has_earlier_texts(spec.encoder, own):
            if self._known is None:
                log.warning("%s", earlier_texts_notice(self.collection, own))
        elif spec.encoder != self.fingerprint:
            raise EncoderMismatch(
                f"collection {self.collection!r} was filled with the embeddings {spec.encoder!r}, not with "
                f"{self.fingerprint!r}: use those, or another collection"
            )
        self._known = (now, spec)
        return spec

    def _store(self, records: list[Record], vectors: Sequence[Sequence[float]]) -> None:
        if len(vectors) != len(records):
            raise ValueError(f"the embeddings gave {len(vectors)} vectors for {len(records)} items")
        if not records:
            return
        # What float32 cannot hold becomes infinite, which the engine refuses by name.
        with np.errstate(over="ignore"):
            rows = _rows_of(vectors)
        if isinstance(self._embeddings, SightlineEmbeddings):
            # Texts that its encoder cannot read are stored for keyword search alone.
            rows = to_store(rows)
        filled = [with_vector(record, row) for record, row in zip(records, rows, strict=True)]
        # Looked at afresh: another store may have made it anew with other embeddings.
        self._known = None
        if self._spec() is None:
            self._create(len(vectors[0]))
        try:
            self.backend.upsert(self.collection, filled)
        except CollectionNotFound:
            # Dropped by someone since it was last looked at.
            self._create(len(vectors[0]))
            self.backend.upsert(self.collection, filled)
        self._index(len(filled))

    def _index(self, added: int) -> None:
        """Have the engine index what was added, once it is much: nobody else would, and LangChain cannot say it."""
        self._added += added
        if self._added < max(INDEX_AFTER, INDEX_SHARE * self._indexed):
            return
        self._added = 0
        try:
            self.backend.flush(self.collection)
            self._indexed = self.backend.count(self.collection)
        except CollectionNotFound:
            # Dropped by someone since.
            self._known = None

    def _create(self, dim: int) -> None:
        self._known = None
        try:
            self.backend.create(replace(self._template, dim=dim))
        except CollectionExists:
            # Another store was faster, perhaps one with other embeddings.
            self._spec()

    def _rankings(
        self,
        vector: Sequence[float],
        depth: int,
        filter: Filter,
        *,
        modality: Modality | None = None,
        effort: float | None = None,
    ) -> list[list[Hit]]:
        """The nearest `depth` of the modality asked for, or else of each that the embeddings see."""
        where = as_where(filter)
        if modality is not None and modality not in MODALITIES:
            raise ValueError(f"modality must be one of {MODALITIES}, not {modality!r}")
        wanted: Sequence[Modality | None] = [modality]
        if modality is None and self._sees_images:
            wanted = MODALITIES
        if self._spec() is None:
            return []
        try:
            clauses = [and_modality(where, each) for each in wanted]
            search = self.backend.search
            return [search(self.collection, [vector], depth, where=clause, effort=effort)[0] for clause in clauses]
        except CollectionNotFound:
            self._known = None
            return []

    def _diverse(self, vector: Sequence[float], hits: list[Hit], *, k: int, lambda_mult: float) -> list[Hit]:
        stored = self.backend.get(self.collection, [hit.id for hit in hits], with_vectors=True)
        vectors = {record.id: record.vector for record in stored if record.has_vector and record.vector is not None}
        # A hit may have been deleted since.
        there = [hit for hit in hits if hit.id in vectors]
        if not there:
            return []
        rows = np.stack([vectors[hit.id] for hit in there])
        return [there[i] for i in diverse_neighbours(vector, rows, k=k, lambda_mult=lambda_mult)]


def _rows_of(vectors: Sequence[Sequence[float]]) -> list[NDArray[np.float32]]:
    try:
        return list(np.asarray(vectors, dtype=np.float32))
    except ValueError:
        # Of several lengths, which the engine refuses by name.
        return [np.asarray(vector, dtype=np.float32) for vector in vectors]


def _refuse(unknown: Mapping[str, Any]) -> None:
    if unknown:
        raise TypeError(f"unknown argument {next(iter(unknown))!r}")
