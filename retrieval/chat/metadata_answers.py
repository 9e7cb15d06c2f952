"""Answers to questions of count and metadata from counts, facets and what is stored, without a model."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from backends.base import Record, Where
from backends.filters import And, Compare, Or
from retrieval.chat.check.claims import citations
from retrieval.chat.counting import MOST_READ, Counted, count_about, count_items, list_items, matching
from retrieval.chat.evidence import bytes_told, find
from retrieval.chat.facts import reads_all, values_of
from retrieval.chat.metadata_follow_ups import asked_in_talk
from retrieval.chat.metadata_questions import ITEM_KINDS, Asked, Period
from retrieval.chat.options import ChatOptions
from retrieval.chat.sanitize import shield
from retrieval.chat.wording import counted, words
from retrieval.search.query import SearchError, UnreadableQuery
from retrieval.search.results import Result
from retrieval.search.retriever import Retriever
from retrieval.turn import Turn

#: Fields with a date as ISO text, and those with a year as a number; the indexer writes the first from EXIF.
_DATES = ("taken", "date", "datetime", "created", "拍摄时间", "日期")
_YEARS = ("year", "年份")
_VALUES = 12
_EXAMPLES = 4
#: No model reads what is listed, so that its context bounds nothing.
_LISTED = 12


@dataclass(frozen=True, slots=True)
class Told:
    """A sentence or two, and the items that they cite, in the order of their numbers from 1."""

    text: str
    shown: tuple[Result, ...] = ()


class MetadataAnswers:
    """Answers over one collection, within the caller's filter, in a language that is written here."""

    def __init__(self, retriever: Retriever, options: ChatOptions, where: Where | None, language: str) -> None:
        self._retriever, self._options, self._where, self._language = retriever, options, where, language

    def answer(self, asked: Asked, history: Sequence[Turn]) -> Told | None:
        """The answer; None where the question is better left to a model, as its item or camera is not known."""
        try:
            if asked.kind in ITEM_KINDS:
                return self._of_item(asked, history)
            if asked.kind == "values":
                return self._values(asked.field)
            return self._of_items(asked)
        except (SearchError, UnreadableQuery):
            return None

    def _of_items(self, asked: Asked) -> Told | None:
        clauses = [self._where] if self._where is not None else []
        if asked.period is not None:
            dated = Or(tuple(Compare(field, "exists", True) for field in (*_DATES, *_YEARS)))
            if not count_items(self._retriever, _all([*clauses, dated])).all:
                return Told(self._say("undated"))
            clauses.append(within(asked.period))
        if asked.camera:
            cameras = self._cameras(asked.camera)
            if not cameras:
                return None
            clauses.append(Compare("camera", "in", cameras))
        where = _all(clauses)
        most = max(_LISTED, self._options.max_evidence) if asked.kind == "list" else _EXAMPLES
        if asked.topic:
            tally = count_about(self._retriever, [asked.topic, *asked.also], self._options, where)
            if tally.perhaps and not tally.all:
                # Nothing that one could stand for: a model can look at what may be, a weak one cannot.
                return self._perhaps(asked, tally) if self._options.weak else None
            shown: Sequence[Result] = tally.shown[:most]
        else:
            tally = count_items(self._retriever, where)
            shown = list_items(self._retriever, where, most)
        text = self._say("tally", criteria=self._criteria(asked), what=self._counted(tally))
        if asked.topic and tally.all:
            kind = "estimate_up_to" if tally.perhaps > tally.all else "estimate"
            text += self._say("space") + self._say(kind, n=tally.perhaps)
        return self._with_examples(text, shown)

    def _perhaps(self, asked: Asked, tally: Counted) -> Told:
        text = self._say("unsure", criteria=self._criteria(asked), n=tally.perhaps)
        return self._with_examples(text, tally.unsure[:_LISTED])

    def _criteria(self, asked: Asked) -> str:
        told = []
        if asked.period is not None:
            start, end = asked.period.start, asked.period.end
            if not start:
                told.append(self._say("from_before", b=end))
            elif not end:
                told.append(self._say("from_since", a=start))
            elif within_one(asked.period):
                told.append(self._say("from", a=start))
            else:
                told.append(self._say("from_to", a=start, b=end))
        if asked.camera:
            told.append(self._say("with_camera", camera=asked.camera))
        if asked.topic:
            told += [self._say("about", topic=shield(topic).text) for topic in (asked.topic, *asked.also)]
        text = self._say("comma").join(told)
        return text[:1].upper() + text[1:]

    def _counted(self, tally: Counted) -> str:
        parts = []
        if tally.photos:
            parts.append(counted("photo", "photos", tally.photos, self._language))
        if tally.texts:
            parts.append(counted("text", "texts", tally.texts, self._language))
        if not parts:
            return self._say("no_items")
        what = self._say("and").join(parts)
        return self._say("at_least", what=what) if tally.at_least else what

    def _with_examples(self, text: str, shown: Sequence[Result]) -> Told:
        if not shown:
            return Told(text)
        names = [shield(item.text or "").text.split(" / ")[0][:120] for item in shown]
        # Of photos without words only the number is shown.
        forms = [
            self._say("example", text=name, number=n) if name else f"[{n}]" for n, name in enumerate(names, start=1)
        ]
        told = self._say("examples", examples=self._say("comma").join(forms))
        return Told(text + self._say("space") + told, tuple(shown))

    def _cameras(self, said: str) -> tuple[str, ...]:
        """The cameras of the collection whose names have these words."""
        wanted = set(said.lower().split())
        values = values_of(self._retriever, "camera", self._where, 1000).counts
        names = [value for value, _ in values if isinstance(value, str)]
        return tuple(name for name in names if wanted <= set(re.findall(r"[\w-]+", name.lower())))

    def _values(self, field: str) -> Told | None:
        if field == "year":
            years = Counter(year for r in matching(self._retriever, self._where) if (year := _year(r)))
            told = sorted(years.items(), key=lambda pair: (-pair[1], pair[0]))
            counts, more = told[:_VALUES], len(told) - _VALUES
        else:
            values = values_of(self._retriever, field, self._where, _VALUES)
            counts, more = [(str(value), n) for value, n in values.counts], values.more
        sample = "" if reads_all(self._retriever) else self._say("space") + self._say("sample", n=MOST_READ)
        if not counts:
            return None if sample else Told(self._say("no_values", field=field))
        forms = [self._say("value", value=shield(value).text[:60], n=n) for value, n in counts]
        if more > 0:
            forms.append(self._say("more_values", n=more))
        return Told(self._say("values", field=field, values=self._say("comma").join(forms)) + sample)

    def _of_item(self, asked: Asked, history: Sequence[Turn]) -> Told | None:
        item = self._item(asked.of, history)
        if item is None:
            return None
        text = self._fact(asked.kind, item) or self._say("not_stored", number=1)
        return Told(text, (item,))

    def _fact(self, kind: str, item: Result) -> str:
        known = item.metadata
        if kind == "size":
            width, height, size = (known.get(name) for name in ("width", "height", "bytes"))
            if not (isinstance(width, int) and isinstance(height, int)):
                return ""
            file = self._say("file", size=bytes_told(size)) if isinstance(size, int) else ""
            return self._say("size", width=width, height=height, file=file, number=1)
        if kind == "taken":
            value = next((known[field] for field in (*_DATES, *_YEARS) if field in known), None)
            when = shield(str(value)).text.replace("T", " ")[:40] if value is not None else ""
            return self._say("taken", when=when, number=1) if when else ""
        held = known.get(kind) or ""
        # A photo of several places has several folders.
        told = shield(", ".join(held) if isinstance(held, (list, tuple)) else str(held)).text[:120]
        return self._say(kind, number=1, **{kind: told}) if told else ""

    def _item(self, of: str, history: Sequence[Turn]) -> Result | None:
        """The photo that is meant: of the last answer's sources, or the first that is found for the words."""
        pointed = of == "it" or of.startswith("#")
        if pointed and not history:
            return None
        found = self._told_before(history) if pointed else ()
        if not found:
            topic = history[-1].topic if pointed else of
            found = find(self._retriever, topic, self._options, self._where)
        photos = [hit for hit in found if hit.modality == "image"]
        if not pointed:
            return next(iter(photos), None)
        # The same search gives the same numbers.
        numbers = citations(history[-1].answer)
        cited = [found[n - 1] for n in numbers if 0 < n <= len(found) and found[n - 1].modality == "image"]
        listed = cited or photos
        place = int(of[1:]) if of.startswith("#") else 1
        if place > len(listed):
            return None
        return listed[place - 1 if place > 0 else -1] if listed else None

    def _told_before(self, history: Sequence[Turn]) -> Sequence[Result]:
        """What the last answer showed, if it was one of these: numbered by what was counted, not by a search."""
        *before, last = (turn.question for turn in history)
        asked = asked_in_talk(last, before, lists=self._options.weak)
        told = self._of_items(asked) if asked is not None and asked.kind in ("count", "list") else None
        return told.shown if told is not None else ()

    def _say(self, key: str, **parts: object) -> str:
        text = words(key, self._language)
        return text.format(**parts) if parts else text


