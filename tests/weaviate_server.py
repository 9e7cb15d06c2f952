"""One real Weaviate server for the whole test session, started when the first test needs it."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from app.servers import Running, ServerError, down, up


def unavailable(reason: str) -> None:
    """Skip with the reason; fail where SIGHTLINE_TEST_REQUIRE names weaviate."""
    if "weaviate" in os.environ.get("SIGHTLINE_TEST_REQUIRE", "").split(","):
        pytest.fail(f"weaviate is required by SIGHTLINE_TEST_REQUIRE: {reason}")
    pytest.skip(reason)


@functools.cache
def home() -> Path:
    """The folder the server lives in; removed, with the server stopped, at the end."""
    folder = Path(tempfile.mkdtemp(prefix="sl-weaviate-"))

    def remove() -> None:
        down("weaviate", folder, kill=True)
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return folder


@functools.cache
def _missing() -> str | None:
    try:
        up("weaviate", home())
    except ServerError as error:
        return str(error)
    return None


def server() -> Running:
    """The running server, started again if it was killed; its key is in the environment then."""
    if "weaviate" not in os.environ.get("SIGHTLINE_TEST_REQUIRE", "").split(","):
        pytest.skip("the Weaviate server is tested where SIGHTLINE_TEST_REQUIRE names weaviate, after make engines")
    if reason := _missing():
        unavailable(reason)
    running = up("weaviate", home())
    os.environ.update(running.environment)
    return running


def kill() -> None:
    """End the server as a crash would."""
    down("weaviate", home(), kill=True)
