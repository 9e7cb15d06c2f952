"""The page in a real browser: search, filters, lightbox, index, engines, keys and errors; chat over a scripted fake."""

from __future__ import annotations

import inspect
import io
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
from PIL import Image

from app.http.app import Limits, create_app
from retrieval.relevance.scorer import RELEVANT
from tests.support.browser import Watch, chromium, drop, screenshots, violations
from tests.support.browser_store import COLOURS, OF_EACH, SpreadEncoder, fill, keyed_service
from tests.support.repository import ROOT
from tests.support.serving import running

pytestmark = pytest.mark.browser

STATIC = ROOT / "app" / "web"
FREE = Limits(rate=None)
TILE = ".grid li"
OPEN = "dialog[open]"


def ids(page: Any) -> list[str]:
    return page.locator(TILE).evaluate_all("nodes => nodes.map((node) => node.dataset.id)")


def shows(page: Any, *colours: str) -> None:
    """Wait until exactly the pictures of these colours are shown."""
    wanted = sorted(f"{colour}/{number}" for colour in colours for number in range(OF_EACH))
    page.wait_for_function(
        """wanted => JSON.stringify([...document.querySelectorAll(".grid li")].map((node) => node.dataset.id).sort())
            === JSON.stringify(wanted)""",
        arg=wanted,
    )


def search(page: Any, words: str) -> None:
    page.get_by_role("searchbox").fill(words)


def png(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (1600, 1200), COLOURS[colour]).save(buffer, "PNG")
    return buffer.getvalue()


# Search


def test_words_find_pictures_as_they_are_typed_and_stale_answers_are_dropped(page: Any) -> None:
    page.goto("/")
    page.get_by_text("72 items").wait_for()
    box = page.get_by_role("searchbox")
    assert box.evaluate("node => node === document.activeElement")
    box.press_sequentially("red", delay=10)
    shows(page, "red")
    # One search for the word, not one for each letter.
    assert [body["text"] for body in page.watch.searches()] == ["red"]
    assert page.locator(".status").inner_text() == "8 relevant images for “red”"
    page.wait_for_function("() => document.getElementById('announce').textContent.startsWith('8 relevant')")
    assert re.fullmatch(r"\d+%", page.locator(".badge").first.inner_text())
    # An answer that comes after the next one was asked for is not shown.
    held: list[Any] = []

    def hold(route: Any) -> None:
        if "green" in (route.request.post_data or ""):
            held.append(route)
        else:
            route.continue_()

    page.route("**/v1/search", hold)
    search(page, "green")
    page.wait_for_timeout(400)
    search(page, "blue")
    shows(page, "blue")
    assert held
    assert held[0].request.failure == "net::ERR_ABORTED"


@pytest.mark.parametrize("view", ["__proto__", "constructor", "toString", "hasOwnProperty", "nowhere", ""])
def test_a_view_that_there_is_not_is_the_search(page: Any, view: str) -> None:
    page.goto(f"/?view={view}&q=red")
    shows(page, "red")
    assert page.title() == "Search · Sightline"


def test_filters_of_the_address_may_name_anything(page: Any) -> None:
    page.refusals = True
    page.goto("/")
    names = ["__proto__", "constructor", "toString"]
    conditions = page.evaluate(
        """async (names) => {
            const { fromWhere, toWhere } = await import("/static/where.js");
            const given = names.flatMap((field) => [{ field, op: "$gte", value: 1 }, { field, op: "$lte", value: 2 }]);
            return [JSON.stringify(toWhere(given)), fromWhere(JSON.parse(JSON.stringify(toWhere(given)))), given,
                    [5, "a", [1], { $and: [5] }, { $and: 5 }].map(fromWhere), fromWhere(null)];
        }""",
        names,
    )
    assert json.loads(conditions[0]) == {name: {"$gte": 1, "$lte": 2} for name in names}
    assert conditions[1] == conditions[2]
    assert conditions[3:] == [[None] * 5, []]
    for where in ({"__proto__": 1}, {"constructor": {"$in": 5}}, {"$and": [5]}, {"__proto__": {"$eq": "x"}}):
        page.goto("/?q=red&where=" + quote(json.dumps(where)))
        page.locator(".nothing, .failed").first.wait_for()
        page.get_by_role("complementary", name="Filters").or_(
            page.get_by_role("button", name="Filters")
        ).first.wait_for()


def test_texts_of_others_cannot_reorder_the_page(page: Any) -> None:
    page.goto("/")
    shown = page.evaluate(
        """async () => {
            const { h } = await import("/static/dom.js");
            const text = "photo_\u202egpj.exe\u2066\u009b \u05e9\u05dc\u05d5\u05dd\u200f \u0645\u06cc\u200c\u062e";
            const node = h("p", { title: text, "aria-label": text }, text, h("input", { value: text }));
            return [node.textContent, node.title, node.getAttribute("aria-label"),
                    node.querySelector("input").value === text];
        }"""
    )
    assert shown == ["photo_gpj.exe שלום\u200f می\u200cخ"] * 3 + [True]


