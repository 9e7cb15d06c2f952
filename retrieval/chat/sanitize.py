"""Retrieved text on its way in, answers on their way out: data stays data.

What was indexed may have been written by anyone. On the way in (`shield`) it loses whatever could be
taken for the prompt's own structure, and sentences that read like instructions to a model are left out.
On the way out (`strip_links`) an answer loses links and images, by which a model under someone's influence
would send data away. Both are rules over text: they narrow what hostile text can do. They cannot promise
that no phrasing reaches the model; what an answer claims is checked by `retrieval.chat.check.grounding`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from retrieval.chat.check.layout import fenced_spans, literal_spans
from retrieval.chat.instructions import TEMPLATE, reads_like_an_instruction

# Joiners are part of the spelling of Persian, Hindi and emoji; the other format characters are not.
_KEPT_FORMAT = {"\u200c", "\u200d"}
_MARKUP = re.compile(r"<!--.*?(?:-->|\Z)|</?[A-Za-z!?][^<>]{0,500}>", re.DOTALL)
_ROLE = re.compile(r"(?i)\b(system|assistant|user|human|developer|tool|function|ai|ipython)(\s*)[:：](?=\s|\Z|\S)")
_FENCE = re.compile(r"`{2,}|~{3,}|#{2,}|={3,}|-{3,}|_{3,}|\*{3,}|\"{3,}|'{3,}")
_PLAIN = str.maketrans(
    {"[": "(", "]": ")", "{": "(", "}": ")", "<": "‹", ">": "›", "【": "(", "】": ")", "〔": "(", "〕": ")"}
)
_SENTENCE_END = re.compile(r"(?<=[.!?。！？;])\s+")

# What stands behind a link's words, as CommonMark has it: an address in <> or with brackets in pairs, and a title in
# quotes; where that does not fit, all to the next bracket that closes.
_PAIRED = r"\((?:[^\s()]|\((?:[^\s()]|\([^\s()]*\))*+\))*+\)"
_QUOTED = r"\"[^\"\n]*\"|'[^'\n]*'|\([^()\n]*\)"
_TARGET = rf"\((?:\s*(?:<[^<>\n]*>|(?:[^\s()]|{_PAIRED})*+)(?:\s+(?:{_QUOTED}))?\s*\)|[^)\n]*\)?)"
_LINK_WORDS = r"(?:[^\[\]\n]|\[[^\[\]\n]{0,100}\]){0,500}"
_LINK_IMAGE = re.compile(rf"!\[(?:(?:[^\[\]]|\[[^\[\]]*\])*+|[^\]]*)\](?:{_TARGET}|\[[^\]]*\])?")
_LINK = re.compile(rf"(?<!!)\[({_LINK_WORDS})\]{_TARGET}")
_LINK_DEFINITION = re.compile(r"(?m)^[ \t]*\[[^\]\n]+\]:[ \t]*\S.*$\n?")
# The same where all else of the line is to stay: an address and at most a title.
_ONLY_DEFINITION = re.compile(rf"(?m)^[ \t]*\[[^\]\n]+\]:[ \t]*\S+(?:[ \t]+(?:{_QUOTED}))?[ \t]*$\n?")
# Brackets that open within an address close within it, so that none is left behind.
_REST = rf"(?:{_PAIRED}|[^\s<>\"'`)\]])*"
# No domain ends so: "photo.jpg/IMG.png" are two files.
_FILES = r"(?:jpe?g|png|gif|webp|tiff?|bmp|hei[cf]|avif|svg|txt|csv|json|html?|pdf)"
_ADDRESS = re.compile(
    rf"(?i)\b(?:[a-z][a-z0-9+.-]{{1,20}}://|www\.|(?:mailto|tel):(?=\S)|file:(?=[/\\%])){_REST}|"
    rf"\b(?:data|javascript|vbscript|blob):(?:{_PAIRED}|[^\s)]|\)(?=\S))+|"
    rf"(?<![\w:/.])//[\w-]+(?:\.[\w-]+)+{_REST}|\b(?:[a-z0-9-]+\.)+(?!{_FILES}\b)[a-z]{{2,24}}(?::\d+)?/{_REST}"
)
_REMOVED = "(link removed)"

# What a reader of Markdown may make of code or mathematics that it does not take for such.
_NEVER_LITERAL = re.compile(
    r"!\[|\]\(|\]\[|://|\bwww\.|</?(?:a|img|image|svg|script|style|link|meta|base|body|iframe|frame|object|embed|video|"
    r"audio|source|track|form|input|button|table|td|picture|math|portal)(?=[\s/>])",
    re.IGNORECASE,
)
# They load nothing and hold nothing. First on a line a tag may turn what follows into HTML: there it is taken out.
_PLAIN_TAG = re.compile(
    r"(?<=[^\s>*+-])([ \t]*)(</?(?:br|sub|sup|b|i|em|strong|u|s|del|mark|kbd|small)[ \t]*/?>)", re.I
)
# "a<b and c>d", "List<String>": what no browser makes more of than emphasis, whatever stands behind it.
_COMPARED = re.compile(
    r"(?<=[^\W_])<(?!(?:img|image|svg|script|style|link|meta|base|body|iframe|frame|object|embed|video|audio|source|track|"
    r"form|input|button|table|td|picture|math|portal|plaintext|xmp|textarea|title|noscript|template|select|details|"
    r"dialog|marquee|noembed|noframes|html|head|frameset|applet|isindex)\b)[A-Za-z][\w ,+*-]{0,80}>",
    re.IGNORECASE,
)
_NOTE = re.compile(r"(?m)^[ \t]*\[\^?\d{1,3}\]:(?=[ \t]+(?:[^\s<>]+[ \t]+[^\s\"'(]|[^\s<>/\\:&]+[ \t]*$))")


@dataclass(frozen=True, slots=True)
class Shielded:
    """Text that is safe inside the prompt's structure, and how many of its sentences were left out."""

    text: str
    withheld: int = 0


