"""A real server for the whole test session, started from packages when the first test needs it."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from app.core.local_servers import Running, ServerError, down, up


def required() -> set[str]:
    """The engines that must have been tested: ``SIGHTLINE_TEST_REQUIRE=faiss,milvus``."""
    return {name.strip() for name in os.environ.get("SIGHTLINE_TEST_REQUIRE", "").split(",") if name.strip()}


#: Whether the test that runs has the mark `server`; without it, it must do without one.
marked = True


class LocalServer:
    """A server of `app.core.local_servers`. Where it cannot be started its tests skip, or fail if it is required."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._home: Path | None = None
        self._failed: str | None = None

    def running(self) -> Running:
        """The running server, started again if it was killed; its key is in the environment then."""
        assert marked, f"mark a test that starts {self.name} with pytest.mark.server"
        first = self._home is None
        if self._failed is None:
            try:
                running = up(self.name, self.folder())
            except ServerError as error:
                if not first:
                    raise
                # Said once for every test, not waited for by each.
                self._failed = str(error)
            else:
                os.environ.update(running.environment)
                return running
        if self.name in required():
            pytest.fail(f"{self.name} is required by SIGHTLINE_TEST_REQUIRE: {self._failed}")
        pytest.skip(self._failed)

    def kill(self) -> None:
        """End the server as a crash would."""
        down(self.name, self.folder(), kill=True)

    def folder(self) -> Path:
        """The folder the server lives in; removed, with the server stopped, at the end."""
        if self._home is None:
            self._home = Path(tempfile.mkdtemp(prefix=f"sl-{self.name}-"))
            atexit.register(self._remove, self._home)
        return self._home

    def _remove(self, folder: Path) -> None:
        down(self.name, folder, kill=True)
        shutil.rmtree(folder, ignore_errors=True)
