"""The connection to VikingDB: its two interfaces, the key or the signature, and what its errors mean.

The data plane, under ``/api/vikingdb``, takes an API key or a signature. The control plane, which makes, lists and
removes collections and indexes, is another host and takes a signature only.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from backends.errors import BackendError, CollectionNotFound, Denied, KeyMissing, Unavailable
from backends.kit.http_json import Answer, JsonHttp
from backends.kit.json_text import encode
from backends.redaction import redact
from backends.urls import ServerUrl, parse_server_url
from backends.vikingdb.signing import AccessKey, canonical_query

API_KEY = "SIGHTLINE_VIKINGDB_API_KEY"
ACCESS_KEY, SECRET_KEY = "SIGHTLINE_VIKINGDB_ACCESS_KEY", "SIGHTLINE_VIKINGDB_SECRET_KEY"
OPTIONS = ("console", "https", "project", "region", "timeout")
VERSION = "2025-06-09"
DATA = "/api/vikingdb/data/"
CONNECT_S, ANSWER_S, PATIENCE_S = 10, 120.0, 8.0
_REGION = re.compile(r"\.((?:cn|ap)-[a-z]+(?:-\d+)?)\.")
_KEY = re.compile(r"[\x21-\x7e]+")
_PROJECT = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_CONSOLE = re.compile(r"[A-Za-z0-9_.-]{1,253}(?::[0-9]{1,5})?")


class Refused(BackendError):
    """VikingDB's answer to a call that it did not carry out; `code` is its own word for why."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code

    @property
    def missing(self) -> bool:
        """Whether there is no such collection or index."""
        return self.code.startswith("NotFound.")

    @property
    def exists(self) -> bool:
        """Whether there is one of that name already."""
        return self.code.startswith("AlreadyExists")


