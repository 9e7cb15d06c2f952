"""The layout of an answer: what of it is code or mathematics, where its sentences and citations are.

All positions are offsets into the text as it is, which is never rewritten here but for citations that name nothing.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from retrieval.chat.check.claims import ABBREVIATION, CITATION, citations, strip_citations

_FENCE = re.compile(r"( *)(`{3,}(?=[^`\n]*$)|~{3,})")
#: Within a paragraph, and of bounded length, so that what never closes takes no time without end.
_INSIDE = r"(?:(?!\n[ \t]*\n).){1,2000}?"
_INLINE = re.compile(
    rf"(?<![\\`])(?P<ticks>`+)(?!`){_INSIDE}(?<!`)(?P=ticks)(?!`)"
    rf"|(?<!\\)\$\${_INSIDE}\$\$|\\\[{_INSIDE}\\\]|\\\({_INSIDE}\\\)"
    r"|(?<![\\$\w])\$(?![\s$])[^\n$]{0,300}?(?<![\s\\])\$(?![\w$])",
    re.DOTALL,
)
_ITEM = re.compile(r"[ \t]*(?:[-*+•–]|\(?(?:\d{1,3}|[a-zA-Z])[.)])[ \t]+(?:\[[ xX]\][ \t]+)?")
_HEADING = re.compile(r"[ \t]{0,3}#{1,6}(?:[ \t]|$)")
_RULE = re.compile(r"[ \t]*(?:[-*_=][ \t]*){3,}$")
_TABLE = re.compile(r"[ \t]*\|.*|[^|\n]+(?:\|[^|\n]*){2,}")
_TABLE_RULE = re.compile(r"[ \t]*\|?[ \t]*:?-{2,}:?[ \t]*(?:\|[ \t]*:?-{2,}:?[ \t]*)*\|?[ \t]*$")
_QUOTE = re.compile(r"[ \t]*(?:>[ \t]?)+")
_CITED = rf"(?:\s*(?:{CITATION.pattern}))*"
_END = re.compile(rf"[.!?]+[\"'”’)»*_]*{_CITED}(?=\s|\Z|[^\x00-\x7f])|[。！？][”’」』）*_]*{_CITED}", re.IGNORECASE)
_END_ALONE = re.compile(r"[.!?]+[\"'”’)»*_]*(?=\s|\Z|[^\x00-\x7f])|[。！？][”’」』）*_]*")
_FAR = 1 << 62
#: A number in brackets with more digits is a year or a code: no answer has as many sources.
_MOST_DIGITS = 3


@dataclass(frozen=True, slots=True)
class Span:
    """A sentence from `start` to before `end`, in a `block` of lines that belong together and an `item` of it.

    leads: it ends in a colon, so that it introduces what follows. row: it is a row of a table.
    """

    start: int
    end: int
    block: int
    item: int
    leads: bool = False
    row: bool = False


@dataclass(frozen=True, slots=True)
class Cited:
    """A group of citations, as [1] or [2, 3], with the numbers that it names."""

    start: int
    end: int
    numbers: tuple[int, ...]


def literal_spans(text: str) -> list[tuple[int, int]]:
    """Where code and mathematics are: fenced and indented blocks, code between backticks, LaTeX between its marks.

    A fence counts where no line in it is indented less, and it is closed or at the margin, so that no reader of
    Markdown sees less code than this does.
    """
    fences = fenced_spans(text)
    found = [*fences, *_indented(text, fences)]
    blocks = sorted(found)
    found += [
        match.span()
        for match in _INLINE.finditer(text)
        if not _within(match.start(), blocks) and not _within(match.end() - 1, blocks)
    ]
    return sorted(found)


def fenced_spans(text: str) -> list[tuple[int, int]]:
    """Where blocks of code between fences are, which hold their fences."""
    lines = list(_lines(text))
    found: list[tuple[int, int]] = []
    number = 0
    while number < len(lines):
        closing = _closing(text, lines, number)
        if closing is not None:
            found.append((lines[number][0], lines[closing][1]))
            number = closing
        number += 1
    return found


def _indented(text: str, fences: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The lines of code that is set off by its indentation alone."""
    in_list, before = False, "blank"
    for start, end in _lines(text):
        line = text[start:end]
        if not line.strip():
            before = "blank"
        elif line.startswith(("    ", "\t")) and not in_list and before != "text" and not _within(start, fences):
            before = "code"
            yield start, end
        else:
            if not line.startswith(("    ", "\t")):
                in_list = bool(_ITEM.match(line)) or (in_list and line[:1] in " \t")
            before = "text"


def _closing(text: str, lines: Sequence[tuple[int, int]], opening: int) -> int | None:
    """The number of the line that closes the fence which a line opens, if it opens one."""
    match = _FENCE.match(text[slice(*lines[opening])])
    if match is None:
        return None
    indent, mark = len(match[1]), match[2]
    for number in range(opening + 1, len(lines)):
        line = text[slice(*lines[number])]
        if line.strip() and len(line) - len(line.lstrip(" ")) < indent:
            return None
        body = line.strip()
        if len(body) >= len(mark) and body == mark[0] * len(body):
            return number
    # What a fence at the margin opens and nothing closes is code to the end.
    return None if indent else len(lines) - 1


def _lines(text: str) -> Iterator[tuple[int, int]]:
    start = 0
    for line in text.split("\n"):
        yield start, start + len(line)
        start += len(line) + 1


