"""Tools that a model may call in a turn: search, count, facet and open, over one collection and the caller's filter.

What a model asks for is input from outside: every argument is checked and bounded, what cannot be done is told to it in
one line, and nothing is found that the caller's own filter does not let through.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from backends.base import MAX_ID_BYTES, Record, Where, matches
from backends.errors import Unsupported
from backends.filters import And, check_field_name, check_string, check_where, parse_where
from retrieval.chat.budget import cut, text_tokens
from retrieval.chat.counting import MOST_READ, Counted, as_result, count_items, count_relevant, list_items
from retrieval.chat.events import ToolUsed
from retrieval.chat.evidence import Evidence, find
from retrieval.chat.facts import fields_in, reads_all, values_of
from retrieval.chat.options import ChatOptions
from retrieval.chat.sanitize import printable, shield
from retrieval.relevance.captions import image_of
from retrieval.search.filters import as_where
from retrieval.search.query import SearchError
from retrieval.search.results import Result
from retrieval.search.retriever import Retriever

MAX_K = 20
DEFAULT_K = 8
MAX_QUERY_CHARS = 400
MAX_FILTER_CHARS = 4_000
#: Calls of one reply that are done; a model that asks for more is told so.
MAX_CALLS = 4
_MAX_ERROR_CHARS = 200
_FACET_VALUES = 20
_FILTERS = {
    "type": "string",
    "description": 'A filter, as JSON: {"year": {"$gte": 1990}}, {"taken": {"$gte": "2013", "$lt": "2014"}} or '
    '{"camera": "Nikon D90"}. Operators: $eq $ne $in $nin $gt $gte $lt $lte $exists $contains $and $or $not. '
    "Empty for none.",
}


def _schema(name: str, told: str, needed: Sequence[str], **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": list(needed)}
    return {"type": "function", "function": {"name": name, "description": told, "parameters": parameters}}


def _text(told: str) -> dict[str, Any]:
    return {"type": "string", "description": told}


#: As models are given them, in OpenAI's form, which every integration of LangChain translates.
SCHEMAS: tuple[dict[str, Any], ...] = (
    _schema(
        "search",
        "Find photos and texts by words, by a filter on metadata, or both. What is found is numbered evidence.",
        [],
        query=_text("What to find, in a few words. Empty to list what the filter lets through."),
        filters=_FILTERS,
        k={"type": "integer", "description": f"How many at most, 1 to {MAX_K}; {DEFAULT_K} unless given."},
    ),
    _schema(
        "count",
        "How many photos and texts there are: exactly those that a filter lets through, or at least so many that are "
        "about some words.",
        [],
        query=_text("What they are about, in a few words. Empty to count by the filter alone."),
        filters=_FILTERS,
    ),
    _schema(
        "facet",
        "The values of one metadata field with how many items have each.",
        [],
        field=_text("The field's name, such as year or camera. Empty for a list of the fields."),
        filters=_FILTERS,
    ),
    _schema(
        "open",
        "All that is stored of one item, and its picture where you can see pictures.",
        ["item"],
        item=_text("The number of a piece of evidence, such as 3, or an item's id."),
    ),
)
NAMES = frozenset(schema["function"]["name"] for schema in SCHEMAS)
SCHEMA_TOKENS = text_tokens(json.dumps(SCHEMAS))


class WrongArgument(Exception):
    """What a model asked for cannot be done; the message is for the model."""


class Prepare(Protocol):
    """Makes evidence of what was found, numbered from `first`, with at most `images` of it as pictures."""

    def __call__(self, found: Sequence[Result], *, first: int, images: int, budget: int) -> tuple[Evidence, ...]:
        """The evidence, as many as fit."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one call gave: a text for the model, the pictures of new evidence in it, and the event that tells it."""

    text: str
    event: ToolUsed


