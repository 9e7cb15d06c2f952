"""Facets: which values a metadata field has over a set of items, and how often."""

from __future__ import annotations

from backends.facets import Facet, count_facets

__all__ = ["Facet", "count_facets"]
