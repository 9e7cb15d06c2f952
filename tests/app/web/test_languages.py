"""The page in English and Chinese: which one is shown, and that all of it is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.browser import Watch, drop
from tests.support.browser_store import OF_EACH, keyed_service
from tests.support.page_languages import FINAL, SOURCES, TEXTS, chats, say, zh
from tests.support.page_texts import Text
from tests.support.repository import ROOT
from tests.support.serving import running

pytestmark = pytest.mark.browser

TILE = ".grid li"
OPEN = "dialog[open]"
SEARCHED = '() => document.querySelectorAll(".grid li").length'
VIEWS = {
    "welcome": ("/", ".hero .soft"),
    "search": ("/?q=red+teal&where=%7B%22warm%22%3Atrue%7D", TILE),
    "misses": ("/?q=blue&find=any&all=1", f"{TILE}.text"),
    "nothing": ("/?q=a+spaceship", ".nothing"),
    "wordless": ("/?q=!&mode=keyword", ".nothing"),
    "lightbox": ("/?q=green&item=green%2F2", f"{OPEN} img"),
    "steered": ("/?q=red&like=teal%2F2&unlike=brown%2F1", f"{TILE} img"),
    "index": ("/?view=index", "form.card"),
    "engines": ("/?view=engines", ".view table"),
    "chat": ("/?view=chat", ".composer"),
}
# Which language


@pytest.fixture
def reader(browser: Any, served: SimpleNamespace) -> Iterator[Any]:
    """Opens the page for somebody who reads these languages."""
    contexts = []

    def open_for(*languages: str) -> Any:
        context = browser.new_context(base_url=served.origin, locale=languages[0] if languages else "en")
        context.set_default_timeout(8000)
        context.add_init_script(
            f"Object.defineProperty(navigator, 'languages', {{ get: () => {json.dumps(languages)} }});"
        )
        contexts.append(context)
        page = context.new_page()
        page.goto("/")
        page.locator("#words").wait_for()
        return page

    yield open_for
    for context in contexts:
        context.close()


@pytest.mark.parametrize(
    ("languages", "tag"),
    [
        (["zh"], "zh-CN"),
        (["zh-CN"], "zh-CN"),
        (["zh-Hans-SG", "en"], "zh-CN"),
        (["zh-TW"], "zh-CN"),
        (["ZH-hk"], "zh-CN"),
        (["de", "zh-CN", "en"], "zh-CN"),
        (["en-GB", "zh-CN"], "en"),
        (["de-DE", "fr"], "en"),
        (["zha"], "en"),
        ([], "en"),
    ],
)
def test_the_language_is_the_first_of_the_readers_that_the_page_has(
    reader: Any, languages: list[str], tag: str
) -> None:
    page = reader(*languages)
    language = tag[:2]
    assert page.evaluate("document.documentElement.lang") == tag
    view = say(language, "view.search")
    assert page.title() == say(language, "page.title", view=view)
    assert page.locator("nav a").first.inner_text() == view
    assert page.get_by_label(say(language, "box.words")).is_visible()
    assert page.get_by_role("navigation").get_attribute("aria-label") == say(language, "page.views")


def test_the_chosen_language_is_kept_and_so_is_all_that_was_on_the_page(page: Any) -> None:
    asked = chats(page, [("evidence", {"evidence": SOURCES}), ("final", FINAL)])
    page.goto("/?view=chat")
    page.get_by_label("Question").fill("断桥在哪里？")
    page.keyboard.press("Enter")
    page.locator(".answer .cite").wait_for()
    page.get_by_role("button", name="中文").click()
    # The conversation is still there, in the other language.
    page.get_by_text(zh("chat.truncated")).wait_for()
    assert page.locator(".asked").inner_text() == "断桥在哪里？"
    assert page.get_by_role("button", name=zh("chat.source", number=1, name="西湖边的断桥")).is_visible()
    assert len(asked) == 1
    page.get_by_label(zh("chat.question")).fill("还有呢？")
    page.keyboard.press("Enter")
    page.locator(".answer .cite").nth(1).wait_for()
    assert asked[1]["history"] == [{"question": "断桥在哪里？", "answer": FINAL["answer"], "query": FINAL["query"]}]
    page.goto("/?q=red&find=any")
    page.locator(".status").get_by_text(re.compile(r"“red”：找到 \d+ 个相关结果")).wait_for()
    page.get_by_role("button", name="English").click()
    page.locator(".status").get_by_text(re.compile(r"\d+ relevant results for “red”")).wait_for()
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.evaluate("Object.values(localStorage)") == ["en"]
    assert page.evaluate("sessionStorage.length") == 0


@pytest.mark.parametrize("language", ["en", "zh"])
def test_nothing_moves_and_no_other_language_is_seen_while_the_page_loads(
    browser: Any, served: SimpleNamespace, language: str
) -> None:
    # Narrow, so that no filters fill up beside the results.
    locale, size = {"en": "en-US", "zh": "zh-CN"}[language], {"width": 900, "height": 800}
    context = browser.new_context(base_url=served.origin, locale=locale, viewport=size)
    context.set_default_timeout(8000)
    page = context.new_page()
    page.add_init_script(
        """globalThis.seen = new Set(); globalThis.moved = [];
        new PerformanceObserver((list) => {
          for (const each of list.getEntries()) for (const { node } of each.sources) {
            moved.push(`${each.value} ${node?.nodeName} ${node?.className ?? node?.data}`);
          }
        }).observe({ type: "layout-shift", buffered: true });
        const look = () => {
          const said = [...document.querySelectorAll("[title], [aria-label], [placeholder]")];
          for (const line of (document.body?.innerText ?? "").split("\\n")) seen.add(line.trim());
          for (const node of said) for (const name of ["title", "aria-label", "placeholder"]) {
            if (node.getAttribute(name)) seen.add(node.getAttribute(name));
          }
          seen.add(document.title);
          requestAnimationFrame(look);
        };
        requestAnimationFrame(look);"""
    )
    asked = []

    def late(route: Any) -> None:
        asked.append(route.request.url.rpartition("/")[2])
        page.wait_for_timeout(300)
        route.continue_()

    page.route("**/strings.*", late)
    # The link to the chat comes when the service has said that it has one.
    page.route("**/openapi.json", lambda route: route.fulfill(json={"paths": {}}))
    page.goto("/?q=red")
    page.locator(TILE).first.wait_for()
    page.wait_for_load_state("networkidle")
    seen = set(page.evaluate("[...seen]"))
    # What is only in the catalogue of the other language.
    other = {"en": "zh", "zh": "en"}[language]
    strange = {text for text in TEXTS[other].values() if isinstance(text, str)} - {"English", "中文", ""}
    strange -= {text for text in TEXTS[language].values() if isinstance(text, str)}
    assert seen & strange == set()
    assert say(language, "box.add") not in seen
    assert say(language, "filters.title") in seen
    assert asked == [f"strings.{language}.js"]
    assert page.evaluate("moved") == []
    context.close()


def wide(text: Text) -> Text:
    """A text with letters of double width instead of its own, and its holes."""
    if isinstance(text, dict):
        return {form: str(wide(each)) for form, each in text.items()}
    parts = re.split(r"(\{\w+\})", text)
    return "".join(
        part if index % 2 else re.sub("[A-Za-z]", lambda found: chr(ord(found[0]) + 0xFEE0), part)
        for index, part in enumerate(parts)
    )


#: In a page of double letters: what is written in plain ones and is nobody's own text.
PLAIN = """() => {
  const own = "[dir=auto], bdi, code, kbd, .brand, noscript, [lang]:not(html)";
  const data = /number \\d|note on|spread|exact|\\/|pictures|other|KiB|[\\d.]+\\.\\d|colour|year|warm|true/;
  const isPlain = (text) => /[A-Za-z]/.test(text) && !/[\\uff21-\\uff5a]/.test(text) && !data.test(text);
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const { data: text, parentElement } = walker.currentNode;
    if (isPlain(text) && !parentElement.closest(own)) found.push(text);
  }
  const names = ["title", "alt", "aria-label", "placeholder"];
  for (const node of document.body.querySelectorAll("*")) for (const name of names) {
    const text = node.getAttribute(name) ?? "";
    if (isPlain(text) && !node.closest(".brand")) found.push(`${name}=${text}`);
  }
  return found;
}"""


def test_whatever_the_page_says_comes_from_the_catalogue(page: Any) -> None:
    page.refusals = True
    entries = ",\n".join(f"  {json.dumps(key)}: {json.dumps(wide(text))}" for key, text in TEXTS["en"].items())
    page.route(
        "**/strings.en.js",
        lambda route: route.fulfill(content_type="text/javascript", body=f"export default {{\n{entries}\n}};\n"),
    )
    chats(page, [("evidence", {"evidence": SOURCES}), ("final", FINAL)])
    for name, (address, sign) in VIEWS.items():
        page.goto(address)
        # To look at the engines for the first time takes a while.
        page.locator(sign).first.wait_for(timeout=30_000)
        if name == "chat":
            page.locator("#question").fill("where?")
            page.keyboard.press("Enter")
            page.locator(".answer .cite").first.wait_for()
        if name == "index":
            page.locator("#into").fill("wide")
            page.locator("form button").click()
            page.locator(".jobs .counts").first.wait_for(timeout=20_000)
        page.wait_for_function("() => !document.querySelector('.working, [aria-busy]')")
        assert page.evaluate(PLAIN) == [], name
        assert len(page.evaluate(r"document.body.innerText.match(/[\uff21-\uff5a]{2,}/g)")) > 5, name
    # A text of its own would be found.
    page.evaluate("document.querySelector('#main').append('Hello')")
    page.evaluate("document.querySelector('#theme').title = 'Theme'")
    assert page.evaluate(PLAIN) == ["Hello", "title=Theme"]


# In Chinese


def test_a_search_and_its_filters_in_chinese(chinese: Any) -> None:
    chinese.goto("/")
    chinese.get_by_text(zh("welcome.size", name="pictures", n=72)).wait_for()
    chinese.get_by_role("searchbox", name=zh("box.words")).fill("red")
    chinese.locator(".status").get_by_text(f"“red”：找到 {OF_EACH} 张相关图片").wait_for()
    chinese.get_by_text(zh("search.end.relevant")).wait_for()
    assert chinese.locator(".badge").first.get_attribute("title").startswith("相关度；得分 0.")
    panel = chinese.get_by_role("complementary", name=zh("filters.title"))
    panel.get_by_label(zh("filters.field")).fill("warm")
    panel.get_by_label(zh("filters.condition"), exact=True).select_option(zh("operator.eq"))
    panel.get_by_label(zh("filters.value"), exact=True).fill("也许")
    panel.get_by_role("button", name=zh("filters.add")).click()
    panel.get_by_text(zh("filters.bad.truth")).wait_for()
    panel.get_by_label(zh("filters.value"), exact=True).fill("是")
    panel.get_by_role("button", name=zh("filters.add")).click()
    panel.get_by_text("warm 等于 true").wait_for()
    assert json.loads(chinese.evaluate("new URLSearchParams(location.search).get('where')")) == {"warm": {"$eq": True}}
    assert chinese.get_by_role("button", name=zh("filters.set", n=1)).is_visible()
    # A field may be called in any script.
    panel.get_by_label(zh("filters.field")).fill("地点")
    panel.get_by_label(zh("filters.value"), exact=True).fill("西湖")
    chinese.route("**/v1/search", lambda route: route.fulfill(json={"hits": [], "nothing": "nothing was found"}))
    panel.get_by_role("button", name=zh("filters.add")).click()
    panel.get_by_text("地点 等于 西湖").wait_for()
    chinese.get_by_role("heading", name=zh("nothing.relevant")).wait_for()
    chinese.get_by_role("button", name=zh("search.misses.show")).click()
    chinese.locator(".nothing").get_by_text(zh("nothing.found")).wait_for()


def test_a_search_by_keywords_and_the_lightbox_in_chinese(chinese: Any) -> None:
    chinese.goto("/?q=red")
    chinese.locator(TILE).first.wait_for()
    chinese.get_by_label(zh("box.mode")).select_option(zh("box.mode.keyword"))
    chinese.locator(".status").get_by_text("“red”：找到 8 张图片").wait_for()
    name = zh("grid.open", caption="a red picture, number 3", name=zh("score.relevance"), value="")
    chinese.get_by_role("button", name=re.compile(re.escape(name.rsplit("，", 1)[0]))).click()
    dialog = chinese.locator(OPEN)
    dialog.get_by_role("button", name=zh("steer.more")).wait_for()
    assert dialog.get_by_text("painted、odd").is_visible()
    chinese.keyboard.press("Escape")
    dialog.wait_for(state="detached")
    chinese.get_by_role("searchbox").fill("!")
    chinese.locator(".nothing").get_by_text(zh("nothing.wordless")).wait_for()


def test_a_picture_and_items_to_be_like_in_chinese(chinese: Any) -> None:
    chinese.goto("/?q=red&like=teal%2F2&unlike=brown%2F1")
    chinese.locator(".status").get_by_text("“red”和 2 个条目：找到").wait_for()
    chinese.get_by_role("button", name=zh("box.turn", label=zh("box.unlike"))).wait_for()
    drop(chinese, b"words", "笔记.txt", "text/plain")
    chinese.get_by_role("alert").get_by_text("“笔记.txt”不是图片。").wait_for()


def test_index_and_engines_in_chinese(chinese: Any, served: SimpleNamespace) -> None:
    chinese.goto("/?view=index")
    chinese.get_by_label(zh("index.folder"), exact=True).select_option(str(served.place / "new"))
    chinese.get_by_label(zh("index.into")).fill("chinese")
    chinese.get_by_role("button", name=zh("index.start")).click()
    job = chinese.locator(".jobs > li", has_text="存入“chinese”")
    job.get_by_text(zh("job.done"), exact=True).wait_for(timeout=20_000)
    assert "发现 4" in job.inner_text()
    assert "新索引 3" in job.inner_text()
    assert re.search(r"存入“chinese” · \d{4}年\d+月\d+日 \d\d:\d\d", job.inner_text())
    job.get_by_text(zh("index.skipped", n=1)).wait_for()
    chinese.get_by_role("link", name=zh("view.engines")).click()
    own = chinese.get_by_role("region", name=zh("engines.own"))
    own.get_by_text(zh("state.answers")).wait_for(timeout=30_000)
    assert zh("fact.keyword") in own.inner_text()
    assert zh("can.int8") in chinese.get_by_role("region", name=zh("engines.all")).inner_text()


def test_what_the_service_says_has_a_chinese_sentence_before_it(chinese: Any) -> None:
    chinese.refusals = True
    chinese.goto("/?q=red&where=" + '{"a": {"$no": 1}}')
    alert = chinese.get_by_role("alert")
    alert.get_by_text(zh("problem.422")).wait_for()
    told = alert.locator("[lang=en]")
    assert "$no" in told.inner_text()
    answers = [
        ({"status": 503, "json": {"type": "about:blank", "status": 503, "detail": "busy"}}, "problem.503"),
        ({"status": 418, "json": {"detail": "a teapot"}}, "problem.other"),
        ({"status": 422, "json": {"type": "https://example.org/problems/504", "detail": "x"}}, "problem.504"),
        ({"status": 404, "body": "no JSON"}, "problem.404"),
    ]
    for answer, key in answers:
        chinese.unroute_all()
        chinese.route("**/v1/search", lambda route, _, given=answer: route.fulfill(**given))
        chinese.get_by_role("button", name=zh("problem.again")).click()
        alert.get_by_text(zh(key), exact=True).wait_for()
    # What the page itself says is not English.
    chinese.route("**/v1/search", lambda route: route.abort())
    chinese.get_by_role("button", name=zh("problem.again")).click()
    alert.get_by_text(zh("problem.away"), exact=True).wait_for()
    assert alert.get_by_text(zh("problem.away.hint")).is_visible()
    assert alert.locator("[lang=en]").count() == 0


def test_every_reason_for_nothing_is_told_in_chinese(chinese: Any) -> None:
    chinese.goto("/")
    kinds = ("item", "image", "text")
    reasons = [
        "the collection is empty",
        *(f"no {kind} matches the filter" for kind in kinds),
        *(f"there are no {kind}s in the collection" for kind in kinds[1:]),
        "there is no word in the query",
        *(f"no {kind}{among} has any of these words" for kind in kinds for among in ("", " that matches the filter")),
        *(f"there is no other {kind}{among}" for kind in kinds for among in ("", " that matches the filter")),
        *("nothing is relevant enough", "nothing is relevant enough from rank 41 on"),
        "there is nothing from rank 41 on",
        "nothing was found",
    ]
    told = chinese.evaluate(
        """async (reasons) => {
            const { reasonOf } = await import("/static/reasons.js");
            return [...reasons, "a reason of tomorrow"].map(reasonOf).map((node) => [node.lang, node.innerText]);
        }""",
        reasons,
    )
    assert [lang for lang, _ in told] == [""] * len(reasons) + ["en"]
    assert not [text for _, text in told[:-1] if re.search("[A-Za-z{}]|undefined", text)]
    assert told[-1][1] == "A reason of tomorrow."
    source = (ROOT / "retrieval" / "search" / "reasons.py").read_text("utf-8")
    assert len(re.findall(r"^\s+return f?\"", source, re.MULTILINE)) == 10, "a new reason needs its text"


def test_a_key_is_asked_for_in_chinese(browser: Any, tmp_path: Any) -> None:
    app, key = keyed_service(tmp_path)
    with running(app) as port, browser.new_context(base_url=f"http://127.0.0.1:{port}", locale="zh-CN") as context:
        context.set_default_timeout(8000)
        page = context.new_page()
        watch = Watch(page, f"http://127.0.0.1:{port}")
        page.goto("/?q=red")
        dialog = page.get_by_role("dialog", name=zh("key.title"))
        dialog.get_by_label(zh("key.label")).fill("sl_wrong")
        dialog.get_by_role("button", name=zh("key.use")).click()
        page.get_by_text(zh("key.unknown")).wait_for()
        dialog.get_by_label(zh("key.label")).fill(key)
        page.keyboard.press("Enter")
        page.locator(TILE).first.wait_for()
        page.get_by_role("button", name=zh("key.forget")).click()
        dialog.get_by_role("button", name=zh("key.cancel")).click()
        page.get_by_role("alert").get_by_text(zh("key.needed")).first.wait_for()
        watch.check(refusals=True)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        (
            "page",
            {
                "joined": ["a", "a and b", "a, b, and 3"],
                "numbers": ["12,345", "0.50", "99%", "1 byte", "500 bytes", "1.5 KiB", "2,048 TiB"],
                "times": ["1 s", "18 s", "2 min", "1.5 h"],
                "plurals": ["1 item", "2 items"],
                "date": "Nov 15, 2023, 6:13 AM",
            },
        ),
        (
            "chinese",
            {
                "joined": ["a", "a 和 b", "a、b 和 3"],
                "numbers": ["12,345", "0.50", "99%", "1 字节", "500 字节", "1.5 KiB", "2,048 TiB"],
                "times": ["1 秒", "18 秒", "2 分钟", "1.5 小时"],
                "plurals": ["1 个条目", "2 个条目"],
                "date": "2023年11月15日 06:13",
            },
        ),
    ],
)
def test_numbers_lists_and_dates_are_written_as_the_language_does(
    request: pytest.FixtureRequest, name: str, wanted: dict[str, Any]
) -> None:
    page = request.getfixturevalue(name)
    page.goto("/")
    shown = page.evaluate(
        """async () => {
            const { joined, number, percent, bytes, duration, say, date } = await import("/static/language.js");
            return {
                joined: [["a"], ["a", "b"], ["a", "b", "3"]].map(joined),
                numbers: [number(12345), number(0.5, 2), percent(0.999), ...[1, 500, 1536, 2 ** 51].map(bytes)],
                times: [duration(0.2), duration(18), duration(120), duration(5400)],
                plurals: [1, 2].map((n) => say("search.items", { n })),
                date: date(1.7e9),
            };
        }"""
    )
    # Versions of the browser differ in which space they set.
    shown["date"] = shown["date"].replace("\u202f", " ")
    assert shown == wanted


def test_texts_of_items_run_in_their_own_direction(page: Any) -> None:
    hit = {
        "id": "rtl",
        "score": 0.5,
        "relevance": 0.9,
        "modality": "image",
        "text": "صورة حمراء",
        "uri": None,
        "metadata": {"المكان": "القاهرة", "year": 1999},
        "exact": True,
        "duplicates": [],
    }
    note = {**hit, "id": "note", "modality": "text", "text": "ملاحظة عن اللون"}
    page.refusals = True
    page.route("**/v1/search", lambda route: route.fulfill(json={"hits": [hit, note], "nothing": None}))
    page.goto("/?q=x&find=any&item=rtl")
    page.locator(f"{OPEN} h2").wait_for()
    directions = page.evaluate(
        """() => [".lightbox h2", ".lightbox dt", ".lightbox dd", ".passage", "#words", ".status"]
            .map((which) => getComputedStyle(document.querySelector(which)).direction)"""
    )
    assert directions == ["rtl", "rtl", "rtl", "rtl", "ltr", "ltr"]
    assert page.evaluate("getComputedStyle([...document.querySelectorAll('.lightbox dd')][1]).direction") == "ltr"


@pytest.mark.parametrize("name", ["page", "chinese"])
def test_fonts_are_the_systems(request: pytest.FixtureRequest, name: str) -> None:
    page = request.getfixturevalue(name)
    page.goto("/")
    page.locator("#words").wait_for()
    family = page.evaluate("getComputedStyle(document.body).fontFamily")
    assert family.startswith("system-ui")
    assert all(font in family for font in ("PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC")) == (name == "chinese")
    assert page.evaluate("getComputedStyle(document.querySelector('#words')).fontFamily") == family
