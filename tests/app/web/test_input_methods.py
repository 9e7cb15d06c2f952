"""Input methods: nothing is searched, sent or opened while a word is being composed."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.support.page_languages import FINAL, SOURCES, chats, zh

pytestmark = pytest.mark.browser

TILE = ".grid li"


def compose(page: Any, text: str) -> None:
    """What an input method shows of a word that is not finished."""
    ime(page).send("Input.imeSetComposition", {"text": text, "selectionStart": len(text), "selectionEnd": len(text)})


def commit(page: Any, text: str) -> None:
    """The word that was chosen takes the place of what was being composed."""
    ime(page).send("Input.insertText", {"text": text})


def ime(page: Any) -> Any:
    if not hasattr(page, "ime"):
        page.ime = page.context.new_cdp_session(page)
    return page.ime


def press(page: Any, key: str, *, shown_as: str | None = None) -> None:
    """A key that goes to the input method: the page sees its code 229."""
    for kind in ("rawKeyDown", "keyUp"):
        ime(page).send(
            "Input.dispatchKeyEvent",
            {
                "type": kind,
                "key": shown_as or key,
                "code": key,
                "windowsVirtualKeyCode": 229,
                "nativeVirtualKeyCode": 229,
            },
        )


def test_no_search_while_a_word_is_composed(chinese: Any) -> None:
    chinese.goto("/")
    chinese.get_by_text(zh("welcome.size", name="pictures", n=72)).wait_for()
    for text in ("h", "ho", "hon", "hong", "hong'se"):
        compose(chinese, text)
        chinese.wait_for_timeout(60)
    chinese.wait_for_timeout(400)
    # Keys for the input method: the candidates below, then Enter, which would be to search.
    for key in ("ArrowDown", "Enter"):
        press(chinese, key)
    chinese.wait_for_timeout(300)
    assert chinese.watch.searches() == []
    assert chinese.evaluate("[location.search, history.length]") == ["", 2]
    assert chinese.evaluate("document.activeElement.id") == "words"
    commit(chinese, "红色 red")
    chinese.locator(TILE).first.wait_for()
    assert [body["text"] for body in chinese.watch.searches()] == ["红色 red"]


def test_what_was_typed_just_before_a_composition_waits_for_its_end(chinese: Any) -> None:
    chinese.goto("/")
    chinese.get_by_text(zh("welcome.size", name="pictures", n=72)).wait_for()
    chinese.keyboard.type("red ")
    compose(chinese, "lan")
    chinese.wait_for_timeout(500)
    assert chinese.watch.searches() == []
    # What comes meanwhile does not write into the field.
    chinese.evaluate("history.replaceState(null, '', '/?q=green'); dispatchEvent(new PopStateEvent('popstate'))")
    chinese.locator(TILE).first.wait_for()
    assert chinese.locator("#words").input_value() == "red lan"
    commit(chinese, "blue")
    chinese.locator(".status").get_by_text(re.compile("“red blue”：找到")).wait_for()
    assert [body["text"] for body in chinese.watch.searches()] == ["green", "red blue"]


def test_a_composition_that_is_given_up_searches_for_what_is_left(chinese: Any) -> None:
    chinese.goto("/?q=red")
    chinese.locator(TILE).first.wait_for()
    chinese.locator("#words").focus()
    compose(chinese, "lan")
    chinese.wait_for_timeout(300)
    compose(chinese, "")
    chinese.wait_for_timeout(300)
    assert chinese.locator("#words").input_value() == "red"
    assert [body["text"] for body in chinese.watch.searches()] == ["red"]


@pytest.mark.parametrize("code", [13, 229])
def test_enter_sends_a_question_only_when_it_ends_no_composition(chinese: Any, code: int) -> None:
    asked = chats(chinese, [("evidence", {"evidence": SOURCES}), ("final", FINAL)])
    chinese.goto("/?view=chat")
    chinese.locator("#question").focus()
    compose(chinese, "duan'qiao")
    press(chinese, "Enter")
    # As Safari tells it: the composition has ended, and its Enter is known by the code alone; or as others do.
    chinese.locator("#question").evaluate(
        """(node, keyCode) => node.dispatchEvent(new KeyboardEvent("keydown",
            { key: "Enter", keyCode, isComposing: keyCode === 13, bubbles: true, cancelable: true }))""",
        code,
    )
    assert chinese.locator(".asked").count() == 0
    commit(chinese, "断桥在哪里？")
    chinese.keyboard.press("Enter")
    chinese.locator(".answer .cite").wait_for()
    assert [each["question"] for each in asked] == ["断桥在哪里？"]


def test_enter_of_a_composition_sends_no_form_off(chinese: Any) -> None:
    chinese.goto("/?q=red")
    chinese.locator(TILE).first.wait_for()
    submit = """([which, keyCode]) => {
        const field = document.querySelector(which);
        field.focus();
        // The browser sends a form off before the key comes up.
        field.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", keyCode, bubbles: true, cancelable: true }));
        field.form.requestSubmit();
        field.dispatchEvent(new KeyboardEvent("keyup", { key: "Enter", keyCode, bubbles: true }));
    }"""
    chinese.locator("#filter-field").fill("colour")
    chinese.locator("#filter-value").fill("red")
    chinese.evaluate(submit, ["#filter-value", 229])
    assert chinese.evaluate("new URLSearchParams(location.search).get('where')") is None
    # A click sends it off, whatever key came last.
    chinese.locator("#filter-value").evaluate(
        "node => node.dispatchEvent(new KeyboardEvent('keydown', { keyCode: 229, bubbles: true }))"
    )
    chinese.get_by_role("button", name=zh("filters.add")).click()
    assert json.loads(chinese.evaluate("new URLSearchParams(location.search).get('where')")) == {
        "colour": {"$eq": "red"}
    }
    chinese.locator("#filter-value").fill("blue")
    chinese.evaluate(submit, ["#filter-value", 13])
    assert "blue" in chinese.evaluate("new URLSearchParams(location.search).get('where')")


def test_no_shortcut_is_one_while_composing(chinese: Any) -> None:
    chinese.goto("/?q=red")
    chinese.locator(TILE).first.wait_for()
    chinese.locator(".grid .open").first.focus()
    focused = "document.activeElement.closest('li')?.dataset.id ?? document.activeElement.id"
    first = chinese.evaluate(focused)
    pressed = """([key, init]) => document.activeElement.dispatchEvent(
        new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true, ...init }))"""
    for init in ({"isComposing": True}, {"keyCode": 229}):
        for key in ("/", "ArrowRight"):
            chinese.evaluate(pressed, [key, init])
            assert chinese.evaluate(focused) == first
    chinese.evaluate(pressed, ["ArrowRight", {}])
    assert chinese.evaluate(focused) != first
    chinese.evaluate(pressed, ["/", {}])
    assert chinese.evaluate(focused) == "words"
    # An emptied composition in front of a picture to search by: Backspace belongs to it.
    chinese.goto("/?like=teal%2F2")
    chinese.locator(TILE).first.wait_for()
    chinese.locator("#words").focus()
    chinese.evaluate(pressed, ["Backspace", {"keyCode": 229}])
    assert "like=" in chinese.url
    chinese.evaluate(pressed, ["Backspace", {}])
    chinese.wait_for_function("() => !location.search.includes('like=')")
