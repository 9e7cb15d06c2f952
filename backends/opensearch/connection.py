"""The connection to a server: one HTTP call, retried while the server is away, and what its errors mean.

The calls go through the pool of the server's own client, which knows TLS and its connections. What its
transport does on top is not used: it logs every refusal, and forgets for minutes a server that was away.
"""

from __future__ import annotations

import os
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from json import dumps, loads
from typing import Any, NoReturn, Protocol
from urllib.parse import unquote, urlencode, urlsplit

from backends.errors import BackendError, Denied, Unavailable
from backends.redaction import redact
from backends.urls import ServerUrl, parse_server_url

PORT = 9200
OPTIONS = ("https", "verify_certs", "ca_certs", "replicas", "shards", "timeout")
CONNECT_S, CALL_S = 10, 120
# A server that was there and went away has so many time-outs to come back in: it starts in about 10 s.
RETURN_FACTOR = 6
POLL_S = 0.2
# In one call.
SEARCHES = 50
# What a server says that is starting, busy, or moving a shard.
_AWAY = frozenset({408, 429, 502, 503, 504})

_EARLY = frozenset({"no_shard_available_action_exception", "unavailable_shards_exception"})


class Client(Protocol):
    """A server's own client, as far as it is used."""

    def send(
        self, method: str, target: str, body: bytes | None, headers: Mapping[str, str], timeout_s: float
    ) -> tuple[int, str | bytes]:
        """Status and body of an answer. Raises `ConnectionError` where there is none, saying why."""
        ...

    def close(self) -> None:
        """Close its connections."""
        ...


@dataclass(frozen=True, slots=True)
class Product:
    """What differs in reaching the two servers."""

    name: str
    scheme: str
    variable: str
    json_type: str
    lines_type: str
    oldest: tuple[int, int]
    takes_api_keys: bool


_GONE = frozenset({"index_not_found_exception", "index_closed_exception", "search_context_missing_exception"})


class ServerRefused(BackendError):
    """The server's answer to a call it did not carry out; `kind` is its own name for the reason."""

    def __init__(self, message: str, kind: str = "", status: int = 0) -> None:
        super().__init__(message)
        self.kind, self.status = kind, status

    @property
    def gone(self) -> bool:
        """Whether it was refused because the index is not there, or was dropped under a search that had begun."""
        return self.kind in _GONE


def parse_url(url: str, product: Product) -> tuple[ServerUrl, str | None]:
    """The parts of a URL, and the name of its user; alone, a name is an API key where the server takes those."""
    found = parse_server_url(url, product.scheme, port=PORT, known=OPTIONS, keyed=True)
    parts = urlsplit(url)
    user = unquote(parts.username) if parts.username else None
    if user is None or parts.password:
        return found, user
    return (found, None) if product.takes_api_keys else (replace(found, key=None), user)


