"""The conformance suite over AnalyticDB's adapter, on its stand-in: PostgreSQL with pgvector."""

from __future__ import annotations

import pytest

from backends.conformance import Sizes
from tests.support.analyticdb import AnalyticServer, StandInBackend
from tests.support.postgres_suite import ServerSuite


@pytest.mark.server
class TestAnalyticdb(ServerSuite):
    engine = StandInBackend
    #: It counts as a test of the scheme.
    stands_in = True
    # The same engine is tested at full size as pgvector.
    sizes = Sizes(crowd=4_000, hard=4_000, wide=3_000, indexed=1_000, kills=2)
    kind = AnalyticServer
