"""The page's texts: both languages whole and alike, every one of them used, and none outside the catalogues."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import get_args

import pytest

from app.core.jobs import WAITING, State
from app.core.server_probe import ANSWERS, NO_KEY, REFUSED, SILENT
from app.http.problems import KINDS, MEANINGS
from backends.base import Capabilities, IndexKind, Quantization
from backends.filters import OPERATORS
from indexers.text_side import STAGE
from tests.support.page_texts import catalogue, document, forms, holes, strays, style_texts, used_keys
from tests.support.repository import ROOT

WEB = ROOT / "app" / "web"
#: What ``Intl.PluralRules`` tells apart.
PLURALS = {"en": {"one", "other"}, "zh": {"other"}}
LANGUAGES = tuple(PLURALS)
TEXTS = {language: catalogue((WEB / f"strings.{language}.js").read_text("utf-8")) for language in LANGUAGES}
MODULES = sorted(path for path in WEB.glob("*.js") if not path.name.startswith("strings."))
HAN = r"[\u3400-\u9fff]"


def area(name: str) -> set[str]:
    """The keys of an area, without its name."""
    return {key.removeprefix(f"{name}.") for key in TEXTS["en"] if key.startswith(f"{name}.")}


def slug(told: str) -> str:
    return re.sub(r"\W+", "_", told)


def test_both_languages_have_the_same_texts_in_the_same_order_with_the_same_holes() -> None:
    assert list(TEXTS["en"]) == list(TEXTS["zh"]) == sorted(TEXTS["en"])
    for key, text in TEXTS["en"].items():
        assert holes(text) == holes(TEXTS["zh"][key]), key


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_text_is_whole(language: str) -> None:
    for key, text in TEXTS[language].items():
        assert set(forms(text)) in ({"other"}, PLURALS[language]), key
        for form in forms(text).values():
            assert key.startswith("list.") or (form and form == form.strip()), key
            assert form.count("{") == form.count("}") == len(re.findall(r"\{\w+\}", form)), key
        # A plural is chosen by a number that there must be.
        assert isinstance(text, str) or key.startswith("time.") or holes(text) & {"n", "many"}, key


def test_chinese_texts_are_set_as_chinese_is() -> None:
    for key, text in TEXTS["zh"].items():
        shown = re.sub(r"\{\w+\}", "0", str(text))
        assert not re.search(f"{HAN}[A-Za-z$]|[A-Za-z$]{HAN}", str(text)), f"no space beside Latin letters: {key}"
        assert not re.search(rf"{HAN}[,.:;!?()]|[,:;!?()]{HAN}", shown), f"half-width punctuation: {key}"
        assert not re.search(r"\s[，。：；！？（）、]|[，。：；！？（）、]\s", shown), (
            f"a space beside punctuation: {key}"
        )
    # What is Chinese but not set so would be found.
    for wrong in ("用PNG图片", "图片:文本", "图片， 文本"):
        assert re.search(rf"{HAN}[A-Z]|{HAN}:{HAN}|[，]\s", wrong)


def test_what_is_the_same_in_both_languages_is_no_forgotten_english() -> None:
    same = {key for key in TEXTS["en"] if TEXTS["en"][key] == TEXTS["zh"][key]}
    assert same == {"can.flat", "page.title", "search.words"}


def test_every_key_that_is_used_is_there_and_none_is_unused() -> None:
    keys: set[str] = set()
    areas: set[str] = set()
    for path in MODULES:
        used, made = used_keys(path.read_text("utf-8"))
        keys, areas = keys | used, areas | made
    keys |= document((WEB / "page.html").read_text("utf-8"))[1]
    assert len(keys) > 100
    assert keys - TEXTS["en"].keys() == set()
    assert {key for key in TEXTS["en"] if key not in keys and not key.startswith(tuple(areas))} == set()
    assert "" not in areas, "a key that is made up as a whole cannot be checked"
    # Those that are made up while the page runs are the ones that can be asked for.
    assert {name for name in areas if not area(name.rstrip("."))} == set()
    assert areas - {f"{name}." for name in ASKED_FOR} == {"view."}


def _after(name: str, pattern: str) -> set[str]:
    """The words of a list in a module."""
    found = re.search(pattern, (WEB / name).read_text("utf-8"))
    assert found, pattern
    return set(re.findall(r'"(\w+)"', found[1]))


OPERATORS_HERE = {op for op in OPERATORS if f'"${op}"' in (WEB / "where.js").read_text("utf-8")}
STAGES = set(re.findall(r'_tell\("(\w+)"\)', (ROOT / "indexers" / "run.py").read_text("utf-8")))
FINDS = {"image", "text", "any"}
ASKED_FOR = {
    "box.mode": {"vector", "hybrid", "keyword"},
    "can": {slug(each.name) for each in fields(Capabilities) if each.type == "bool"}
    | (set(get_args(IndexKind)) - {"auto"})
    | (set(get_args(Quantization)) - {"none"}),
    "column": {*_after("engines.js", r"collections\"\), \[(.*?)\]"), *_after("engines.js", r"all\"\), \[(.*?)\]")}
    | {"file", "why"},
    "condition": OPERATORS_HERE | {"missing"},
    "count": _after("indexing.js", r"COUNTS = \[(.*?)\]"),
    "fact": _after("engines.js", r"facts = \[(.*?)\]"),
    "filters.words": {"true", "false"},
    "found": FINDS | {f"relevant.{each}" for each in FINDS},
    "found.relevant": FINDS,
    "job": set(get_args(State)),
    "kind": {"item", "image", "text"},
    "kinds": {"image", "text"},
    "operator": OPERATORS_HERE,
    "problem": {str(status) for status in MEANINGS}
    | {"again", "away", "away.hint", "broken", "other"}
    | {slug(kind.name) for _, kind in KINDS},
    "stage": STAGES | {slug(WAITING), slug(STAGE)},
    "state": {slug(each) for each in (ANSWERS, SILENT, REFUSED, NO_KEY)},
}


@pytest.mark.parametrize("name", ASKED_FOR)
def test_whatever_the_service_may_say_has_its_text(name: str) -> None:
    assert area(name) == ASKED_FOR[name]
    assert ASKED_FOR[name]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_no_text_stands_in_a_module(path) -> None:  # type: ignore[no-untyped-def]
    assert strays(path.read_text("utf-8")) == []


def test_no_text_stands_in_the_document_or_its_styles() -> None:
    found, _, unscripted = document((WEB / "page.html").read_text("utf-8"))
    assert found == []
    # Without JavaScript no catalogue is read, so both languages are there.
    assert set(unscripted) == {"en", "zh-CN"}
    for path in WEB.glob("*.css"):
        assert style_texts(path.read_text("utf-8")) == [], path.name


@pytest.mark.parametrize(
    "line",
    [
        'h("p", {}, "Hello");',
        'h("p", {}, "hello");',
        'h("p", {}, "你好");',
        'h("p", {}, busy ? say("view.chat") : "not yet");',
        'h("p", {}, [summary && "by", version].filter(Boolean).join(" · "));',
        'h("ul", {}, found.map((each) => h("li", {}, each.name, " default")));',
        'h("ul", {}, found.map((each) => "default"));',
        'h("p", {}, `${many} found`);',
        'h("p", {}, ` ${many ? "found" : ""}`);',
        'h("img", { alt: "a picture", src });',
        'h("button", { "aria-label": "close" });',
        'h("input", { placeholder: narrow ? "words" : say("box.add") });',
        'h("option", { value: "vector" }, "meaning");',
        'button("go", go);',
        "button(`Sources (${n})`, go);",
        'iconButton("close", "close", close);',
        'tip(["/"], "to the box");',
        'announce("copied");',
        "announce(`The job is ${state}`);",
        'throw new Error("say a value");',
        'pressed.textContent = "copied";',
        'pressed.title = done ? "copied" : label;',
        'node.setAttribute("aria-label", "close");',
        'list.append("more");',
        'list.replaceChildren(...items, "more");',
        'const label = running ? "Stop" : say("chat.send");',
        'const states = { queued: "is waiting" };',
        'const heads = ["Name", 1];',
        "const said = 'not installed';",
        "const said = `nothing was found`;",
        'const said = "没有";',
        'function told() { return "waits for its turn"; }',
        'const quotient = a / b; h("p", {}, "Hello"); // ends / here',
        'const found = /["\'`]/.test(x); h("p", {}, "Hello");',
    ],
)
def test_a_planted_text_is_found(line: str) -> None:
    assert len(strays(f"export function view() {{\n  {line}\n}}\n")) == 1


@pytest.mark.parametrize(
    "line",
    [
        'h("p", { class: "row between" }, say("view.chat"), " · ", "✓");',
        'h("code", {}, "--root DIR");',
        'h("kbd", {}, "Enter");',
        'tip(["Enter", "Esc"], say("keys.open"));',
        'if (event.key === "Enter") return;',
        'node.addEventListener("click", () => {});',
        'document.querySelector("dialog[open] .first, nav a").focus();',
        'headers["Content-Type"] = "application/json";',
        'const area = h("textarea", { value, class: "unseen", "aria-describedby": "key-why" });',
        'params.append("like", id);',
        "// a comment: not a text",
        '/* nor "this" */',
    ],
)
def test_what_a_reader_never_sees_is_no_text(line: str) -> None:
    assert strays(f"export function view() {{\n  {line}\n}}\n") == []


def test_planted_texts_in_the_document_and_its_styles_are_found() -> None:
    page = (
        '<p>Hello</p><button title="Close"></button><input placeholder="words"><img alt="" src="x"><b data-say="a.b">'
    )
    assert document(page) == (["Hello", "title=Close", "placeholder=words"], {"a.b"}, {})
    assert style_texts('a::after { content: "Drop it"; } b::after { content: ""; } i { content: attr(data-drop) }') == [
        "Drop it"
    ]


def test_keys_are_found_wherever_they_are_used() -> None:
    module = """
        const a = say("a.b", { n: f(1, 2) }), b = sayWith(x ? "c.d" : "e.f", {}), c = isSaid(`g.${x}`);
        throw new Failure(404, "h.i", {}); translated("j", told);
    """
    assert used_keys(module) == ({"a.b", "c.d", "e.f", "h.i"}, {"g.", "j."})


@pytest.mark.parametrize(
    "line", ['  "a.b": "x", "c": "y",', '  "a b": "x",', '  a: "x",', '  "a.b": x,', '  "a": "x",\n  "a": "y",']
)
def test_a_catalogue_has_one_text_a_line(line: str) -> None:
    with pytest.raises((AssertionError, ValueError)):
        catalogue(f"export default {{\n{line}\n}};\n")