class LuceneServer:
    """One server or cluster; thread-safe. Lost connections come back by themselves."""

    def __init__(self, url: ServerUrl, user: str | None, product: Product, open_client: Callable[[], Client]) -> None:
        self.url, self.product, self.address = url, product, url.address
        self.timeout_s: float = url.number("timeout", CONNECT_S, highest=3600)
        self.version: tuple[int, ...] = ()
        self.version_text = ""
        given = os.environ.get(product.variable) or None
        if given and user is not None:
            given = given.removeprefix(f"{user}:")
        self._headers = _authorization(url.key or given, user, product, self.address)
        self._open_client = open_client
        self._process, self._client = os.getpid(), open_client()
        self._closed = False

    def check(self, within_s: float) -> None:
        """Raise `Unavailable` unless the server answers, takes the key, is the one meant, and is recent enough."""
        self.timeout_s, usual = within_s, self.timeout_s
        status, body = self._send("GET", "/", None, None, timeout_s=within_s, wait=False)
        if status == 405:
            # A node from its jars alone, as tests start it, has no root.
            status, body = self._send("GET", "/_nodes/_local", None, None, timeout_s=within_s, wait=False)
        self.timeout_s = usual
        if status != 200:
            self._fail(status, body)
        told = _identity(body)
        if told is None:
            raise Unavailable(f"what answers at {self.address} is no {self.product.name}: check host and port")
        name, number = told
        self.version_text = f"{name} {number}"
        self.version = tuple(int(part) for part in number.split(".")[:2] if part.isdigit())
        if name != self.product.name:
            raise Unavailable(f"{self.address} is {self.version_text}: write {name.lower()}://")
        if self.version < self.product.oldest:
            wanted = ".".join(map(str, self.product.oldest))
            raise Unavailable(f"{self.address} runs {self.version_text}: Sightline needs {wanted} or later")

    def check_open(self) -> None:
        """Raise `BackendError` once closed."""
        if self._closed:
            raise BackendError(f"this connection to {self.address} is closed: connect again")

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        missing_ok: bool = False,
        **params: Any,
    ) -> Any:
        """The JSON answer of a call; `None` for a 404 with `missing_ok`. A server that is away is waited for.

        body: a value, or the lines of a bulk request as bytes.

        Raises:
            Unavailable: it does not come back, or refuses the key.
            ServerRefused: it does not do it.
        """
        target = f"{path}?{urlencode(params)}" if params else path
        deadline = self._deadline()
        while True:
            status, answer = self._send(method, target, _encoded(body), self._type_of(body))
            if 200 <= status < 300:
                return answer
            if status == 404 and missing_ok:
                return None
            if status not in _AWAY or time.monotonic() > deadline or _is_full(answer):
                self._fail(status, answer)
            time.sleep(POLL_S)

    def searches(self, alias: str, bodies: Sequence[Mapping[str, Any]], **params: Any) -> list[Any]:
        """The answers of searches, in their order; each is whole, or an error is raised."""
        if len(bodies) == 1:
            options = {"allow_partial_search_results": "false", **params}
            return [self.call("POST", f"/{alias}/_search", bodies[0], **options)]
        head = dumps({"index": alias, "allow_partial_search_results": False, **params})
        found: list[Any] = []
        for start in range(0, len(bodies), SEARCHES):
            lines = [f"{head}\n{dumps(body, ensure_ascii=False)}\n" for body in bodies[start : start + SEARCHES]]
            found += self._together("/_msearch", "".join(lines).encode(), "responses")
        return found

    def sources(self, alias: str, ids: Sequence[str], left_out: Sequence[str]) -> Iterator[Any]:
        """The documents of these ids, as they are at this moment."""
        params = {"_source_excludes": ",".join(left_out)} if left_out else {}
        for document in self._together(f"/{alias}/_mget", {"ids": list(ids)}, "docs", **params):
            if document.get("found"):
                yield document["_source"]

    def _together(self, path: str, body: Any, key: str, **params: Any) -> list[Any]:
        """The answers to several questions in one call, which is made again while a part of it comes too early."""
        deadline = self._deadline()
        while True:
            answers: list[Any] = self.call("POST", path, body, **params)[key]
            failed = next((answer for answer in answers if "error" in answer), None)
            if failed is None:
                return answers
            if not _is_early(failed) or time.monotonic() > deadline:
                raise self.error_of(failed.get("status", 0), failed)
            time.sleep(POLL_S)

    def bulk(self, alias: str, actions: Sequence[bytes]) -> int:
        """Carry out actions, and again those that came too early; how many stored or removed a document.

        Those on documents that are not there, or in another version than asked for, are passed over.
        """
        deadline = self._deadline()
        done = 0
        while True:
            answer = self.call("POST", f"/{alias}/_bulk", b"".join(actions), require_alias="true")
            early: list[bytes] = []
            for action, item in zip(actions, answer["items"], strict=True):
                (result,) = item.values()
                if "error" not in result:
                    done += result.get("result") != "not_found"
                elif _is_early(result) and time.monotonic() < deadline:
                    early.append(action)
                elif result["error"].get("type") != "version_conflict_engine_exception":
                    raise self.error_of(result["status"], result)
            if not early:
                return done
            actions = early
            time.sleep(POLL_S)

    def refresh(self, alias: str) -> None:
        """Return when searches see all that is stored."""
        deadline = self._deadline()
        while True:
            shards = self.call("POST", f"/{alias}/_refresh")["_shards"]
            if not shards["failed"]:
                return
            if time.monotonic() > deadline:
                raise self._not_ready(str(shards.get("failures") or shards))
            time.sleep(POLL_S)

    def _deadline(self) -> float:
        return time.monotonic() + RETURN_FACTOR * self.timeout_s

    def _not_ready(self, why: str) -> Unavailable:
        line = " ".join(redact(why, foreign=True).split())[:300]
        return Unavailable(
            f"{self.product.name} at {self.address} is not ready ({line}): see its log and its _cluster/health"
        )

    def _type_of(self, body: Any) -> str | None:
        if body is None:
            return None
        return self.product.lines_type if isinstance(body, bytes) else self.product.json_type

    def _send(
        self,
        method: str,
        target: str,
        body: bytes | None,
        content: str | None,
        *,
        timeout_s: float = CALL_S,
        wait: bool = True,
    ) -> tuple[int, Any]:
        headers = {**self._headers, "accept": self.product.json_type, **({"content-type": content} if content else {})}
        deadline = self._deadline()
        while True:
            self.check_open()
            try:
                status, data = self._own_client().send(method, target, body, headers, timeout_s)
                return status, _decoded(data)
            except ConnectionError as error:
                self.check_open()
                # A server that starts again is waited for; one that never was there is not.
                if not wait or time.monotonic() > deadline:
                    raise self._unavailable(redact(str(error), foreign=True)) from None
            time.sleep(POLL_S)

    def _own_client(self) -> Client:
        """The client of this process: the connections that a forked child inherits are its parent's."""
        if self._process != os.getpid():
            self._client, self._process = self._open_client(), os.getpid()
        return self._client

    def _unavailable(self, why: str) -> Unavailable:
        return Unavailable(
            f"{self.product.name} at {self.address} does not answer ({' '.join(why.split())[:200]}): start it, e.g. "
            f"with sightline engines up {self.product.scheme}, or check host, port and https"
        )

    def _fail(self, status: int, answer: Any) -> NoReturn:
        raise self.error_of(status, answer)

    def error_of(self, status: int, answer: Any) -> BackendError:
        """The error for an answer, or for a part of one, that is a refusal."""
        error = answer.get("error", answer) if isinstance(answer, dict) else answer
        kind, reason = _reason(error)
        where = f"{self.product.name} at {self.address}"
        line = " ".join(redact(reason, foreign=True).split())[:300]
        if status in (401, 403) and kind != "cluster_block_exception":
            return Denied(f"{where} refuses the credentials: set {self.product.variable}, or name user and password")
        if _is_full(answer):
            return BackendError(
                f"{where} takes no more writes ({line}): its disk is nearly full; free space on it, "
                "then set index.blocks.read_only_allow_delete of the index to null"
            )
        if status in _AWAY:
            return self._not_ready(f"{status}: {line}")
        return ServerRefused(f"{where} refuses: {line or status}", kind, status)

    def close(self) -> None:
        """Close the connections; twice is fine."""
        if not self._closed:
            self._closed = True
            if self._process == os.getpid():
                self._client.close()


