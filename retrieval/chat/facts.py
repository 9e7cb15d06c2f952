"""What metadata there is over a collection: its fields, and the values of one of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from backends.base import Scalar, Where
from retrieval.chat.counting import MOST_READ, matching
from retrieval.chat.evidence import INTERNAL_FIELDS
from retrieval.search.facets import count_facets
from retrieval.search.retriever import Retriever

_FIELDS = 30


@dataclass(frozen=True, slots=True)
class Values:
    """The most frequent values of a field with their counts, and how many more there are."""

    counts: tuple[tuple[Scalar, int], ...]
    more: int


def reads_all(retriever: Retriever) -> bool:
    """Whether what is read here is all of the collection, and not its first `MOST_READ` records."""
    return retriever.backend.count(retriever.collection) <= MOST_READ


def fields_in(retriever: Retriever, where: Where | None) -> list[tuple[str, int]]:
    """The fields that items have, with how many have each, the most frequent first; captions of photos left out.

    Over the first `MOST_READ` records, as `values_of`.
    """
    counted: Counter[str] = Counter()
    for record in matching(retriever, where):
        counted.update(name for name in record.metadata if name not in INTERNAL_FIELDS)
    return sorted(counted.items(), key=lambda pair: (-pair[1], pair[0]))[:_FIELDS]


def values_of(retriever: Retriever, field: str, where: Where | None, top: int) -> Values:
    """The `top` most frequent values of a field; none of a field that the indexer keeps for itself."""
    if field in INTERNAL_FIELDS:
        return Values((), 0)
    items = ((record.metadata, record.modality) for record in matching(retriever, where))
    facet = count_facets(items, [field], top)[field]
    return Values(facet.counts, facet.more)
