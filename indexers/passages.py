"""Splitting documents into passages that a text encoder can take in whole.

The rule: a document is cut into blocks, at blank lines in plain text and at block elements (CommonMark
0.31 with tables) in Markdown. Consecutive blocks under the same headings are packed together while they
stay within `max_words`. A block that is longer is split at sentence ends, a longer sentence at words, a
longer word at characters. Fenced and indented code and tables are never split, up to the 65,535 bytes a
record's text may have. A passage carries its headings, "Part > Chapter", and the line where it starts;
headings are embedded before the words, so that a passage is found by what its section is about.

A word is what stands between white space, at most twelve characters of it; from U+2E80 on, where scripts
do without white space, it is one character.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from backends.base import MAX_TEXT_BYTES

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

#: Raise it when the rule changes: passages of another rule are other records.
RULE_VERSION = 1
DEFAULT_WORDS = 150
MIN_WORDS, MAX_WORDS = 40, 200
#: English words per token of the subword vocabularies in use, rounded down.
WORDS_PER_TOKEN = 0.7
CHARS_PER_WORD = 12
FIRST_WIDE = "\u2e80"
MAX_HEADING_CHARS = 200

_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"'”’)\]]*\s+|(?<=[。！？])|\n")
_FRONT_MATTER = re.compile(r"---\n(?:[^\n]*\n){1,200}?(?:---|\.\.\.)(?:\n|\Z)")
_ATOMIC = frozenset({"fence", "code_block", "table_open", "html_block"})


@dataclass(frozen=True, slots=True)
class Passage:
    """A stretch of a document: its words, its headings ("" outside any), the line it starts on, from 1."""

    text: str
    heading: str
    line: int

    @property
    def embedded(self) -> str:
        """What the encoder is given: the headings, then the words."""
        return f"{self.heading}\n{self.text}" if self.heading else self.text


@dataclass(frozen=True, slots=True)
class _Block:
    text: str
    heading: str
    line: int
    atomic: bool = False


def passage_words(context_length: int | None) -> int:
    """How many words a passage may have for an encoder that reads `context_length` tokens; 150 if unknown."""
    if context_length is None:
        return DEFAULT_WORDS
    return max(MIN_WORDS, min(MAX_WORDS, int(context_length * WORDS_PER_TOKEN)))


def split_passages(text: str, *, markdown: bool = False, max_words: int = DEFAULT_WORDS) -> list[Passage]:
    """The passages of a document in order; none for one that is only white space."""
    # A Markdown file of headings alone is text as well.
    blocks = (list(_markdown_blocks(text)) if markdown else []) or _plain_blocks(text)
    return list(_pack((part for block in blocks for part in _fit(block, max_words)), max_words))


def count_words(text: str) -> int:
    """Words between white space, of at most 12 characters each; in scripts without spaces, characters."""
    return sum(_run_words(run) for run in text.split())


def _run_words(run: str) -> int:
    if run.isascii():
        return -(-len(run) // CHARS_PER_WORD)
    wide = sum(character >= FIRST_WIDE for character in run)
    return wide + -(-(len(run) - wide) // CHARS_PER_WORD)


def _plain_blocks(text: str) -> Iterator[_Block]:
    start, lines = 0, text.split("\n")
    for number, line in enumerate([*lines, ""]):
        if line.strip():
            continue
        if number > start:
            yield _Block("\n".join(lines[start:number]).strip("\n"), "", start + 1)
        start = number + 1


@cache
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark").enable("table")
    # Blocks are all that is needed here; leaving the inline rules out is several times faster.
    parser.core.ruler.enableOnly(["normalize", "block"])
    return parser


def _markdown_blocks(text: str) -> Iterator[_Block]:
    front = _FRONT_MATTER.match(text)
    if front is not None:
        inside = front.group().strip().strip("-.").strip()
        if inside:
            yield _Block(inside, heading="", line=2, atomic=True)
        # Blanked rather than cut, so that line numbers stay those of the file.
        text = "\n" * front.group().count("\n") + text[front.end() :]
    lines = text.split("\n")
    headings: list[tuple[int, str]] = []
    tokens = _parser().parse(text)
    heading_level, done = 0, 0
    for token in tokens:
        if token.type == "heading_open" and token.level == 0:
            heading_level = int(token.tag[1])
        elif token.type == "heading_close" and token.level == 0:
            heading_level = 0
        elif heading_level and token.type == "inline":
            headings = [(level, name) for level, name in headings if level < heading_level]
            headings.append((heading_level, " ".join(token.content.split())[:MAX_HEADING_CHARS]))
            done = max(done, token.map[1] if token.map else 0)
        elif token.map and token.nesting >= 0 and (token.type in _ATOMIC or _is_leaf(token.type)):
            start, end = token.map
            if start >= done and (body := "\n".join(lines[start:end]).strip("\n")).strip():
                path = " > ".join(name for _, name in headings if name)
                yield _Block(body, path, start + 1, atomic=token.type in _ATOMIC)
                done = end


def _is_leaf(kind: str) -> bool:
    return kind in ("paragraph_open", "heading_open")


def _fit(block: _Block, max_words: int) -> Iterator[_Block]:
    """The block, or its parts if it is too long for one passage."""
    if block.atomic or count_words(block.text) <= max_words:
        yield from _within_bytes(block)
        return
    line, part, size = block.line, "", 0
    for piece in _pieces(block.text, max_words):
        words = count_words(piece)
        if part.strip() and size + words > max_words:
            yield _Block(part.strip(), block.heading, line)
            line, part, size = line + part.count("\n"), "", 0
        part, size = part + piece, size + words
    if part.strip():
        yield _Block(part.strip(), block.heading, line)


def _pieces(text: str, max_words: int) -> Iterator[str]:
    """The text cut into sentences, into runs of `max_words` words where a sentence is longer; nothing is lost."""
    start = 0
    for match in [*_SENTENCE_END.finditer(text), None]:
        end = match.end() if match else len(text)
        sentence, start = text[start:end], end
        if count_words(sentence) <= max_words:
            yield sentence
            continue
        longest = max_words * (CHARS_PER_WORD if sentence.isascii() else 1)
        run, size = "", 0
        for word in re.findall(r"\s*\S+\s*", sentence):
            for at in range(0, len(word), longest):
                chunk = word[at : at + longest]
                words = count_words(chunk)
                if run and size + words > max_words:
                    yield run
                    run, size = "", 0
                run, size = run + chunk, size + words
        if run:
            yield run


def _within_bytes(block: _Block) -> Iterator[_Block]:
    """The block in parts of at most the bytes a record's text may have, cut at line ends where there are any."""
    if len(block.text) * 4 <= MAX_TEXT_BYTES or len(block.text.encode("utf-8")) <= MAX_TEXT_BYTES:
        yield block
        return
    limit = MAX_TEXT_BYTES // 4
    line, text = block.line, block.text
    while text:
        cut = len(text) if len(text) <= limit else text.rfind("\n", 1, limit) + 1 or limit
        if text[:cut].strip():
            yield _Block(text[:cut].strip("\n"), block.heading, line, atomic=True)
        line, text = line + text.count("\n", 0, cut), text[cut:]


def _pack(blocks: Iterable[_Block], max_words: int) -> Iterator[Passage]:
    held: list[_Block] = []
    size = 0
    for block in blocks:
        words = count_words(block.text)
        if held and (held[-1].heading != block.heading or size + words > max_words):
            yield _joined(held)
            held, size = [], 0
        held.append(block)
        size += words
    if held:
        yield _joined(held)


def _joined(blocks: list[_Block]) -> Passage:
    text, end = blocks[0].text, blocks[0].line + blocks[0].text.count("\n")
    for block in blocks[1:]:
        # As far apart as in the file: parts of one line, neighbouring lines, or paragraphs.
        text += (" " if block.line <= end else "\n" if block.line == end + 1 else "\n\n") + block.text
        end = block.line + block.text.count("\n")
    return Passage(text, blocks[0].heading, blocks[0].line)
