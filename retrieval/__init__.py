"""Encoders and search: words and pictures in one vector space."""

from __future__ import annotations

from retrieval.encoders import load_encoder
from retrieval.query import SearchError, Term
from retrieval.search import Retriever

__all__ = ["Retriever", "SearchError", "Term", "load_encoder"]
