"""Turns of a chat: a few at a time, each in a thread that an event loop reads; the model loaded at the first."""

from __future__ import annotations

import contextlib
import importlib
import logging
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio

from app.core.llm import LoadModel
from app.core.roots import RootsError
from app.http.problems import Refused
from retrieval.images.decode import ImageError
from retrieval.images.parts import Located, Place, file_of
from retrieval.images.plan import Wanted
from retrieval.turn import Turn

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from PIL import Image

    from app.http.context import Service
    from retrieval.chat import CancelToken, ChatEvent, ChatOptions, Check, GroundedChat, RunningTurn

log = logging.getLogger(__name__)

#: How long the service waits at its end for turns that were told to end.
END_WITHIN_S = 5.0
#: Nothing is searched with more pixels than this on a side, and a turn may hold the picture for minutes.
KEPT_SIDE = 1536


#: Gives the bytes of an image file, for as long as they are needed.
Picture: TypeAlias = Callable[[], AbstractContextManager[bytes]]


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What a turn answers.

    picture: gives the bytes of an image file, in the turn's thread. check: as `ChatOptions.check`; None for the
    service's own. searched: False for a task that the model itself is to do.
    """

    question: str
    history: tuple[Turn, ...] = ()
    picture: Picture | None = None
    where: dict[str, Any] | None = None
    check: Check | None = None
    collection: str | None = None
    searched: bool = True


@dataclass(slots=True)
class _Loaded:
    model: BaseChatModel
    options: ChatOptions
    judge: BaseChatModel | None = None
    chats: dict[tuple[str, Check], GroundedChat] = field(default_factory=dict)


class Chats:
    """The turns of one service. Thread-safe.

    load: see `LoadModel`; called in a turn's thread at the first turn, and again only if it failed. None for
    a service that answers no questions.
    """

    def __init__(self, load: LoadModel | None, limit: int) -> None:
        self._load_model = load
        self._limit = limit
        self._slots = threading.BoundedSemaphore(limit)
        self._loading = threading.Lock()
        self._loaded: _Loaded | None = None
        self._lock = threading.Lock()
        self._turns: set[RunningTurn] = set()
        self._stopped = False

    @property
    def running(self) -> int:
        """Turns that are at work."""
        return len(self._turns)

    async def begin(self, service: Service, asked: ChatRequest) -> RunningTurn:
        """Start a turn, for the event loop that this is awaited on. Raises `Refused` with 503."""
        if self._load_model is None:
            raise Refused(503, "this service was started without a model, so that it answers no questions")
        try:
            if "retrieval.chat" not in sys.modules:
                # LangChain takes a second to import, in which the loop would do nothing else.
                await anyio.to_thread.run_sync(importlib.import_module, "retrieval.chat")
            from retrieval.chat import CancelToken, RunningTurn
        except ImportError:
            raise Refused(503, "chat needs the extra chat: pip install 'sightline[chat]' on the server") from None
        if not self._slots.acquire(blocking=False):
            raise Refused(503, f"{self._limit} questions are being answered: try again later", {"Retry-After": "10"})
        turn = RunningTurn(lambda token: self._events(service, asked, token), CancelToken(), self._ended)
        with self._lock:
            self._turns.add(turn)
            stopped = self._stopped
        if stopped:
            turn.cancel()
        try:
            turn.start()
        except RuntimeError:
            self._ended(turn)
            raise Refused(503, "there is no thread for another question", {"Retry-After": "10"}) from None
        return turn

    def forget(self, collection: str) -> None:
        """Keep nothing of a collection."""
        if self._loaded is not None:
            for key in [key for key in self._loaded.chats if key[0] == collection]:
                self._loaded.chats.pop(key, None)

    def stop(self) -> None:
        """Cancel all turns, and those to come."""
        with self._lock:
            self._stopped = True
            turns = list(self._turns)
        for turn in turns:
            turn.cancel()

    def close(self) -> None:
        """Stop, and wait a little for the threads."""
        self.stop()
        with self._lock:
            turns = list(self._turns)
        end_s = time.monotonic() + END_WITHIN_S
        for turn in turns:
            turn.join(max(0.0, end_s - time.monotonic()))

    def _ended(self, turn: RunningTurn) -> None:
        with self._lock:
            self._turns.discard(turn)
        self._slots.release()

    def _events(self, service: Service, asked: ChatRequest, token: CancelToken) -> Generator[ChatEvent]:
        # What the request asks for wrongly is told before a model is loaded for it.
        service.retriever(asked.collection)
        token.check()
        loaded = self._model()
        chat = self._chat(service, loaded, asked)
        if not asked.searched:
            with contextlib.closing(chat.stream_unsearched(asked.question, cancel=token)) as told:
                yield from told
            return
        picture = None
        if asked.picture is not None:
            with asked.picture() as data:
                picture = _picture(service, data)
        with (
            service.metrics.stage("answer"),
            contextlib.closing(
                chat.stream(asked.question, image=picture, history=asked.history, where=asked.where, cancel=token)
            ) as events,
        ):
            yield from events

    def _model(self) -> _Loaded:
        assert self._load_model is not None
        with self._loading:
            if self._loaded is None:
                try:
                    self._loaded = _Loaded(*self._load_model())
                except Exception as error:
                    log.warning("no model: %s: %s", type(error).__name__, error)
                    told = (
                        str(error)
                        if is_user_facing(error)
                        else "the model cannot be loaded: the service's log says why"
                    )
                    raise Refused(503, told, {"Retry-After": "60"}) from None
            return self._loaded

    def redact_endpoint(self, told: str) -> str:
        """What an error says, without where the model is asked: an address inside is nobody else's business."""
        from retrieval.chat.errors import endpoint

        place = endpoint(self._loaded.model) if self._loaded is not None else ""
        return told.replace(f" at {place}", "").replace(place, "the model's server") if place else told

    def _chat(self, service: Service, loaded: _Loaded, asked: ChatRequest) -> GroundedChat:
        """Kept as it knows labels and vectors; made anew when its collection was dropped since."""
        from retrieval.chat import GroundedChat

        retriever = service.retriever(asked.collection)
        check = asked.check or loaded.options.check
        key = (retriever.collection, check)
        kept = loaded.chats.get(key)
        if kept is None or kept.retriever is not retriever:
            options = replace(loaded.options, check=check)
            kept = GroundedChat(
                retriever, loaded.model, options, judge=loaded.judge, pictures=partial(_read_shown, service)
            )
            loaded.chats[key] = kept
        return kept


