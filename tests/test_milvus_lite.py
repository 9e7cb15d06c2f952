"""``milvus-lite://``: the conformance suite."""

from __future__ import annotations

from backends.conformance import BackendSuite


class TestMilvusLite(BackendSuite):
    url = "milvus-lite:///{dir}"
