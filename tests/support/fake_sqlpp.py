"""The conditions of Couchbase's adapter, read and evaluated for `tests.support.fake_couchbase`."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

_MISSING = object()
Document = dict[str, Any]
Test = Callable[[Document], Any]


class QueryError(Exception):
    """A refusal of the query service: its code and message."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Expression:
    """A condition of the adapter's, read from the left; any other text is a syntax error."""

    def __init__(self, text: str, values: dict[str, Any]) -> None:
        self._text, self._at, self._values = text, 0, values
        self.test = self._read()
        if self._at != len(text):
            self._fail()

    def _fail(self) -> None:
        raise QueryError(3000, f"syntax error - near {self._text[self._at : self._at + 40]!r}")

    def _take(self, pattern: str) -> re.Match[str] | None:
        found = re.compile(pattern).match(self._text, self._at)
        if found:
            self._at = found.end()
        return found

    def _read(self) -> Test:
        if self._take("TRUE"):
            return lambda d: True
        if self._take("FALSE"):
            return lambda d: False
        if self._take(r"\(NOT "):
            inner = self._read()
            self._close()
            return lambda d: not inner(d)
        if found := self._take(r"ARRAY_CONTAINS\(d\.fields, \$(\w+)\)"):
            field = self._values[found[1]]
            return lambda d: field in d["fields"]
        if found := self._take(r"\(d\.modality IN \$(\w+)\)"):
            chosen = self._values[found[1]]
            return lambda d: d["modality"] in chosen
        if self._take(r"IFMISSINGORNULL\("):
            sure = self._unsure()
            if not self._take(", FALSE"):
                self._fail()
            self._close()
            return lambda d: False if (answer := sure(d)) is _MISSING else answer
        if self._take(r"\("):
            return self._group()
        self._fail()
        raise AssertionError

    def _close(self) -> None:
        if not self._take(r"\)"):
            self._fail()

    def _group(self) -> Test:
        parts, glue = [self._read()], None
        while found := self._take(" AND | OR "):
            if glue not in (None, found[0]):
                self._fail()
            glue = found[0]
            parts.append(self._read())
        self._close()
        together = all if glue == " AND " else any
        return lambda d: together(part(d) for part in parts)

    def _unsure(self) -> Test:
        """What may be MISSING, as a comparison with a field that is not there is."""
        if found := self._take(r"ANY x IN d\.l\.`([^`]+)` SATISFIES x IN \$(\w+) END"):
            field, chosen = found[1], set(self._values[found[2]])
            return lambda d: not chosen.isdisjoint(d["l"][field]) if field in d["l"] else _MISSING
        if found := self._take(r"d\.([nsb])\.`([^`]+)` IN \$(\w+)"):
            kind, field, wanted = found[1], found[2], set(self._values[found[3]])
            return lambda d: d[kind][field] in wanted if field in d[kind] else _MISSING
        if found := self._take(r"d\.([ns])\.`([^`]+)` (>=|<=|>|<) \$(\w+)"):
            kind, field, bound = found[1], found[2], self._values[found[4]]
            compare = {
                ">": lambda x: x > bound,
                ">=": lambda x: x >= bound,
                "<": lambda x: x < bound,
                "<=": lambda x: x <= bound,
            }[found[3]]
            return lambda d: compare(d[kind][field]) if field in d[kind] else _MISSING
        self._fail()
        raise AssertionError