def _within(place: int, spans: Sequence[tuple[int, int]]) -> bool:
    """Whether a place is in one of `spans`, which are in order and do not overlap."""
    at = bisect_right(spans, (place, _FAR)) - 1
    return at >= 0 and place < spans[at][1]


def cited(text: str) -> list[Cited]:
    """The citations of a text outside code and mathematics, in their order."""
    spans = literal_spans(text)
    starts = [start for start, _ in spans]
    found = []
    for match in CITATION.finditer(text):
        at = bisect_right(starts, match.start()) - 1
        if at >= 0 and match.start() < spans[at][1]:
            continue
        numbers = tuple(n for n in citations(match[0]) if len(str(n)) <= _MOST_DIGITS)
        if numbers:
            found.append(Cited(match.start(), match.end(), numbers))
    return found


def without_dangling(text: str, known: Collection[int]) -> tuple[str, list[tuple[int, tuple[int, ...]]]]:
    """A text without citations of numbers that are not `known`, and where in the new text which were taken out.

    All else stays to the letter. Of a group that names both, the known numbers stay.
    """
    parts: list[str] = []
    removed: list[tuple[int, tuple[int, ...]]] = []
    at = length = 0
    for group in cited(text):
        gone = tuple(number for number in group.numbers if number not in known)
        if not gone:
            continue
        before = text[at : group.start]
        kept = [number for number in group.numbers if number in known]
        at = group.end
        if kept:
            spelled = text[group.start], text[group.end - 1]
            before += f"{spelled[0]}{', '.join(map(str, kept))}{spelled[1]}"
        elif before.strip(" \t") and not before.endswith("\n"):
            before = before.rstrip(" \t")
        else:
            at += len(text[at:]) - len(text[at:].lstrip(" \t"))
        parts.append(before)
        length += len(before)
        removed.append((length, gone))
    return "".join([*parts, text[at:]]), removed


def sentence_spans(text: str) -> list[Span]:
    """The sentences of an answer with their citations, in their order; headings, code and rules are none.

    An item of a list and a row of a table end a sentence, a line break within a paragraph does not.
    """
    literal = literal_spans(text)
    whole = [span for span in literal if "\n" in text[slice(*span)] or _alone(text, span)]
    found: list[Span] = []
    for block, item, start, end, row in _passages(text, whole):
        found += _sentences(text, (start, end), literal, block=block, item=item, row=row)
    return found


def _alone(text: str, span: tuple[int, int]) -> bool:
    """Whether a piece of code or mathematics has its line, or its lines, for itself."""
    end = text.find("\n", span[1])
    before = text[text.rfind("\n", 0, span[0]) + 1 : span[0]]
    return not before.strip() and not text[span[1] : end if end >= 0 else len(text)].strip()


def _passages(text: str, code: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int, int, int, bool]]:
    """Block, item, start, end of each passage that sentences are looked for in, and whether it is a table's row."""
    block = item = 0
    passage: list[int] | None = None
    leading = False
    lines = list(_lines(text))
    for number, (start, end) in enumerate(lines):
        line = text[start:end]
        following = text[slice(*lines[number + 1])] if number + 1 < len(lines) else ""
        row = bool(_TABLE.fullmatch(line))
        skipped = not line.strip() or _within(start, code) or _HEADING.match(line) or _RULE.match(line)
        header = row and _TABLE_RULE.match(following)
        mark = _QUOTE.match(line) or _ITEM.match(line)
        introduced = passage is not None and _leads(text, passage)
        if skipped or row or mark or introduced:
            if passage is not None:
                yield block, item, *passage, False  # type: ignore[misc]
                leading = introduced
            passage = None
        if not line.strip() or _HEADING.match(line):
            block += not leading
        if skipped or header or _TABLE_RULE.match(line):
            continue
        item += 1 if mark or row or passage is None else 0
        if row:
            yield block, item, start, end, True
        elif passage is None:
            passage = [start + (mark.end() if mark else 0), end]
        else:
            passage[1] = end
    if passage is not None:
        yield block, item, *passage, False  # type: ignore[misc]


def _leads(text: str, passage: Sequence[int]) -> bool:
    return text[passage[0] : passage[1]].rstrip(" *_").endswith((":", "："))


def _sentences(
    text: str, within: tuple[int, int], literal: Sequence[tuple[int, int]], *, block: int, item: int, row: bool
) -> Iterator[Span]:
    start, end = within
    if row:
        yield Span(start, end, block, item, row=True)
        return
    ends = []
    # Who begins with a citation, as "[1] shows a dog. [2] shows a cat.", begins each sentence so.
    ending = _END_ALONE if CITATION.match(text, start, end) else _END
    for match in ending.finditer(text, start, end):
        stop = match.start()
        if _within(stop, literal):
            continue
        shortened = text[stop] == "." and ABBREVIATION.search(text[max(start, stop - 12) : stop + 1])
        if not (shortened and match.end() < end):
            ends.append(match.end())
    pieces: list[tuple[int, int]] = []
    for stop in [*ends, end]:
        piece = text[start:stop]
        first = start + len(piece) - len(piece.lstrip())
        last = start + len(piece.rstrip())
        start = stop
        if first >= last:
            continue
        # A citation on its own, as on a line below, belongs to what it follows.
        if pieces and not strip_citations(text[first:last]).strip(" .,;:-–—()*_\n"):
            pieces[-1] = (pieces[-1][0], last)
        else:
            pieces.append((first, last))
    for first, last in pieces:
        bare = strip_citations(text[first:last]).rstrip(" *_")
        yield Span(first, last, block, item, leads=bare.endswith((":", "：")))