def to_http_error(service: Service, error: Exception) -> Exception:
    """What a request is told for what its turn raised: a `Refused` for what went wrong with the model."""
    from retrieval.chat import ChatCancelled, ChatError, ChatTimeout, QuestionError

    if not isinstance(error, ChatError):
        return error
    if isinstance(error, ChatCancelled):
        return Refused(503, "the service is stopping", {"Retry-After": "5"})
    if isinstance(error, QuestionError):
        return Refused(422, str(error))
    log.warning("%s: %s", type(error).__name__, error)
    told = service.chats.redact_endpoint(str(error))
    if isinstance(error, ChatTimeout):
        return Refused(504, told)
    return Refused(502, told)


def _read_shown(service: Service, place: Place) -> Image.Image:
    """A picture that the service would show to anybody who may read; an item may name any file of the machine."""
    try:
        data = service.roots.open_image(file_of(place))[0]
    except RootsError as error:
        raise ImageError(str(error)) from None
    with service.decoding(briefly=True):
        return service.load_stored(data, _KEPT, part=place.part if isinstance(place, Located) else "")


def _picture(service: Service, data: bytes) -> Image.Image:
    """An image file's bytes decoded, by few turns at a time, and made no larger than any use of it needs."""
    with service.decoding(briefly=True):
        return service.load(data, _KEPT)


_KEPT = Wanted(fit=KEPT_SIDE, middle=True)


def is_user_facing(error: Exception) -> bool:
    """Whether an error was written for the user: it is one line that says what to set, and holds no secret."""
    from app.core.errors import CommandError
    from retrieval.llms import ModelError

    return isinstance(error, (CommandError, ModelError))
