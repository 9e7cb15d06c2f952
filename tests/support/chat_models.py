"""Chat models that say what a test wants, and a collection to chat about."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import Field

from backends import connect
from backends.base import Backend, CollectionSpec, Hit, Record
from retrieval.encoders.base import Encoder
from retrieval.search.results import Result
from retrieval.search.retriever import Retriever
from tests.support.cli import paint
from tests.support.toy import ColourEncoder

CAPTIONS = {
    "red": "a brown dog runs along a red beach",
    "green": "a white cat sleeps on a green sofa",
    "blue": "two men in blue aprons cook in a kitchen",
}


class Scripted(BaseChatModel):
    """Says its replies one after another, the last again and again; an exception is raised in its turn.

    asked: the prompts it got. pause_s: before each piece. A callable reply is given the prompt.
    """

    replies: list[Any]
    asked: list[list[BaseMessage]] = Field(default_factory=list)
    pause_s: float = 0.0
    left: Any = Field(default_factory=threading.Event)

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _stream(self, messages: list[BaseMessage], *_: Any, **__: Any) -> Iterator[ChatGenerationChunk]:
        self.asked.append(messages)
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if callable(reply):
            reply = reply(messages)
        if isinstance(reply, Exception):
            raise reply
        try:
            for piece in reply.split(" "):
                time.sleep(self.pause_s)
                yield ChatGenerationChunk(message=AIMessageChunk(content=piece + " "))
        finally:
            self.left.set()

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        text = "".join(str(chunk.text) for chunk in self._stream(messages))
        return ChatResult(generations=[ChatGeneration(message=AIMessage(text))])


class Calling(Scripted):
    """As `Scripted`, and calls tools: a list of calls, (name, arguments), is a reply, perhaps with a text before it.

    bound: the tools that it was given.
    """

    bound: list[Any] = Field(default_factory=list)

    def bind_tools(self, tools: Sequence[Any], **options: Any) -> Any:
        self.bound.append(list(tools))
        return self.bind(tools=list(tools), **options)

    def _stream(self, messages: list[BaseMessage], *_: Any, **options: Any) -> Iterator[ChatGenerationChunk]:
        reply = self.replies[0](messages) if callable(self.replies[0]) else self.replies[0]
        if not isinstance(reply, list):
            yield from super()._stream(messages)
            return
        assert options.get("tools"), "tools are called only where some were given"
        self.asked.append(messages)
        if len(self.replies) > 1:
            self.replies.pop(0)
        calls = [each for each in reply if not isinstance(each, str)]
        for text in (each for each in reply if isinstance(each, str)):
            yield ChatGenerationChunk(message=AIMessageChunk(content=text))
        for number, (name, arguments) in enumerate(calls):
            told = arguments if isinstance(arguments, str) else json.dumps(arguments)
            parts = [{"name": name, "args": "", "id": f"c{number}", "index": number, "type": "tool_call_chunk"}]
            more = {"name": None, "id": None, "index": number, "type": "tool_call_chunk"}
            parts += [more | {"args": told[at : at + 5]} for at in range(0, len(told), 5)]
            for part in parts:
                yield ChatGenerationChunk(message=AIMessageChunk(content="", tool_call_chunks=[part]))  # type: ignore[list-item]


def prompt_of(messages: Sequence[BaseMessage]) -> str:
    """All text of a prompt."""
    return "\n".join(
        message.content
        if isinstance(message.content, str)
        else "\n".join(block.get("text", "") for block in message.content if isinstance(block, dict))
        for message in messages
    )


class JudgedRetriever(Retriever):
    """Gives each hit a relevance by `judge`, as calibration would."""

    judge: Callable[[Hit], float] = staticmethod(lambda hit: hit.score)

    def search(self, *arguments: Any, min_relevance: float | None = None, **options: Any) -> list[Result]:
        judged = [replace(hit, relevance=self.judge(hit)) for hit in super().search(*arguments, **options)]
        return [hit for hit in judged if min_relevance is None or (hit.relevance or 0.0) >= min_relevance]


class UngatedRetriever(Retriever):
    """Judges nothing and passes everything: a collection of three colours is too small to calibrate by."""

    def __init__(self, backend: Backend, encoder: Encoder, collection: str) -> None:
        super().__init__(backend, encoder, collection, calibrate=False)

    def search(self, *query: Any, min_relevance: float | None = None, **options: Any) -> list[Result]:
        return super().search(*query, **options)


def collection(
    folder: Path, captions: dict[str, str] | None = None, *, kind: type[Retriever] | None = None
) -> Retriever:
    """Three photos of one colour with captions, the captions as texts of their own, and one passage."""
    encoder, backend = ColourEncoder(), connect("exact://")
    backend.create(CollectionSpec("c", encoder.dim, encoder=encoder.fingerprint))
    records = []
    for number, (colour, caption) in enumerate((captions or CAPTIONS).items()):
        path = paint(folder / f"{colour}.png", colour)
        image, words = encoder.encode_images([path])[0], encoder.encode_texts([caption])[0]
        records.append(Record(f"img-{colour}", image, "image", caption, path.as_uri(), {"year": 1990 + number}))
        records.append(Record(f"cap-{colour}", words, "text", caption, path.as_uri(), {"image": f"img-{colour}"}))
    passage = "The purple house was built by Ada Byron in 1843."
    records.append(Record("txt-1", encoder.encode_texts([passage])[0], "text", passage, None, {"heading": "Houses"}))
    backend.upsert("c", records)
    return (kind or UngatedRetriever)(backend, encoder, "c")
