"""The conformance suite over ClickHouse: its engine in process, the same behind HTTP, and MyScale's stand-in."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import ClassVar

import pytest

from backends.conformance import BackendSuite, Sizes
from tests.support.clickhouse_bridge import Bridge


class TestChdb(BackendSuite):
    url = "chdb:///{dir}"


@pytest.mark.server
class TestClickHouse(BackendSuite):
    """Over HTTP; the process of the engine, not the writer, is killed in the middle of a write."""

    # The same engine is tested at full size in process.
    sizes = Sizes(crowd=5_000, hard=5_000, wide=3_000, indexed=1_000)
    myscale: ClassVar[bool] = False
    bridge: ClassVar[Bridge]

    @classmethod
    def setup_class(cls) -> None:
        cls._folder = tempfile.TemporaryDirectory(prefix="ch-", ignore_cleanup_errors=True)
        cls.bridge = Bridge(Path(cls._folder.name), password="a password", myscale=cls.myscale)
        super().setup_class()

    @classmethod
    def teardown_class(cls) -> None:
        super().teardown_class()
        cls.bridge.kill()
        cls._folder.cleanup()

    @classmethod
    def place(cls, directory: Path) -> str:
        return cls.bridge.url()

    @classmethod
    def crash(cls, writer: subprocess.Popen[str]) -> None:
        cls.bridge.kill()
        writer.kill()
        cls.bridge.start()


class TestMyScale(TestClickHouse):
    """Its statements on ClickHouse's engine, with functions of that name; in sizes for a stand-in."""

    myscale = True
    sizes = Sizes(crowd=2_000, hard=2_000, wide=1_000, indexed=800, kills=2, write_batches=12)