def test_pictures_are_lazy_justified_and_of_the_right_size(page: Any) -> None:
    page.goto("/?q=red&all=1")
    page.locator(TILE).nth(30).wait_for()
    rows: dict[int, list[dict[str, float]]] = {}
    for box in page.locator(TILE).evaluate_all(
        "nodes => nodes.map((node) => { const b = node.getBoundingClientRect();"
        " return { x: b.left, y: Math.round(b.top), w: b.width, h: b.height }; })"
    ):
        rows.setdefault(box["y"], []).append(box)
    grid = page.locator(".grid").bounding_box()
    whole = list(rows.values())[:-1]
    assert len(whole) > 3
    for row in whole:
        assert max(box["h"] for box in row) - min(box["h"] for box in row) < 1.5
        assert abs(row[-1]["x"] + row[-1]["w"] - grid["x"] - grid["width"]) < 1.5
        assert 150 < row[0]["h"] < 385
    sizes = {int(re.search(r"size=(\d+)", url)[1]) for url in _pictures(page)}  # type: ignore[index]
    assert sizes <= {320, 640}
    # What is far below is not fetched before it comes near.
    before = len(_pictures(page))
    assert before < 8 * OF_EACH
    page.mouse.wheel(0, 20_000)
    page.get_by_text("That is all.").wait_for()
    assert len(ids(page)) == len(set(ids(page))) == len(COLOURS) * OF_EACH
    offsets = [body["offset"] for body in page.watch.searches()]
    assert offsets == [0, 40]


def _pictures(page: Any) -> list[str]:
    return [request.url for request in page.watch.requests if "/image?" in request.url]


@pytest.mark.parametrize("way", ["dropped", "chosen"])
def test_a_picture_finds_pictures_and_stays_with_its_address(page: Any, way: str) -> None:
    page.goto("/")
    if way == "dropped":
        page.get_by_role("searchbox").wait_for()
        drop(page, png("teal"))
    else:
        page.locator("input[type=file]").first.set_input_files(
            {"name": "teal.png", "mimeType": "image/png", "buffer": png("teal")}
        )
    page.locator(TILE).first.wait_for()
    assert {found.partition("/")[0] for found in ids(page)[:OF_EACH]} == {"teal"}
    (body,) = page.watch.searches()[:1]
    # Made smaller before it was sent.
    assert len(body["image"]) < 100_000
    address = page.url
    assert "picture=" in address
    page.reload()
    page.locator(TILE).first.wait_for()
    assert ids(page)[0].startswith("teal/")
    # With words as well: both count.
    search(page, "orange")
    page.wait_for_function(
        "() => new Set([...document.querySelectorAll('.grid li')].slice(0, 16)"
        ".map((node) => node.dataset.id.split('/')[0])).has('orange')"
    )
    assert {found.partition("/")[0] for found in ids(page)[: 2 * OF_EACH]} == {"teal", "orange"}
    page.get_by_role("button", name="Remove: your picture").click()
    shows(page, "orange")


@pytest.mark.parametrize("address", ["/", "/?q=red"])
def test_what_is_no_picture_is_said_to_be_none(page: Any, address: str) -> None:
    page.goto(address)
    page.locator(TILE if "q=" in address else ".hero .soft").first.wait_for()
    drop(page, b"words", "notes.txt", "text/plain")
    page.get_by_role("alert").get_by_text("is not a picture").wait_for()


def test_a_picture_that_another_browser_has_is_asked_for_again(page: Any) -> None:
    page.goto("/?picture=gone")
    page.get_by_role("alert").get_by_text("drop it here again").wait_for()


def test_more_and_less_like_this(page: Any) -> None:
    page.goto("/?q=purple+yellow")
    page.locator(TILE).nth(10).wait_for()
    page.locator(TILE, has=page.locator("img[alt*='yellow picture, number 1']")).hover()
    page.get_by_role("button", name="Less like this: a yellow picture, number 1").click()
    page.wait_for_url("**/*unlike=yellow%2F1*")
    page.wait_for_function(
        "() => ![...document.querySelectorAll('.grid li')].some((node) => node.dataset.id === 'yellow/1')"
    )
    body = page.watch.searches()[-1]
    assert body["terms"] == [{"text": "purple yellow"}, {"item": "yellow/1", "weight": -0.5}]
    assert {found.partition("/")[0] for found in ids(page)[:OF_EACH]} == {"purple"}
    # The chip turns it around, and takes it off.
    page.get_by_role("button", name="less like this; press for the opposite").click()
    page.wait_for_function("() => document.querySelector('.grid li')?.dataset.id.startsWith('yellow/')")
    page.get_by_role("button", name="Remove: more like this").click()
    page.wait_for_url(re.compile(r"q=purple\+yellow$"))


def test_filters_by_ticks_conditions_and_json(page: Any) -> None:
    page.goto("/?q=red+blue")
    page.locator(TILE).nth(12).wait_for()
    panel = page.get_by_role("complementary", name="Filters")
    panel.get_by_role("checkbox", name="blue").check()
    shows(page, "blue")
    # The other values of a ticked field can still be ticked.
    panel.get_by_role("checkbox", name="red").check()
    shows(page, "red", "blue")
    assert json.loads(page.evaluate("new URLSearchParams(location.search).get('where')")) == {
        "colour": {"$in": ["blue", "red"]}
    }
    panel.get_by_label("Field").fill("year")
    panel.get_by_label("Condition", exact=True).select_option("at least")
    panel.get_by_label("Value").fill("many")
    panel.get_by_role("button", name="Add").click()
    panel.get_by_text("“many” is not a number").wait_for()
    panel.get_by_label("Value").fill("1996")
    panel.get_by_role("button", name="Add").click()
    page.wait_for_function("() => document.querySelectorAll('.grid li').length === 4")
    assert set(ids(page)) == {"red/6", "red/7", "blue/6", "blue/7"}
    assert page.get_by_role("button", name="Filters, 2 set").is_visible()
    panel.get_by_role("button", name="Remove: year at least 1996").click()
    shows(page, "red", "blue")
    panel.get_by_text("As JSON").click()
    raw = panel.get_by_label("Filter", exact=True)
    assert json.loads(raw.input_value()) == {"colour": {"$in": ["blue", "red"]}}
    raw.fill("{")
    panel.get_by_role("button", name="Apply").click()
    panel.get_by_text("Not usable").wait_for()
    raw.fill('{"$or": [{"colour": "red"}, {"tags": {"$contains": "odd"}}]}')
    panel.get_by_role("button", name="Apply").click()
    page.wait_for_function("() => document.querySelectorAll('.grid li').length === 12")
    panel.get_by_role("button", name="Clear all").click()
    shows(page, "red", "blue")


