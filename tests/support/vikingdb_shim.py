"""A stand-in for VikingDB of Volcengine: the cloud's paths, bodies and errors over ByteDance's open local engine.

It is run by a Python of its own that has the engine (``openviking``, AGPL), which nothing of ours imports:

    PYTHON vikingdb_shim.py PORT FOLDER API_KEY ACCESS_KEY SECRET_KEY DELAY_S

What the cloud does and the engine does not: keys and signatures are checked, the latter by the vendor's own code;
filters are read strictly, as the engine takes what it cannot read for true; rows come to the index up to DELAY_S after
they are acknowledged, in no order; an index is not ready at once, and not removed at once.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import threading
import time
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

PORT, FOLDER, API_KEY, ACCESS_KEY, SECRET_KEY, DELAY_S = sys.argv[1:]
os.chdir(FOLDER)  # the engine makes a folder where it is imported

from openviking.storage.vectordb.collection.local_collection import get_or_create_local_collection  # noqa: E402
from volcengine.auth.SignerV4 import SignerV4  # noqa: E402
from volcengine.base.Request import Request  # noqa: E402
from volcengine.Credentials import Credentials  # noqa: E402

REGION, SKEW_S, LANES = "cn-beijing", 900, 4
ROWS, IDS, LIMIT, ROW_BYTES, STRING_BYTES, FIELDS, COLLECTIONS = 100, 100, 5000, 65_535, 256, 200, 200
BOUNDS = {"gt", "gte", "lt", "lte"}
TYPES: dict[str, tuple[type, ...]] = {"string": (str,), "int64": (int,), "bool": (bool,), "text": (str,)}


class Refusal(Exception):
    """An answer that is an error."""

    def __init__(self, code: str, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.code, self.status = code, status


def invalid(text: str) -> Refusal:
    return Refusal("InvalidParameter", text)


def missing(kind: str, name: str) -> Refusal:
    return Refusal(
        f"NotFound.Vikingdb{kind}", f"The specified {kind.lower()} '{name}' of VikingDB does not exist.", 404
    )


class Collection:
    """A collection: the engine has what the index shows, a log what was acknowledged and is not there yet."""

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        self.folder, self.about = folder, about
        self.fields = {field["FieldName"]: field for field in about["Fields"]}
        (self.key,) = (name for name, field in self.fields.items() if field.get("IsPrimaryKey"))
        (self.vector,) = (name for name, field in self.fields.items() if field["FieldType"] == "vector")
        self.dim = self.fields[self.vector]["Dim"]
        self.lock = threading.RLock()
        self.ready: dict[str, float] = {}
        self.pending: list[list[tuple[float, str, dict[str, Any] | None]]] = [[] for _ in range(LANES)]
        self.newest: dict[str, dict[str, Any] | None] = {}
        self.engine = get_or_create_local_collection(
            {"CollectionName": about["CollectionName"], "Fields": about["Fields"]}, path=str(folder / "engine")
        )
        self._log = folder / "log"
        if self._log.exists():
            for line in self._log.read_text(encoding="utf-8").splitlines():
                self._queue(json.loads(line))
        self._file = self._log.open("a", encoding="utf-8")

    def write(self, changes: dict[str, dict[str, Any] | None]) -> None:
        """Acknowledge rows, None for those that go; they are in the log when it returns."""
        with self.lock:
            self._file.write(json.dumps(changes) + "\n")
            self._file.flush()
            self._queue(changes)

    def _queue(self, changes: dict[str, dict[str, Any] | None]) -> None:
        for key, row in changes.items():
            lane = self.pending[hash(key) % LANES]
            due = time.monotonic() + random.uniform(0, float(DELAY_S))
            lane.append((max(due, lane[-1][0] if lane else 0.0), key, row))
            self.newest[key] = row

    def settle(self) -> None:
        """Take into the index what is due."""
        with self.lock:
            now = time.monotonic()
            if not self.newest:
                return
            due = []
            for lane in self.pending:
                count = sum(moment <= now for moment, _, _ in lane)
                due += lane[:count]
                del lane[:count]
            latest = {key: row for _, key, row in due}
            if rows := [row for row in latest.values() if row is not None]:
                self.engine.upsert_data(rows)
            if gone := [key for key, row in latest.items() if row is None]:
                self.engine.delete_data(gone)
            waiting = {key for lane in self.pending for _, key, _ in lane}
            self.newest = {key: row for key, row in self.newest.items() if key in waiting}
            if not waiting:
                self._file.truncate(0)

    def fetch(self, ids: list[str], *, indexed: bool) -> tuple[list[dict[str, Any]], list[str]]:
        with self.lock:
            found = {item.id: item.fields for item in self.engine.fetch_data(ids).items}
            if not indexed:
                found |= {key: self.newest[key] for key in ids if key in self.newest}
        there = {key: found[key] for key in ids if found.get(key) is not None}
        return [{"id": key, "fields": row} for key, row in there.items()], [key for key in ids if key not in there]

    def index(self, name: str) -> Any:
        """The engine's index. Raises `Refusal` for one that is missing or not ready."""
        if not self.engine.has_index(name) or name in self.about.get("Removed", {}):
            raise missing("Index", name)
        if self.ready.get(name, 0.0) > time.monotonic():
            raise Refusal("OperationDenied.VikingdbIndex", f"The index '{name}' is initializing.")
        return self.about["Indexes"][name]

    def check_row(self, row: Any) -> dict[str, Any]:
        """The row with defaults. Raises `Refusal` for what the cloud would not take."""
        if not isinstance(row, dict) or not row.get(self.key):
            raise invalid("a row needs its primary key")
        for name, value in row.items():
            if name not in self.fields:
                raise invalid(f"field '{name}' does not exist")
            self._check_value(name, self.fields[name]["FieldType"], value)
        if self.vector not in row:
            raise invalid(f"field '{self.vector}' has no default value")
        scalars = {name: value for name, value in row.items() if name != self.vector}
        if len(json.dumps(scalars, ensure_ascii=False, separators=(",", ":")).encode()) >= ROW_BYTES:
            raise invalid(f"a row has at most {ROW_BYTES} bytes")
        defaults = {"int64": 0, "string": "", "text": "", "bool": False, "list<string>": []}
        return {n: defaults[f["FieldType"]] for n, f in self.fields.items() if n != self.vector} | row

    def _check_value(self, name: str, kind: str, value: Any) -> None:
        if kind == "vector":
            good = isinstance(value, list) and len(value) == self.dim and all(type(x) in (int, float) for x in value)
        elif kind == "list<string>":
            good = isinstance(value, list) and all(isinstance(x, str) and ";" not in x for x in value)
        else:
            good = type(value) in TYPES[kind]
        if good and kind == "string":
            good = len(value.encode()) <= STRING_BYTES
        if good and kind == "int64":
            good = -(2**63) <= value < 2**63
        if not good:
            raise invalid(f"field '{name}' of type {kind} does not take this value")

    def check_filter(self, node: Any, scalars: list[str]) -> None:
        """Raise `Refusal` unless this is a filter by the documentation, on fields with a scalar index."""
        if not isinstance(node, dict) or "op" not in node:
            raise invalid("a filter is a map with an op")
        op = node["op"]
        if op in ("and", "or"):
            if set(node) != {"op", "conds"} or not isinstance(node["conds"], list) or not node["conds"]:
                raise invalid(f"'{op}' takes a list of conds")
            for inner in node["conds"]:
                self.check_filter(inner, scalars)
            return
        if node.get("field") not in scalars:
            raise invalid(f"field '{node.get('field')}' has no scalar index")
        kind = self.fields[node["field"]]["FieldType"]
        if op in ("must", "must_not"):
            wanted = {"list<string>": (str,), "string": (str,), "int64": (int,), "bool": (bool,)}.get(kind)
            conds = node.get("conds")
            good = set(node) == {"op", "field", "conds"} and isinstance(conds, list) and conds and wanted
            if not good or not all(type(value) in wanted for value in conds):
                raise invalid(f"'{op}' on '{node['field']}' takes a list of conds of its type")
        elif op in ("range", "range_out"):
            bounds = set(node) - {"op", "field"}
            if kind not in ("int64", "float32") or not bounds or not bounds <= BOUNDS:
                raise invalid(f"'{op}' on '{node['field']}' takes gt, gte, lt or lte of a number")
            # The engine compares as doubles.
            if not all(type(node[bound]) is int and abs(node[bound]) <= 2**53 for bound in bounds):
                raise invalid(f"'{op}' on '{node['field']}' takes a number")
        else:
            raise invalid(f"op '{op}' does not exist")


