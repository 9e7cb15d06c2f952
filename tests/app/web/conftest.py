"""A browser, a service over painted pictures, and a fresh page of it."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from app.core.settings import Settings
from app.http.app import Limits, create_app
from tests.support.browser import Watch, launched
from tests.support.browser_store import COLOURS, SpreadEncoder, fill
from tests.support.serving import running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with launched() as found:
        yield found


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, browser: Any) -> Iterator[SimpleNamespace]:
    """A service over painted pictures, with a folder to index that has a broken file."""
    place = tmp_path_factory.mktemp("page")
    backend = fill(place / "pictures")
    (place / "new").mkdir()
    for number in range(3):
        Image.new("RGB", (90, 60 + number), COLOURS["red"]).save(place / "new" / f"{number}.png")
    (place / "new" / "broken.jpg").write_bytes(b"no picture")
    (place / "new" / "film.mov").write_bytes(b"\0\0\0\x14ftypqt  ")
    home = place / "home"
    app = create_app(
        backend,
        SpreadEncoder(),
        "pictures",
        home=home,
        roots=[place / "pictures", place / "new"],
        limits=Limits(rate=None),
        settings=Settings(backend="exact://", home=home),
    )
    with running(app) as port:
        yield SimpleNamespace(origin=f"http://127.0.0.1:{port}", place=place, app=app)


@pytest.fixture
def page(browser: Any, served: SimpleNamespace) -> Iterator[Any]:
    """A fresh page that must end without an error and without having asked anybody else."""
    yield from opened(browser, served, locale="en-US")


@pytest.fixture
def chinese(browser: Any, served: SimpleNamespace) -> Iterator[Any]:
    """The same for a browser whose language is Chinese."""
    yield from opened(browser, served, locale="zh-CN")


def opened(browser: Any, served: SimpleNamespace, *, locale: str) -> Iterator[Any]:
    context = browser.new_context(
        base_url=served.origin, viewport={"width": 1280, "height": 860}, locale=locale, timezone_id="Asia/Shanghai"
    )
    context.set_default_timeout(8000)
    page = context.new_page()
    page.watch = Watch(page, served.origin)
    yield page
    try:
        page.watch.check(refusals=getattr(page, "refusals", False))
    finally:
        page.unroute_all(behavior="ignoreErrors")
        context.close()