def test_a_filter_that_the_service_refuses_is_explained(page: Any) -> None:
    page.refusals = True
    page.goto("/?q=red&where=" + '{"a": {"$no": 1}}')
    page.get_by_role("alert").get_by_text("$no").wait_for()


def test_the_whole_search_is_in_the_address_and_back_goes_back(page: Any) -> None:
    page.goto("/?q=red&find=any&mode=hybrid&where=%7B%22colour%22%3A%22red%22%7D&item=red%2F3")
    dialog = page.locator(OPEN)
    dialog.get_by_role("heading", name="a red picture, number 3").wait_for()
    page.wait_for_function("() => document.querySelectorAll('.grid li').length === 9")
    assert page.get_by_label("Both").is_checked()
    body = page.watch.searches()[0]
    assert (body["mode"], body["where"], "modality" in body) == ("hybrid", {"colour": "red"}, False)
    page.keyboard.press("Escape")
    dialog.wait_for(state="detached")
    page.wait_for_function("() => !location.search.includes('item=')")
    page.goto("/?q=red")
    shows(page, "red")
    search(page, "blue")
    shows(page, "blue")
    page.get_by_role("searchbox").press("Enter")
    page.get_by_label("Texts").check(force=True)
    page.wait_for_function("() => document.querySelector('.grid li')?.dataset.id === 'note/blue'")
    asked = len(page.watch.searches())
    page.go_back()
    shows(page, "blue")
    assert page.get_by_label("Images").is_checked()
    page.go_back()
    shows(page, "red")
    assert page.get_by_role("searchbox").input_value() == "red"
    page.go_forward()
    shows(page, "blue")
    # What was found is kept for that.
    assert len(page.watch.searches()) == asked
    # To go back from a search that is under way is to leave it.
    page.route("**/v1/search", lambda route: None if "teal" in (route.request.post_data or "") else route.continue_())
    search(page, "teal")
    page.locator("[aria-busy]").wait_for()
    page.go_back()
    page.wait_for_function("() => !document.querySelector('[aria-busy], .working')")
    shows(page, "blue")


def test_nothing_relevant_offers_the_nearest_misses(page: Any) -> None:
    page.goto("/")
    search(page, "a spaceship")
    page.get_by_role("heading", name="Nothing relevant").wait_for()
    assert page.locator(TILE).count() == 0
    assert page.watch.searches()[0]["min_relevance"] == RELEVANT
    page.get_by_role("button", name="Show the nearest misses").click()
    page.get_by_text("These are the nearest misses").wait_for()
    page.locator(TILE).nth(20).wait_for()
    assert "all=1" in page.url
    assert page.locator(".badge.low").count() == page.locator(TILE).count()
    page.go_back()
    page.get_by_role("heading", name="Nothing relevant").wait_for()


def test_what_is_relevant_ends_with_a_way_on(page: Any) -> None:
    page.goto("/?q=red")
    shows(page, "red")
    page.get_by_role("button", name="Show less relevant ones").click()
    page.locator(TILE).nth(30).wait_for()
    assert "min_relevance" not in page.watch.searches()[-1]


def test_another_view_and_back_keeps_the_results_and_the_place(page: Any) -> None:
    page.goto("/?q=red&all=1")
    page.locator(TILE).nth(30).wait_for()
    page.mouse.wheel(0, 700)
    page.wait_for_function("() => scrollY === 700")
    asked = len(page.watch.searches())
    page.get_by_role("link", name="Engines").click()
    page.get_by_role("region", name="All engines").wait_for()
    page.get_by_role("link", name="Search").click()
    page.wait_for_function("() => scrollY === 700")
    assert page.get_by_role("searchbox").input_value() == "red"
    assert len(page.watch.searches()) == asked
    # Sent off once more, it is asked once more.
    page.get_by_role("searchbox").press("Enter")
    page.wait_for_function("() => performance.getEntriesByName(location.origin + '/v1/search').length > 1")
    # From the search itself the link begins anew.
    page.get_by_role("link", name="Search").click()
    page.get_by_role("heading", name="Find pictures").wait_for()


# Lightbox


