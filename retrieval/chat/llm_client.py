"""Asking a model: streaming, time-outs, cancellation, and retries with back-off."""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import random
import threading
import time
from collections.abc import Callable, Coroutine, Generator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeAlias

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, message_chunk_to_message
from langchain_core.runnables import Runnable

from retrieval.chat.errors import (
    ChatCancelled,
    ChatError,
    ChatTimeout,
    ToolsRefused,
    explain,
    is_transient,
    model_name,
    refuses_tools,
    retry_after_s,
    speaks_of_tools,
)
from retrieval.chat.events import Retrying
from retrieval.chat.options import ChatOptions

#: A reply is cut here whatever the model does, so that one which never stops fills no memory.
MAX_REPLY_CHARS = 200_000
# A small model that has lost its way says the same again and again, up to its limit.
_LOOP_CHARS, _LOOP_WINDOW, _LOOP_TIMES = 40, 600, 5
_MOST_CHUNKS, _MOST_ARGUMENTS = 20_000, 50_000

Messages: TypeAlias = Sequence[BaseMessage]


class CancelToken:
    """Stops a turn from any thread: the request to the model is ended, and the turn raises `ChatCancelled`."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] = []

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._event.is_set()

    def cancel(self) -> None:
        """Cancel what runs, or what is about to run, with this token. May be called again."""
        self._event.set()
        with self._lock:
            callbacks = list(self._callbacks)
        for callback in callbacks:
            callback()

    def check(self) -> None:
        """Raise `ChatCancelled` if cancelled."""
        if self.cancelled:
            raise ChatCancelled("the question was cancelled")

    def wait(self, seconds: float) -> None:
        """Sleep, or raise `ChatCancelled` as soon as it is cancelled."""
        self._event.wait(seconds)
        self.check()

    @contextlib.contextmanager
    def on_cancel(self, callback: Callable[[], None]) -> Generator[None]:
        """Have `callback` called when cancelled, as long as the block lasts."""
        with self._lock:
            self._callbacks.append(callback)
        try:
            if self.cancelled:
                callback()
            yield
        finally:
            with self._lock:
                self._callbacks.remove(callback)


@dataclass(slots=True)
class Reply:
    """What a model said in one call, and what it reported of it; tokens are None where it did not."""

    text: str = ""
    input_tokens: int | None = None
    output_tokens: int | None = None
    truncated: bool = False
    #: As it came, where it calls tools; printed: as text.
    message: AIMessage | None = None
    printed: bool = False


class Caller:
    """Asks one model during one turn: all its calls share the turn's deadline, token and counts."""

    def __init__(self, model: BaseChatModel, options: ChatOptions, cancel: CancelToken) -> None:
        self.model = model
        self.options = options
        self.cancel = cancel
        self.calls = 0
        self.retries = 0
        self.first_token_at: float | None = None
        self._deadline: float | None = None

    def stream(
        self, messages: Messages, through: Runnable[Any, Any] | None = None
    ) -> Generator[str | Retrying, None, Reply]:
        """Yield the reply piece by piece and return it whole.

        through: the model with tools bound to it; `ToolsRefused` is raised where its server takes none.

        A transient error before the first piece is tried again, with exponential back-off and full jitter
        (or after what Retry-After asks for), and told by a `Retrying`; after it, never, since what was
        delivered cannot be taken back. Closing the generator ends the request. Raises `ChatError`.
        """
        for attempt in range(self.options.retries + 1):
            reply, delivered = Reply(), 0
            try:
                with contextlib.closing(self._attempt(messages, reply, through)) as pieces:
                    for piece in pieces:
                        delivered += 1
                        yield piece
                return reply
            except ChatError:
                raise
            except Exception as error:
                if through is not None and not delivered and refuses_tools(error):
                    told = str(explain(error, self.model))
                    raise ToolsRefused(told, speaks_of_tools=speaks_of_tools(error)) from None
                wait_s = self._pause_s(error, attempt)
                if delivered or wait_s is None:
                    raise explain(error, self.model, tokens=delivered) from None
                reason = str(explain(error, self.model))
            self.retries += 1
            yield Retrying(attempt + 1, wait_s, reason)
            self.cancel.wait(wait_s)
        raise AssertionError("the last attempt returns or raises")

    def complete(self, messages: Messages) -> Reply:
        """The whole reply at once, with the same retries and time-outs."""
        pieces = self.stream(messages)
        while True:
            try:
                next(pieces)
            except StopIteration as stop:
                reply: Reply = stop.value
                return reply

    def _pause_s(self, error: Exception, attempt: int) -> float | None:
        """How long to wait before the next attempt; None where there should be none."""
        if attempt >= self.options.retries or not is_transient(error):
            return None
        asked = retry_after_s(error)
        longest = min(self.options.max_backoff_s, self.options.backoff_s * 2**attempt)
        # Jitter spreads clients that failed together; it need not be unpredictable.
        wait_s = asked if asked is not None else random.uniform(longest / 2, longest)  # noqa: S311
        too_long = wait_s > self.options.max_backoff_s or time.monotonic() + wait_s > self._turn_deadline()
        return None if too_long else wait_s

    def _turn_deadline(self) -> float:
        if self._deadline is None:
            self._deadline = time.monotonic() + self.options.total_s
        return self._deadline

    def _attempt(self, messages: Messages, reply: Reply, through: Runnable[Any, Any] | None) -> Generator[str]:
        """One request; fills `reply` and yields its text as it comes."""
        self.cancel.check()
        self.calls += 1
        received: queue.SimpleQueue[Any] = queue.SimpleQueue()
        deadline = self._turn_deadline()
        first = min(deadline, time.monotonic() + self.options.first_token_s)
        end = _start(self.model, through or self.model, messages, received)
        calls = _Calls() if through is not None else None
        try:
            with self.cancel.on_cancel(lambda: received.put(_STOP)):
                while (chunk := self._next(received, first, deadline)) is not _STOP:
                    piece = _absorb(chunk, reply)
                    # An opening chunk without content is no sign of life; reasoning is.
                    called = calls is not None and calls.add(chunk)
                    first = deadline if chunk.content or chunk.additional_kwargs or called else first
                    if piece:
                        self.first_token_at = self.first_token_at or time.monotonic()
                        yield piece
                    if len(reply.text) > MAX_REPLY_CHARS or is_repetition_loop(reply.text):
                        reply.truncated = True
                        return
            self.cancel.check()
            reply.message = calls.message() if calls is not None else None
        finally:
            end()

    def _next(self, received: queue.SimpleQueue[Any], first: float, deadline: float) -> Any:
        try:
            item = received.get(timeout=max(0.0, first - time.monotonic()))
        except queue.Empty:
            name = model_name(self.model)
            if first < deadline:
                raise ChatTimeout(
                    f"model {name!r} said nothing within {self.options.first_token_s:g} s: raise the time-out or "
                    "see whether its server is overloaded"
                ) from None
            raise ChatTimeout(f"model {name!r} was not done within {self.options.total_s:g} s") from None
        if isinstance(item, _Failed):
            raise item.error
        return item


