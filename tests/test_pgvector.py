"""The conformance suite over pgvector, and what is particular to it."""

from __future__ import annotations

from backends.conformance import BackendSuite


class TestEmbedded(BackendSuite):
    url = "pgvector-embedded:///{dir}"
