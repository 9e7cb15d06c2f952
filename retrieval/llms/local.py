"""A chat model that runs in this process: written by a thread, read as a stream, stopped at any token."""

from __future__ import annotations

import queue
import threading
import time
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Self

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LangSmithParams
from langchain_core.language_models.chat_models import generate_from_stream
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables.config import run_in_executor
from pydantic import Field, PrivateAttr

from retrieval.llms.base import ModelError, ModelTimeout


@dataclass(frozen=True)
class Request:
    """One answer that is asked for: messages as given, and what bounds and steers the writing."""

    messages: list[BaseMessage]
    stop: tuple[str, ...]
    max_tokens: int
    temperature: float
    seed: int | None


@dataclass(frozen=True)
class Ending:
    """How an answer ended: ``stop``, ``length`` or ``cancelled``; and what it took in tokens."""

    reason: str
    input_tokens: int
    output_tokens: int
    cached_tokens: int | None = None


#: Takes the next piece of text; true when no more is wanted.
Emit = Callable[[str], bool]


class Generation:
    """One answer being written in a thread of its own; iterating gives its pieces, then its `Ending`.

    Leaving the ``with`` block, `cancel` and running out of time all stop the writing at its next token. Nobody waits
    for that: a model busy with a long prompt notices only when the prompt is read.
    """

    def __init__(self, write: Callable[[Emit], Ending], timeout_s: float) -> None:
        self._pieces: queue.SimpleQueue[str | Ending | BaseException] = queue.SimpleQueue()
        self._cancelled = threading.Event()
        self._deadline = time.monotonic() + timeout_s
        self._timeout_s = timeout_s
        # Not a daemon: one that is inside native code when the interpreter goes down takes the process with it.
        self._thread = threading.Thread(target=self._work, args=(write,), name="chat-model", daemon=False)
        self._thread.start()

    def _work(self, write: Callable[[Emit], Ending]) -> None:
        try:
            self._pieces.put(write(self._emit))
        except BaseException as error:
            self._pieces.put(error)

    def _emit(self, piece: str) -> bool:
        if piece and not self._cancelled.is_set():
            self._pieces.put(piece)
        return self._cancelled.is_set()

    def __iter__(self) -> Iterator[str | Ending]:
        while True:
            try:
                piece = self._pieces.get(timeout=max(0.0, self._deadline - time.monotonic()))
            except queue.Empty:
                self.cancel()
                raise ModelTimeout(f"the model was not done after {self._timeout_s:g} s and was stopped") from None
            if isinstance(piece, BaseException):
                raise piece
            yield piece
            if isinstance(piece, Ending):
                return

    def cancel(self) -> None:
        """Stop the writing at its next token. May be called from any thread, more than once."""
        self._cancelled.set()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait until the writing has ended; whether it has."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.cancel()