class Toolbox:
    """The tools of one turn, which share its evidence, its numbering and its room.

    Args:
        where: the caller's filter, which holds for every call.
        evidence: what was found before.
        left: the tokens that all results may take together.
        images: the pictures that they may show together.
    """

    def __init__(
        self,
        retriever: Retriever,
        options: ChatOptions,
        where: Where | None,
        *,
        prepare: Prepare,
        evidence: Sequence[Evidence],
        left: int,
        images: int,
    ) -> None:
        self.retriever, self.options, self.where = retriever, options, where
        self.evidence = tuple(evidence)
        #: Counts and values that were told, as sentences.
        self.findings: list[str] = []
        self.left = left
        self._prepare = prepare
        self._images = images
        self._tools: dict[str, Callable[[Mapping[str, Any]], Outcome]] = {
            "search": self._search,
            "count": self._count,
            "facet": self._facet,
            "open": self._open,
        }

    def call(self, name: object, arguments: object) -> Outcome:
        """Do what a model asks for. Raises `BackendError`, as a search does; all else is told to the model."""
        tool = self._tools.get(name) if isinstance(name, str) else None
        if tool is None:
            return self.refused("", f"no tool of that name: there are {', '.join(self._tools)}")
        assert isinstance(name, str)
        if self.left < 64:
            return self.refused(name, "there is no room for more: answer from what was found")
        if not isinstance(arguments, Mapping):
            return self.refused(name, "the arguments must be one JSON object")
        try:
            outcome = tool(arguments)
        except (WrongArgument, SearchError, Unsupported) as error:
            return self.refused(name, str(error))
        self.left -= text_tokens(outcome.text) + sum(p.picture.tokens for p in outcome.event.evidence if p.picture)
        return outcome

    def refused(self, name: str, reason: str) -> Outcome:
        """What a model is told of a call that was not done."""
        told = shield(" ".join(printable(reason).split())[:_MAX_ERROR_CHARS]).text
        self.left -= text_tokens(told)
        return Outcome(f"error: {told}", ToolUsed(name if name in self._tools else "unknown", error=told))

    def _search(self, arguments: Mapping[str, Any]) -> Outcome:
        query, filters = _query(arguments), self._filters(arguments)
        k = _k(arguments.get("k"))
        if not query and filters is None:
            raise WrongArgument("search takes a query, filters, or both")
        where = self._within(filters)
        if query:
            found: Sequence[Result] = find(self.retriever, query, self.options, where, k=k)
        else:
            found = list_items(self.retriever, where, k)
        told, new, shown = self._numbered(found)
        total = len(found)
        if not query:
            # Of more records than are read some are not found, but they are counted.
            counted = count_items(self.retriever, where)
            if counted.all > total:
                told.append(f"These are {total} of {counted.all}." if total else _unread(counted))
        event = ToolUsed("search", query=query, filter=_told(filters), found=shown, evidence=new)
        return Outcome("\n".join(told) or "nothing relevant was found", event)

    def _count(self, arguments: Mapping[str, Any]) -> Outcome:
        query, filters = _query(arguments), self._filters(arguments)
        where = self._within(filters)
        if query:
            counted = count_relevant(self.retriever, query, self.options, where)
        else:
            counted = count_items(self.retriever, where)
        text = _counted(counted, query)
        self.findings.append(text)
        event = ToolUsed("count", query=query, filter=_told(filters), found=counted.all, at_least=counted.at_least)
        return Outcome(text, event)

    def _facet(self, arguments: Mapping[str, Any]) -> Outcome:
        name = _string(arguments, "field", 256)
        filters = self._filters(arguments)
        where = self._within(filters)
        sample = "" if reads_all(self.retriever) else f" of the first {MOST_READ:,} records"
        if not name:
            fields = fields_in(self.retriever, where)
            listed = ", ".join(f"{shield(field).text} ({count})" for field, count in fields)
            told = f"Fields, with how many items have each{sample}: {listed}"
            text = told if fields else f"no item{sample} has any metadata"
            return self._faceted(text, "", filters, len(fields))
        try:
            field = check_field_name(name)
        except ValueError as error:
            raise WrongArgument(str(error)) from None
        facet = values_of(self.retriever, field, where, _FACET_VALUES)
        if not facet.counts:
            known = ", ".join(shield(each).text for each, _ in fields_in(self.retriever, where))
            raise WrongArgument(f"no item{sample} has that field; the fields are: {known or 'none'}")
        values = ", ".join(f"{shield(str(value)).text[:60]} ({count})" for value, count in facet.counts)
        more = f", and {facet.more} further values" if facet.more else ""
        text = f"Values of {shield(field).text} with how many items have each{sample}: {values}{more}"
        return self._faceted(text, field, filters, len(facet.counts) + facet.more)

    def _faceted(self, text: str, field: str, filters: dict[str, Any] | None, found: int) -> Outcome:
        text = cut(text, max(16, min(self.left, 1000)))
        self.findings.append(text)
        return Outcome(text, ToolUsed("facet", query=field, filter=_told(filters), found=found))

    def _open(self, arguments: Mapping[str, Any]) -> Outcome:
        wanted = arguments.get("item")
        if isinstance(wanted, int) and not isinstance(wanted, bool):
            wanted = str(wanted)
        if not isinstance(wanted, str) or not wanted.strip():
            raise WrongArgument("open takes item: a number of the evidence, or an item's id")
        record = self._record(wanted.strip())
        if record is None:
            raise WrongArgument("there is no such item")
        known = next((piece for piece in self.evidence if piece.item.id == record.id), None)
        item = known.item if known else as_result(record)
        first = known.number if known else len(self.evidence) + 1
        pieces = self._prepare([item], first=first, images=min(1, self._images), budget=max(0, self.left - 32))
        if not pieces:
            raise WrongArgument("nothing is stored of this item that could be shown")
        (piece,) = pieces
        if known is not None and known.picture is not None and piece.picture is None:
            # The model has its picture already, and there is no room for it twice.
            piece = known
        self._images -= piece.picture is not None and piece is not known
        # A picture that was given as text before is now one that the model was shown.
        others = tuple(p for p in self.evidence if p is not known)
        self.evidence = tuple(sorted((*others, piece), key=lambda each: each.number))
        event = ToolUsed("open", query=f"[{piece.number}]", found=1, evidence=(piece,))
        return Outcome(piece.shown, event)

    def _record(self, wanted: str) -> Record | None:
        """The item of a number or an id, in this collection and the caller's filter; of a caption its photo."""
        number = wanted.strip("[]【】# ")
        if number.isascii() and number.isdigit() and len(number) <= 4:
            piece = next((piece for piece in self.evidence if piece.number == int(number)), None)
            wanted = piece.item.id if piece else wanted
        try:
            check_string(wanted, "an id", limit_bytes=MAX_ID_BYTES)
        except ValueError as error:
            raise WrongArgument(str(error)) from None
        record = self._stored(wanted)
        owner = image_of(as_result(record)) if record is not None else None
        return (self._stored(owner) if owner else None) or record

    def _stored(self, item_id: str) -> Record | None:
        records = self.retriever.backend.get(self.retriever.collection, [item_id])
        return next((r for r in records if matches(self.where, r.metadata, r.modality)), None)

    def _numbered(self, found: Sequence[Result]) -> tuple[list[str], tuple[Evidence, ...], int]:
        """Lines for what was found, the part of it that is new evidence, and how many lines there are."""
        known = {piece.item.id: piece for piece in self.evidence}
        again = [known[item.id] for item in found if item.id in known]
        new = self._prepare(
            [item for item in found if item.id not in known],
            first=len(self.evidence) + 1,
            # One is kept for what is opened.
            images=max(0, self._images - 1),
            budget=max(0, self.left - 32 * len(again) - 32),
        )
        self._images -= sum(piece.picture is not None for piece in new)
        self.evidence = (*self.evidence, *new)
        lines = [f"[{piece.number}] as above" for piece in again]
        return [*lines, *(piece.shown for piece in new)], new, len(lines) + len(new)

    def _filters(self, arguments: Mapping[str, Any]) -> dict[str, Any] | None:
        given = arguments.get("filters")
        if given in (None, "", {}):
            return None
        try:
            if isinstance(given, str):
                if len(given) > MAX_FILTER_CHARS:
                    raise WrongArgument(f"filters is longer than {MAX_FILTER_CHARS} characters")
                given = json.loads(given)
            if given in (None, {}):
                return None
            if len(json.dumps(given)) > MAX_FILTER_CHARS:
                raise WrongArgument(f"filters is longer than {MAX_FILTER_CHARS} characters")
            parse_where(given)
        except RecursionError:
            raise WrongArgument("filters is nested too deep") from None
        except (ValueError, TypeError) as error:
            raise WrongArgument(f"filters is not usable: {error}") from None
        return dict(given)

    def _within(self, filters: dict[str, Any] | None) -> Where | None:
        """The filter and the caller's own."""
        asked = as_where(filters) if filters else None
        if asked is None or self.where is None:
            return asked or self.where
        both = And((self.where, asked))
        try:
            check_where(both)
        except ValueError as error:
            raise WrongArgument(f"filters is not usable beside the request's own: {error}") from None
        return both


