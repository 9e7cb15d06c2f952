"""Sightline's own search as a LangChain retriever."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import run_in_executor
from pydantic import Field

from backends.base import Hit, Modality
from retrieval.langchain.documents import original_metadata
from retrieval.search.query import Query
from retrieval.search.results import Result
from retrieval.search.retriever import Retriever


class SightlineRetriever(BaseRetriever):
    """What a Sightline `Retriever` finds, as LangChain documents.

    A document has the item's id, its text (the passage, or an image's caption) and its metadata, to which
    are added ``score``, ``modality``, ``uri`` where there is one, ``relevance`` where it was judged, and
    ``duplicates`` where some were folded into it. An item's own field of such a name is kept as
    ``item_score``, ``item_uri`` and so on.

    `filter` is a `Where` or its JSON form; `search_kwargs` are further arguments of `Retriever.search`.
    All can be given with each `invoke` as well. A query may be whatever `Retriever.search` takes, a Path,
    bytes or PIL image included. Raises what that raises.
    """

    retriever: Retriever
    k: int = 10
    #: A `Where` or a mapping; checked by the search itself.
    filter: Any = None
    modality: Modality | None = None
    search_kwargs: dict[str, Any] = Field(default_factory=dict)

    def _get_relevant_documents(
        self, query: Query, *, run_manager: CallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        return self._found(query, kwargs)

    async def _aget_relevant_documents(
        self, query: Query, *, run_manager: AsyncCallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        return await run_in_executor(None, self._found, query, kwargs)

    def _found(self, query: Query, given: Mapping[str, Any]) -> list[Document]:
        options = {"k": self.k, "filter": self.filter, "modality": self.modality, **self.search_kwargs, **given}
        where = options.pop("filter")
        return [found_document(hit) for hit in self.retriever.search(query, where=where, **options)]


def found_document(hit: Hit) -> Document:
    """The document of a hit, with how it was found in its metadata."""
    metadata: dict[str, Any] = {"score": hit.score, "modality": hit.modality}
    if hit.uri is not None:
        metadata["uri"] = hit.uri
    if isinstance(hit, Result):
        if hit.relevance is not None:
            metadata["relevance"] = hit.relevance
        if hit.duplicates:
            metadata["duplicates"] = list(hit.duplicates)
    own = original_metadata(hit.metadata)
    for name in [name for name in own if name in metadata]:
        kept = f"item_{name}"
        while kept in own:
            kept = f"item_{kept}"
        own[kept] = own.pop(name)
    return Document(hit.text or "", id=hit.id, metadata={**own, **metadata})
