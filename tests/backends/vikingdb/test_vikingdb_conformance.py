"""The conformance suite over VikingDB's interfaces, answered by ByteDance's open local engine."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from backends.conformance import BackendSuite, Sizes
from tests.support import vikingdb_server

pytestmark = pytest.mark.server


class TestVikingDB(BackendSuite):
    url = "vikingdb://"
    # Its index compares everything, whatever the size, and what stands behind it is not the product.
    sizes = Sizes(crowd=4_000, hard=4_000, wide=3_000, indexed=1_000)

    @classmethod
    def place(cls, directory: Path) -> str:
        return vikingdb_server.server().url

    @classmethod
    def crash(cls, writer: subprocess.Popen[str]) -> None:
        """Kill the server in the middle of the writing, start it again, let the writer go on, then kill that too.

        And the server once more, for what the writer asked last is not to be carried out while the check counts. What
        was stored of it comes to the index within the delay.
        """
        server = vikingdb_server.server()
        server.kill()
        server.start()
        time.sleep(1)
        writer.kill()
        writer.wait()
        server.kill()
        server.start()
        time.sleep(2 * server.delay_s)
