"""The conformance suite over qdrant-edge://, and what is particular to it."""

from __future__ import annotations

from backends.conformance import BackendSuite


class TestQdrantEdge(BackendSuite):
    url = "qdrant-edge:///{dir}"
