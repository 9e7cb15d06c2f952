"""The page where the encoder cannot read a query or a text, and where a collection's texts are of an earlier side."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.http.app import Limits, create_app
from backends import connect
from indexers import index
from tests.support.browser import Watch, launched
from tests.support.cli import paint
from tests.support.readers import LatinReader
from tests.support.serving import running

pytestmark = pytest.mark.browser


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Any]:
    """The page over a collection of an earlier text side, with a folder that has a Chinese caption."""
    for colour in ("red", "green"):
        paint(tmp_path / "photos" / f"{colour}.png", colour, (300, 200))
    (tmp_path / "photos" / "red.txt").write_text("一架 飞机 停在 跑道", encoding="utf-8")
    store = connect("exact://")
    index(tmp_path / "photos", store, LatinReader(), "c")
    app = create_app(
        store,
        LatinReader(side="new"),
        "c",
        home=tmp_path / "home",
        roots=[tmp_path / "photos"],
        limits=Limits(rate=None),
    )
    with launched() as browser, running(app) as port:
        origin = f"http://127.0.0.1:{port}"
        context = browser.new_context(base_url=origin, viewport={"width": 1280, "height": 860})
        page = context.new_page()
        page.watch = Watch(page, origin)
        yield page
        page.watch.check(refusals=True)
        context.close()


def test_an_unreadable_query_leads_to_its_words_and_an_index_job_brings_texts_up_to_date(page: Any) -> None:
    page.goto("/?q=飞机")
    page.locator(".message").get_by_text("latin cannot read this query").wait_for()
    page.get_by_role("button", name="Search by words").click()
    page.locator(".grid li").first.wait_for()
    assert page.watch.searches()[-1]["mode"] == "keyword"
    assert "mode=keyword" in page.url
    page.locator(".message").get_by_text("run sightline index on what it holds").wait_for()
    page.goto("/?q=飞机&mode=hybrid")
    page.locator(".message").get_by_text("latin cannot read this: only its words were searched for.").wait_for()
    page.goto("/?view=index")
    page.get_by_role("button", name="Start").click()
    page.locator(".jobs").get_by_text("stored for keyword search alone").wait_for()
    # The service looks at a collection again every few seconds.
    deadline = time.monotonic() + 60
    while True:
        page.goto("/?q=green&all=1")
        page.locator(".grid li").first.wait_for()
        if not page.locator(".message").get_by_text("run sightline index").count():
            break
        assert time.monotonic() < deadline