def within(period: Period) -> Where:
    """The filter of a time that fields of dates and years are compared with."""
    clauses: list[Where] = []
    for fields, start, end in (
        (_DATES, period.start or None, period.end or None),
        (_YEARS, *_whole_years(period)),
    ):
        if start is None and end is None:
            continue
        for field in fields:
            sides: list[Where] = [Compare(field, "gte", start)] if start is not None else []
            sides += [Compare(field, "lt", end)] if end is not None else []
            clauses.append(And(tuple(sides)) if len(sides) > 1 else sides[0])
    return Or(tuple(clauses))


def within_one(period: Period) -> bool:
    """Whether it is one year or one month."""
    start, end = period.start, period.end
    if len(start) == 4 == len(end):
        return int(end) == int(start) + 1
    return "-" in start


def _whole_years(period: Period) -> tuple[int | None, int | None]:
    """The bounds as numbers; none where one of them is a month."""
    if any("-" in side for side in (period.start, period.end)):
        return None, None
    return int(period.start) if period.start else None, int(period.end) if period.end else None


def _year(record: Record) -> str:
    for field in (*_DATES, *_YEARS):
        match = re.match(r"\d{4}", str(record.metadata.get(field, "")))
        if match:
            return match[0]
    return ""


def _all(clauses: Sequence[Where]) -> Where | None:
    return And(tuple(clauses)) if len(clauses) > 1 else clauses[0] if clauses else None