class Store:
    """All collections of an account, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = threading.RLock()
        self.collections: dict[str, Collection] = {}
        for about in sorted(folder.glob("c*/about.json")):
            found = json.loads(about.read_text(encoding="utf-8"))
            self.collections[found["CollectionName"]] = Collection(about.parent, found)
        threading.Thread(target=self._settle, daemon=True).start()

    def _settle(self) -> None:
        while True:
            for collection in [*self.collections.values()]:
                try:
                    collection.settle()
                except Exception as error:  # one that is dropped at this moment
                    sys.stderr.write(f"settling: {error!r}\n")
            time.sleep(0.003)

    def of(self, body: dict[str, Any], key: str) -> Collection:
        name = str(body.get(key, ""))
        project = body.get("project_name", body.get("ProjectName", "default"))
        found = self.collections.get(name)
        if found is None or found.about["ProjectName"] != project:
            raise missing("Collection", name)
        return found

    # The control plane

    def create_collection(self, body: dict[str, Any]) -> Any:
        name, fields = body["CollectionName"], body["Fields"]
        with self.lock:
            if name in self.collections:
                raise Refusal("AlreadyExists.VikingdbCollection", f"The collection '{name}' already exists.", 409)
            if len(self.collections) >= COLLECTIONS or len(fields) > FIELDS:
                raise Refusal("QuotaExceeded", "too many collections or fields")
            about = {"ProjectName": body.get("ProjectName", "default"), "CollectionName": name, "Fields": fields}
            folder = self.folder / f"c{time.time_ns()}"
            folder.mkdir()
            try:
                self.collections[name] = Collection(folder, about | {"Indexes": {}})
            except (ValueError, KeyError) as error:
                raise invalid(str(error)) from None
            self._save(self.collections[name])
            return {"Message": "success"}

    def _save(self, collection: Collection) -> None:
        path = collection.folder / "about.json"
        path.with_suffix(".new").write_text(json.dumps(collection.about), encoding="utf-8")
        path.with_suffix(".new").replace(path)

    def get_collection(self, body: dict[str, Any]) -> Any:
        found = self.of(body, "CollectionName").about
        return {**{k: found[k] for k in ("ProjectName", "CollectionName", "Fields")}, "IndexNames": [*found["Indexes"]]}

    def list_collections(self, body: dict[str, Any]) -> Any:
        size, page, project = body.get("PageSize", 10), body.get("PageNumber", 1), body.get("ProjectName", "default")
        with self.lock:
            names = sorted(n for n, c in self.collections.items() if c.about["ProjectName"] == project)
        chosen = names[(page - 1) * size : page * size]
        return {"TotalCount": len(names), "Collections": [{"CollectionName": name} for name in chosen]}

    def drop_collection(self, body: dict[str, Any]) -> Any:
        with self.lock:
            found = self.of(body, "CollectionName")
            if found.about["Indexes"]:
                raise Refusal("OperationDenied.VikingdbCollection", "The collection still has indexes.")
            with found.lock:
                del self.collections[found.about["CollectionName"]]
                found.engine.close()
                shutil.rmtree(found.folder)
        return {"Message": "success"}

    def create_index(self, body: dict[str, Any]) -> Any:
        found, name = self.of(body, "CollectionName"), body["IndexName"]
        with found.lock:
            if name in found.about["Indexes"]:
                raise Refusal("AlreadyExists.VikingdbIndex", f"The index '{name}' already exists.", 409)
            if not set(body.get("ScalarIndex", [])) <= {*found.fields}:
                raise invalid("ScalarIndex names a field that does not exist")
            wanted = {key: body[key] for key in ("IndexName", "VectorIndex", "ScalarIndex")}
            try:
                found.engine.create_index(name, wanted)
            except ValueError as error:
                raise invalid(str(error)) from None
            found.ready[name] = time.monotonic() + random.uniform(0, 2 * float(DELAY_S))
            found.about["Indexes"][name] = wanted
            self._save(found)
        return {"Message": "success"}

    def drop_index(self, body: dict[str, Any]) -> Any:
        found, name = self.of(body, "CollectionName"), body["IndexName"]
        with found.lock:
            if name not in found.about["Indexes"] or name in found.about.setdefault("Removed", {}):
                raise missing("Index", name)
            found.about["Removed"][name] = True

        def remove() -> None:
            with found.lock:
                found.engine.drop_index(name)
                del found.about["Indexes"][name], found.about["Removed"][name]
                if found.folder.exists():
                    self._save(found)

        threading.Timer(random.uniform(0, float(DELAY_S)), remove).start()
        return {"Message": "success"}

    # The data plane

    def upsert(self, body: dict[str, Any]) -> Any:
        found, rows = self.of(body, "collection_name"), body.get("data")
        if not isinstance(rows, list) or not 1 <= len(rows) <= ROWS:
            raise invalid(f"data has 1 to {ROWS} rows")
        checked = [found.check_row(row) for row in rows]
        found.write({row[found.key]: row for row in checked})
        return {}

    def delete(self, body: dict[str, Any]) -> Any:
        found = self.of(body, "collection_name")
        found.write(dict.fromkeys(self._ids(body)))
        return {}

    def _ids(self, body: dict[str, Any]) -> list[str]:
        ids = body.get("ids")
        if not isinstance(ids, list) or not 1 <= len(ids) <= IDS or not all(isinstance(i, str) and i for i in ids):
            raise invalid(f"ids has 1 to {IDS} primary keys")
        return ids

    def fetch_in_collection(self, body: dict[str, Any]) -> Any:
        fetch, gone = self.of(body, "collection_name").fetch(self._ids(body), indexed=False)
        return {"fetch": fetch, "ids_not_exist": gone}

    def _target(self, body: dict[str, Any]) -> tuple[Collection, list[str]]:
        found = self.of(body, "collection_name")
        index = found.index(str(body.get("index_name", "")))
        if body.get("filter") is not None:
            found.check_filter(body["filter"], index["ScalarIndex"])
        unknown = set(body.get("output_fields") or []) - {*found.fields}
        if unknown:
            raise invalid(f"output_fields names {unknown}")
        if not 1 <= body.get("limit", 10) <= LIMIT:
            raise invalid(f"limit is 1 to {LIMIT}")
        return found, index["ScalarIndex"]

    def fetch_in_index(self, body: dict[str, Any]) -> Any:
        found, _ = self._target(body)
        fetch, gone = found.fetch(self._ids(body), indexed=True)
        wanted = body.get("output_fields")
        for item in fetch:
            item["dense_vector"] = item["fields"].pop(found.vector)
            if wanted is not None:
                item["fields"] = {name: item["fields"][name] for name in wanted}
        return {"fetch": fetch, "ids_not_exist": gone}

    def _found(self, collection: Collection, data: list[Any], body: dict[str, Any]) -> Any:
        wanted = body.get("output_fields")
        rows = [
            {
                "id": item.id,
                "score": item.score,
                "ann_score": item.score,
                "fields": {n: v for n, v in (item.fields or {}).items() if wanted is None or n in wanted},
            }
            for item in data
        ]
        return {"data": rows, "total_return_count": len(rows)}

    def search_vector(self, body: dict[str, Any]) -> Any:
        found, _ = self._target(body)
        vector = body.get("dense_vector")
        if not isinstance(vector, list) or len(vector) != found.dim:
            raise invalid(f"dense_vector has {found.dim} dimensions")
        with found.lock:
            answer = found.engine.search_by_vector(
                body["index_name"],
                vector,
                limit=body.get("limit", 10),
                offset=body.get("offset", 0),
                filters=body.get("filter"),
                output_fields=[*(body.get("output_fields") or [found.key])],
            )
        return self._found(found, answer.data, body)

    def search_scalar(self, body: dict[str, Any]) -> Any:
        found, scalars = self._target(body)
        field = body.get("field")
        if field not in scalars or found.fields[field]["FieldType"] not in ("int64", "float32"):
            raise invalid(f"field '{field}' cannot be sorted by")
        with found.lock:
            answer = found.engine.search_by_scalar(
                body["index_name"],
                field,
                body.get("order", "desc"),
                limit=body.get("limit", 10),
                filters=body.get("filter"),
                output_fields=[*(body.get("output_fields") or [found.key])],
            )
        return self._found(found, answer.data, body)

    def agg(self, body: dict[str, Any]) -> Any:
        found, _ = self._target(body)
        if body.get("op") != "count" or "field" in body:
            raise invalid("op is count")
        with found.lock:
            counted = found.engine.aggregate_data(body["index_name"], "count", None, body.get("filter")).agg
        return {"op": "count", "field": "__NONE__", "agg": {"__TOTAL__": counted.get("_total", 0)}}


ACTIONS = {
    "CreateVikingdbCollection": Store.create_collection,
    "GetVikingdbCollection": Store.get_collection,
    "ListVikingdbCollection": Store.list_collections,
    "DeleteVikingdbCollection": Store.drop_collection,
    "CreateVikingdbIndex": Store.create_index,
    "DeleteVikingdbIndex": Store.drop_index,
}
CALLS = {
    "upsert": Store.upsert,
    "delete": Store.delete,
    "fetch_in_collection": Store.fetch_in_collection,
    "fetch_in_index": Store.fetch_in_index,
    "search/vector": Store.search_vector,
    "search/scalar": Store.search_scalar,
    "agg": Store.agg,
}
_signing = threading.Lock()


def check_signature(handler: BaseHTTPRequestHandler, path: str, query: dict[str, str], body: bytes) -> None:
    """Raise `Refusal` unless the vendor's own code signs this request so."""
    stamp = handler.headers.get("X-Date", "")
    request = Request()
    request.method, request.path, request.query, request.body = handler.command, path, query, body.decode()
    request.headers = {name: handler.headers.get(name, "") for name in ("Content-Type", "Host")}
    with _signing:
        SignerV4.get_current_format_date = staticmethod(lambda: stamp)
        SignerV4.sign(request, Credentials(ACCESS_KEY, SECRET_KEY, "vikingdb", REGION))
    if request.headers["Authorization"] != handler.headers.get("Authorization"):
        raise Refusal("SignatureDoesNotMatch", "The request signature we calculated does not match.", 403)
    signed = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    if abs((datetime.now(UTC) - signed).total_seconds()) > SKEW_S:
        raise Refusal("InvalidTimestamp", "The request has expired.", 403)