def is_repetition_loop(text: str) -> bool:
    """Whether a text ends in words that it has been repeating: its last 40 characters 5 times in the last 600."""
    tail, window = text[-_LOOP_CHARS:], text[-_LOOP_WINDOW:]
    if len(window) < _LOOP_CHARS * 2:
        return False
    # Repetitions may overlap, which str.count would miss.
    return sum(window.startswith(tail, start) for start in range(len(window) - _LOOP_CHARS + 1)) >= _LOOP_TIMES


def with_room(model: BaseChatModel, tokens: int) -> BaseChatModel:
    """`model`, with at least so many tokens for its reply where it bounds them by one of the usual settings."""
    for name in ("max_tokens", "max_completion_tokens", "max_output_tokens", "num_predict"):
        bound = getattr(model, name, None) if name in type(model).model_fields else None
        if isinstance(bound, int) and 0 < bound < tokens:
            return model.model_copy(update={name: tokens})
    return model


@dataclass(frozen=True, slots=True)
class _Failed:
    error: Exception


_STOP = object()


def _start(
    model: BaseChatModel, asked: Runnable[Any, Any], messages: Messages, received: queue.SimpleQueue[Any]
) -> Callable[[], Any]:
    """Have the model's chunks put into `received`; returns what ends the request.

    A model with an asynchronous stream runs as a task, whose cancellation closes its connection at once. One
    that only blocks runs in a thread, where its stream is closed when its next chunk comes.
    """
    if getattr(type(model), "_astream", None) is not BaseChatModel._astream:
        return _loop().submit(_pump(asked, messages, received)).cancel
    ended = threading.Event()
    threading.Thread(
        target=_drain, args=(asked, messages, received, ended), name="sightline-model", daemon=True
    ).start()
    return ended.set


