"""The conformance suite over Qdrant's client, and what is particular to it.

No package holds a Qdrant server, so the remote path runs against `FakeQdrant`, over HTTP and over gRPC.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from backends import connect
from backends.base import BackendError, CollectionExists, CollectionNotFound, CollectionSpec, Compare, IndexSpec
from backends.base import Record, Unavailable
from backends.conformance import BackendSuite, Sizes
from tests.fake_qdrant import FakeQdrant

# Local mode, which the fake answers from, filters in Python, record by record.
SIZES = Sizes(crowd=1_500, wide=2_000, indexed=800, kills=2)


class TestQdrantLocal(BackendSuite):
    url = "qdrant-local://"
    sizes = SIZES


class FakeServer(BackendSuite):
    sizes = SIZES
    prefer_grpc: ClassVar[bool]
    fake: ClassVar[FakeQdrant]

    @classmethod
    def setup_class(cls) -> None:
        cls.fake = FakeQdrant()
        super().setup_class()

    @classmethod
    def teardown_class(cls) -> None:
        super().teardown_class()
        cls.fake.close()

    @classmethod
    def place(cls, directory: Path) -> str:
        return cls.fake.url(prefer_grpc=cls.prefer_grpc)


class TestQdrantOverHttp(FakeServer):
    prefer_grpc = False


class TestQdrantOverGrpc(FakeServer):
    prefer_grpc = True


del BackendSuite, FakeServer
