"""Sightline in LangChain: embeddings, a retriever, and a vector store with images, over any engine."""

from __future__ import annotations

try:
    from retrieval.langchain.documents import portable_metadata
    from retrieval.langchain.embeddings import SightlineEmbeddings, embeddings_fingerprint
    from retrieval.langchain.retriever import SightlineRetriever
    from retrieval.langchain.store import SightlineVectorStore
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] in ("backends", "retrieval"):
        raise
    raise ImportError(f"retrieval.langchain needs the package {error.name!r}: pip install 'sightline[chat]'") from error

__all__ = [
    "SightlineEmbeddings",
    "SightlineRetriever",
    "SightlineVectorStore",
    "embeddings_fingerprint",
    "portable_metadata",
]
