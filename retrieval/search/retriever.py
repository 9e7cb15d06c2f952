"""Search: text to image, image to text, image to image, by vectors, by words or by both, over any backend."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from backends.base import Backend, Hit, Modality, Record, Where
from backends.filters import check_field_name
from backends.text import searched_text, tokenize, wanted_words
from retrieval.encoders.base import Encoder
from retrieval.encoders.text_side import earlier_texts_notice, has_earlier_texts
from retrieval.relevance.scorer import Calibrator, RelevanceScorer, query_kind
from retrieval.search.facets import Facet, count_facets
from retrieval.search.filters import Filter, and_modality, as_where
from retrieval.search.fusion import Fusion, Ranked, fuse, reciprocal_rank_fusion
from retrieval.search.postprocessing import WINDOW, PostProcessing, PostProcessor
from retrieval.search.query import (
    Query,
    SearchError,
    Stored,
    Term,
    UnreadableQuery,
    as_terms,
    query_items,
    query_vector,
    query_words,
)
from retrieval.search.rerank import Reranker
from retrieval.search.results import Found, Result

__all__ = [
    "EncoderMismatch",
    "Found",
    "Fusion",
    "ItemNotFound",
    "ItemWithoutVector",
    "Mode",
    "Query",
    "Retriever",
    "SearchError",
    "Term",
    "UnreadableQuery",
    "reciprocal_rank_fusion",
]

log = logging.getLogger(__name__)

Mode: TypeAlias = Literal["vector", "keyword", "hybrid"]

MAX_DEPTH = 10_000
#: Ranks of each list that are fused at least. By rank, items without a text lose more than others gain further down.
FUSED_DEPTH = 10
DESCRIBE_EVERY_S = 5.0


class EncoderMismatch(SearchError):
    """The collection was indexed with another encoder than the one that would search it."""


class ItemNotFound(SearchError):
    """No item of that id is in the collection."""


class ItemWithoutVector(SearchError):
    """The item has no vector, since the encoder could not read its text: nothing can be compared with it."""


@dataclass(frozen=True, slots=True)
class _Request:
    """What is looked for: by `vector` where there is one, by `words` where there are some."""

    vector: NDArray[np.float32] | None
    words: str
    where: Where | None
    modality: Modality | None
    effort: float | None
    judge: RelevanceScorer | None = None
    min_relevance: float | None = None
    without: frozenset[str] = frozenset()
    fusion: Fusion = "worth"


class Retriever:
    """Searches one collection of one backend with the encoder that filled it.

    Thread-safe when backend and encoder are. The collection is looked at again every 5 seconds of use, so that
    one which was dropped and filled anew by another encoder is noticed. One whose images are of this encoder and whose
    texts an earlier text side of it encoded is searched, and `notices` tell it. Results carry their calibrated
    relevance (`retrieval.relevance.scorer`), judged by a random sample of the collection that the first search takes.

        retriever = Retriever(backend, load_encoder("compact"), "photos")
        for hit in retriever.search("a cat", k=3, where={"year": {"$gte": 2020}}):
            print(hit.score, hit.uri)

    Args:
        samples: the folder that keeps the samples, one folder a store; None keeps them in memory.
        calibrate: False leaves relevance out.

    Raises:
        CollectionNotFound: at construction or at a later use.
        EncoderMismatch: another encoder filled the collection.
    """

    def __init__(
        self,
        backend: Backend,
        encoder: Encoder,
        collection: str,
        *,
        samples: Path | None = None,
        calibrate: bool = True,
    ) -> None:
        self.backend = backend
        self.encoder = encoder
        #: What was asked for, and the collection that it stood for then, which is searched while it is there.
        self.name, self.collection = collection, backend.resolved(collection)
        self.calibrator = Calibrator(backend, encoder, self.collection, samples) if calibrate else None
        self._checked_at = -DESCRIBE_EVERY_S
        #: What people should know of the collection; as of the last use.
        self.notices: tuple[str, ...] = ()
        self._check()

    def prepare(self) -> None:
        """Do now what the first search would wait for: the sample, the background queries' vectors, their statistics.

        Nothing to do without calibration. Raises `BackendError` and `EncoderError`.
        """
        self._check()
        if self.calibrator is not None:
            self.calibrator.prepare()

    @property
    def outdated(self) -> bool:
        """Whether the name stands for another collection by now, which only a new retriever searches."""
        return self.backend.resolved(self.name) != self.collection

    def _check(self) -> None:
        now = time.monotonic()
        if now - self._checked_at < DESCRIBE_EVERY_S:
            return
        stored = self.backend.describe(self.collection).encoder
        earlier = has_earlier_texts(stored, self.encoder)
        if stored != self.encoder.fingerprint and not earlier:
            raise EncoderMismatch(
                f"collection {self.name!r} was indexed with encoder {stored!r}, but the search would use "
                f"{self.encoder.fingerprint!r}: choose that encoder, or index into another collection"
            )
        if earlier and not self.notices:
            # At this level, as whoever made the retriever tells its notices.
            log.info("%s", earlier_texts_notice(self.name, self.encoder))
        self.notices = (earlier_texts_notice(self.name, self.encoder),) if earlier else ()
        self._checked_at = now

    def search(
        self,
        query: Query,
        k: int = 10,
        *,
        where: Filter = None,
        modality: Modality | None = None,
        offset: int = 0,
        effort: float | None = None,
        min_relevance: float | None = None,
        mode: Mode = "vector",
        fusion: Fusion = "worth",
        diversity: float = 0.0,
        group_duplicates: float | None = None,
        reranker: Reranker | None = None,
        vector: NDArray[np.float32] | None = None,
    ) -> Found:
        """The results of ranks ``offset + 1`` to ``offset + k`` for words, an image, or weighted terms of both.

        Pages of one k fit together without gap or repetition while the collection does not change. Stored items
        that the query is made of (`stored`) are left out. Once found, the list can be shaped: by `reranker`, then
        `group_duplicates`, then `diversity`.

        Args:
            query: a str is text; a Path, bytes or PIL image is an image; a list of `Term` mixes them.
            where: a `Where` or its JSON form.
            modality: only images or only texts; None searches each and merges them by `fusion`, since their scores
                cannot be compared.
            effort: as in `Backend.search`.
            min_relevance: in [0, 1], leaves out what is less relevant, before paging; `RELEVANT` is the
                recommended one. Relevance is judged by vectors, so an item found by keywords that has every word
                of the query stays whatever its own. A keyword search without it judges, and encodes, nothing.
            mode: ``hybrid`` merges the rankings by vectors and by keywords, each read down to k, at least to 10.
                Without a word, as for a picture, or on an engine without keyword search, it is ``vector``; of a text
                that the encoder cannot read only the words are searched. ``keyword`` ranks by BM25 over the words
                of the terms that do not steer away. `score` is that of the list a hit was found in first.
            fusion: how lists are merged: by what their scores are ``worth`` (`RelevanceScorer.worth`), or by
                ``ranks`` alone (`reciprocal_rank_fusion`), as is done without calibration.
            diversity: in [0, 1), orders the first 100 by `maximal_marginal_relevance`.
            group_duplicates: a cosine such as 0.95; what is as close as that to a better-ranked item of its
                modality goes into its `duplicates`, those found as deep as was read.
            reranker: orders the texts among the first 50 anew.
            vector: the query's, where `query_vector` gave it before: the query is not encoded again then.

        Returns:
            At most k results, best first; what they should be told with is in `Found.notices`.

        Raises:
            UnreadableQuery: a text that the encoder cannot read, and that words alone do not answer.
            SearchError: what cannot be answered as asked: one line that says why and what to do.
            ImageError: an image that cannot be read.
            BackendError: the engine's own.
        """
        check_page(k, offset)
        self._check()
        if fusion not in get_args(Fusion):
            raise SearchError(f"fusion must be worth or ranks, not {fusion!r}")
        text = query_words(query)
        searched = "" if mode == "vector" else self._searched_words(text, mode)
        told = self._told_of_words(text) if mode == "hybrid" and not searched else ()
        words_only = False
        if mode == "keyword" and min_relevance is None:
            vector = None
        elif vector is None:
            try:
                vector = query_vector(query, self.encoder)
            except UnreadableQuery:
                # Of several terms one cannot be left out unasked.
                if not searched or not (mode == "keyword" or len(as_terms(query)) == 1):
                    raise
                words_only = True
        request = _Request(
            vector=None if mode == "keyword" else vector,
            words=searched,
            where=_as_where(where),
            modality=modality,
            effort=effort,
            judge=self._judge(vector, as_terms(query), min_relevance),
            min_relevance=min_relevance,
            without=query_items(query),
            fusion=fusion,
        )
        found = self._page(request, k, offset, PostProcessing(diversity, group_duplicates, reranker, text))
        if words_only:
            what = "its relevance is not known" if mode == "keyword" else "only its words were searched"
            told = (f"{self.encoder.name} cannot read this query: {what}",)
        return Found(found, notices=told, words_only=words_only)

    def similar(
        self,
        item_id: str,
        k: int = 10,
        *,
        where: Filter = None,
        modality: Modality | None = None,
        offset: int = 0,
        effort: float | None = None,
        min_relevance: float | None = None,
        diversity: float = 0.0,
        group_duplicates: float | None = None,
    ) -> list[Result]:
        """The items nearest to a stored one, itself left out; of its own modality unless said otherwise.

        Arguments are those of `search`.

        Raises:
            ItemNotFound: no such item; `ItemWithoutVector`; and what `search` raises.
        """
        check_page(k, offset)
        self._check()
        item = self.stored([item_id])[item_id]
        judge = self._judge(item.vector, [Term(item)], min_relevance)
        request = _Request(
            vector=item.vector,
            words="",
            where=_as_where(where),
            modality=modality or item.modality,
            effort=effort,
            judge=judge,
            min_relevance=min_relevance,
            without=frozenset((item_id,)),
        )
        return self._page(request, k, offset, PostProcessing(diversity, group_duplicates))

    def lookup(
        self,
        image: Path | bytes | Image.Image,
        k: int = 10,
        *,
        where: Filter = None,
        offset: int = 0,
        effort: float | None = None,
        min_relevance: float | None = None,
    ) -> list[Result]:
        """The texts (captions, passages) that describe an image best; arguments and errors are those of `search`."""
        return self.search(
            image, k, where=where, modality="text", offset=offset, effort=effort, min_relevance=min_relevance
        )

    def get(self, item_id: str, *, with_vector: bool = False) -> Record:
        """The stored item of this id. Raises `ItemNotFound`."""
        found = self.backend.get(self.collection, [item_id], with_vectors=with_vector)
        if not found:
            raise ItemNotFound(f"no item {item_id!r} in collection {self.name!r}")
        return found[0]

    def stored(self, ids: Sequence[str]) -> dict[str, Stored]:
        """These items as parts of a query, by id: ``Term(stored["a"], -0.5)``.

        Raises:
            ItemNotFound: one is not there. `ItemWithoutVector`: one cannot be compared with others.
        """
        if not ids:
            return {}
        found = self.backend.get(self.collection, ids, with_vectors=True)
        missing = set(ids) - {record.id for record in found}
        if missing:
            raise ItemNotFound(f"no item {min(missing)!r} in collection {self.name!r}")
        without = [record.id for record in found if not record.has_vector]
        if without:
            raise ItemWithoutVector(
                f"item {without[0]!r} has no vector, as {self.encoder.name} could not read its text: nothing can be "
                "compared with it; search for its words with --mode keyword"
            )
        return {r.id: Stored(r.id, r.modality, r.vector) for r in found if r.vector is not None}

    def facets(
        self,
        fields: Sequence[str],
        query: Query | None = None,
        *,
        where: Filter = None,
        modality: Modality | None = None,
        mode: Mode = "vector",
        fusion: Fusion = "worth",
        depth: int = WINDOW,
        top: int = 10,
        vector: NDArray[np.float32] | None = None,
    ) -> dict[str, Facet]:
        """How often each value of these metadata fields is there.

        Args:
            fields: their names; ``modality`` can be counted as a field.
            query: None counts exactly, over every item that matches `where` and `modality`; else its first `depth`
                results are counted, because a search by vectors finds everything, only ever less alike.
            top: how many values of each field are given.
            vector: that of `search`.

        Returns:
            The `top` most frequent values of each field, with their counts.

        Raises:
            SearchError: a field name that no item can have, and what `search` raises.
        """
        if isinstance(fields, str) or top < 1:
            raise SearchError(f"facets take a list of field names and a top of at least 1, not {fields!r} and {top}")
        try:
            fields = [check_field_name(field) for field in fields]
        except ValueError as error:
            raise SearchError(str(error)) from None
        if query is not None:
            found = self.search(query, depth, where=where, modality=modality, mode=mode, fusion=fusion, vector=vector)
            return count_facets(((hit.metadata, hit.modality) for hit in found), fields, top)
        self._check()
        clause = and_modality(_as_where(where), modality)
        return self.backend.facets(self.collection, fields, where=clause, top=top)

    def _searched_words(self, text: str, mode: Mode) -> str:
        """The words for a keyword search, ``""`` where there are none. Raises SearchError where it cannot be done."""
        if mode not in get_args(Mode):
            raise SearchError(f"mode must be vector, keyword or hybrid, not {mode!r}")
        if mode == "keyword" and not text:
            raise SearchError("a keyword search takes words, and the query has none that it does not steer away from")
        if not wanted_words(text):
            return ""
        if not self.backend.capabilities.keyword:
            if mode == "hybrid":
                return ""
            raise SearchError(
                f"{type(self.backend).__name__} has no keyword search: open it with "
                "backends.wrappers.keywords.with_keywords(backend, folder), or search by vectors"
            )
        return text

    def _told_of_words(self, text: str) -> tuple[str, ...]:
        """What a hybrid search that searched no words tells: nothing where there are none."""
        if self.backend.capabilities.keyword or not wanted_words(text):
            return ()
        return (
            f"{type(self.backend).__name__} has no keyword search, so only vectors were searched: open it with "
            "backends.wrappers.keywords.with_keywords(backend, folder)",
        )

    def _page(self, request: _Request, k: int, offset: int, shape: PostProcessing) -> list[Result]:
        """The results of one page: the one place where hits become results."""
        shaper = PostProcessor(shape, self.backend, self.collection)
        fused = request.vector is not None and request.words
        depth = max(k, FUSED_DEPTH) if fused else k
        least = 0 if shape.plain else WINDOW
        shaped: list[tuple[Ranked[Hit], tuple[str, ...]]] = []
        for ranked, complete in self._iter_prefixes(request, depth, least):
            if complete or len(ranked) >= max(least, offset + k):
                shaped = shaper.shaped(ranked)
                if complete or len(shaped) >= offset + k:
                    break
        return [Result.of(each.hit, duplicates=duplicates) for each, duplicates in shaped[offset : offset + k]]

    def _iter_prefixes(self, request: _Request, depth: int, least: int) -> Iterator[tuple[list[Ranked[Hit]], bool]]:
        """A list that only grows at its end, and whether it has all there is; read deeper as long as it is asked for.

        An approximate index may find more when it looks deeper, and fusion moves what it finds in a second
        list. So the list for depth 2k is the list for depth k, then what the deeper search adds: earlier
        pages stay as they were. At least `least` ranks are read at once.
        """
        listed: dict[str, Ranked[Hit]] = {}
        limit = min(MAX_DEPTH + 1, self.backend.capabilities.max_k or MAX_DEPTH + 1)
        # The items of the query themselves are in every list that reaches them.
        depth = min(depth + len(request.without), limit)
        read, value = 0, float("inf")
        while True:
            if depth > read:
                read = min(max(depth, least), limit)
                rankings = self._rankings(request, read)
            exhausted = depth == limit or all(ended and len(ranking) <= depth for ranking, ended in rankings)
            merged = _merged(request, [ranking[:depth] for ranking, _ in rankings])
            for ranked in merged if exhausted else merged[:depth]:
                if ranked.hit.id not in listed and ranked.hit.id not in request.without:
                    # What is found late stands at the end, whatever its value.
                    value = min(value, ranked.value)
                    listed[ranked.hit.id] = Ranked(ranked.hit, value)
            yield list(listed.values()), exhausted
            if exhausted:
                return
            depth = min(2 * depth, limit)

    def _rankings(self, request: _Request, depth: int) -> list[tuple[Sequence[Hit], bool]]:
        """The rankings to be fused, by vector for each modality, then by keywords; and whether each has ended."""
        found: list[tuple[Sequence[Hit], bool]] = []
        wanted: list[Modality] = [request.modality] if request.modality else ["image", "text"]
        if request.vector is not None:
            for modality in wanted:
                clause = and_modality(request.where, modality)
                queries = request.vector[None, :]
                hits = self.backend.search(self.collection, queries, depth, where=clause, effort=request.effort)[0]
                judge, whole = request.judge, request.where is None
                kept = judge.judge(hits, request.min_relevance, whole=whole) if judge else hits
                cut = len(kept) < len(hits)
                if cut and modality == "image" and request.judge and request.min_relevance is not None:
                    # Own evidence falls with the score: of what follows, only captions can speak for an image.
                    kept = [*kept, *request.judge.captioned(request.min_relevance, request.where, hits)]
                found.append((kept, len(hits) < depth or cut))
        if request.words:
            clause = and_modality(request.where, request.modality)
            matching = self.backend.search_text(self.collection, request.words, depth, where=clause)
            by_words = [Result.of(hit, scored_by="keyword") for hit in matching]
            found.append((_relevant(by_words, request), len(matching) < depth))
        return found

    def _judge(
        self, vector: NDArray[np.float32] | None, terms: Sequence[Term], min_relevance: float | None
    ) -> RelevanceScorer | None:
        if min_relevance is not None and not 0 <= min_relevance <= 1:
            raise SearchError(f"min_relevance must be from 0 to 1, not {min_relevance!r}")
        if self.calibrator is None:
            if min_relevance is not None:
                raise SearchError("min_relevance needs calibration, which this retriever was made without")
            return None
        if vector is None:
            return None
        # Telling a text's language may take the encoder: a search that judges nothing must not load it.
        return self.calibrator.judge(vector, query_kind(terms, self.encoder))


def _merged(request: _Request, rankings: Sequence[Sequence[Hit]]) -> list[Ranked[Hit]]:
    """The rankings as one; by keywords is the last one, where there are words."""
    worth = None
    if len(rankings) > 1 and request.judge is not None and request.fusion == "worth":
        # Words that no item has, as those of another language, say nothing of one that has others.
        words = request.words if rankings[-1] else ""
        worth = request.judge.worth(chain.from_iterable(rankings), words)
    return fuse(rankings, worth)


def _relevant(hits: Sequence[Result], request: _Request) -> Sequence[Result]:
    """What a keyword search found, judged; without what is neither relevant enough nor has every word."""
    if request.judge is None:
        return hits
    judged, least, asked = (
        request.judge.score_by_stored_vectors(hits),
        request.min_relevance,
        set(wanted_words(request.words)),
    )
    return [
        hit
        for hit in judged
        if least is None
        or hit.relevance is None
        or hit.relevance >= least
        or asked <= set(tokenize(searched_text(hit.text, hit.uri)))
    ]


def check_page(k: int, offset: int) -> None:
    """Raise SearchError for a page that starts before 0, is empty, or ends beyond rank 10,000."""
    for name, value, least in (("k", k, 1), ("offset", offset, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise SearchError(f"{name} must be an integer of at least {least}, not {value!r}")
    if offset + k > MAX_DEPTH:
        raise SearchError(f"offset + k is {offset + k}; paging ends at rank {MAX_DEPTH}: narrow the search with where")


def _as_where(where: Filter) -> Where | None:
    try:
        return as_where(where)
    except (ValueError, TypeError) as error:
        raise SearchError(f"the filter is not usable: {error}") from None
