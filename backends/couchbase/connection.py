"""The connection to Couchbase: its query service, its management, and what their errors mean."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from backends.errors import BackendError, Denied, Unavailable
from backends.kit.http_json import Answer, JsonHttp
from backends.kit.tls import trusted
from backends.redaction import redact, remember
from backends.urls import ServerUrl, parse_server_url

PASSWORD = "SIGHTLINE_COUCHBASE_PASSWORD"  # noqa: S105
OPTIONS = ("ca_certs", "https", "query_port", "timeout")
SCOPE = "sightline"
CONNECT_S, ANSWER_S, PATIENCE_S = 10, 600.0, 8.0
_BUCKET = re.compile(r"[A-Za-z0-9_.%-]{1,100}")
#: No such keyspace: bucket, scope or collection, or none that the query service knows yet.
_MISSING = frozenset({12003, 12020, 12021})
DUPLICATE_KEY = 17012
#: 12009 is any write that failed, that of a key which is there among them.
_MAYBE_EXISTS = frozenset({12009, DUPLICATE_KEY})
_DENIED = frozenset({13014})


class Refused(BackendError):
    """Couchbase's answer to a statement that it did not carry out; `codes` are its numbers for why."""

    def __init__(self, message: str, codes: frozenset[int], status: int = 200) -> None:
        super().__init__(message)
        self.codes, self.status = codes, status

    @property
    def missing(self) -> bool:
        """Whether there is no such collection."""
        return bool(self.codes & _MISSING) or self.status == 404

    @property
    def may_exist(self) -> bool:
        """Whether there may be a document of that key already."""
        return bool(self.codes & _MAYBE_EXISTS)


class CouchbaseServer:
    """One bucket of a cluster; thread-safe."""

    def __init__(self, url: str, within_s: float | None = None) -> None:
        server, self.bucket, user, password = _parse(url)
        self.address = f"{server.address}/{self.bucket}"
        secure = server.flag("https", default=False)
        connect_s: float = server.number("timeout", CONNECT_S, highest=3600)
        connect_s = connect_s if within_s is None else min(connect_s, within_s)
        credentials = base64.b64encode(f"{user}:{password}".encode()).decode()
        remember(password)
        query_port = server.number("query_port", 18093 if secure else 8093)
        authority = server.options.get("ca_certs")
        if authority is not None and not secure:
            raise ValueError(f"{server.address}: ca_certs belongs to https=true")
        tls = trusted(authority, option="ca_certs", address=server.address) if authority is not None else None
        host = f"[{server.host}]" if ":" in server.host else server.host

        def http(port: int) -> JsonHttp:
            return JsonHttp(
                f"{'https' if secure else 'http'}://{host}:{port}",
                what=f"Couchbase at {self.address}",
                remedy="is it running there, with the query service on?",
                connect_s=connect_s,
                tls=tls,
                headers={"Authorization": f"Basic {credentials}"},
            )

        self._manager, self._query = http(server.port), http(query_port)

    def check_open(self) -> None:
        """Raise `BackendError` once closed."""
        self._query.check_open()

    def keyspace(self, name: str) -> str:
        """A collection of ours as statements name it."""
        return f"`{self.bucket}`.`{SCOPE}`.`{name}`"

    def query(
        self, statement: str, values: Mapping[str, object] | None = None, *, writes: bool = False
    ) -> list[dict[str, Any]]:
        """The results of a statement, which may be carried out twice; all that was written before is seen.

        values: by the names of its parameters.
        """
        body: dict[str, object] = {"statement": statement, "scan_consistency": "request_plus", "timeout": "600s"}
        # Many documents are written as one, and are on the disks of a majority when the answer comes.
        body |= (
            {"tximplicit": True, "txtimeout": "600s", "durability_level": "majorityAndPersist"}
            if writes
            else {"readonly": True}
        )
        body |= {f"${name}": value for name, value in (values or {}).items()}
        answer = self._query.request("POST", "/query/service", body, timeout_s=ANSWER_S, patience_s=PATIENCE_S)
        if isinstance(answer.data, dict) and answer.data.get("status") == "success":
            return list(answer.data.get("results", ()))
        raise self._refusal(answer)

    def define(self, statement: str) -> None:
        """Carry out a statement that makes an index."""
        body = {"statement": statement, "timeout": "600s"}
        answer = self._query.request("POST", "/query/service", body, timeout_s=ANSWER_S, patience_s=PATIENCE_S)
        if not (isinstance(answer.data, dict) and answer.data.get("status") == "success"):
            raise self._refusal(answer)

    def manage(self, method: str, path: str, form: str | None = None, *, wait: bool = True) -> Any:
        """What the management answers; path is under the bucket.

        Without `wait` a server that is away is told at once.
        """
        headers = {"Content-Type": "application/x-www-form-urlencoded"} if form is not None else {}
        target = f"/pools/default/buckets/{self.bucket}{path}"
        content = form.encode() if form is not None else None
        patience_s = PATIENCE_S if wait else 0.0
        answer = self._manager.request(method, target, content, headers=headers, patience_s=patience_s)
        if not answer.is_success:
            raise self._refusal(answer)
        return answer.data

    def version(self, within_s: float) -> str:
        """What the cluster says of itself."""
        answer = self._manager.request("GET", "/pools", timeout_s=within_s)
        if not answer.is_success or not isinstance(answer.data, dict):
            raise self._refusal(answer)
        return str(answer.data.get("implementationVersion", "?"))

    def _refusal(self, answer: Answer) -> BackendError:
        data = answer.data if isinstance(answer.data, dict) else {}
        errors = [error for error in data.get("errors") or () if isinstance(error, dict)]
        codes = frozenset(error["code"] for error in errors if isinstance(error.get("code"), int))
        told = "; ".join(str(error.get("msg")) for error in errors) or answer.told()
        line = " ".join(redact(f"{told} ({answer.status})", foreign=True).split())[:400]
        if answer.status in (401, 403) or codes & _DENIED:
            return Denied(
                f"Couchbase at {self.address} refuses the credentials: check user, password and rights in the URL "
                f"or {PASSWORD} ({line})"
            )
        if answer.status in (429, 502, 503, 504):
            return Unavailable(f"Couchbase at {self.address} cannot answer for the moment: try again later ({line})")
        return Refused(f"Couchbase at {self.address} refuses: {line}", codes, answer.status)

    def close(self) -> None:
        """Close the connections; twice is fine."""
        self._manager.close()
        self._query.close()


def _parse(url: str) -> tuple[ServerUrl, str, str, str]:
    """Server, bucket, user and password of a URL. Raises ValueError without repeating it."""
    form = "couchbase://user@host:8091/bucket"
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError(f"this couchbase:// URL cannot be read: write {form}") from None
    bucket = parts.path.strip("/")
    if "@" in parts.path + parts.query or not _BUCKET.fullmatch(bucket):
        raise ValueError(f"this couchbase:// URL names no bucket: write {form}, special characters %-encoded")
    host = parts.netloc.rpartition("@")[2]
    server = parse_server_url(
        f"{parts.scheme}://{host}"
        + (f"?{parts.query}" if parts.query else "")
        + (f"#{parts.fragment}" if parts.fragment else ""),
        "couchbase",
        port=8091,
        known=OPTIONS,
    )
    if server.flag("https", default=False) and ":" not in host.rpartition("]")[2]:
        server = ServerUrl(server.scheme, server.host, 18091, server.options)
    password = parts.password or ""
    secret = unquote(password) or os.environ.get(PASSWORD) or ""
    return server, bucket, unquote(parts.username or "Administrator"), secret