def shield(text: str) -> Shielded:
    """Retrieved text as one plain line.

    Normalised (NFKC, so that full-width look-alikes are what they look like); without control, invisible
    and bidirectional-override characters; without markup and chat-template markers; with round brackets for
    square ones, so that no "[3]" in it reads as a citation, and no Markdown link survives; with ``system -``
    for ``system:``. Sentences that read like instructions to a model are left out and counted.
    """
    plain = _visible(unicodedata.normalize("NFKC", text))
    kept, withheld = [], 0
    for line in plain.splitlines():
        for sentence in _SENTENCE_END.split(line):
            if reads_like_an_instruction(sentence):
                withheld += 1
            elif cleaned := _flatten(sentence):
                kept.append(cleaned)
        if kept and kept[-1] != "/":
            kept.append("/")
    # One line after another, as the captions of a photo are, stay told apart.
    line_text = " ".join(kept).removesuffix("/").strip()
    if not withheld and reads_like_an_instruction(" ".join(plain.split())):
        # Spread over lines or sentences so that none of them matched alone.
        return Shielded("", 1)
    return Shielded(line_text, withheld)


def _visible(text: str) -> str:
    kept = []
    for char in text:
        category = unicodedata.category(char)
        if char in "\n\r\u2028\u2029\v\f\x85":
            kept.append("\n")
        elif char == "\t" or category == "Zs":
            kept.append(" ")
        elif category[0] == "C" and char not in _KEPT_FORMAT:
            # Cc, Cf, Cs, Co, Cn: escape sequences, zero-width text, overrides, tag characters.
            continue
        elif 0xE0100 <= ord(char) <= 0xE01EF:
            continue
        else:
            kept.append(char)
    return "".join(kept)


def _flatten(sentence: str) -> str:
    text = TEMPLATE.sub(" ", _MARKUP.sub(" ", sentence))
    text = _FENCE.sub(" ", text).translate(_PLAIN)
    return " ".join(_ROLE.sub(r"\1 -", text).split())


def printable(text: str) -> str:
    """A model's text without control characters, overrides and invisible ones; line breaks and tabs stay."""
    return "".join(
        c
        for c in text.replace("\r\n", "\n")
        if c in "\n\t" or c in _KEPT_FORMAT or unicodedata.category(c) not in {"Cc", "Cf", "Cs", "Co", "Cn"}
    )


def strip_links(
    answer: str, allowed: Iterable[str], *, definition: re.Pattern[str] = _LINK_DEFINITION
) -> tuple[str, int]:
    """An answer without links, images and markup, and how many were taken out.

    An address that occurs letter by letter in one of `allowed` (the evidence as shown, the question) stays,
    as plain text; any other is replaced by "(link removed)". A Markdown link keeps its words. Citations,
    which are numbers in brackets, are left alone. definition: what is taken for the definition of a link.
    """
    known = "\n".join(allowed)
    count = 0

    def dropped(_: re.Match[str]) -> str:
        nonlocal count
        count += 1
        return ""

    def words_only(match: re.Match[str]) -> str:
        nonlocal count
        count += 1
        return f"[{match[1]}]" if match[1].strip().isdigit() else match[1]

    def address(match: re.Match[str]) -> str:
        nonlocal count
        found = match[0].rstrip(".,;:!?")
        if re.search(rf"(?<!\S){re.escape(found)}(?=[\s.,;:!?)]|\Z)", known):
            return match[0]
        count += 1
        return _REMOVED + match[0][len(found) :]

    text = _LINK_IMAGE.sub(dropped, answer)
    text = _LINK.sub(words_only, text)
    text = definition.sub(dropped, text)
    text = re.sub(r"<((?:https?|mailto):[^<>\s]*)>", r"\1", text)
    text = _MARKUP.sub(dropped, text)
    # What is left of an opened tag or image must not become one behind the next piece of text.
    text = re.sub(r"<(?=[A-Za-z!/?])", "‹", text).replace("![", "[")
    return _ADDRESS.sub(address, text), count


def strip_links_only(answer: str, allowed: Iterable[str]) -> tuple[str, int]:
    """As `strip_links`, with all else of the answer's form kept to the letter, and how many links were taken out.

    Code and mathematics stay as they are, and so do tags such as ``<br>`` or ``<sub>`` within a line, and notes such
    as ``[1]: the caption says so``. A fenced block may hold anything; between backticks or dollars what could be read
    as a link or an image is treated as elsewhere.
    """
    fenced = set(fenced_spans(answer))
    taken = [
        (start, end)
        for start, end in literal_spans(answer)
        if (start, end) in fenced or not _NEVER_LITERAL.search(answer[start:end])
    ]
    kept: list[str] = []

    def hide(text: str) -> str:
        kept.append(text)
        # Private characters, of which `printable` leaves none in an answer.
        return f"\ue000{len(kept) - 1}\ue001"

    parts, at = [], 0
    for start, end in taken:
        parts += [answer[at:start], hide(answer[start:end])]
        at = end
    text = "".join([*parts, answer[at:]])
    text = _PLAIN_TAG.sub(lambda match: match[1] + hide(match[2]), text)
    text = _COMPARED.sub(lambda match: hide(match[0]), text)
    text = _NOTE.sub(lambda match: hide(match[0]), text)
    text, count = strip_links(text, allowed, definition=_ONLY_DEFINITION)
    return re.sub("\ue000(\\d+)\ue001", lambda match: kept[int(match[1])], text), count