class LocalChatModel(BaseChatModel):
    """A LangChain chat model in this process; what it is asked stays there.

    Streams token by token; an answer that is not streamed is the same stream, collected. Closing a stream stops the
    writing. Weights are loaded with the first request, or by `load`. Thread-safe. ``stop``, ``max_tokens``,
    ``temperature`` and ``seed`` may be given with each call.
    Raises `ModelError` for what it cannot take, `ModelTimeout` after timeout_s.
    """

    model_name: str
    max_tokens: int = Field(default=512, ge=1)
    temperature: float = Field(default=0.0, ge=0.0)
    seed: int | None = None
    stop: list[str] | None = None
    timeout_s: float = Field(default=120.0, gt=0)

    _running: list[Generation] = PrivateAttr(default_factory=list)
    _running_lock: Any = PrivateAttr(default_factory=threading.Lock)
    _closed: bool = PrivateAttr(default=False)
    _loading: Any = PrivateAttr(default_factory=threading.Lock)
    _loaded: bool = PrivateAttr(default=False)

    @property
    def max_images(self) -> int | None:
        """How many images one request may hold; None where the context is the only bound."""
        return None

    @abstractmethod
    def _load(self) -> None:
        """Load the weights, and tell in `profile` what they can do. Raises `ModelError`."""

    @abstractmethod
    def _write(self, request: Request, emit: Emit) -> Ending:
        """Write the answer, handing each piece to `emit`, until it is done or `emit` wants no more."""

    @abstractmethod
    def _release(self) -> None:
        """Give memory back; nothing is running, and nothing will be asked any more."""

    def load(self) -> Self:
        """Load the weights now, not with the first request; give the model itself. Silent if loaded.

        Raises `ModelError` where they cannot be loaded.
        """
        with self._loading:
            if self._closed:
                raise ModelError(f"{self.model_name} is closed")
            if not self._loaded:
                self._load()
                self._loaded = True
        return self

    def close(self) -> None:
        """Stop what is being written, wait for that, and free the model's memory. Silent if closed."""
        with self._running_lock:
            if self._closed:
                return
            self._closed = True
            running = list(self._running)
        for generation in running:
            generation.cancel()
        for generation in running:
            generation.join()
        self._release()

    def _start(self, messages: list[BaseMessage], stop: list[str] | None, options: dict[str, Any]) -> Generation:
        request = self._request(messages, stop, options)
        self.load()
        with self._running_lock:
            if self._closed:
                raise ModelError(f"{self.model_name} is closed")
            generation = Generation(lambda emit: self._write(request, emit), self.timeout_s)
            self._running[:] = [one for one in self._running if not one.join(0)] + [generation]
        return generation

    def _request(self, messages: list[BaseMessage], stop: list[str] | None, options: dict[str, Any]) -> Request:
        options = {key: value for key, value in options.items() if value is not None}
        model = options.pop("model", self.model_name)
        if model != self.model_name:
            raise ModelError(f"this is {self.model_name}; load another model for {model}")
        stop = stop if stop is not None else options.pop("stop", self.stop)
        request = Request(
            messages=messages,
            stop=tuple(text for text in stop or () if text),
            max_tokens=int(options.pop("max_tokens", self.max_tokens)),
            temperature=float(options.pop("temperature", self.temperature)),
            seed=options.pop("seed", self.seed),
        )
        unknown = sorted(set(options) - {"stream_usage", "ls_structured_output_format"})
        if unknown:
            raise ModelError(f"{self.model_name} does not know the option {unknown[0]}")
        if request.max_tokens < 1:
            raise ModelError(f"max_tokens must be at least 1, not {request.max_tokens}")
        return request

    def _chunk(self, piece: str | Ending) -> ChatGenerationChunk:
        if isinstance(piece, str):
            return ChatGenerationChunk(message=AIMessageChunk(content=piece))
        usage = UsageMetadata(
            input_tokens=piece.input_tokens,
            output_tokens=piece.output_tokens,
            total_tokens=piece.input_tokens + piece.output_tokens,
        )
        if piece.cached_tokens is not None:
            usage["input_token_details"] = {"cache_read": piece.cached_tokens}
        told = {
            "finish_reason": piece.reason,
            "model_name": self.model_name,
            "model_provider": self._llm_type,
        }
        message = AIMessageChunk(content="", usage_metadata=usage, response_metadata=told, chunk_position="last")
        return ChatGenerationChunk(message=message, generation_info={"finish_reason": piece.reason})

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        with self._start(messages, stop, kwargs) as generation:
            for piece in generation:
                chunk = self._chunk(piece)
                if run_manager and isinstance(piece, str):
                    run_manager.on_llm_new_token(piece, chunk=chunk)
                yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        done = object()
        with self._start(messages, stop, kwargs) as generation:
            pieces = iter(generation)
            while (piece := await run_in_executor(None, next, pieces, done)) is not done:
                assert isinstance(piece, str | Ending)
                chunk = self._chunk(piece)
                if run_manager and isinstance(piece, str):
                    await run_manager.on_llm_new_token(piece, chunk=chunk)
                yield chunk

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return generate_from_stream(self._stream(messages, stop, **kwargs))

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop, **kwargs)
        params["ls_model_name"] = kwargs.get("model", self.model_name)
        params["ls_provider"] = self._llm_type
        return params

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model_name": self.model_name, "max_tokens": self.max_tokens, "temperature": self.temperature}
