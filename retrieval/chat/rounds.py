"""The rounds of one turn in which a model calls tools, until it answers."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import Runnable

from retrieval.chat.answers import DraftFilter
from retrieval.chat.budget import text_tokens
from retrieval.chat.check.layout import without_dangling
from retrieval.chat.errors import ToolsRefused
from retrieval.chat.events import Retrying, ToolUsed
from retrieval.chat.evidence import Evidence
from retrieval.chat.llm_client import Caller, Messages, Reply
from retrieval.chat.printed_calls import PrintedCalls
from retrieval.chat.prompt import Prompt, pictures_message, results_message, tool_message
from retrieval.chat.toolbox import MAX_CALLS, NAMES, SCHEMAS, Outcome, Toolbox

#: After so many rounds of calls the model is asked for its answer, without tools.
MAX_ROUNDS = 4
_MAX_ID_CHARS = 200
#: Calls of one reply that are heard of at all; each of them is an event, and has its reply in the next prompt.
MOST_TOLD = 4 * MAX_CALLS

Told: TypeAlias = "str | Retrying | ToolUsed"


def with_tools(model: BaseChatModel) -> Runnable[Any, Any] | None:
    """The model with the tools bound to it; None where its integration takes none."""
    if type(model).bind_tools is BaseChatModel.bind_tools:
        return None
    try:
        return model.bind_tools(list(SCHEMAS))
    except Exception:
        # Each integration fails in ways of its own, and a chat goes without.
        return None


def told_reply(
    caller: Caller,
    messages: Messages,
    through: Runnable[Any, Any] | None = None,
    *,
    show: Callable[[str], str] = str,
) -> Generator[Told, None, Reply]:
    """One reply: its text as it may be shown, and the whole. show: what is shown of its next piece."""
    draft = DraftFilter()
    with contextlib.closing(caller.stream(messages, through)) as pieces:
        while True:
            try:
                piece = next(pieces)
            except StopIteration as stop:
                reply: Reply = stop.value
                return reply
            if isinstance(piece, Retrying):
                yield piece
            elif told := show(draft.feed(piece)):
                yield told


@dataclass(frozen=True, slots=True)
class Round:
    """One reply that did not end the turn, with what it was asked, for the count of tokens."""

    reply: Reply
    asked: int


class Rounds:
    """Asks a model with tools. After `run`, `earlier` has the replies before the last, `used` what its tools did, and
    `refused` whether its server took no tools.

    plain: makes the prompt that asks for the answer without tools, from all that was found.
    """

    def __init__(
        self,
        caller: Caller,
        through: Runnable[Any, Any],
        toolbox: Toolbox,
        *,
        prompt: Prompt,
        plain: Callable[[Sequence[Evidence], Sequence[str]], Prompt],
        has_picture: bool,
    ) -> None:
        self._caller, self._through, self.toolbox = caller, through, toolbox
        self._prompt, self._plain = prompt, plain
        self._has_picture = has_picture
        self._said = ""
        # Up to where the text was said when so many pieces of evidence were there.
        self._known: list[tuple[int, int]] = []
        self.earlier: list[Round] = []
        self.used: list[ToolUsed] = []
        self.refused = False
        self.asked = prompt

    @property
    def _empty(self) -> bool:
        """Whether an answer would rest on nothing at all."""
        return not (self.toolbox.evidence or self.toolbox.findings or self._has_picture)

    def run(self) -> Generator[Told, None, Reply | None]:
        """Yield text to show and what the tools did; return the reply, with the text of all rounds.

        None where nothing was found and the model is not to answer: what it says of nothing is not shown.
        """
        messages: list[BaseMessage] = list(self._prompt.messages)
        asked = self._prompt.tokens
        for _ in range(MAX_ROUNDS):
            try:
                reply = yield from self._ask(messages, self._through)
            except ToolsRefused as error:
                # One that took tools before has other reasons.
                self.refused = error.speaks_of_tools and not self.earlier
                break
            if reply.message is None:
                return self._whole(reply)
            self.earlier.append(Round(reply, asked))
            self._known.append((len(self._said), len(self.toolbox.evidence)))
            added = yield from self._answer_calls(reply.message, printed=reply.printed)
            messages += added
            asked += sum(text_tokens(str(message.content)) for message in added)
        if self._empty:
            return None
        self.asked = self._plain(self.toolbox.evidence, self.toolbox.findings)
        return self._whole((yield from self._ask(self.asked.messages, None)))

    def as_known(self, text: str) -> str:
        """The text, or its beginning, without citations of numbers that were given only after they were written."""
        parts, start = [], 0
        for end, known in self._known:
            parts.append(without_dangling(text[start:end], range(1, known + 1))[0])
            start = end
        return "".join([*parts, text[start:]])

    def _whole(self, reply: Reply) -> Reply | None:
        if self._empty:
            return None
        if self.earlier:
            reply.text = self._said
        return reply

    def _ask(self, messages: Messages, through: Runnable[Any, Any] | None) -> Generator[Told, None, Reply]:
        """One reply; its text is shown behind that of earlier ones, without calls and what rests on nothing yet."""
        printed, held = PrintedCalls(NAMES, stops=through is not None), self._empty
        breaks = len(self._said) - len(self._said.rstrip("\n"))
        joint = "\n" * max(0, 2 - breaks) if self._said.strip() else ""

        def behind(text: str) -> str:
            nonlocal joint
            if held:
                return ""
            if joint:
                text = text.lstrip()
                text, joint = (joint + text, "") if text else ("", joint)
            self._said += text
            return text

        reply = yield from told_reply(
            self._caller, messages, through, show=lambda piece: behind(printed.feed(piece)) if piece else ""
        )
        if rest := behind(printed.end()):
            yield rest
        if printed.cut:
            reply.text = printed.shown
        if through is not None and reply.message is None and printed.calls:
            reply.message = AIMessage(printed.said, tool_calls=printed.calls)
            reply.printed = True
        return reply

    def _answer_calls(self, message: AIMessage, *, printed: bool) -> Generator[ToolUsed, None, list[BaseMessage]]:
        """Do what a reply calls for; returns the messages that tell the model. printed: its calls were text."""
        calls = [_named(call, number) for number, call in enumerate(message.tool_calls[:MOST_TOLD])]
        others = message.invalid_tool_calls[: MOST_TOLD - len(calls)]
        broken = [_named(call, len(calls) + number) for number, call in enumerate(others)]
        outcomes: list[tuple[Any, Outcome]] = []
        for number, call in enumerate([*calls, *broken]):
            self._caller.cancel.check()
            outcome = self._outcome(call, number)
            outcomes.append((call, outcome))
            self.used.append(outcome.event)
            yield outcome.event
        boundary = self._prompt.boundary
        if printed:
            told = [AIMessage(str(message.content)), results_message([o.text for _, o in outcomes], boundary)]
        else:
            told = [message.model_copy(update={"tool_calls": calls, "invalid_tool_calls": broken})]
            told += [tool_message(outcome.text, boundary, call) for call, outcome in outcomes]
        pictures = pictures_message([piece for _, outcome in outcomes for piece in outcome.event.evidence])
        return [*told, pictures] if pictures else told

    def _outcome(self, call: Mapping[str, Any], number: int) -> Outcome:
        if number >= MAX_CALLS:
            return self.toolbox.refused(call["name"], f"at most {MAX_CALLS} calls at a time are done: ask again")
        arguments = call["args"]
        if isinstance(arguments, str):
            with contextlib.suppress(ValueError, RecursionError):
                arguments = json.loads(arguments)
        return self.toolbox.call(call["name"], arguments)


def _named(call: Any, number: int) -> Any:
    """A call with an id and a name, which a broken one may lack."""
    return call | {
        "id": str(call.get("id") or f"call_{number}")[:_MAX_ID_CHARS],
        "name": str(call.get("name") or "unknown")[:64],
        "args": call.get("args") if call.get("args") is not None else {},
    }
