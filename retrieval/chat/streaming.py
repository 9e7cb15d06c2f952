"""An answer that is shown while it is written: only what the check will not take back.

With `mark`, `verify` and `off` the text stays but for links and citations that name nothing, so a piece of it can be
shown as soon as no link, tag or citation can begin in it that is not at its end yet. With `strict` a sentence is shown
when it is complete and has support.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable

from retrieval.chat.check.layout import fenced_spans
from retrieval.chat.wording import REFUSALS

#: How far the end of code or a formula is waited for: none is longer. Links are shorter, and many dollars are prices.
_MOST_HELD = 2100
#: A word that an address may begin with.
_SCHEMES = ("http", "https", "ftp", "www", "mailto", "file", "tel", "data", "javascript", "vbscript", "blob")
_OPENING = re.compile(
    r"(?P<note>^[ \t]*\[(?=[^\]\n]*(?:\Z|\]\Z|\]:)))|(?P<bracket>!?[\[【［])|(?P<tag><(?=[A-Za-z!/?]|\Z))"
    r"|(?P<code>`+)|(?P<math>\$\$?|\\\[|\\\()",
    re.MULTILINE,
)
_BLANK = re.compile(r"\n[ \t]*\n")
_LAST_WORD = re.compile(r"[!-~\u00a1-\u024f]+\Z")


class Shown:
    """What of a growing reply can be shown. final: it stays."""

    final = True

    def feed(self, piece: str) -> str:
        """What can be shown after one more piece of the reply."""
        raise NotImplementedError

    def rest(self, text: str) -> str:
        """What of the final text was not shown yet."""
        return ""


class Draft(Shown):
    """All of it, as a draft."""

    final = False

    def feed(self, piece: str) -> str:
        """The piece."""
        return piece


class SettledText(Shown):
    """The part that the check will not take back. clean: what the check makes of the beginning of a reply."""

    def __init__(self, clean: Callable[[str], str]) -> None:
        self._clean = clean
        self._raw = ""
        self._looked_at = 0
        self._shown = ""

    def feed(self, piece: str) -> str:
        """What can be shown after one more piece of the reply."""
        self._raw += piece
        # The longer a reply, the larger its steps: each looks at all of it.
        if len(self._raw) - self._looked_at < len(self._raw) // 256:
            return ""
        self._looked_at = len(self._raw)
        told = self._clean(self._raw[: settled(self._raw)])
        # A refusal is perhaps translated at the end.
        if any(said.startswith(told.strip().lower()) for said in REFUSALS):
            return ""
        return self._show(told)

    def rest(self, text: str) -> str:
        """What of the final text was not shown yet; nothing where it begins otherwise."""
        return self._show(text)

    def _show(self, text: str) -> str:
        # All of it, unless what looked like the first word was the beginning of an address: that is out already.
        if text.startswith(self._shown):
            same = len(self._shown)
        elif len(text) > len(self._shown):
            same = next(n for n in range(len(text)) if not self._shown.startswith(text[: n + 1]))
        else:
            return ""
        new = text[same:]
        self._shown = text
        return new


def settled(text: str) -> int:
    """Up to where a reply is final, whatever follows."""
    end = len(text)
    word = _LAST_WORD.search(text)
    # The first word is worth a risk: who waits for an answer sees that it has begun.
    if word is not None and (word.start() or _may_be_address(word[0])):
        end = word.start()
    fences = fenced_spans(text)
    starts = [start for start, _ in fences]
    place = 0
    while (match := _OPENING.search(text, place)) is not None and match.start() < end:
        at = bisect_right(starts, match.start()) - 1
        if at >= 0 and match.start() < fences[at][1]:
            place = max(fences[at][1], match.end())
            continue
        closing = _closing(text, match)
        if (closing is None and len(text) - match.start() < _most_held(match)) or (closing or 0) > end:
            end = match.start()
            break
        place = match.end() if closing is None else max(closing, match.end())
    if text[:end].endswith("!"):
        end -= 1
    return len(text[:end].rstrip())


def _most_held(match: re.Match[str]) -> int:
    if match[0] == "$":
        return 320
    return _MOST_HELD if match["code"] or match["math"] else 620


def _may_be_address(word: str) -> bool:
    lowered = word.lower().lstrip("(<\"'“[")
    return any(sign in lowered for sign in ":/.@") or any(scheme.startswith(lowered) for scheme in _SCHEMES)


def _closing(text: str, match: re.Match[str]) -> int | None:
    """Where what begins at `match` has ended, and no more can belong to it; None where that is not known yet."""
    start, opened = match.start(), match[0].strip()
    if match["tag"]:
        sign = "-->" if text.startswith("<!--", start) else ">"
        return _behind(text, sign, start)
    if match["code"] or match["math"]:
        return _span_end(text, match)
    line_end = text.find("\n", start, start + _MOST_HELD)
    if match["note"]:
        return None if line_end < 0 else line_end
    closed = re.compile("[]】］]").search(text, start + len(opened), start + _MOST_HELD)
    if closed is None:
        return None if line_end < 0 and not opened.startswith("!") else line_end if line_end >= 0 else None
    after = closed.end()
    if after == len(text):
        return None
    if text[after] == "(":
        return _behind(text, ")", after)
    # One citation behind another: the last one tells whether a link follows.
    return after


def _behind(text: str, sign: str, start: int) -> int | None:
    found = text.find(sign, start, start + _MOST_HELD)
    return None if found < 0 or found + len(sign) == len(text) else found + len(sign)


def _span_end(text: str, match: re.Match[str]) -> int | None:
    """The end of code or a formula; where a paragraph ends first, it was none."""
    sign = {"\\[": "\\]", "\\(": "\\)"}.get(match[0], match[0])
    last = match.end() + _MOST_HELD
    found = text.find(sign, match.end(), last)
    blank = _BLANK.search(text, match.end(), last)
    line = text.find("\n", match.end(), last) if match[0] == "$" else -1
    stops = [place for place in (found, blank.start() if blank else -1, line) if place >= 0]
    if not stops:
        return None
    first = min(stops)
    return first + len(sign) if first == found else match.end()