def _drain(
    model: Runnable[Any, Any], messages: Messages, received: queue.SimpleQueue[Any], ended: threading.Event
) -> None:
    try:
        chunks: Any = model.stream(list(messages))
        with contextlib.closing(chunks):
            for chunk in chunks:
                if ended.is_set():
                    return
                received.put(chunk)
    except Exception as error:
        received.put(_Failed(error))
    else:
        received.put(_STOP)


async def _pump(model: Runnable[Any, Any], messages: Messages, received: queue.SimpleQueue[Any]) -> None:
    try:
        async for chunk in model.astream(list(messages)):
            received.put(chunk)
    except Exception as error:
        received.put(_Failed(error))
    else:
        received.put(_STOP)


def _absorb(chunk: AIMessageChunk, reply: Reply) -> str:
    """Add what a chunk tells to `reply`; returns its text."""
    text = str(chunk.text)
    reply.text += text
    usage = chunk.usage_metadata
    if usage:
        reply.input_tokens = (reply.input_tokens or 0) + usage["input_tokens"]
        reply.output_tokens = (reply.output_tokens or 0) + usage["output_tokens"]
    facts = chunk.response_metadata
    if "length" in (facts.get("finish_reason"), facts.get("done_reason"), facts.get("stop_reason")):
        reply.truncated = True
    return text


class _Calls:
    """The chunks of a reply that may call tools, until it is whole."""

    def __init__(self) -> None:
        self._chunks: list[AIMessageChunk] = []
        self._whole: AIMessage | None = None
        self._asks, self._chars = False, 0

    def add(self, chunk: AIMessage) -> bool:
        """Keep a chunk; whether it is of a call."""
        if not isinstance(chunk, AIMessageChunk):
            # Of a model that does not stream.
            self._whole = chunk
            return bool(chunk.tool_calls or chunk.invalid_tool_calls)
        called = bool(chunk.tool_call_chunks or chunk.tool_calls or chunk.invalid_tool_calls)
        self._asks = self._asks or called
        self._chars += sum(len(part["args"] or "") for part in chunk.tool_call_chunks)
        # What no reply of use is as long as is not kept: then it calls nothing.
        if len(self._chunks) < _MOST_CHUNKS and self._chars <= _MOST_ARGUMENTS:
            self._chunks.append(chunk)
        return called

    def message(self) -> AIMessage | None:
        """The whole reply, if it calls tools."""
        if self._whole is not None:
            return self._whole if self._whole.tool_calls or self._whole.invalid_tool_calls else None
        if not self._asks or len(self._chunks) >= _MOST_CHUNKS or self._chars > _MOST_ARGUMENTS:
            return None
        first, *others = self._chunks
        merged = message_chunk_to_message(first + others if others else first)
        return merged if isinstance(merged, AIMessage) else None


class _LoopThread:
    """An event loop in a daemon thread, for the life of the process.

    One for all calls, since asynchronous clients keep connections that belong to the loop they were made
    on; asynchronous, since only then can a request that waits for its next byte be ended at once.
    """

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="sightline-chat", daemon=True).start()

    def submit(self, work: Coroutine[Any, Any, None]) -> Future[None]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)


_loops: list[_LoopThread] = []
_loops_lock = threading.Lock()


def _loop() -> _LoopThread:
    with _loops_lock:
        # A forked child has the object, but not its thread.
        if not _loops or _loops[-1].pid != os.getpid():
            _loops[:] = [_LoopThread()]
        return _loops[-1]
