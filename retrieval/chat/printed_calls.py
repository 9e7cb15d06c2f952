"""Calls of tools that stand in the text of a reply, as servers print them that take tools and do not read their calls.

Known are calls between marks (`<tool_call>{...}</tool_call>`, `[TOOL_CALLS] [...]`, `<function=search>...`, and the
like), and JSON that names a tool with its arguments: in a block of code, or by itself at the beginning of a line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any

from langchain_core.messages.tool import ToolCall

_MARKS = (
    "<tool_call>",
    "<tool_calls>",
    "<|tool_call|>",
    "<|tool_calls|>",
    "<|tool_call_begin|>",
    "<|tool_calls_section_begin|>",
    "<｜tool▁calls▁begin｜>",
    "<function_call>",
    "<function_calls>",
    "<function=",
    "<|python_tag|>",
    "[tool_calls]",
)
_OPENING = re.compile(
    rf"(?P<mark>{'|'.join(map(re.escape, _MARKS))})|(?P<fence>```[a-z_]*\s*(?=[\[{{]))|"
    r"(?P<bare>^[ \t]*(?:\[\s*)?\{(?=\s*\"))",
    re.IGNORECASE | re.MULTILINE,
)
#: What may still become the opening of a call, at the end of what was said so far: of code, and of JSON in a line.
_CODE_BEGINS = re.compile(r"(?:`{1,2}|```[a-z_]{0,16}\s{0,8})\Z", re.IGNORECASE)
_JSON_BEGINS = r"[ \t]{0,8}\[?\s{0,8}\{?\s{0,8}\Z"
_LINE_BEGINS = re.compile(rf"(?<=\n){_JSON_BEGINS}")
_TEXT_BEGINS = re.compile(rf"(?:\A|(?<=\n)){_JSON_BEGINS}")
_CLOSING = re.compile(
    r"</(?:tool_calls?|function|function_calls?)>|<\|/tool_calls?\|>|<\|tool_calls?(?:_section)?_end\|>|<｜tool▁calls▁end｜>",
    re.IGNORECASE,
)
_NAMED = re.compile(r"<function=\s*[\"']?(?P<name>[\w.-]{1,64})[\"']?\s*>(?P<body>.*?)(?:</function>|\Z)", re.DOTALL)
_PARAMETER = re.compile(r"<parameter=\s*[\"']?(?P<name>[\w-]{1,64})[\"']?\s*>(?P<value>.*?)</parameter>", re.DOTALL)
_SEPARATED = re.compile(r"<｜tool▁sep｜>\s*(?P<name>[\w.-]{1,64})|functions?\.(?P<kimi>[\w-]{1,64}):\d+")
_ARGUMENTS = ("arguments", "parameters", "args", "input", "tool_input")
_NAMES = ("name", "tool", "tool_name", "function", "action")
#: JSON that is longer is no call.
_MOST_HELD = 5_000
_MOST_CALLS = 64
#: How much behind a mark is read for calls, and how many brackets that begin no JSON are tried: a broken model's text
#: may be nothing but brackets, and each is read to where it breaks.
_MOST_READ = 20_000
_MOST_BROKEN = 64


class PrintedCalls:
    """What of a growing reply is no call, and, at its end, its calls.

    tools: the names that JSON may call by. stops: what follows a call is left out, as it rests on nothing that the call
    gave.
    """

    def __init__(self, tools: Collection[str], *, stops: bool = False) -> None:
        self._tools, self._stops = frozenset(tools), stops
        self._held = ""
        self._opened: re.Match[str] | None = None
        self.calls: list[ToolCall] = []
        #: What is shown, and all that was said up to the end of the last call.
        self.shown, self.said = "", ""
        self._raw = ""

    @property
    def cut(self) -> bool:
        """Whether something was left out."""
        return self._raw != self.shown

    def feed(self, piece: str) -> str:
        """What can be shown after one more piece."""
        self._raw += piece
        self._held += piece
        return self._show(ends=False)

    def end(self) -> str:
        """What can be shown of the rest, as no more follows."""
        return self._show(ends=True)

    def _show(self, *, ends: bool) -> str:
        told = ""
        while self._held:
            if self._opened is None:
                told += self._kept(self._before_next(at_line=(self.shown + told)[-1:] in ("", "\n"), ends=ends))
                if self._opened is None:
                    break
            closed = self._close(ends=ends)
            if closed is None:
                break
            told += self._kept(closed)
            self._opened = None
        self.shown += told
        return told

    def _kept(self, text: str) -> str:
        return "" if self._stops and self.calls else text

    def _before_next(self, *, at_line: bool, ends: bool) -> str:
        """What stands before the next opening, or before what may become one. at_line: a line begins here."""
        openings = _OPENING.finditer(self._held)
        self._opened = next((each for each in openings if each["bare"] is None or each.start() or at_line), None)
        if self._opened is not None:
            start = self._opened.start()
        else:
            start = len(self._held) if ends else self._beginning(at_line=at_line)
        told, self._held = self._held[:start], self._held[start:]
        return told

    def _beginning(self, *, at_line: bool) -> int:
        lowered = self._held.lower()
        starts = [
            len(lowered) - size
            for mark in _MARKS
            for size in range(1, min(len(mark), len(lowered)) + 1)
            if lowered.endswith(mark[:size])
        ]
        patterns = (_CODE_BEGINS, _TEXT_BEGINS if at_line else _LINE_BEGINS)
        starts += [match.start() for pattern in patterns if (match := pattern.search(self._held))]
        return min(starts, default=len(self._held))

    def _close(self, *, ends: bool) -> str | None:
        """What is shown of what was opened, as it has ended; None where that is not known yet."""
        assert self._opened is not None
        if self._opened["mark"] is not None:
            return self._close_mark(self._opened["mark"].lower(), ends=ends)
        size = self._json_size(ends=ends)
        if size is None:
            return None
        text, self._held = self._held[:size], self._held[size:]
        found = calls_in(text.strip("`").strip(), self._tools, strict=True)
        self._add(found)
        return "" if found else text

    def _close_mark(self, mark: str, *, ends: bool) -> str | None:
        if mark in ("<|python_tag|>", "[tool_calls]"):
            end = len(self._held) if ends or len(self._held) > _MOST_HELD else None
        else:
            match = _closing(self._held)
            end = match.end() if match else len(self._held) if ends or len(self._held) > _MOST_HELD else None
        if end is None:
            return None
        text, self._held = self._held[:end], self._held[end:]
        found = calls_in(text, self._tools, strict=False)
        self._add(found or [{"name": "", "args": text.strip()[:_MOST_HELD]}])
        return ""

    def _json_size(self, *, ends: bool) -> int | None:
        """Where the JSON that was opened ends; all of it where it is none."""
        fence = self._opened is not None and self._opened["fence"] is not None
        start = re.search(r"[\[{]", self._held)
        size = _balanced(self._held, start.start()) if start else None
        if size is None:
            return len(self._held) if ends or len(self._held) > _MOST_HELD else None
        if not fence:
            return size
        closing = self._held.find("```", size)
        if closing >= 0:
            return closing + 3
        # Three more signs may be on their way.
        return None if not ends and len(self._held) - size < _MOST_HELD else len(self._held)

    def _add(self, found: list[dict[str, Any]]) -> None:
        if found:
            self.said = self._raw[: len(self._raw) - len(self._held)]
        room = max(0, _MOST_CALLS - len(self.calls))
        for call in found[:room]:
            self.calls.append(ToolCall(name=call["name"], args=call["args"], id=f"printed_{len(self.calls)}"))


def calls_in(text: str, tools: Collection[str], *, strict: bool) -> list[dict[str, Any]]:
    """The calls that a text has, as `name` and `args`; strict: only of known tools, and only if it is nothing else."""
    text = text[:_MOST_READ]
    if not strict and (named := _named(text)):
        return named
    found: list[dict[str, Any]] = []
    decoder, place, broken = json.JSONDecoder(), 0, 0
    while broken < _MOST_BROKEN and (start := re.compile(r"[\[{]").search(text, place)) is not None:
        try:
            value, place = decoder.raw_decode(text, start.start())
        except (ValueError, RecursionError):
            if strict:
                return []
            place, broken = start.start() + 1, broken + 1
            continue
        calls = _calls_of(value)
        known = [call for call in calls if call["name"] in tools and call["has_arguments"]]
        if strict and (not calls or len(known) < len(calls)):
            return []
        found += [{"name": call["name"], "args": call["args"]} for call in calls]
    return found


def _named(text: str) -> list[dict[str, Any]]:
    """Calls whose name stands beside their arguments, and not in them."""
    found: list[dict[str, Any]] = []
    for match in _NAMED.finditer(text):
        given = {each["name"]: each["value"].strip() for each in _PARAMETER.finditer(match["body"])}
        found.append({"name": match["name"], "args": given or match["body"].strip() or {}})
    separated = list(_SEPARATED.finditer(text))
    for number, match in enumerate(separated):
        end = separated[number + 1].start() if number + 1 < len(separated) else len(text)
        body = re.search(r"\{.*\}", text[match.end() : end], re.DOTALL)
        found.append({"name": match["name"] or match["kimi"], "args": body[0] if body else {}})
    return found


def _calls_of(value: object) -> list[dict[str, Any]]:
    if isinstance(value, list):
        return [call for each in value for call in _calls_of(each)]
    if not isinstance(value, dict):
        return []
    if isinstance(value.get("tool_calls"), list):
        return _calls_of(value["tool_calls"])
    if isinstance(value.get("function"), dict):
        return _calls_of(value["function"])
    name = next((value[key] for key in _NAMES if isinstance(value.get(key), str)), None)
    if name is None:
        return []
    given = [key for key in _ARGUMENTS if isinstance(value.get(key), dict | str)]
    return [{"name": name, "args": value[given[0]] if given else {}, "has_arguments": bool(given)}]


def _closing(text: str) -> re.Match[str] | None:
    """The closing mark of what `text` opens; that of an inner part, such as a function's, does not end it."""
    outer = re.match(r"<(tool_calls?|function_calls?)>|<\|tool_calls_section_begin\|>", text, re.IGNORECASE)
    for match in _CLOSING.finditer(text):
        if outer is None or outer[1] is None or match[0].lower() == f"</{outer[1].lower()}>":
            return match
    return None


def _balanced(text: str, start: int) -> int | None:
    """Where the bracket that opens at `start` is closed; None where it is not yet."""
    depth, quoted, place = 0, False, start
    while place < len(text):
        sign = text[place]
        if quoted:
            place += sign == "\\"
            quoted = sign != '"'
        elif sign == '"':
            quoted = True
        else:
            depth += (sign in "[{") - (sign in "]}")
            if depth == 0:
                return place + 1
        place += 1
    return None