def _identity(body: Any) -> tuple[str, str] | None:
    """Product and version that a server tells at its root, or of its own node; None where it is neither."""
    if not isinstance(body, dict):
        return None
    nodes = body.get("nodes")
    nodes = list(nodes.values()) if isinstance(nodes, dict) else []
    version = {"number": nodes[0].get("version")} if nodes and isinstance(nodes[0], dict) else body.get("version")
    if not isinstance(version, dict) or not isinstance(version.get("number"), str):
        return None
    return "OpenSearch" if version.get("distribution") == "opensearch" else "Elasticsearch", version["number"]


def _authorization(key: str | None, user: str | None, product: Product, address: str) -> dict[str, str]:
    """The header for a user and password, for ``user:password`` as a key, or for an API key."""
    if key is None:
        if user is not None:
            raise ValueError(
                f"{address} comes with a user alone: set {product.variable}, or write "
                f"{product.scheme}://user:password@host"
            )
        return {}
    if user is not None or ":" in key or not product.takes_api_keys:
        pair = f"{user}:{key}" if user is not None else key
        if ":" not in pair:
            raise ValueError(
                f"{address} takes user:password, not a key alone: write {product.scheme}://user:password@host"
            )
        return {"authorization": f"Basic {b64encode(pair.encode()).decode('ascii')}"}
    if not (key.isascii() and key.isprintable()):
        raise ValueError(f"the API key for {address} has characters that no key has")
    return {"authorization": f"ApiKey {key}"}


def _encoded(body: Any) -> bytes | None:
    return body if body is None or isinstance(body, bytes) else dumps(body, ensure_ascii=False).encode()


def _decoded(data: str | bytes) -> Any:
    try:
        return loads(data) if data else {}
    except ValueError:
        return data if isinstance(data, str) else data.decode("utf-8", "replace")


def _reason(error: Any) -> tuple[str, str]:
    """The server's own name for an error, and its words; those of a shard, which say more, where there are some."""
    if not isinstance(error, dict):
        return "", str(error)
    deepest = error
    failed = error.get("failed_shards") or ()
    if failed and isinstance(failed[0].get("reason"), dict):
        deepest = failed[0]["reason"]
    kind, reason = str(deepest.get("type", "")), str(deepest.get("reason", ""))
    while isinstance(deepest.get("caused_by"), dict):
        deepest = deepest["caused_by"]
        reason += f": {deepest.get('reason', '')}"
    return kind, reason


def _is_early(answer: Any) -> bool:
    """Whether a part of an answer is the refusal of a server that is not ready for it yet, and will be."""
    kind = str(answer["error"].get("type", "")) if isinstance(answer["error"], dict) else ""
    return (answer.get("status") in _AWAY or kind in _EARLY) and not _is_full(answer)


def _is_full(answer: Any) -> bool:
    text = str(answer) if isinstance(answer, dict) and "error" in answer else ""
    return "flood-stage" in text or "read-only-allow-delete" in text or "No space left" in text
