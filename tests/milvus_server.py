"""One real Milvus server for the whole test session, started when the first test needs it."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from app.servers import ServerError, down, up


def unavailable(reason: str) -> None:
    """Skip with the reason; fail where SIGHTLINE_TEST_REQUIRE names milvus."""
    if "milvus" in os.environ.get("SIGHTLINE_TEST_REQUIRE", "").split(","):
        pytest.fail(f"milvus is required by SIGHTLINE_TEST_REQUIRE: {reason}")
    pytest.skip(reason)


@functools.cache
def home() -> Path:
    """The folder the server lives in; removed, with the server stopped, at the end."""
    folder = Path(tempfile.mkdtemp(prefix="sl-milvus-"))

    def remove() -> None:
        down("milvus", folder, kill=True)
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return folder


@functools.cache
def _missing() -> str | None:
    try:
        up("milvus", home())
    except ServerError as error:
        return str(error)
    return None


def url() -> str:
    """The URL of the running server, started again if it was killed."""
    if "milvus" not in os.environ.get("SIGHTLINE_TEST_REQUIRE", "").split(","):
        # Its suite takes longer than all the others together.
        pytest.skip("the Milvus server is tested where SIGHTLINE_TEST_REQUIRE names milvus")
    if reason := _missing():
        unavailable(reason)
    return up("milvus", home()).url


def kill() -> None:
    """End the server as a crash would."""
    down("milvus", home(), kill=True)
