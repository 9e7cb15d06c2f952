"""OpenSearch and Elasticsearch adapters before answers that real servers give only by chance: scripted ones."""

from __future__ import annotations

import json
import os
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from backends import connect
from backends.base import Backend, CollectionExists, CollectionNotFound, CollectionSpec, Record
from backends.errors import Unavailable
from backends.kit.widths import Width
from backends.opensearch import schema
from backends.opensearch.connection import LuceneServer, parse_url
from backends.opensearch.opensearch import OPENSEARCH, OpenSearchBackend
from backends.opensearch.records import document_of
from backends.opensearch.schema import Stored
from backends.opensearch.search import Searcher

SPEC = CollectionSpec("c", 2, encoder="first:1")
RECORDS = [Record(f"r{i}", np.array([1.0, i], np.float32), "text", f"word{i}") for i in range(6)]
Answer = tuple[int, Any]


class Scripted:
    """A client whose answers are made by a function of method, path without parameters, and body."""

    def __init__(self, answer: Callable[[str, str, str], Answer]) -> None:
        self.answer, self.process, self.closed = answer, os.getpid(), False

    def send(
        self, method: str, target: str, body: bytes | None, headers: Mapping[str, str], timeout_s: float
    ) -> tuple[int, str | bytes]:
        assert self.process == os.getpid()
        status, told = self.answer(method, target.partition("?")[0], (body or b"").decode())
        return status, told if isinstance(told, str) else json.dumps(told)

    def close(self) -> None:
        self.closed = True


def server(answer: Callable[[str, str, str], Answer]) -> LuceneServer:
    url, user = parse_url("opensearch://127.0.0.1:9200?timeout=1", OPENSEARCH.product)
    return LuceneServer(url, user, OPENSEARCH.product, lambda: Scripted(answer))


class Index:
    """One index with `RECORDS`, as far as these tests ask; what it loses or does besides is given by `on`."""

    def __init__(self, stored: Stored, on: Callable[[str, str], Answer | None] = lambda method, path: None) -> None:
        self.stored: Stored | None = stored
        self.on = on

    def __call__(self, method: str, path: str, body: str) -> Answer:
        if (told := self.on(method, path)) is not None:
            return told
        if path.endswith("/_mapping") and method == "PUT":
            self.stored = Stored(**_meta(json.loads(body)["_meta"]))
            return 200, {}
        if path.endswith("/_mapping"):
            meta = {} if self.stored is None else {"sightline-c": {"mappings": {"_meta": self.stored.meta}}}
            return 200, meta
        if path.endswith("/_bulk"):
            return 200, {"items": [{"index": {"result": "updated"}} for _ in body.splitlines()[::2]]}
        if path.endswith("/_refresh"):
            return 200, {"_shards": {"failed": 0}}
        if path == "/_msearch":
            return 200, {"responses": [found(json.loads(line)) for line in body.splitlines()[1::2]]}
        assert path.endswith("/_search"), path
        return 200, found(json.loads(body))


def _meta(meta: Any) -> dict[str, Any]:
    ours = meta[schema.OURS]
    return {**ours, "spec": CollectionSpec.from_json(ours["spec"])}


def found(body: Any) -> Any:
    """The answer to a search: by a graph that loses what it may, unless it compares all that a filter leaves."""
    records = [record for record in RECORDS if "search_after" not in body or record.id > body["search_after"][0]]
    near = body["query"].get("knn")
    if near is not None and "filter" not in near["vector"]:
        # The way to all but one of them is lost for the second query.
        records = records[:1] if near["vector"]["vector"][1] else records
    hits = [
        {
            "_id": r.id,
            "_seq_no": 1,
            "_primary_term": 1,
            "_score": 1.0 - n / 100,
            "_source": document_of(r, np.asarray(r.vector, np.float32)),
            "sort": [r.id],
        }
        for n, r in enumerate(records)
    ][: body["size"]]
    return {"hits": {"total": {"value": len(RECORDS)}, "hits": hits}}


def backend_of(index: Index) -> Backend:
    return OpenSearchBackend(server(index))


@pytest.mark.parametrize(
    "told",
    ["<html>It works</html>", {"version": "1.2"}, {"version": None}, {"ok": True}, [], {"version": {"number": 3}}],
)
@pytest.mark.parametrize("root", [200, 405])
def test_what_is_another_kind_of_server_is_said(told: Any, root: int) -> None:
    def answer(method: str, path: str, body: str) -> Answer:
        return (root, "no") if path == "/" and root == 405 else (200, told)

    with pytest.raises(Unavailable, match=r"is no (OpenSearch|Elasticsearch)"):
        server(answer).check(1.0)


@pytest.mark.parametrize(
    ("told", "text"),
    [
        ({"version": {"distribution": "opensearch", "number": "2.19.6"}}, "OpenSearch 2.19.6"),
        ({"version": {"distribution": "opensearch", "number": "3.0.0-beta1"}}, "OpenSearch 3.0.0-beta1"),
    ],
)
def test_the_version_is_told(told: Any, text: str) -> None:
    asked = server(lambda method, path, body: (200, told))
    asked.check(1.0)
    assert asked.version_text == text


