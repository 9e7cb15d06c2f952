"""The conformance suite over Qdrant's client, and what is particular to it."""

from __future__ import annotations

from backends.conformance import BackendSuite, Sizes


class TestQdrantLocal(BackendSuite):
    url = "qdrant-local://"
    # Local mode filters in Python, record by record: 20,000 of them take eight minutes.
    sizes = Sizes(crowd=1_500, wide=2_000)