class Handler(BaseHTTPRequestHandler):
    """Both planes at one address."""

    store: Store
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        is_data = parts.path.startswith("/api/vikingdb/data/")
        try:
            result = self._carried_out(parts.path, query, body, is_data)
            status, code, text = 200, "Success", "The API call was executed successfully."
        except Refusal as error:
            result, status, code, text = None, error.status, error.code, str(error)
        except Exception as error:
            sys.stderr.write(f"{self.path}: {error!r}\n")
            result, status, code, text = None, 500, "InternalError", repr(error)
        identity = f"req_{time.time_ns()}"
        if is_data:
            answer = {"code": code, "message": text, "request_id": identity, "result": result}
        else:
            about = {"Action": query.get("Action"), "RequestId": identity, "Service": "vikingdb", "Region": REGION}
            failed = {} if status == 200 else {"Error": {"Code": code, "Message": text}}
            answer = {"ResponseMetadata": about | failed} | ({"Result": result} if status == 200 else {})
        self._send(status, json.dumps(answer).encode())

    def _carried_out(self, path: str, query: dict[str, str], body: bytes, is_data: bool) -> Any:
        given = self.headers.get("Authorization", "")
        if given.startswith("HMAC-SHA256 "):
            check_signature(self, path, query, body)
        elif not is_data or given != f"Bearer {API_KEY}":
            raise Refusal("Unauthorized", f"The key {given.partition(' ')[2]} is not valid.", 401)
        try:
            data = json.loads(body)
        except ValueError:
            raise invalid("the body is no JSON") from None
        if is_data:
            call = CALLS.get(path.removeprefix("/api/vikingdb/data/"))
        else:
            call = ACTIONS.get(query.get("Action", "")) if query.get("Version") == "2025-06-09" else None
        if call is None:
            raise Refusal("InvalidActionOrVersion", f"{self.path} does not exist", 404)
        return call(self.store, data)

    def _send(self, status: int, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class Server(ThreadingHTTPServer):
    """Many connections at once."""

    daemon_threads = True
    request_queue_size = 128


if __name__ == "__main__":
    Handler.store = Store(Path(FOLDER))
    Server(("127.0.0.1", int(PORT)), Handler).serve_forever()
