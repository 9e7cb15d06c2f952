"""A real browser on the page, as served by a real server; and what no page of ours may do."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.local_server import required

#: Chromium's own words for answers of 400 and above, which some tests are about.
REFUSED = "Failed to load resource"


def chromium() -> str:
    """The program. Where there is none the test skips, or fails if SIGHTLINE_TEST_REQUIRE names chromium."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    reason = None
    if program is None:
        reason = "there is no chromium here: apt-get install chromium"
    else:
        try:
            import axe_playwright_python  # noqa: F401
            import playwright  # noqa: F401
        except ImportError as error:
            reason = f"{error.name} is not installed: pip install 'sightline[test]'"
    if reason is None:
        assert program is not None
        return program
    if "chromium" in required():
        pytest.fail(f"chromium is required by SIGHTLINE_TEST_REQUIRE: {reason}")
    pytest.skip(reason)


@contextmanager
def launched() -> Iterator[Any]:
    """A headless browser."""
    program = chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # No sandbox: a container's user often may not have one, and the only pages are ours.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield browser
        finally:
            browser.close()


class Watch:
    """What a page said and asked for while it was used; `check` at the end."""

    def __init__(self, page: Any, origin: str) -> None:
        self.errors: list[str] = []
        self.strangers: list[str] = []
        self.requests: list[Any] = []
        self._origin = origin
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", self._asked)

    def _said(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.errors.append(message.text)

    def _asked(self, request: Any) -> None:
        self.requests.append(request)
        parts = urlsplit(request.url)
        if parts.scheme not in ("blob", "data") and f"{parts.scheme}://{parts.netloc}" != self._origin:
            self.strangers.append(request.url)

    def searches(self) -> list[Any]:
        """The bodies of the searches so far, facets left out."""
        bodies = [r.post_data_json for r in self.requests if r.method == "POST" and "/v1/search" in r.url]
        return [body for body in bodies if not body.get("facets")]

    def check(self, *, refusals: bool = False) -> None:
        """No error, and nothing that left the origin; `refusals` were meant to happen."""
        told = [text for text in self.errors if not (refusals and text.startswith(REFUSED))]
        assert told == []
        assert self.strangers == []


def screenshots() -> Path:
    """Where pictures for people are kept: SIGHTLINE_SCREENSHOTS, or a temporary folder."""
    named = SCREENSHOTS or str(Path(tempfile.gettempdir()) / "sightline-screenshots")
    Path(named).mkdir(parents=True, exist_ok=True)
    return Path(named)


#: Read before tests are cut off from settings.
SCREENSHOTS = os.environ.get("SIGHTLINE_SCREENSHOTS")


def drop(page: Any, data: bytes, name: str = "picture.png", kind: str = "image/png") -> None:
    """Drop a file on the page, as a person does with the mouse."""
    transfer = page.evaluate_handle(
        """([bytes, name, type]) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], name, { type }));
            return transfer;
        }""",
        [list(data), name, kind],
    )
    for event in ("dragenter", "dragover", "drop"):
        page.dispatch_event("body", event, {"dataTransfer": transfer})


def violations(page: Any) -> list[str]:
    """What axe-core finds that is serious or critical."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [
        f"{each['id']}: {each['help']}: {[node['html'][:160] for node in each['nodes'][:3]]}"
        for each in found
        if each["impact"] in ("serious", "critical")
    ]