def _query(arguments: Mapping[str, Any]) -> str:
    return " ".join(_string(arguments, "query", MAX_QUERY_CHARS).split())


def _string(arguments: Mapping[str, Any], name: str, longest: int) -> str:
    value = arguments.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise WrongArgument(f"{name} must be a text")
    if len(value) > longest:
        raise WrongArgument(f"{name} is longer than {longest} characters")
    return printable(value).strip()


def _k(value: object) -> int:
    if value is None or value == "":
        return DEFAULT_K
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit() and len(value) < 6:
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise WrongArgument(f"k must be an integer from 1 to {MAX_K}")
    return min(value, MAX_K)


def _told(filters: dict[str, Any] | None) -> str:
    return printable(json.dumps(filters, ensure_ascii=False)) if filters else ""


def _unread(counted: Counted) -> str:
    return f"{counted.all} items match, none of them among the first {MOST_READ:,} records, which are listed from"


def _counted(counted: Counted, query: str) -> str:
    photos = f"{counted.photos} photo{'' if counted.photos == 1 else 's'}"
    texts = f"{counted.texts} text{'' if counted.texts == 1 else 's'}"
    about = f" about “{shield(query).text}”" if query else ""
    if counted.at_least:
        perhaps = f", perhaps {counted.perhaps} in all" if counted.perhaps > counted.all else ""
        return f"At least {photos} and {texts}{about}{perhaps}: an estimate by relevance."
    return f"Exactly {photos} and {texts}{about}."
