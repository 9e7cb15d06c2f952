"""Dates in filters: one that is given to the day, the month or the year means the whole of it.

Dates are stored as strings of ISO 8601, ``2021-07-04T12:30:05+02:00``, which sort as they follow each other. Compared
as a string, ``2021-07-04`` comes before all that is of that day; so `whole_periods` makes of ``{"$lte": "2021-07-04"}``
what is before the 5th, of ``$gt`` what is from the 5th on, and of ``$eq``, ``$ne``, ``$in`` and ``$nin`` the day.
``$lt`` and ``$gte`` mean that anyway.

- A day, and a time to the hour, minute or second, is known by its form in every field, a month as well: ``2021-07-04``,
  ``2021-07-04T12:30``, ``2021-07``.
- A year, as ``"2021"`` or ``2021``, only in a field whose name says that it is a date, such as `taken`, `date_created`:
  elsewhere it may be a number or a code. A number still finds the fields that hold numbers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from backends.filters import And, Compare, Not, Or, Scalar, Where

_PERIOD = re.compile(
    r"(?P<year>\d{4})(?:-(?P<month>\d\d)(?:-(?P<day>\d\d)(?P<sep>[T ])?(?(sep)(?P<hour>\d\d)"
    r"(?::(?P<minute>\d\d)(?::(?P<second>\d\d))?)?))?)?\Z",
    re.ASCII,
)
_DATE_NAME = re.compile(
    r"(?:^|_)(?:taken|date|dates|datetime|timestamp|created|modified|updated|captured|shot|published|born|died)(?:_|$)"
    r"|日期|时间|日付|撮影日|날짜"
)
#: Each is a comparison or three, of which a filter may have some thousands.
MAX_DATES = 1000
_YEARS = range(1000, 10_000)


@dataclass(frozen=True, slots=True)
class Period:
    """From `start` on, before `end`, both as strings that sort."""

    start: str
    end: str


def period_of(field: str, value: object) -> Period | None:
    """The period that a value of a filter on a field means; None for what is no date."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return _year(value) if value in _YEARS and is_date(field) else None
    if not isinstance(value, str):
        return None
    match = _PERIOD.match(value)
    if match is None:
        return None
    if match["month"] is None:
        return _year(int(value)) if int(value) in _YEARS and is_date(field) else None
    return _month(match) if match["day"] is None else _time(value, match)


def is_date(field: str) -> bool:
    """Whether a field's name says that it holds dates."""
    return _DATE_NAME.search(field.lower()) is not None


def _year(year: int) -> Period:
    # A colon follows the digits, for the year after 9999.
    return Period(str(year), str(year + 1) if year < 9999 else "999:")


def _month(match: re.Match[str]) -> Period | None:
    year, month = int(match["year"]), int(match["month"])
    if not 1 <= month <= 12:
        return None
    return Period(match[0], f"{match['year']}-{month + 1:02d}" if month < 12 else _year(year).end)


def _time(value: str, match: re.Match[str]) -> Period | None:
    names = ("year", "month", "day", "hour", "minute", "second")
    given = [int(match[name]) for name in names if match[name] is not None]
    steps = {3: timedelta(days=1), 4: timedelta(hours=1), 5: timedelta(minutes=1), 6: timedelta(seconds=1)}
    try:
        end = datetime(*given) + steps[len(given)]  # type: ignore[arg-type]
    except ValueError:
        return None
    except OverflowError:
        return Period(value, "999:")
    return Period(value, _shortest(end.isoformat(match["sep"] or "T")[: len(value)]))


def _shortest(end: str) -> str:
    """The shortest date that begins when `end` does: what is stored to the month, say, sorts before its first day."""
    day = re.sub(r"[T ]00(?::00){0,2}\Z", "", end)
    return re.sub(r"(?<=\d{4})(?:-01)?(?:-01)\Z|(?<=\d{4}-\d\d)-01\Z", "", day) if len(day) <= 10 else day


def whole_periods(where: Where) -> Where:
    """The filter in which each bare date stands for all of its day, month or year; itself where there is none."""
    if isinstance(where, Compare):
        return _whole(where)
    if isinstance(where, Not):
        inner = whole_periods(where.clause)
        return where if inner is where.clause else Not(inner)
    first = where.clauses[0] if where.clauses else None
    if isinstance(first, Compare) and len(where.clauses) > 1 and _whole(first) == where:
        # It is what this made of it before.
        return where
    clauses = tuple(whole_periods(clause) for clause in where.clauses)
    if all(new is old for new, old in zip(clauses, where.clauses, strict=True)):
        return where
    return And(clauses) if isinstance(where, And) else Or(clauses)


def _whole(compare: Compare) -> Where:
    values: Sequence[Scalar] = compare.value if compare.op in ("in", "nin") else (compare.value,)
    periods = {period for value in values if (period := period_of(compare.field, value)) is not None}
    if not periods:
        return compare
    if len(periods) > MAX_DATES:
        raise ValueError(f"{compare.field}: {len(periods)} dates in one list, more than {MAX_DATES}: give a range")
    field = compare.field
    if compare.op in ("lte", "gt", "lt", "gte"):
        return _ordered(compare, next(iter(periods)))
    ordered = sorted(periods, key=lambda period: period.start)
    within = [And((Compare(field, "gte", each.start), Compare(field, "lt", each.end))) for each in ordered]
    if compare.op in ("eq", "in"):
        # The values themselves for lists, which have no order, and for numbers.
        return Or((compare, *within))
    if compare.op in ("ne", "nin"):
        return And((compare, *(Not(each) for each in within)))
    return compare


def _ordered(compare: Compare, period: Period) -> Where:
    bound = period.end if compare.op in ("lte", "gt") else period.start
    as_text = Compare(compare.field, {"lte": "lt", "gt": "gte"}.get(compare.op, compare.op), bound)  # type: ignore[arg-type]
    return as_text if isinstance(compare.value, str) else Or((compare, as_text))
