"""The texts of the page: its catalogues, where the code uses them, and what a reader would see that is in none.

JavaScript is read by a small tokenizer, which is enough for the page's own plain modules. A text is a literal with a
letter in a place from which it reaches the reader: a child or a label of `h` and what is built on it, an assigned
`textContent`, a message of an error. Elsewhere a literal is one if it reads like language: two words, a capital, Han.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

Text = str | dict[str, str]

ENTRY = re.compile(r'^  "(?P<key>[a-z0-9_.]+)": (?P<text>".*"|\{ .* \}),$')
FORM = re.compile(r'(\w+): ("(?:[^"\\]|\\.)*")')
HOLE = re.compile(r"\{(\w+)\}")

#: Calls whose arguments are shown or read out, and which of them.
SHOWN: dict[str, range] = {
    "h": range(2, 99),
    "button": range(1),
    "iconButton": range(1, 2),
    "tip": range(1, 2),
    "announce": range(1),
    "Error": range(1),
    "TypeError": range(1),
    "alert": range(1),
    "confirm": range(1),
    "append": range(99),
    "prepend": range(99),
    "replaceChildren": range(99),
    "replaceWith": range(99),
    "createTextNode": range(1),
    "setCustomValidity": range(1),
}
#: Properties that are shown or read out.
SAID = {"title", "alt", "aria-label", "ariaLabel", "placeholder", "textContent", "innerText", "label"}
#: What these get goes on to where they stand.
PASSING = {"map", "flatMap", "filter", "concat", "harmless", "String", "trim", "flat"}
#: Elements whose content is code or the name of a key, in every language the same.
VERBATIM = {"code", "kbd"}
#: Calls that take names of the platform, which may be of two words or begin with a capital.
TECHNICAL = {
    "querySelector",
    "querySelectorAll",
    "closest",
    "matches",
    "matchMedia",
    "getElementById",
    "say",
    "sayWith",
}
TECHNICAL |= {"get", "set", "setAttribute", "createElementNS", "addEventListener", "RegExp", "includes", "Failure"}
NOT_CALLS = {"if", "for", "while", "switch", "catch", "function", "return", "await", "of", "in", "case", "typeof"}
SAYING = ("say", "sayWith", "isSaid")

#: For the browser and the service, whatever they look like.
UNSEEN = {"use strict", "Bearer \0"}
LETTER = re.compile(r"[^\W\d_]")
LANGUAGE = re.compile(
    r"[\u2e80-\u9fff\uac00-\ud7af\uff00-\uffef]|[^\W\d_]{2,}[ ’'][^\W\d_]{2,}|^\s*[A-Z][a-z]{2,}(?![A-Z\w-])"
)
TOKEN = re.compile(
    r"""(?P<space>\s+|//[^\n]*|/\*.*?\*/)
    |(?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
    |(?P<name>[A-Za-z_$][\w$]*|\d[\w.]*)
    |(?P<mark>\.\.\.|\?\.(?!\d)|===|!==|==|!=|=>|<=|>=|&&=|\|\|=|\?\?=|&&|\|\||\?\?|\+=|-=|[^\s\w])""",
    re.VERBOSE | re.DOTALL,
)
REGEX = re.compile(r"/(?:[^/\\\[\n]|\\.|\[(?:[^\]\\\n]|\\.)*\])+/[a-z]*")


def catalogue(source: str) -> dict[str, Text]:
    """The texts of a file ``strings.XX.js``, each on a line of its own, in their order."""
    lines = source.split("export default {\n")[1].split("\n};\n")[0].splitlines()
    texts: dict[str, Text] = {}
    for line in lines:
        found = ENTRY.match(line)
        assert found, f"not one text on a line: {line}"
        assert found["key"] not in texts, f"twice: {found['key']}"
        forms = {form: json.loads(text) for form, text in FORM.findall(found["text"])}
        texts[found["key"]] = json.loads(found["text"]) if found["text"].startswith('"') else forms
    return texts


def forms(text: Text) -> dict[str, str]:
    """The forms of a text by class of plural; one that has no plural is its own ``other``."""
    return text if isinstance(text, dict) else {"other": text}


def holes(text: Text) -> set[str]:
    return {name for form in forms(text).values() for name in HOLE.findall(form)}


@dataclass(frozen=True)
class Token:
    """`kind` is string, name or mark; `text` of a string is what it says, without what is computed in it."""

    kind: str
    text: str
    line: int


def tokens(source: str, line: int = 1) -> Iterator[Token]:
    """The tokens of a module. A template is a string, then for each of its holes a mark ``${``, tokens, ``}$``."""
    at, before = 0, Token("mark", ";", line)
    while at < len(source):
        if source[at] == "`":
            end, static, inner = _template(source, at)
            before = Token("string", static, line)
            yield before
            for start, stop in inner:
                inside = line + source.count("\n", at, start)
                yield Token("mark", "${", inside)
                yield from tokens(source[start:stop], inside)
                yield Token("mark", "}$", inside)
        elif source[at] == "/" and source[at + 1] not in "/*" and _begins(before):
            found = REGEX.match(source, at)
            assert found, source[at : at + 40]
            end, before = found.end(), Token("name", "REGEX", line)
            yield before
        else:
            found = TOKEN.match(source, at)
            assert found, source[at : at + 40]
            end = found.end()
            if found.lastgroup != "space":
                text = found[0][1:-1] if found.lastgroup == "string" else found[0]
                before = Token(str(found.lastgroup), text, line)
                yield before
        line += source.count("\n", at, end)
        at = end


def _begins(before: Token) -> bool:
    """Whether an expression begins here, so that a slash is a pattern and a bracket a list."""
    return (before.kind == "mark" and before.text not in (")", "]", "}")) or before.text in NOT_CALLS


def _template(source: str, start: int) -> tuple[int, str, list[tuple[int, int]]]:
    """Where a template ends, what it says, and where its holes are."""
    at, static, inner = start + 1, "", []
    while source[at] != "`":
        if source.startswith("${", at):
            stop = _hole_end(source, at + 2)
            inner.append((at + 2, stop))
            static, at = static + "\0", stop + 1
        else:
            length = 2 if source[at] == "\\" else 1
            static, at = static + source[at : at + length], at + length
    return at + 1, static, inner


def _hole_end(source: str, at: int) -> int:
    depth = 0
    while depth or source[at] != "}":
        if source[at] == "`":
            at = _template(source, at)[0]
            continue
        depth += {"{": 1, "}": -1}.get(source[at], 0)
        at += 1
    return at


@dataclass
class Frame:
    """A bracket that is open: what it belongs to, and at which of its parts the reading is."""

    kind: str  # call, group, list, index, object, block, hole
    name: str = ""
    part: int = 0
    key: str = ""
    first: str = ""
    assigned: str = ""
    seen: list[Token] = field(default_factory=list)


def literals(source: str) -> Iterator[tuple[Token, list[Frame], Token, Token]]:
    """Every string of a module with the brackets it stands in, innermost last, and its neighbours."""
    stream = list(tokens(source))
    end = Token("mark", ";", 0)
    stack = [Frame("block")]
    for index, token in enumerate(stream):
        before = stream[index - 1] if index else end
        after = stream[index + 1] if index + 1 < len(stream) else end
        top = stack[-1]
        if token.kind == "string":
            is_key = top.kind == "object" and not top.key and after.text == ":"
            if is_key:
                top.key = token.text
            else:
                if top.kind == "call" and top.part == 0 and not top.first:
                    top.first = token.text
                yield token, stack, before, after
        elif token.kind == "name":
            if top.kind == "object" and not top.key and after.text in (":", ",", "}"):
                top.key = token.text
        elif token.text in ("(", "[", "{", "${"):
            stack.append(_opened(token, before, stream, index))
        elif token.text in (")", "]", "}", "}$"):
            stack.pop()
        elif token.text == ",":
            top.part, top.key = top.part + 1, ""
        elif token.text == ";":
            top.assigned = ""
        elif token.text == "=":
            top.assigned = before.text


def _opened(token: Token, before: Token, stream: list[Token], index: int) -> Frame:
    if token.text == "${":
        return Frame("hole")
    if token.text == "[":
        return Frame("list" if _begins(before) else "index")
    if token.text == "(":
        is_call = before.kind == "name" and before.text not in NOT_CALLS
        # What is appended to an address is not appended to the page.
        is_address = is_call and [each.text for each in stream[max(0, index - 3) : index - 1]] == ["params", "."]
        return Frame("call", name=f"{'params.' * is_address}{before.text}") if is_call else Frame("group")
    opens_block = before.text in (")", "=>", "else", "try", "finally", "do", ";", "{", "}", "catch") or (
        before.kind == "name" and index > 1 and stream[index - 2].text == "class"
    )
    return Frame("block" if opens_block else "object")


def strays(source: str) -> list[str]:
    """What a reader of the page would see of this module that comes from no catalogue, with its line."""
    found = []
    for token, stack, before, after in literals(source):
        compared = {before.text, after.text} & {"===", "!==", "case"} or before.text in ("import", "from")
        if compared or token.text in UNSEEN:
            continue
        if (LETTER if _is_shown(stack) else LANGUAGE).search(token.text) and not _is_technical(stack):
            found.append(f"{token.line}: {token.text}")
    return found


def _is_shown(stack: list[Frame]) -> bool:
    """Whether what stands here reaches the reader, by the innermost bracket that says what becomes of it."""
    for frame in reversed(stack):
        if frame.kind == "call" and frame.name not in PASSING:
            if frame.name == "setAttribute":
                return frame.part == 1 and frame.first in SAID
            if frame.name == "h" and frame.first in VERBATIM:
                return False
            return frame.part in SHOWN.get(frame.name, ())
        if frame.kind == "object":
            return frame.key in SAID
        if frame.kind == "index":
            return False
        if frame.kind == "block":
            return frame.assigned in SAID
    return False


def _is_technical(stack: list[Frame]) -> bool:
    """Whether what stands here is for the browser: properties of an element that is made, selectors, keys of texts."""
    for index in range(len(stack) - 1, 0, -1):
        frame = stack[index]
        if frame.kind == "call" and frame.name not in PASSING:
            # The names of keys, of which a tip tells.
            verbatim = (frame.name == "h" and frame.first in VERBATIM) or (frame.name == "tip" and frame.part == 0)
            return verbatim or (frame.name in TECHNICAL and not (frame.name == "setAttribute" and _is_shown(stack)))
        if frame.kind == "object":
            outer = [each for each in stack[:index] if each.kind not in ("list", "group", "object")]
            return frame.key not in SAID and bool(outer) and outer[-1].kind == "call"
        if frame.kind in ("index", "block"):
            return frame.kind == "index"
    return False


def used_keys(source: str) -> tuple[set[str], set[str]]:
    """The keys that a module uses, and the beginnings of those that it makes up while it runs."""
    keys: set[str] = set()
    areas: set[str] = set()
    for token, stack, _, _ in literals(source):
        frame = next((each for each in reversed(stack) if each.kind not in ("group", "hole")), stack[0])
        if frame.kind != "call":
            continue
        if (frame.name in SAYING and frame.part == 0) or (frame.name == "Failure" and frame.part == 1):
            area, is_made, _ = token.text.partition("\0")
            (areas if is_made else keys).add(area)
        elif frame.name == "translated" and frame.part == 0:
            areas.add(f"{token.text}.")
    return keys, areas


class _Document(HTMLParser):
    """What a document says by itself, and the keys of what is filled in."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.keys: set[str] = set()
        self.unscripted: dict[str, str] = {}
        self._open: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.keys |= {str(given[name]) for name in ("data-say", "data-label", "data-hint") if name in given}
        self.found += [
            f"{name}={text}" for name, text in attrs if name in {*SAID, "value"} and text and LETTER.search(text)
        ]
        if tag not in ("meta", "link", "img", "input", "br"):
            self._open.append((tag, given))

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not LETTER.search(data) or data.strip() == "Sightline":
            return
        if any(tag == "noscript" for tag, _ in self._open):
            self.unscripted[str(self._open[-1][1].get("lang"))] = data
        else:
            self.found.append(data.strip())


def document(source: str) -> tuple[list[str], set[str], dict[str, str]]:
    """Of a page's HTML: its own texts, the keys of those that are filled in, and what is said without JavaScript by
    language, which no catalogue can say.
    """
    reader = _Document()
    reader.feed(source)
    return reader.found, reader.keys, reader.unscripted


def style_texts(source: str) -> list[str]:
    """What a style sheet adds to the page in words."""
    return [text for text in re.findall(r'content:\s*"([^"]*)"', source) if LETTER.search(text)]
