"""Encoders and search: words and pictures in one vector space."""

from __future__ import annotations

from retrieval.encoders import load_encoder
from retrieval.search.query import SearchError, Term
from retrieval.search.retriever import Retriever

__all__ = ["Retriever", "SearchError", "Term", "load_encoder"]