class VikingServer:
    """One account's VikingDB in one region and project; thread-safe."""

    def __init__(self, url: ServerUrl, within_s: float | None = None) -> None:
        self.address, self.project = url.address, url.options.get("project", "default")
        found = _REGION.search(url.host)
        region = url.options.get("region") or (found[1] if found else "cn-beijing")
        for name, value in (("project", self.project), ("region", region)):
            if not _PROJECT.fullmatch(value):
                raise ValueError(f"{self.address}: option {name} holds letters, digits, '_', '.' and '-' only")
        self._access = _access_key(url, region)
        api_key = url.key or os.environ.get(API_KEY) or None
        if api_key is None and self._access is None:
            raise KeyMissing(
                f"{self.address} needs a key: set {API_KEY}, or {ACCESS_KEY} and {SECRET_KEY}, which also make and "
                "drop collections"
            )
        if api_key is not None and not _KEY.fullmatch(api_key):
            raise ValueError(f"the API key for {self.address} has characters that no key has")
        self._bearer = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        host = f"[{url.host}]" if ":" in url.host else url.host
        scheme = "https" if url.flag("https", default=True) else "http"
        local = (443 if scheme == "https" else 80) == url.port
        console = url.options.get("console") or f"vikingdb.{region}.volcengineapi.com"
        if not _CONSOLE.fullmatch(console):
            raise ValueError(f"{self.address}: option console is a host, or host:port")
        self._connect_s: float = url.number("timeout", CONNECT_S, highest=3600)
        if within_s is not None:
            self._connect_s = min(self._connect_s, within_s)
        self._data = self._http(f"{scheme}://{host}" if local else f"{scheme}://{host}:{url.port}", self._bearer)
        self._console = self._http(f"{scheme}://{console}", {})

    @classmethod
    def connect(cls, url: str, *, within_s: float | None = None) -> VikingServer:
        """A connection that has been tried, its time-outs cut to `within_s`.

        Raises `Unavailable` naming the address, `Denied` for a wrong key.
        """
        server = cls(parse_server_url(url, "vikingdb", port=443, known=OPTIONS, keyed=True), within_s)
        try:
            # Any answer will do: who is let in is told that there is no such collection.
            nothing = {"collection_name": "sightline_no_such", "ids": ["0"]}
            server.data("fetch_in_collection", nothing, timeout_s=within_s or ANSWER_S, patience_s=0)
        except Refused as error:
            if not error.missing:
                server.close()
                raise
        except BaseException:
            server.close()
            raise
        return server

    def _http(self, base: str, headers: Mapping[str, str]) -> JsonHttp:
        remedy = "check host, region and the network, and that VikingDB is ordered in this region"
        return JsonHttp(
            base, what=f"VikingDB at {self.address}", remedy=remedy, connect_s=self._connect_s, headers=headers
        )

    def check_open(self) -> None:
        """Raise `BackendError` once closed."""
        self._data.check_open()

    def data(
        self, call: str, body: Mapping[str, Any], *, timeout_s: float = ANSWER_S, patience_s: float = PATIENCE_S
    ) -> Any:
        """The result of a call of the data plane, which may be carried out twice. Raises as `refusal` says."""
        path = DATA + call
        content = encode({"project_name": self.project, **body}).encode()
        headers = {}
        if not self._bearer:
            assert self._access is not None
            headers = self._access.sign("POST", self._data.host, path, {}, content)
        answer = self._data.request("POST", path, content, headers=headers, timeout_s=timeout_s, patience_s=patience_s)
        if not answer.is_success or not isinstance(answer.data, dict) or answer.data.get("code") != "Success":
            raise self.refusal(answer)
        return answer.data.get("result") or {}

    def control(self, action: str, body: Mapping[str, Any]) -> Any:
        """The result of an action of the control plane. Raises as `refusal` says, `Denied` without an access key."""
        self.check_open()
        if self._access is None:
            raise Denied(
                f"{self.address}: an API key reads and writes records; to make, list and drop collections set "
                f"{ACCESS_KEY} and {SECRET_KEY}"
            )
        query = {"Action": action, "Version": VERSION}
        content = encode({"ProjectName": self.project, **body}).encode()
        headers = self._access.sign("POST", self._console.host, "/", query, content)
        target = f"/?{canonical_query(query)}"
        # What is made twice is there the second time, which would be told as another's.
        patience_s = 0.0 if action.startswith("Create") else PATIENCE_S
        answer = self._console.request(
            "POST", target, content, headers=headers, timeout_s=ANSWER_S, patience_s=patience_s
        )
        if not answer.is_success or not isinstance(answer.data, dict) or _error_of(answer.data):
            raise self.refusal(answer)
        return answer.data.get("Result") or {}

    def refusal(self, answer: Answer) -> BackendError:
        """The error for an answer that is no success: `Denied`, `Unavailable` or `Refused`."""
        data = answer.data if isinstance(answer.data, dict) else {}
        error = _error_of(data)
        code = str(error.get("Code") or data.get("code") or f"HTTP {answer.status}")
        text = str(error.get("Message") or data.get("message") or answer.told())
        line = " ".join(redact(f"{code}: {text}", foreign=True).split())[:400]
        if answer.status in (401, 403):
            return Denied(
                f"VikingDB at {self.address} refuses the key ({line}): check {API_KEY}, or "
                f"{ACCESS_KEY} and {SECRET_KEY}"
            )
        if answer.status == 429 or answer.status >= 500:
            return Unavailable(f"VikingDB at {self.address} cannot answer for the moment ({line}): try again later")
        return Refused(f"VikingDB at {self.address} refuses: {line}", code)

    def not_found(self, name: str) -> CollectionNotFound:
        """The error for a collection that is not there."""
        return CollectionNotFound(f"no collection {name!r} in {self.address}, project {self.project}")

    def close(self) -> None:
        """Close the connections; twice is fine."""
        self._data.close()
        self._console.close()


def _error_of(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the control plane says went wrong, whatever the status; empty where nothing did."""
    metadata = data.get("ResponseMetadata")
    error = metadata.get("Error") if isinstance(metadata, dict) else None
    return error if isinstance(error, dict) else {}


def _access_key(url: ServerUrl, region: str) -> AccessKey | None:
    key_id, secret = os.environ.get(ACCESS_KEY, ""), os.environ.get(SECRET_KEY, "")
    if bool(key_id) != bool(secret):
        raise ValueError(f"{url.address}: set both {ACCESS_KEY} and {SECRET_KEY}, or neither")
    if not key_id:
        return None
    if not (_KEY.fullmatch(key_id) and _KEY.fullmatch(secret)):
        raise ValueError(f"{url.address}: {ACCESS_KEY} or {SECRET_KEY} has characters that no key has")
    return AccessKey(key_id, secret, region)
