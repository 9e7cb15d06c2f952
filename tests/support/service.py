"""A service to ask, and what is looked at in its answers."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from app.http.app import Limits, create_app
from backends.base import Backend
from tests.support.serving import serving
from tests.support.toy import ColourEncoder

FREE = Limits(rate=None)


@contextmanager
def served(store: Backend, home: Path, **options: Any) -> Iterator[httpx.Client]:
    options = {"encoder": ColourEncoder(), "limits": FREE, "roots": [home.parent / "photos"], "home": home} | options
    with serving(create_app(store, collection="c", **options)) as client:
        yield client


def png(colour: str, size: tuple[int, int] = (40, 30)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def ended(client: httpx.Client, job: dict[str, Any]) -> dict[str, Any]:
    deadline = time.monotonic() + 20
    while (job := client.get(f"/v1/jobs/{job['id']}").json())["ended_s"] is None:
        assert time.monotonic() < deadline, job
        time.sleep(0.02)
    return job


def figures(client: httpx.Client) -> dict[str, float]:
    """Every figure by its name and labels."""
    lines = client.get("/metrics").text.splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


def ids(response: httpx.Response) -> list[str]:
    assert response.status_code == 200, response.text
    return [hit["id"] for hit in response.json()["hits"]]


def is_problem(response: httpx.Response, status: int, *words: str) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert all(word in response.json()["detail"] for word in words), response.text
