"""A fake Couchbase on loopback: it carries out the adapter's statements, by their exact form, and no others.

No package carries the product's query service. What a statement means is written here as the documentation has it
(SQL++ of Couchbase 8.0, error codes, bodies of answers); it proves that the adapter and the documentation agree, and
nothing of the product itself. A vector index answers exactly.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote

import numpy as np

from tests.support.fake_sqlpp import Document, Expression, QueryError

USER, PASSWORD = "ann", "p@ss:w/rd %"
BUCKET = "photos"
_KEYSPACE = r"`(?P<bucket>[^`]+)`\.`(?P<scope>[^`]+)`\.`(?P<collection>[^`]+)`"
_COLUMNS = r"(?P<columns>d\.[\w`]+(?:, d\.[\w`]+)*)"
_DISTANCE = r'VECTOR_DISTANCE\(d\.v, \$q, "(?P<measure>COSINE|DOT|L2)"\) AS distance'


class Collection:
    """Documents by key."""

    def __init__(self) -> None:
        self.documents: dict[str, Document] = {}
        self.primary = self.announced = False
        self.index: dict[str, Any] | None = None
        self.version = 0
        self.matrix: tuple[int, list[str], Any] = (-1, [], None)

    def vectors(self) -> tuple[list[str], Any]:
        """The keys of documents that have a vector, and the vectors."""
        if self.matrix[0] != self.version:
            keys = [key for key, document in self.documents.items() if "v" in document]
            rows = np.array([self.documents[key]["v"] for key in keys], np.float64)
            self.matrix = (self.version, keys, rows)
        return self.matrix[1], self.matrix[2]


class FakeCouchbase:
    """A cluster of one node with one bucket; `url` reaches it. `stop` and `start` keep what it holds."""

    def __init__(self) -> None:
        self.scopes: dict[str, dict[str, Collection]] = {"_default": {"_default": Collection()}}
        self.statements: list[dict[str, Any]] = []
        self.full = False
        self._lock = threading.RLock()
        self._ports = [0, 0]
        self._servers: list[ThreadingHTTPServer] = []
        self.start()

    @property
    def url(self) -> str:
        """Its URL, password and all."""
        return self.url_for(PASSWORD)

    def url_for(self, password: str) -> str:
        """Its URL with another password."""
        manager, query = self._ports
        return f"couchbase://{USER}:{quote(password, safe='')}@127.0.0.1:{manager}/{BUCKET}?query_port={query}"

    @property
    def address(self) -> str:
        """How messages name it."""
        return f"couchbase://127.0.0.1:{self._ports[0]}/{BUCKET}"

    def start(self) -> None:
        """Listen, on the same ports as before."""
        for i, answer in enumerate((self._manage, self._serve_query)):
            server = ThreadingHTTPServer(("127.0.0.1", self._ports[i]), _handler(answer))
            server.daemon_threads = True
            self._ports[i] = server.server_address[1]
            self._servers.append(server)
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        """Listen no longer, and cut every connection."""
        for server in self._servers:
            server.shutdown()
            server.server_close()
            for connection in list(server.__dict__.get("connections", ())):
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self._servers.clear()

    # Management

    def _manage(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        with self._lock:
            if path == "/pools":
                return 200, {"implementationVersion": "8.0.0-1000-fake", "isEnterprise": True}
            base = f"/pools/default/buckets/{BUCKET}/scopes"
            if not path.startswith(base):
                return 404, "Requested resource not found.\r\n"
            parts = path[len(base) :].strip("/").split("/") if path != base else []
            name = parse_qs(body.decode()).get("name", [""])[0]
            if method == "GET" and not parts:
                found = [{"name": s, "collections": [{"name": c} for c in cs]} for s, cs in self.scopes.items()]
                return 200, {"uid": "1", "scopes": found}
            if method == "POST" and not parts:
                return self._add(self.scopes, name, {}, "Scope")
            if len(parts) >= 2 and parts[0] in self.scopes and parts[1] == "collections":
                collections = self.scopes[parts[0]]
                if method == "POST" and len(parts) == 2:
                    return self._add(collections, name, Collection(), "Collection")
                if method == "DELETE" and len(parts) == 3:
                    gone = collections.pop(parts[2], None)
                    return (200, {"uid": "2"}) if gone else (404, {"errors": {"_": "Collection is not found"}})
            return 404, "Requested resource not found.\r\n"

    def _add(self, among: dict[str, Any], name: str, made: Any, what: str) -> tuple[int, Any]:
        if not re.fullmatch(r"[A-Za-z0-9_%-]{1,251}", name):
            return 400, {"errors": {"name": "Name can only contain the following characters: 0-9, A-Z, a-z, _, -, %"}}
        if name in among:
            return 400, {"errors": {"_": f'{what} with name "{name}" already exists'}}
        among[name] = made
        return 200, {"uid": "2"}

    # Query

    def _serve_query(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        if (method, path) != ("POST", "/query/service"):
            return 404, "404 page not found\n"
        request = json.loads(body)
        with self._lock:
            self.statements.append(request)
            answer: dict[str, Any] = {"requestID": "0", "signature": None}
            try:
                results = self._run(request)
            except QueryError as error:
                errors = [{"code": error.code, "msg": str(error)}]
                return 404 if error.code == 12003 else 409 if error.code == 17012 else 400, {
                    **answer,
                    "errors": errors,
                    "status": "errors",
                    "metrics": {"errorCount": 1},
                }
        return 200, {**answer, "results": results, "status": "success", "metrics": {"resultCount": len(results)}}

    def _run(self, request: dict[str, Any]) -> list[Any]:
        statement = request["statement"]
        values = {name[1:]: value for name, value in request.items() if name.startswith("$")}
        for pattern, run in _STATEMENTS:
            if found := pattern.fullmatch(statement):
                if request.get("readonly") and not statement.startswith("SELECT"):
                    raise QueryError(1160, "Readonly violation: the statement is not readonly")
                collection = self.scopes.get(found["scope"], {}).get(found["collection"])
                if collection is None or found["bucket"] != BUCKET:
                    raise QueryError(12003, f"Keyspace not found in CB datastore: default:{found['collection']}")
                if not collection.announced:
                    # The query service hears of a new collection a little later.
                    collection.announced = True
                    raise QueryError(12003, f"Keyspace not found in CB datastore: default:{found['collection']}")
                if self.full and statement.startswith(("UPSERT", "INSERT")):
                    raise QueryError(5000, "Failed to perform upsert: no space left on device")
                if not statement.startswith(("SELECT", "CREATE")):
                    collection.version += 1
                return run(collection, found, values)
        raise QueryError(3000, f"syntax error - {statement[:200]}")


def _columns(document: Document, columns: str) -> Document:
    names = [name.removeprefix("d.").strip("`") for name in columns.split(", ")]
    return {name: document[name] for name in names if name in document}


def _primary(collection: Collection, found: re.Match[str], values: Document) -> list[Any]:
    collection.primary = True
    return []


def _index(collection: Collection, found: re.Match[str], values: Document) -> list[Any]:
    options = json.loads(found["options"])
    keys, _ = collection.vectors()
    if not keys:
        raise QueryError(5000, "The collection has no qualifying vectors to train the index with")
    if any(len(collection.documents[key]["v"]) != options["dimension"] for key in keys):
        raise QueryError(5000, "The vectors are of another dimension than the index")
    collection.index = options
    return []


def _insert(collection: Collection, found: re.Match[str], values: Document) -> list[Any]:
    if values["key"] in collection.documents:
        raise QueryError(17012, f"Duplicate Key: {values['key']}")
    collection.documents[values["key"]] = values["entry"]
    return []


def _upsert(collection: Collection, found: re.Match[str], values: Document) -> list[Any]:
    if any(len(row["k"].encode()) > 250 for row in values["rows"]):
        raise QueryError(5000, "Key too long")
    collection.documents.update({row["k"]: row["d"] for row in values["rows"]})
    return []


def _by_keys(collection: Collection, found: re.Match[str], values: Document) -> list[Any]:
    documents = [collection.documents[key] for key in values["keys"] if key in collection.documents]
    return [_columns(document, found["columns"]) for document in documents]


def _all(collection: Collection, found: re.Match[str], values: Document) -> list[Any]:
    return [_columns(document, found["columns"]) for document in collection.documents.values()]


def _update(collection: Collection, found: re.Match[str], values: Document) -> list[Any]:
    changed = [
        document
        for key in values["keys"]
        if (document := collection.documents.get(key)) and document["keyspace"] == values["keyspace"]
    ]
    for document in changed:
        document[found["field"]] = values["value"]
    return [_columns(document, found["columns"]) for document in changed]


def _delete_keys(collection: Collection, found: re.Match[str], values: Document) -> list[Any]:
    gone = [collection.documents.pop(key) for key in values["keys"] if key in collection.documents]
    return [_columns(document, found["columns"]) for document in gone]


def _delete_where(collection: Collection, found: re.Match[str], values: Document) -> list[Any]:
    test = Expression(found["where"], values).test
    keys = [key for key, document in collection.documents.items() if test(document)][: int(found["limit"])]
    return [_columns(collection.documents.pop(key), found["columns"]) for key in keys]


def _count(collection: Collection, found: re.Match[str], values: Document) -> list[Any]:
    if found["where"] == "d.v IS NOT MISSING":
        return [{"n": len(collection.vectors()[0])}]
    test = Expression(found["where"], values).test
    return [{"n": sum(1 for document in collection.documents.values() if test(document))}]


def _scan(collection: Collection, found: re.Match[str], values: Document) -> list[Any]:
    keys = sorted(key for key in collection.documents if key > values["after"])[: int(found["limit"])]
    return [{"k": key, **_columns(collection.documents[key], found["columns"])} for key in keys]


def _distances(rows: Any, query: Any, measure: str) -> Any:
    if measure == "L2":
        return np.sqrt(((rows - query) ** 2).sum(axis=1))
    products = rows @ query
    if measure == "DOT":
        return -products
    return 1 - products / np.maximum(np.linalg.norm(rows, axis=1) * np.linalg.norm(query), 1e-300)


def _nearest(collection: Collection, found: re.Match[str], values: Document) -> list[Any]:
    groups = found.groupdict()
    bare: list[Any] = []
    if "near" in groups and collection.index is None:
        # A scan, of which nothing is said. What has no distance sorts before all.
        bare = [_columns(each, groups["columns"]) for each in collection.documents.values() if "v" not in each]
    elif "near" in groups and collection.index["similarity"] != groups["near"]:
        raise AssertionError("with an index of another similarity Couchbase would scan, and say nothing")
    keys, rows = collection.vectors()
    if not keys:
        return bare[: int(groups["limit"])]
    distances = _distances(rows, np.array(values["q"], np.float64), groups["measure"])
    test = Expression(groups["where"], values).test if groups.get("where") else lambda document: True
    everything = sorted(zip(distances.tolist(), keys, strict=True))
    picked: list[tuple[float, str, str]] = []
    limit = int(groups["limit"])
    for distance, key in everything:
        if len(picked) >= limit and distance > picked[-1][0]:
            break
        if test(collection.documents[key]):
            picked.append((distance, collection.documents[key]["id"], key))
    scored = [
        {**_columns(collection.documents[key], groups["columns"]), "distance": distance}
        for distance, _, key in sorted(picked)[:limit]
    ]
    return [*bare, *scored][:limit]


_STATEMENTS = [
    (re.compile(pattern), run)
    for pattern, run in (
        (rf"CREATE PRIMARY INDEX IF NOT EXISTS ON {_KEYSPACE}", _primary),
        (rf"CREATE VECTOR INDEX IF NOT EXISTS `\w+` ON {_KEYSPACE}\(v VECTOR\) WITH (?P<options>\{{.*\}})", _index),
        (rf"INSERT INTO {_KEYSPACE} \(KEY, VALUE\) VALUES \(\$key, \$entry\)", _insert),
        (rf"UPSERT INTO {_KEYSPACE} \(KEY k, VALUE d\) SELECT r\.k, r\.d FROM \$rows AS r", _upsert),
        (rf"SELECT {_COLUMNS} FROM {_KEYSPACE} AS d USE KEYS \$keys", _by_keys),
        (rf"SELECT {_COLUMNS} FROM {_KEYSPACE} AS d", _all),
        (
            rf"UPDATE {_KEYSPACE} AS d USE KEYS \$keys SET d\.(?P<field>\w+) = \$value "
            rf"WHERE d\.keyspace = \$keyspace RETURNING {_COLUMNS}",
            _update,
        ),
        (rf"DELETE FROM {_KEYSPACE} AS d USE KEYS \$keys RETURNING {_COLUMNS}", _delete_keys),
        (rf"DELETE FROM {_KEYSPACE} AS d WHERE (?P<where>.*) LIMIT (?P<limit>\d+) RETURNING {_COLUMNS}", _delete_where),
        (rf"SELECT COUNT\(\*\) AS n FROM {_KEYSPACE} AS d WHERE (?P<where>.*)", _count),
        (
            rf"SELECT META\(d\)\.id AS k, {_COLUMNS} FROM {_KEYSPACE} AS d WHERE META\(d\)\.id > \$after "
            r"ORDER BY META\(d\)\.id LIMIT (?P<limit>\d+)",
            _scan,
        ),
        (
            rf"SELECT {_COLUMNS}, {_DISTANCE} FROM {_KEYSPACE} AS d WHERE (?P<where>.*) AND d\.v IS NOT MISSING "
            r"ORDER BY distance, d\.id LIMIT (?P<limit>\d+)",
            _nearest,
        ),
        (
            rf"SELECT {_COLUMNS}, {_DISTANCE} FROM {_KEYSPACE} AS d "
            r'ORDER BY APPROX_VECTOR_DISTANCE\(d\.v, \$q, "(?P<near>\w+)", \d+, TRUE\) LIMIT (?P<limit>\d+)',
            _nearest,
        ),
    )
]


def _handler(answer: Callable[[str, str, bytes], tuple[int, Any]]) -> type[BaseHTTPRequestHandler]:
    wanted = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def setup(self) -> None:
            super().setup()
            self.server.__dict__.setdefault("connections", set()).add(self.connection)

        def finish(self) -> None:
            self.server.__dict__["connections"].discard(self.connection)
            super().finish()

        def log_message(self, *_: Any) -> None:
            pass

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            if self.headers.get("authorization") != wanted:
                status, told = (
                    401,
                    {"errors": [{"code": 13014, "msg": "User does not have credentials to run queries"}]},
                )
            else:
                status, told = answer(self.command, self.path, body)
            data = told.encode() if isinstance(told, str) else json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Content-Type", "text/plain" if isinstance(told, str) else "application/json")
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_DELETE = _answer  # noqa: N815

    return Handler