def test_a_collection_that_was_made_before_the_answer_was_lost_is_made() -> None:
    index = Index(Stored(SPEC, "", 1, 1))
    index.stored = None

    def create(method: str, path: str, body: str) -> Answer:
        if method == "PUT" and path == "/sightline-c":
            if index.stored is None:
                index.stored = Stored(**_meta(json.loads(body)["mappings"]["_meta"]))
                raise ConnectionError("connection reset")
            return 400, {"error": {"type": "resource_already_exists_exception", "reason": "it is there"}}
        return index(method, path, body)

    backend = OpenSearchBackend(server(create))
    backend.create(SPEC)
    assert backend.describe("c") == SPEC
    with pytest.raises(CollectionExists):
        backend.create(SPEC)


@pytest.mark.parametrize("anew", [False, True])
def test_new_words_leave_what_others_change_meanwhile(anew: bool) -> None:
    def meanwhile(method: str, path: str) -> None:
        if path.endswith("/_bulk"):
            assert index.stored is not None
            changed = replace(index.stored, spec=replace(SPEC, encoder="second:2"))
            index.stored = replace(changed, alias="sightline.c.2", words=7) if anew else changed

    index = Index(Stored(SPEC, "sightline.c.1", 1, words=0), meanwhile)
    backend_of(index).search_text("c", "word1", 3)
    assert index.stored is not None
    assert index.stored.spec.encoder == "second:2"
    assert (index.stored.words == 7) is anew
    assert index.stored.words > 0


@pytest.mark.parametrize("anew", [False, True])
def test_a_new_width_leaves_what_others_change_meanwhile(anew: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def meanwhile(*_: object) -> Width:
        assert index.stored is not None
        changed = replace(index.stored, spec=replace(SPEC, encoder="second:2"))
        index.stored = replace(changed, alias="sightline.c.2") if anew else changed
        return Width(20_000, 800, 0.98)

    def flushed(method: str, path: str) -> Answer | None:
        return (200, {}) if path.endswith(("/_flush", "/_forcemerge")) else None

    index = Index(Stored(SPEC, "sightline.c.1", 1, schema.WORDS_VERSION), flushed)
    monkeypatch.setattr(Searcher, "measure", meanwhile)
    backend_of(index).flush("c")
    assert index.stored is not None
    assert index.stored.spec.encoder == "second:2"
    assert (index.stored.width is None) is anew


def test_what_a_graph_loses_is_found_for_every_query() -> None:
    backend = backend_of(Index(Stored(SPEC, "sightline.c.1", 1, schema.WORDS_VERSION)))
    first, second = backend.search("c", np.array([[1.0, 0.0], [0.0, 1.0]], np.float32), 10)
    assert len(first) == len(second) == len(RECORDS)


@pytest.mark.parametrize("anew", [False, True])
def test_a_collection_that_is_dropped_under_a_search_is_looked_for_again(anew: bool) -> None:
    lost = {"type": "search_context_missing_exception", "reason": "No search context found for id [827]"}
    failed = {"type": "search_phase_execution_exception", "reason": "all shards failed"}

    def dropped(method: str, path: str) -> Answer | None:
        if not path.endswith("/_search") or index.stored is None or index.stored.alias != "sightline.c.1":
            return None
        index.stored = replace(index.stored, alias="sightline.c.2") if anew else None
        return 404, {"error": {**failed, "failed_shards": [{"reason": lost}]}, "status": 404}

    index = Index(Stored(SPEC, "sightline.c.1", 1, schema.WORDS_VERSION), dropped)
    search = lambda: backend_of(index).search("c", np.array([[1.0, 0.0]], np.float32), 10)  # noqa: E731
    if anew:
        assert len(search()[0]) == len(RECORDS)
    else:
        with pytest.raises(CollectionNotFound):
            search()


def test_a_forked_child_has_connections_of_its_own() -> None:
    asked = server(lambda method, path, body: (200, {"told": 1}))
    assert asked.call("GET", "/x") == {"told": 1}
    pid = os.fork()
    if pid == 0:  # pragma: no cover
        try:
            ok = asked.call("GET", "/x") == {"told": 1}
            asked.close()
        except BaseException:
            ok = False
        os._exit(0 if ok else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert asked.call("GET", "/x") == {"told": 1}


@pytest.mark.parametrize(
    ("url", "variable", "pair"),
    [
        ("opensearch://me@h", "right:one", "me:right:one"),
        ("opensearch://me:@h", "right:one", "me:right:one"),
        ("opensearch://me@h", "me:right", "me:right"),
        ("opensearch://h", "me:right", "me:right"),
        ("opensearch://me:mine@h", "other", "me:mine"),
        ("opensearch://:me%3Amine@h", "other", "me:mine"),
    ],
)
def test_a_user_s_password_may_be_in_the_environment(
    url: str, variable: str, pair: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGHTLINE_OPENSEARCH_PASSWORD", variable)
    sent: list[str] = []

    class Told(Scripted):
        def send(
            self, method: str, target: str, body: bytes | None, headers: Mapping[str, str], timeout_s: float
        ) -> tuple[int, str | bytes]:
            sent.append(headers["authorization"])
            return super().send(method, target, body, headers, timeout_s)

    parsed, user = parse_url(url, OPENSEARCH.product)
    told = LuceneServer(parsed, user, OPENSEARCH.product, lambda: Told(lambda *_: (200, {})))
    told.call("GET", "/x")
    assert sent == [f"Basic {b64encode(pair.encode()).decode()}"]


def test_a_user_without_a_password_is_said() -> None:
    with pytest.raises(ValueError, match="set SIGHTLINE_OPENSEARCH_PASSWORD"):
        connect("opensearch://me@127.0.0.1:1")
