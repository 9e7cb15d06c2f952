"""The ASGI server: uvicorn with a deadline for headers, an orderly end, and logs in JSON."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import sys
import threading
import time
from http import HTTPStatus
from typing import Any, TextIO

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from app.http.framing import StrictConnection
from app.http.observing import JsonLines
from app.http.problems import PROBLEM, document

log = logging.getLogger(__name__)

HEADERS_S = 10.0
LINGER_S = 2.0
LOOK_EVERY_S = 1.0
KEEP_ALIVE_S = 15
FINISH_S = 30
MAX_HEADER_BYTES = 32 * 1024
BACKLOG = 256


class PromptH11(H11Protocol):
    """uvicorn's HTTP, with an end to what uvicorn itself would wait for.

    A connection whose headers are not complete in 10 s is closed. So is one that still sends the body of
    a request 2 s after it was answered, and thus refused: long enough for the answer to be read, since
    closing at once would throw it away, and too short for a gigabyte.

    What is no request, or could be taken for two different ones, is answered with a problem document, and the
    connection ends.
    """

    conn: StrictConnection
    headers_s = HEADERS_S
    linger_s = LINGER_S
    _waiting_since_s: float | None = None
    _timer: asyncio.TimerHandle | None = None
    _refused = False

    def __init__(self, config: uvicorn.Config, *arguments: Any, **options: Any) -> None:
        super().__init__(config, *arguments, **options)
        self.conn = StrictConnection(config.h11_max_incomplete_event_size or MAX_HEADER_BYTES)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        send_at_once(transport.get_extra_info("socket"))
        self._waiting_since_s = time.monotonic()
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came; as long as no request has begun by it, its headers are waited for."""
        if self._refused:
            return
        super().data_received(data)
        if self._busy():
            self._waiting_since_s = None
        elif self._waiting_since_s is None:
            self._waiting_since_s = time.monotonic()

    def on_response_complete(self) -> None:
        """Wait for the next request, and not for long for the rest of this one."""
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY and not self.transport.is_closing():
            self.loop.call_later(self.linger_s, self._end, self.cycle)

    def send_400_response(self, msg: str) -> None:
        """Say what is wrong with the bytes that came, if an answer has not begun, and end the connection."""
        self._refused = True
        status, told = self.conn.refusal or (400, msg)
        if self._busy():
            # The route that works on this request has no more to do.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()
            return
        body = json.dumps(document(status, told)).encode("ascii")
        headers = [("Content-Type", PROBLEM), ("Content-Length", str(len(body))), ("Connection", "close")]
        response = h11.Response(status_code=status, headers=headers, reason=HTTPStatus(status).phrase)
        parts = (response, h11.Data(data=body), h11.EndOfMessage())
        self.transport.write(b"".join(self.conn.send(part) or b"" for part in parts))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        # To close at once, with bytes of the client unread, would throw the answer away.
        self.loop.call_later(self.linger_s, self.transport.close)

    def _end(self, cycle: object) -> None:
        if self.cycle is cycle and self.conn.their_state is h11.SEND_BODY:
            self.transport.close()

    def _busy(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _look(self) -> None:
        if not self._busy():
            if self._waiting_since_s is None and self.conn.trailing_data[0]:
                self._waiting_since_s = time.monotonic()
            if self._waiting_since_s is not None and time.monotonic() - self._waiting_since_s > self.headers_s:
                self.transport.close()
                return
        self._timer = self.loop.call_later(min(LOOK_EVERY_S, self.headers_s / 2), self._look)


def send_at_once(connection: Any) -> None:
    """Have a TCP connection send what it is given, not wait with it for the client's word about what came before.

    asyncio does this only for sockets that were made with the protocol's number; a listener of
    `socket.create_server`, or one that systemd hands over, is not. The body of each answer on a kept-alive connection
    would wait for some 40 ms.
    """
    if connection is not None and connection.family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):  # the client has gone already
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class GracefulServer(uvicorn.Server):
    """Tells the service that the end begins, so that streams close and the index job stores its batch meanwhile."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take nothing new, let requests finish, then end the service."""
        assert isinstance(self.config.app, FastAPI)
        self.config.app.state.service.stop()
        await super().shutdown(sockets)


def configuration(app: FastAPI) -> uvicorn.Config:
    """How the service is run."""
    return uvicorn.Config(
        app,
        http=PromptH11,
        # Not uvloop where some other package brought it: one loop everywhere, the one that is tested.
        loop="asyncio",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        # Who is behind a proxy is settled by `app.http.proxies`: uvicorn would believe anybody on this machine.
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=FINISH_S,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
    )


def log_as_json(stream: TextIO) -> None:
    """Write all logs to `stream`, a line of JSON each: the service's own, and what any library warns of.

    So are Python's warnings, and what a thread or a destructor ends with that nobody caught.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    # Those of libraries that write by themselves would write plain lines.
    for name in (None, *logging.root.manager.loggerDict):
        logger = logging.getLogger(name)
        logger.handlers = [each for each in logger.handlers if not _writes_lines(each)]
        logger.propagate = True
    logging.root.addHandler(handler)
    logging.root.setLevel(logging.WARNING)
    logging.getLogger("app").setLevel(logging.INFO)
    logging.captureWarnings(True)
    threading.excepthook = _log_thread
    sys.unraisablehook = _log_unraisable


def _writes_lines(handler: logging.Handler) -> bool:
    return isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler)


def _log_thread(ended: threading.ExceptHookArgs) -> None:
    if ended.exc_value is not None:
        name = ended.thread.name if ended.thread is not None else "a thread"
        log.error("%s ended with an error", name, exc_info=ended.exc_value)


def _log_unraisable(failed: Any) -> None:
    if failed.exc_value is not None:
        log.error(failed.err_msg or "an error at an object's end", exc_info=failed.exc_value)
