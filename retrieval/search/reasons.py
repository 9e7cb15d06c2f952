"""Why a search found nothing, in one sentence that is true."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backends.base import Modality, Where
from backends.text import wanted_words
from retrieval.search.filters import Filter, and_modality, as_where

if TYPE_CHECKING:
    from retrieval.search.retriever import Retriever

_ONE: dict[Modality | None, str] = {"image": "image", "text": "text", None: "item"}


def why_nothing(
    retriever: Retriever,
    *,
    where: Filter = None,
    modality: Modality | None = None,
    offset: int = 0,
    asked_words: str | None = None,
    min_relevance: float | None = None,
    left_out: int = 0,
) -> str:
    """What a person should be told of a search without results; for the command line, the service and its tools.

    Args:
        asked_words: the words of a keyword search; None for a search by vectors.
        min_relevance: the least relevance that was asked for.
        left_out: how many items the search leaves out, since they are the query.
    """
    tree = as_where(where)
    only = and_modality(None, modality)
    narrowed = and_modality(tree, modality)
    one = _ONE[modality]

    def count(clause: Where | None) -> int:
        return retriever.backend.count(retriever.collection, clause)

    if not count(None):
        return "the collection is empty"
    if tree is not None and not count(tree):
        return "no item matches the filter"
    if only is not None and not count(only):
        return f"there are no {one}s in the collection"
    matching = count(narrowed)
    if not matching:
        return f"no {one} matches the filter"
    if asked_words is not None:
        if not wanted_words(asked_words):
            return "there is no word in the query"
        if not retriever.backend.search_text(retriever.collection, asked_words, 1, where=narrowed):
            among = "" if tree is None else " that matches the filter"
            return f"no {one}{among} has any of these words"
    if matching <= left_out:
        return f"there is no other {one}" + ("" if tree is None else " that matches the filter")
    if min_relevance:
        return "nothing is relevant enough" + (f" from rank {offset + 1} on" if offset else "")
    if offset:
        return f"there is nothing from rank {offset + 1} on"
    return "nothing was found"