def test_the_lightbox_by_keyboard(page: Any) -> None:
    page.goto("/?q=purple")
    shows(page, "purple")
    order = ids(page)
    page.locator("body").click(position={"x": 5, "y": 5})
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "words"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    dialog = page.locator(OPEN)
    dialog.wait_for()
    number = order[1].partition("/")[2]
    dialog.get_by_role("heading", name=f"a purple picture, number {number}").wait_for()
    assert "item=purple%2F" + number in page.url
    page.keyboard.press("ArrowRight")
    number = order[2].partition("/")[2]
    dialog.get_by_role("heading", name=f"a purple picture, number {number}").wait_for()
    # Whatever Tab goes to is in the dialog.
    for _ in range(14):
        page.keyboard.press("Tab")
        assert page.evaluate(
            "document.activeElement === document.body"
            " || document.querySelector('dialog[open]').contains(document.activeElement)"
        )
    page.keyboard.press("Escape")
    dialog.wait_for(state="detached")
    # The focus is on the picture that was shown last.
    page.wait_for_function("id => document.activeElement.closest('li')?.dataset.id === id", arg=order[2])
    page.wait_for_function("() => !location.search.includes('item=')")
    rows = page.evaluate("[...document.querySelectorAll('.grid li')].map((n) => n.getBoundingClientRect().top)")
    page.locator(".grid .open").first.focus()
    page.keyboard.press("ArrowDown")
    focused = page.evaluate("document.activeElement.getBoundingClientRect().top")
    assert focused > rows[0]


