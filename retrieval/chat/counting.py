"""How many items there are: exactly by a filter, and at least so many by relevance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from backends.base import Record, Where, matches
from backends.errors import Unsupported
from backends.filters import And, Compare
from retrieval.chat.evidence import find
from retrieval.chat.options import MIN_EVIDENCE_RELEVANCE, ChatOptions
from retrieval.search.filters import and_modality
from retrieval.search.query import Query, SearchError
from retrieval.search.results import Result
from retrieval.search.retriever import Retriever

#: How many relevant items are looked for at most, and counted.
COUNTED = 200
#: Records that are read where something has to be read one by one.
MOST_READ = 50_000


#: "At least" is said of what is as relevant as one unrelated query in twenty finds: the evidence of an answer is
#: looked at once more, a number is not.
SURE = 0.95


@dataclass(frozen=True, slots=True)
class Counted:
    """A number of photos and texts. shown: some of them.

    at_least: there may be more, as relevance is an estimate; perhaps: how many there may be together; unsure: those
    that may be.
    """

    photos: int
    texts: int
    at_least: bool = False
    shown: tuple[Result, ...] = ()
    perhaps: int = 0
    unsure: tuple[Result, ...] = ()

    @property
    def all(self) -> int:
        """Photos and texts together."""
        return self.photos + self.texts


def count_items(retriever: Retriever, where: Where | None) -> Counted:
    """How many photos, and texts that are no photo's caption, match a filter; at least, where not all could be read."""
    backend, name = retriever.backend, retriever.collection
    captions = Compare("image", "exists", True)
    try:
        photos, texts = (backend.count(name, and_modality(where, m)) for m in ("image", "text"))
        only = and_modality(where, "text")
        texts -= backend.count(name, And((only, captions)) if only else captions) if texts else 0
        return Counted(photos, texts)
    except Unsupported:
        kinds = Counter(record.modality for record in matching(retriever, where))
        return Counted(kinds["image"], kinds["text"], at_least=backend.count(name) > MOST_READ)


def count_relevant(retriever: Retriever, query: Query, options: ChatOptions, where: Where | None) -> Counted:
    """At least how many items are relevant to a query. Raises `SearchError`, also where relevance is not known."""
    return count_about(retriever, [query], options, where)


def count_about(retriever: Retriever, queries: Sequence[Query], options: ChatOptions, where: Where | None) -> Counted:
    """As `count_relevant`, of the items that are relevant to every one of some queries."""
    gate = options.gate or MIN_EVIDENCE_RELEVANCE
    found = [find(retriever, query, replace(options, gate=gate), where, k=COUNTED) for query in queries]
    if any(hit.relevance is None for hits in found for hit in hits):
        raise SearchError("how relevant items are is not known in this collection: count by a filter")
    # What is below the gate was found by all of the words, which are in its text.
    surely = [{hit.id for hit in hits if not gate <= (hit.relevance or 0.0) < SURE} for hits in found]
    perhaps = [hit for hit in found[0] if all(any(hit.id == each.id for each in hits) for hits in found[1:])]
    sure = [hit for hit in perhaps if all(hit.id in ids for ids in surely)]
    photos = sum(hit.modality == "image" for hit in sure)
    return Counted(
        photos,
        len(sure) - photos,
        at_least=True,
        shown=tuple(sure),
        perhaps=len(perhaps),
        unsure=tuple(hit for hit in perhaps if hit not in sure),
    )


def list_items(retriever: Retriever, where: Where | None, k: int) -> Sequence[Result]:
    """The first k items that match a filter, photos before texts, without captions of photos."""
    kept: list[Record] = []
    photos = 0
    for record in matching(retriever, where):
        kept.append(record)
        photos += record.modality == "image"
        if photos == k:
            break
    kept.sort(key=lambda record: record.modality != "image")
    return [as_result(record) for record in kept[:k]]


def as_result(record: Record) -> Result:
    """A stored record as something found, of which nothing was judged."""
    return Result(
        id=record.id,
        score=0.0,
        modality=record.modality,
        text=record.text,
        uri=record.uri,
        metadata=record.metadata,
        exact=True,
    )


def matching(retriever: Retriever, where: Where | None, *, most: int | None = None) -> Iterator[Record]:
    """Of the first `most` records (`MOST_READ` unless given) those that match a filter and are no photo's caption."""
    most = MOST_READ if most is None else most
    pages = retriever.backend.scan(retriever.collection, with_vectors=False, batch=min(most, 1000))
    read = islice((record for page in pages for record in page.records), most)
    return (r for r in read if "image" not in r.metadata and matches(where, r.metadata, r.modality))
