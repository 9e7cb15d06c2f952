"""``milvus://``: the conformance suite on the real server."""

from __future__ import annotations

from backends.conformance import BackendSuite


class TestMilvus(BackendSuite):
    url = "milvus://127.0.0.1:19530"