def test_the_lightbox_tells_all_and_copies_the_id(page: Any) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto("/?q=brown")
    shows(page, "brown")
    first = ids(page)[0]
    page.locator(".grid .open").first.click()
    dialog = page.locator(OPEN)
    dialog.get_by_text("it was painted for a test").wait_for()
    facts = dict(
        zip(
            dialog.locator("dt").all_inner_texts(),
            [t.strip() for t in dialog.locator("dd").all_inner_texts()],
            strict=True,
        )
    )
    assert (facts["colour"], facts["warm"]) == ("brown", "false")
    assert facts["tags"] in ("painted, even", "painted, odd")
    dialog.get_by_role("button", name="Copy id").click()
    dialog.get_by_role("button", name="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == first
    page.wait_for_function(
        "() => { const i = document.querySelector('.stage img'); return i?.complete && i.naturalWidth > 400; }"
    )
    # Its picture is the large one, and the browser's own back closes it.
    assert page.locator(".stage img").get_attribute("src").endswith("size=1280")
    page.go_back()
    dialog.wait_for(state="detached")
    shows(page, "brown")


def test_a_caption_leads_to_its_picture(page: Any) -> None:
    page.goto("/?q=purple&find=text")
    page.locator(".grid .open").first.click()
    dialog = page.locator(OPEN)
    assert "a note on purple" in dialog.locator("blockquote").inner_text()
    dialog.get_by_role("button", name="Show its picture").click()
    dialog.get_by_role("heading", name="a purple picture, number 0").wait_for()
    page.wait_for_url("**/*item=purple%2F0*")
    page.keyboard.press("Escape")
    dialog.wait_for(state="detached")
    page.wait_for_function("() => !location.search.includes('item=')")


def test_more_like_this_from_the_lightbox(page: Any) -> None:
    page.goto("/?q=brown")
    shows(page, "brown")
    first = ids(page)[0]
    page.locator(".grid .open").first.click()
    page.locator(OPEN).get_by_role("button", name="More like this").click()
    page.wait_for_url("**/*like=*")
    page.locator(OPEN).wait_for(state="detached")
    page.wait_for_function(
        "id => ![...document.querySelectorAll('.grid li')].some((n) => n.dataset.id === id)", arg=first
    )
    assert page.get_by_role("button", name="Remove: more like this").is_visible()


# Index and engines


def test_an_index_job_from_start_to_end(page: Any, served: SimpleNamespace) -> None:
    page.goto("/")
    page.get_by_role("link", name="Index").click()
    page.wait_for_function("() => document.activeElement.id === 'main'")
    page.get_by_label("Folder").select_option(str(served.place / "new"))
    page.get_by_label("Collection").fill("fresh")
    page.get_by_role("button", name="Start").click()
    job = page.locator(".jobs > li").first
    job.get_by_text("done", exact=True).wait_for(timeout=20_000)
    assert "4 found" in job.inner_text()
    assert "3 indexed" in job.inner_text()
    job.get_by_text("1 skipped").wait_for()
    assert job.get_by_text("broken.jpg").is_visible()
    # Read again later, the list is fetched when it is wanted.
    page.reload()
    page.get_by_text("1 skipped").click()
    page.get_by_text("broken.jpg").wait_for()
    page.get_by_text("1 file not read").click()
    page.get_by_text("1 video (.mov)").click()
    page.get_by_text("film.mov", exact=True).wait_for()
    page.get_by_label("Only below").fill("nowhere")
    page.refusals = True
    page.get_by_role("button", name="Start").click()
    page.get_by_role("alert").get_by_text("not a folder").wait_for()


def test_a_running_job_shows_its_progress_and_can_be_cancelled(page: Any) -> None:
    """Over a scripted fake of the job's events, as a real one is over too soon to be seen."""
    job = {
        "id": "0123456789abcdef",
        "folder": "/pictures",
        "collection": "pictures",
        "prune": False,
        "state": "running",
        "created_s": 1.7e9,
        "started_s": 1.7e9,
        "ended_s": None,
        "report": None,
        "error": None,
        "progress": {
            "stage": "indexing",
            "done": 30,
            "total": 120,
            "rate_per_s": 5.0,
            "remaining_s": 18.0,
            "quarantined": 2,
            "path": "a.jpg",
        },
    }
    page.route("**/v1/jobs", lambda route: route.fulfill(json={"jobs": [job]}))
    page.route("**/v1/jobs/*/events", lambda route: None)
    cancelled: list[str] = []

    def on_job(route: Any) -> None:
        cancelled.append(route.request.method)
        route.fulfill(status=202, json=job)

    page.route("**/v1/jobs/0123456789abcdef", on_job)
    page.goto("/?view=index")
    bar = page.get_by_role("progressbar")
    bar.wait_for()
    assert (bar.evaluate("node => node.value"), bar.evaluate("node => node.max")) == (30, 120)
    page.get_by_text("30 of 120 · 5.0 a second · 18 s to go · 2 skipped").wait_for()
    page.get_by_role("button", name="Cancel the job").click()
    page.wait_for_timeout(100)
    assert cancelled == ["DELETE"]


def test_engines_and_collections(page: Any) -> None:
    page.goto("/?view=engines")
    collections = page.get_by_role("region", name="Collections")
    collections.get_by_role("link", name="pictures").wait_for(timeout=15_000)
    assert "72" in collections.inner_text()
    assert "answers" in page.get_by_role("region", name="This service's engine").inner_text()
    assert "faiss" in page.get_by_role("region", name="All engines").inner_text()
    collections.get_by_role("link", name="other").click()
    page.wait_for_url("**/?collection=other")
    page.get_by_role("searchbox").wait_for()


# Keys and errors


def test_a_key_is_asked_for_kept_for_the_tab_and_sent(browser: Any, served: SimpleNamespace, tmp_path: Path) -> None:
    app, key = keyed_service(tmp_path)
    with running(app) as port:
        origin = f"http://127.0.0.1:{port}"
        context = browser.new_context(base_url=origin)
        context.set_default_timeout(8000)
        page = context.new_page()
        watch = Watch(page, origin)
        page.goto("/?q=red")
        dialog = page.get_by_role("dialog", name="API key")
        dialog.get_by_label("Key").fill("sl_wrong")
        dialog.get_by_role("button", name="Use this key").click()
        page.get_by_text("does not know the key").wait_for()
        assert violations(page) == []
        dialog.get_by_label("Key").fill(key)
        page.keyboard.press("Enter")
        shows(page, "red")
        # Pictures need the key as well, so that they come as blobs.
        page.wait_for_function(
            "() => [...document.querySelectorAll('.grid img')].slice(0, 4)"
            ".every((i) => i.src.startsWith('blob:') && i.complete && i.naturalWidth)"
        )
        assert key not in page.url
        assert page.evaluate("[...Object.values(sessionStorage)]") == [key]
        assert page.evaluate("Object.values(localStorage).length") == 0
        page.reload()
        shows(page, "red")
        page.get_by_role("button", name="Forget key").click()
        dialog.wait_for()
        dialog.get_by_role("button", name="Cancel").click()
        page.get_by_role("alert").get_by_text("An API key is needed").first.wait_for()
        context.close()
        watch.check(refusals=True)


def test_a_service_that_is_gone_is_said_to_be_and_tried_again(browser: Any, tmp_path: Path) -> None:
    app = create_app(
        fill(tmp_path / "pictures"), SpreadEncoder(), "pictures", home=tmp_path / "home", roots=[tmp_path / "pictures"]
    )
    context = browser.new_context()
    context.set_default_timeout(8000)
    page = context.new_page()
    with running(app) as port:
        watch = Watch(page, f"http://127.0.0.1:{port}")
        page.goto(f"http://127.0.0.1:{port}/?q=red")
        shows(page, "red")
    search(page, "blue")
    page.get_by_role("alert").get_by_text("cannot be reached").wait_for()
    page.route(
        "**/v1/search",
        lambda route: route.fulfill(
            status=503, headers={"Retry-After": "2"}, json={"detail": "the vector database does not answer"}
        ),
    )
    page.get_by_role("button", name="Try again").click()
    page.get_by_role("alert").get_by_text("the vector database does not answer").wait_for()
    page.unroute("**/v1/search")
    page.route(
        "**/v1/search",
        lambda route: route.fulfill(
            json={
                "hits": [
                    {
                        "id": "gone",
                        "score": 0.5,
                        "relevance": 0.9,
                        "modality": "image",
                        "text": "<b>bold</b>",
                        "uri": None,
                        "metadata": {},
                        "exact": True,
                        "duplicates": [],
                    }
                ]
            }
        ),
    )
    page.get_by_role("button", name="Try again").click()
    # A picture that cannot be had is said to be missing, and texts are never markup.
    page.get_by_role("img", name="<b>bold</b> (no picture)").wait_for()
    context.close()
    watch.check(refusals=True)


def test_what_is_said_of_a_narrow_picture_whose_file_is_gone_stays_on_its_lines(page: Any) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.refusals = True
    hit = {"score": 0.5, "relevance": 0.9, "modality": "image", "text": "red", "uri": None, "exact": True}
    size = {"width": 45, "height": 90}
    hits = [hit | {"id": f"n{n}", "metadata": size, "duplicates": ["x"], "gone": True} for n in range(3)]
    page.route("**/v1/search", lambda route: route.fulfill(json={"hits": hits}))
    page.goto("/?q=red")
    page.get_by_text("file is gone").first.wait_for()
    heights = page.evaluate("[...document.querySelectorAll('.badge')].map((each) => each.offsetHeight)")
    assert (len(heights), len(set(heights))) == (9, 1)
    assert page.evaluate(
        """[...document.querySelectorAll('.badge')].every((each) => {
          const [own, around] = [each, each.closest('li')].map((node) => node.getBoundingClientRect());
          return own.right <= around.right && own.left >= around.left && own.top >= around.top;
        })"""
    )


# Chat, over a scripted fake of POST /v1/chat: what it sends is as docs/http.md has it.


class FakeChat:
    """A stand-in for ``POST /v1/chat``, which answers from a script."""

    def __init__(self, page: Any) -> None:
        self.asked: list[Any] = []
        self.script: list[tuple[str, Any]] = []
        self.status = 200
        page.route("**/v1/chat", self._answer)
        page.route("**/openapi.json", self._described)

    def _described(self, route: Any) -> None:
        described = route.fetch().json()
        described["paths"]["/v1/chat"] = {"post": {}}
        route.fulfill(json=described)

    def _answer(self, route: Any) -> None:
        self.asked.append(route.request.post_data_json)
        if self.status != 200:
            route.fulfill(status=self.status, json={"detail": "this service was started without a model"})
            return
        body = "".join(f"event: {name}\ndata: {json.dumps(data)}\n\n" for name, data in self.script)
        route.fulfill(content_type="text/event-stream", body=": still there\n\n" + body)


def evidence(number: int, item: str, caption: str) -> dict[str, Any]:
    image = f"/v1/items/{item}/image?size=640" if item.partition("/")[0] != "note" else None
    return {
        "number": number,
        "id": item,
        "modality": "image" if image else "text",
        "caption": caption,
        "relevance": 0.97,
        "uri": None,
        "item": f"/v1/items/{item}",
        "image": image,
    }


FOUND = [evidence(1, "red/0", "a red picture, number 0"), evidence(2, "note/red", "a note on red, which is a colour")]
ANSWER = "🙂 A picture is red [1], says <i>a note</i> [1, 2]. Nothing else [7]."


def sentence(start: str, end: str, verdict: str, **more: Any) -> dict[str, Any]:
    places = {"start": ANSWER.index(start), "end": ANSWER.index(end) + len(end)}
    return {"verdict": verdict, "conflict": "", "conflict_source": None, **places, **more}


FINAL = {
    "question": "what is red?",
    "query": "what is red?",
    "refused": False,
    "quoted": False,
    "truncated": False,
    "answer": ANSWER,
    "sources": FOUND,
    "citations": [
        {"start": ANSWER.index("[1]"), "end": ANSWER.index("[1]") + 3, "numbers": [1]},
        {"start": ANSWER.index("[1, 2]"), "end": ANSWER.index("[1, 2]") + 6, "numbers": [1, 2]},
    ],
    "check": "mark",
    "sentences": [
        sentence("🙂", "[1, 2].", "contradicted", conflict="<b>a blue one</b>", conflict_source=2),
        sentence("Nothing", "[7].", "uncited"),
    ],
    "counts": {"unsupported": 0},
    "usage": {},
    "seconds": {},
}


@pytest.fixture
def chat(page: Any) -> FakeChat:
    return FakeChat(page)


def test_chat_streams_an_answer_whose_numbers_open_their_sources(page: Any, chat: FakeChat) -> None:
    chat.script = [
        ("evidence", {"query": "red", "evidence": FOUND, "search_s": 0.1}),
        ("token", {"text": "A pic"}),
        ("final", FINAL),
    ]
    page.goto("/")
    page.get_by_role("link", name="Chat").click()
    page.locator(".composer input[type=file]").set_input_files(
        {"name": "red.png", "mimeType": "image/png", "buffer": png("red")}
    )
    page.get_by_role("img", name="Attached picture").wait_for()
    page.get_by_label("Question").fill("what is red?")
    page.keyboard.press("Enter")
    answer = page.locator(".answer .text")
    answer.get_by_text("A picture is red").wait_for()
    # What is no source's number stays text, and markup is none.
    assert "Nothing else [7]." in answer.inner_text()
    assert "🙂 A picture is red" in answer.inner_text()
    assert "<i>a note</i>" in answer.inner_text()
    # What is wrong with a sentence stands behind it, a conflict with the words of its source.
    conflict, uncited = answer.locator(".mark").all()
    assert conflict.inner_text() == "!Source 2 says something else: “<b>a blue one</b>”"
    assert (uncited.inner_text(), uncited.get_attribute("aria-label")) == ("?", "This sentence cites no source.")
    assert chat.asked[0]["question"] == "what is red?"
    assert chat.asked[0]["image"]
    sources = page.get_by_role("complementary", name="Sources")
    assert sources.get_by_role("button").count() == 2
    page.get_by_role("button", name="Source 1: a red picture, number 0").first.click()
    dialog = page.locator(OPEN)
    dialog.get_by_role("heading", name="a red picture, number 0").wait_for()
    assert dialog.get_by_role("img").get_attribute("src").startswith("/v1/items/red%2F0/image")
    page.keyboard.press("ArrowRight")
    assert "a note on red" in dialog.locator("blockquote").inner_text()
    page.keyboard.press("Escape")
    # The conversation so far goes with the next question.
    page.get_by_label("Question").fill("and blue?")
    page.get_by_role("button", name="Send").click()
    page.locator(".answer .text").nth(1).wait_for()
    assert chat.asked[1]["history"] == [
        {"question": "what is red?", "answer": FINAL["answer"], "query": "what is red?"}
    ]
    assert "image" not in chat.asked[1]
    page.get_by_role("button", name="Retry").last.click()
    page.wait_for_function("() => document.querySelectorAll('.answer .text').length === 2")
    page.wait_for_timeout(200)
    assert chat.asked[2] == chat.asked[1]
    page.get_by_role("button", name="New conversation").click()
    page.get_by_role("heading", name="Ask about your pictures").wait_for()


def test_chat_shows_what_the_model_looked_for(page: Any, chat: FakeChat) -> None:
    looked = {"filter": "", "found": 1, "at_least": False, "error": ""}
    tools = [
        {**looked, "name": "search", "query": "a <b>red</b> note"},
        {**looked, "name": "count", "query": "", "filter": '{"year": 2013}', "found": 12, "at_least": True},
        {**looked, "name": "open", "query": "x", "error": "there is no such item"},
    ]
    answer = "Your picture is red [image], so is this [2]."
    cites = [{"start": answer.index("[2]"), "end": answer.index("[2]") + 3, "numbers": [2]}]
    final = {**FINAL, "answer": answer, "citations": cites, "sentences": [], "tools": tools}
    chat.script = [
        ("evidence", {"query": "red", "evidence": FOUND[:1], "search_s": 0.1}),
        ("tool", {**tools[0], "evidence": FOUND[1:]}),
        ("tool", {**tools[1], "evidence": []}),
        ("tool", {**tools[2], "evidence": FOUND[:1]}),
        ("token", {"text": "Your", "final": True}),
        ("final", final),
    ]
    page.goto("/?view=chat")
    page.locator(".composer input[type=file]").set_input_files(
        {"name": "red.png", "mimeType": "image/png", "buffer": png("red")}
    )
    page.get_by_role("img", name="Attached picture").wait_for()
    page.get_by_label("Question").fill("what is red?")
    page.keyboard.press("Enter")
    page.locator(".answer .text").get_by_text("so is this").wait_for()
    assert page.locator(".looked li").all_inner_texts() == [
        "Searched for “a <b>red</b> note”: 1 found",
        'Counted {"year": 2013}: at least 12 found',
        "Could not look for x",
    ]
    assert "Your picture is red your picture, so is this" in page.locator(".answer .text").inner_text()
    # What was found on the way is among the sources, each once.
    assert page.get_by_role("complementary", name="Sources").get_by_role("button").count() == 2
    page.get_by_role("button", name="Source 2: a note on red").click()
    page.locator(OPEN).locator("blockquote").get_by_text("a note on red").wait_for()


def test_chat_says_what_went_wrong_and_can_be_stopped(page: Any, chat: FakeChat) -> None:
    page.refusals = True
    chat.script = [
        ("evidence", {"query": "q", "evidence": FOUND, "search_s": 0.1}),
        ("retrying", {"attempt": 1, "wait_s": 0.5, "reason": "busy"}),
        ("error", {"status": 502, "detail": "the model's server is silent"}),
    ]
    page.goto("/?view=chat")
    page.get_by_label("Question").fill("q")
    page.keyboard.press("Enter")
    page.get_by_role("alert").get_by_text("the model's server is silent").wait_for()
    chat.script = chat.script[:1]
    page.get_by_role("button", name="Retry").click()
    page.get_by_role("alert").get_by_text("broke off").wait_for()
    chat.status = 503
    page.get_by_role("button", name="Retry").click()
    page.get_by_role("alert").get_by_text("without a model").wait_for()
    page.unroute("**/v1/chat")
    page.route("**/v1/chat", lambda route: None)
    page.get_by_role("button", name="Retry").click()
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("Stopped.").wait_for()
    assert page.get_by_role("button", name="Send").is_visible()


def test_chat_with_the_endpoint_itself(browser: Any, tmp_path: Path) -> None:
    if "load_model" not in inspect.signature(create_app).parameters:
        pytest.skip("this service answers no questions: it has no POST /v1/chat")
    from retrieval.chat import ChatOptions
    from tests.support.chat_models import Scripted, collection
    from tests.support.toy import ColourEncoder

    # Slow enough for its draft to be seen, and below to be stopped, however fast its pieces are sent.
    said = Scripted(replies=["The brown dog runs along a red beach [1]."], pause_s=0.3)
    options: dict[str, Any] = {"load_model": lambda: (said, ChatOptions(gate=None))}
    store = collection(tmp_path / "photos").backend
    app = create_app(
        store, ColourEncoder(), "c", home=tmp_path / "home", roots=[tmp_path / "photos"], limits=FREE, **options
    )
    with running(app) as port, browser.new_context(base_url=f"http://127.0.0.1:{port}") as context:
        context.set_default_timeout(8000)
        page = context.new_page()
        watch = Watch(page, f"http://127.0.0.1:{port}")
        page.goto("/")
        page.get_by_role("link", name="Chat").click()
        page.get_by_label("Question").fill("what does the dog on the red beach do?")
        page.keyboard.press("Enter")
        page.locator(".draft").wait_for()
        page.locator(".answer .cite").click()
        page.locator(OPEN).get_by_role("heading", name=re.compile("dog")).wait_for()
        page.keyboard.press("Escape")
        # Closed, it gives the focus back to the number that opened it, which is not where Enter is meant to go.
        page.locator(OPEN).wait_for(state="hidden")
        said.pause_s = 1.0
        page.get_by_label("Question").fill("and the cat?")
        page.get_by_label("Question").press("Enter")
        page.get_by_role("button", name="Stop").click()
        page.get_by_text("Stopped.").wait_for()
        watch.check()


def test_chat_is_offered_where_the_service_has_it(page: Any, served: SimpleNamespace) -> None:
    page.goto("/")
    page.get_by_text("72 items").wait_for()
    page.wait_for_load_state("networkidle")
    offered = "/v1/chat" in served.app.openapi()["paths"]
    assert page.get_by_role("link", name="Chat").is_visible() == offered


# For everybody


VIEWS = {
    "welcome": ("/", ".hero .soft"),
    "search": ("/?q=red+teal&where=%7B%22warm%22%3Atrue%7D", TILE),
    "both": ("/?q=blue&find=any&all=1", f"{TILE}.text"),
    "nothing": ("/?q=a+spaceship", ".nothing"),
    "lightbox": ("/?q=green&item=green%2F2", f"{OPEN} img"),
    "steered": ("/?q=red&like=teal%2F2&unlike=brown%2F1", f"{TILE} img"),
    "index": ("/?view=index", "form.card"),
    "engines": ("/?view=engines", ".view table"),
    "chat": ("/?view=chat", ".composer"),
}


SETTLED = """() => !document.querySelector(".working, [aria-busy]") && [...document.images].every((image) =>
    image.complete || image.getBoundingClientRect().top > innerHeight + 100)"""
#: Those that are laid out anew where it is narrow.
NARROW = ("search", "lightbox", "chat")


#: Labels that are wider than their place, or that were broken into a second line.
CUT = """() => {
  const canvas = document.createElement("canvas").getContext("2d");
  const found = [];
  const labels = "button:not(.open, .sources *), nav, nav a, .choice span, thead th, .state, .badge";
  for (const node of document.querySelectorAll(labels)) {
    const text = document.createRange();
    text.selectNodeContents(node);
    const isBroken = new Set([...text.getClientRects()].map(({ top }) => top)).size > 1 && node.childElementCount === 0;
    if (node.clientWidth && (node.scrollWidth > node.clientWidth + 1 || isBroken)) found.push(node.innerText);
  }
  for (const node of document.querySelectorAll("[placeholder]")) {
    canvas.font = getComputedStyle(node).font;
    const { paddingLeft, paddingRight } = getComputedStyle(node);
    const room = node.clientWidth - parseFloat(paddingLeft) - parseFloat(paddingRight);
    if (node.clientWidth && canvas.measureText(node.placeholder).width > room) found.push(node.placeholder);
  }
  return found;
}"""


@pytest.mark.parametrize(("theme", "locale"), [("light", "en-US"), ("dark", "en-US"), ("light", "zh-CN")])
def test_no_serious_barrier_and_nothing_cut_off_at_any_width(
    browser: Any, served: SimpleNamespace, theme: str, locale: str
) -> None:
    for width, height in ((390, 844), (1024, 768), (1600, 1000)):
        context = browser.new_context(
            base_url=served.origin,
            color_scheme=theme,
            locale=locale,
            viewport={"width": width, "height": height},
            reduced_motion="reduce",
            is_mobile=width < 500,
            has_touch=width < 500,
        )
        context.set_default_timeout(15_000)
        page = context.new_page()
        watch = Watch(page, served.origin)
        chat = FakeChat(page)
        chat.script = [("evidence", {"query": "red", "evidence": FOUND, "search_s": 0.1}), ("final", FINAL)]
        for name, (address, sign) in VIEWS.items():
            page.goto(address)
            page.locator(sign).first.wait_for()
            if name == "chat":
                page.locator("#question").fill("what is red?")
                page.keyboard.press("Enter")
                page.locator(".answer .cite").first.wait_for()
            page.wait_for_function(SETTLED)
            page.screenshot(path=screenshots() / f"{name}-{width}-{theme}-{locale}.png")
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (name, width)
            assert page.evaluate(CUT) == [], (name, width)
            if width == 1024 or (width == 390 and name in NARROW):
                assert violations(page) == [], (name, width)
        page.evaluate("document.querySelector('#question').placeholder = 'x'.repeat(400)")
        assert page.evaluate(CUT) == ["x" * 400]
        context.close()
        watch.check()


def test_the_theme_can_be_chosen_and_is_kept(page: Any) -> None:
    page.goto("/")
    page.get_by_role("button", name="Use the dark theme").click()
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.reload()
    page.get_by_role("button", name="Use the light theme").wait_for()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == ground


def test_the_page_is_made_of_its_own_files_only(page: Any) -> None:
    page.goto("/")
    response = page.request.get("/")
    policy = response.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "script-src 'self'" in policy
    text = response.text()
    assert not re.search(r"<script(?![^>]*src=)|<style|\son\w+=|\sstyle=", text)
    for file in STATIC.glob("*.*"):
        if file.suffix in (".js", ".css"):
            assert len(file.read_text("utf-8").splitlines()) < 400, file.name
            assert not re.search(
                r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", file.read_text("utf-8")
            )
            assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", file.read_text("utf-8")), file.name


def test_a_browser_that_is_required_is_not_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.delenv("SIGHTLINE_TEST_REQUIRE", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no chromium here"):
        chromium()
    monkeypatch.setenv("SIGHTLINE_TEST_REQUIRE", "faiss,chromium")
    with pytest.raises(pytest.fail.Exception, match="no chromium here"):
        chromium()


def test_the_page_and_the_library_agree_on_what_is_relevant() -> None:
    assert f"export const RELEVANT = {RELEVANT};" in (STATIC / "state.js").read_text("utf-8")
