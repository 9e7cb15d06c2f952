"""Requests whose limits two readers could see differently: refused, so that nothing can be smuggled past a proxy.

What a proxy takes for one request's body, this service must never take for another request, and the other way round
(RFC 9112, section 11.2). h11 reads a few forms leniently; here they end the connection.
"""

from __future__ import annotations

import re
from typing import Any, NoReturn

import h11

#: Bytes of a chunked body beside its data, beyond 16 for a chunk and twice its data: extensions and padding.
MAX_CHUNK_OVERHEAD_BYTES = 16 * 1024
_BARE_LINE_FEED = re.compile(rb"(?<!\r)\n")
_FOLDED = re.compile(rb"\r\n[ \t]")
_LENGTHS = re.compile(rb"\r\ncontent-length:([^\r\n]*)", re.IGNORECASE)
_ABSOLUTE = re.compile(rb"https?://(?P<host>[^/?#]*)(?P<path>[^#]*)(?:#.*)?", re.IGNORECASE)
_VERSIONS = (b"1.0", b"1.1")
#: What is told for what h11 itself refuses; its own words would repeat the request.
_TOLD = {431: "the headers are too large", 501: "no Transfer-Encoding but chunked is taken"}


class Ambiguous(h11.RemoteProtocolError):
    """A request that two readers could take for different ones: one line that says why."""


class StrictConnection(h11.Connection):
    """h11's state of a server's connection, which lets no ambiguous request through.

    `next_event` raises `h11.RemoteProtocolError` for one, and `refusal` then says with which status and why: two
    lengths of a body, a length in a chunked request, a line that ends without CR, a folded header, a target that names
    another host, trailers, chunks that are mostly padding, and versions that are neither 1.0 nor 1.1.
    """

    def __init__(self, max_incomplete_event_size: int) -> None:
        super().__init__(h11.SERVER, max_incomplete_event_size)
        self.refusal: tuple[int, str] | None = None
        # The bytes since the last event that used some up, as only they show how a line ended.
        self._raw = bytearray()
        self._chunked = False
        self._overhead_bytes = self._allowed_bytes = 0

    def receive_data(self, data: bytes) -> None:
        """Take what came from the client."""
        if self.their_state is h11.IDLE or self._chunked:
            self._raw += data
        super().receive_data(data)

    def start_next_cycle(self) -> None:
        """Go on to the next request, whose beginning may be here already."""
        super().start_next_cycle()
        self._chunked = False
        self._raw = bytearray(self.trailing_data[0])

    def next_event(self) -> Any:
        """h11's next event. Raises `h11.RemoteProtocolError` for what is wrong or ambiguous."""
        try:
            event = super().next_event()
            if isinstance(event, h11.Request):
                return self._checked(event)
            if self._chunked:
                self._check_chunk(event)
            return event
        except h11.RemoteProtocolError as error:
            status = error.error_status_hint or 400
            told = str(error) if isinstance(error, Ambiguous) else _TOLD.get(status, "the request is not valid HTTP")
            self.refusal = (status, told)
            raise

    def _checked(self, request: h11.Request) -> h11.Request:
        left = self.trailing_data[0]
        head = bytes(self._raw[: len(self._raw) - len(left)])
        self._raw = bytearray(left)
        headers = dict(request.headers)
        self._chunked = b"transfer-encoding" in headers
        self._overhead_bytes = self._allowed_bytes = 0
        if request.http_version not in _VERSIONS:
            _refuse("this service speaks HTTP/1.0 and HTTP/1.1", 505)
        if _BARE_LINE_FEED.search(head):
            _refuse("a line of the request's head ends without a carriage return")
        if _FOLDED.search(head):
            _refuse("a header goes on in a second line, which HTTP does not allow any more")
        lengths = _LENGTHS.findall(head)
        if len(lengths) > 1 or b"," in b"".join(lengths):
            _refuse("the request has more than one Content-Length")
        if self._chunked and lengths:
            _refuse("the request has both a Content-Length and a Transfer-Encoding")
        if self._chunked and request.http_version == b"1.0":
            _refuse("Transfer-Encoding does not exist in HTTP/1.0")
        return _in_origin_form(request, headers.get(b"host", b""))

    def _check_chunk(self, event: Any) -> None:
        """Count what a chunked body has beside its data, and look at its end."""
        if isinstance(event, h11.Data):
            self._allowed_bytes += 2 * len(event.data) + 16 * event.chunk_start
            self._overhead_bytes -= len(event.data)
            return
        left = self.trailing_data[0]
        used = self._raw[: len(self._raw) - len(left)]
        self._raw = bytearray(left)
        self._overhead_bytes += len(used)
        # Of a line that has not ended all is counted that is there.
        if self._overhead_bytes + len(left) * (event is h11.NEED_DATA) > MAX_CHUNK_OVERHEAD_BYTES + self._allowed_bytes:
            _refuse("the chunks of the body are mostly padding")
        if isinstance(event, h11.EndOfMessage):
            self._chunked = False
            if event.headers:
                _refuse("headers after a body are not taken")
            if used and not used.endswith(b"\r\n"):
                _refuse("the body's last line ends without a carriage return")


def _in_origin_form(request: h11.Request, host: bytes) -> h11.Request:
    """The request with a path as its target. Refuses one whose target names another host than its Host header."""
    absolute = _ABSOLUTE.fullmatch(request.target)
    if absolute is None:
        return request
    if absolute["host"].lower() != host.lower():
        _refuse("the request's target and its Host header name different hosts")
    path = absolute["path"]
    target = path if path.startswith(b"/") else b"/" + path
    return h11.Request(method=request.method, target=target, headers=request.headers, http_version=request.http_version)


def _refuse(why: str, status: int = 400) -> NoReturn:
    raise Ambiguous(why, error_status_hint=status)
