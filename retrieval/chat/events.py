"""What a chat turn gives: events while it runs, and the checked answer at its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from retrieval.chat.check.grounding import Sentence
from retrieval.chat.check.layout import Cited, cited
from retrieval.chat.evidence import Evidence
from retrieval.chat.options import Check


@dataclass(frozen=True, slots=True)
class Usage:
    """What one turn cost. `estimated` says that the model told no counts, so that ours are by rule.

    The rule (`retrieval.chat.budget`): a token for every 3 bytes of UTF-8, and for an image the dearer of
    two published formulas. `images` were sent to the model; `calls` counts requests, retries included.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    images: int = 0
    calls: int = 0
    retries: int = 0
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class Counts:
    """What was found and what had to be mended in one answer.

    evidence, images: items and images the model saw. citations: that resolve, in the final text.
    unresolved: citations of numbers that are not there, removed. corrected: sentences that cited the wrong
    item, or none, and now cite the one that supports them. stated, seen, uncited, contradicted, unsupported:
    sentences of these verdicts, see `Sentence`. links: links and images taken out of the answer.
    withheld: sentences of evidence that the model was not shown, as they read like instructions to it.
    """

    evidence: int = 0
    images: int = 0
    citations: int = 0
    unresolved: int = 0
    corrected: int = 0
    stated: int = 0
    seen: int = 0
    uncited: int = 0
    contradicted: int = 0
    unsupported: int = 0
    links: int = 0
    withheld: int = 0


@dataclass(frozen=True, slots=True)
class ToolUsed:
    """The model called a tool: what it looked for, and what that gave.

    name: search, count, facet, open, or ``unknown``. query: the words, the field, or the item. filter: the filter as
    JSON, "" for none. found: how many items, values or fields; at_least: there may be more. evidence: what is new of
    it, under numbers that go on from those before; of `open`, the item itself. error: why it was not done, "" where it
    was.
    """

    name: str
    query: str = ""
    filter: str = ""
    found: int = 0
    at_least: bool = False
    evidence: tuple[Evidence, ...] = ()
    error: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """The checked answer of one turn.

    text: what to show, in which every [n] is the number of one of `sources`; as the model wrote it but where `check`
    is ``strict``. query: the stand-alone query that was searched for. refused: nothing answers the question, and
    `text` says so in its language.
    quoted: `text` is the best evidence itself, since no sentence of the model's had support.
    sentences: the model's, each with its verdict. sources: the cited evidence, by number. evidence: all that
    the model saw. check: what was done with the model's reply, as `ChatOptions.check`; where ``verify`` got no usable
    judgement, it is ``mark``. truncated: the model stopped at its length limit. search_s: rewriting, search and gate up
    to the call of the model, without a rewrite by the model; first_token_s: from the question to the
    model's first token, None where it was not called; total_s: of the whole turn. notices: what a person should know
    of the search, such as that only the question's words were searched for.
    translation: the query in the collection's language, which was searched for as well; "" where it is in that already.
    tools: what the model looked for itself.
    """

    question: str
    query: str
    text: str
    refused: bool
    quoted: bool
    sentences: tuple[Sentence, ...]
    sources: tuple[Evidence, ...]
    evidence: tuple[Evidence, ...]
    counts: Counts
    usage: Usage
    check: Check = "mark"
    truncated: bool = False
    search_s: float = 0.0
    first_token_s: float | None = None
    total_s: float = 0.0
    notices: tuple[str, ...] = ()
    translation: str = ""
    tools: tuple[ToolUsed, ...] = ()

    @property
    def citations(self) -> tuple[Cited, ...]:
        """Where `text` cites its sources, code and formulas left out; offsets are in characters."""
        return tuple(cited(self.text))


@dataclass(frozen=True, slots=True)
class EvidenceFound:
    """First event of a turn: the stand-alone query, and what passed the relevance gate."""

    query: str
    evidence: tuple[Evidence, ...]
    search_s: float


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of the answer while it is written. Show it as plain text.

    final: it stands so in the answer, behind the final pieces before it; another is of a draft that is not checked yet
    and is replaced at the end.
    """

    text: str
    final: bool = False


@dataclass(frozen=True, slots=True)
class Retrying:
    """A transient error; the model is asked again after `wait_s`."""

    attempt: int
    wait_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class Final:
    """Last event of a turn: what replaces the draft."""

    answer: Answer


ChatEvent: TypeAlias = EvidenceFound | ToolUsed | Token | Retrying | Final
