"""Texts of others as they are shown: none drives a terminal or reorders a line, and ordinary text is as it was."""

from __future__ import annotations

import json
import unicodedata

import pytest

from app.cli.output import print_json
from app.cli.results_page import Part, Section, render
from backends.base import Hit
from backends.harmless import escaped, harmless, harmless_json, one_line, shortened
from indexers.report import escaped_line
from retrieval.chat.errors import redacted_line

#: Persian with a zero-width non-joiner, Hebrew with a right-to-left mark, Arabic with its mark, Hindi, emoji, Japanese.
ORDINARY = [
    "می\u200cخواهم",
    "שלום\u200f (a)",
    "مرحبا\u061c 12",
    "क्\u200dष",
    "👩\u200d👧 🏴󠁧󠁢󠁥󠁮󠁧󠁿",
    "犬\u3000と猫",
    "e\u0301 ﷺ",
    "a\u00a0b",
]
DRIVING = ["\x1b[2J", "\x07", "\x9b2J", "\x7f", "\x00", "\x08", "\x85", "\u2028", "\u2029", "\ud800"]
REORDERING = [chr(n) for n in (*range(0x202A, 0x202F), *range(0x2066, 0x2070), 0xFFF9, 0xFFFA, 0xFFFB)]


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_of_every_script_stays(text: str) -> None:
    for function in (harmless, escaped, harmless_json, escaped_line):
        assert function(text) == text
    assert one_line(text) == redacted_line(text) == " ".join(text.split())


@pytest.mark.parametrize("bad", DRIVING + REORDERING)
def test_what_drives_or_reorders_is_gone_everywhere(bad: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = f"photo_{bad}gpj.exe"
    page = render("t", [Section(text, [Part(text)], [_hit(text)], facts=[text])])
    print_json({"text": text})
    printed = capsys.readouterr().out
    shown = [function(text) for function in (harmless, one_line, escaped, escaped_line, redacted_line)]
    for said in (*shown, page, printed):
        assert not any(_is_unsafe(char) for char in said)
    # As a value nothing is lost, and two names stay told apart.
    assert json.loads(printed)["text"] == text
    assert escaped(text) != escaped("photo_gpj.exe")


def _is_unsafe(char: str) -> bool:
    return char in REORDERING or (char not in "\n\t" and unicodedata.category(char) in ("Cc", "Zl", "Zp", "Cs"))


def _hit(text: str) -> Hit:
    return Hit(text, 0.5, "image", text, None, {"field": text}, exact=True)


def test_lines_stay_where_a_text_may_have_them() -> None:
    assert harmless("a\r\n\tb\n") == "a\n\tb\n"
    assert one_line(" a\r\n\tb\x1b c\u202e ") == "a b c"
    assert one_line("a\u202eb") == "ab"


def test_what_is_too_long_ends_in_an_ellipsis() -> None:
    assert shortened("abcd", 4) == "abcd"
    assert shortened("abcde", 4) == "abc…"
    assert len(escaped_line("\x1b" * 200)) == 300
    assert len(redacted_line("a b" * 200)) == 200
