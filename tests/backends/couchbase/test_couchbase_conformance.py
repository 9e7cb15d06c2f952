"""The conformance suite over Couchbase's adapter, on a fake server that knows its statements."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from backends.conformance import BackendSuite, Sizes
from tests.support.fake_couchbase import FakeCouchbase


class TestCouchbase(BackendSuite):
    url = "couchbase://"
    # It compares everything, in Python.
    sizes = Sizes(crowd=4_000, hard=4_000, wide=3_000, indexed=1_500)
    fake: ClassVar[FakeCouchbase]

    @classmethod
    def setup_class(cls) -> None:
        cls.fake = FakeCouchbase()
        super().setup_class()

    @classmethod
    def teardown_class(cls) -> None:
        super().teardown_class()
        cls.fake.stop()

    @classmethod
    def place(cls, directory: Path) -> str:
        return cls.fake.url
