"""The conformance suite over every engine."""

from __future__ import annotations

from backends.conformance import BackendSuite


class TestExact(BackendSuite):
    url = "exact://"


class TestFaiss(BackendSuite):
    url = "faiss:///{dir}"
