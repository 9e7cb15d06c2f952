"""ClickHouse's HTTP interface over chDB, in a process of its own: the real engine behind a small server of ours.

    python -m tests.support.clickhouse_bridge FOLDER [--port N] [--password P] [--myscale]

It prints the port that it listens on. What is tested through it is the adapter, the client and the engine; not
ClickHouse's own HTTP server. With ``--myscale`` it stands in for MyScale: `distance('...')(v, q)` is computed by chDB's
function for the metric, what MyScale alone understands is recorded in ``FOLDER/statements.jsonl`` and answered as done.
"""

from __future__ import annotations

import argparse
import base64
import json
import re
import subprocess
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

USER = "default"
# What the HTTP interface takes for itself; the rest are settings of the statement.
OF_HTTP = {
    "query",
    "database",
    "session_id",
    "session_timeout",
    "session_check",
    "query_id",
    "quota_key",
    "compress",
    "decompress",
    "wait_end_of_query",
    "buffer_size",
    "client_protocol_version",
    "role",
    "enable_http_compression",
    "send_progress_in_http_headers",
    "http_headers_progress_interval_ms",
    "default_format",
}
INSERT = re.compile(rb"\s*INSERT INTO (.{1,2000}?) FORMAT (\w+)\n", re.DOTALL)
CODE = re.compile(r"Code: (\d+)")
#: ClickHouse's http_max_uri_size, with the rest of the line.
MAX_ADDRESS = 2**20 + 64
DISTANCE = re.compile(r"\bdistance\('([^']*)'\)\((cosine|l2|dot)_")
ADD_INDEX = re.compile(r"ALTER TABLE `([^`]*)`\.`([^`]*)` ADD VECTOR INDEX (\w+) ")
FUNCTIONS = {"cosine": "cosineDistance", "l2": "L2Distance", "dot": "dotProduct"}


class Engine:
    """chDB on a folder, with handles for threads; settings stay with a handle, so each combination has its own."""

    def __init__(self, folder: Path) -> None:
        import chdb

        self._path = folder / "chdb"
        self._connect = chdb.connect
        self._idle: dict[frozenset[tuple[str, str]], list[Any]] = defaultdict(list)
        self._mutex = threading.Lock()
        # One stays open, else the engine would end with the last.
        self._first = self._connect(str(self._path))

    @contextmanager
    def _handle(self, settings: Mapping[str, str]) -> Iterator[Any]:
        key = frozenset(settings.items())
        with self._mutex:
            handle = self._idle[key].pop() if self._idle[key] else None
        if handle is None:
            handle = self._connect(str(self._path))
            for name, value in settings.items():
                handle.query(f"SET {name} = '{value}'")
        yield handle
        with self._mutex:
            self._idle[key].append(handle)

    def query(self, sql: str, params: Mapping[str, str], settings: Mapping[str, str]) -> bytes:
        """What a statement gives, in the format that it names."""
        with self._handle(settings) as handle:
            return bytes(handle.query(sql, "TabSeparated", params=dict(params)).bytes() or b"")

    def insert(self, target: str, form: str, data: bytes, settings: Mapping[str, str]) -> None:
        """Store a body, by way of a file, as the engine reads no body."""
        with tempfile.NamedTemporaryFile(suffix=".native") as file, self._handle(settings) as handle:
            file.write(data)
            file.flush()
            handle.query(f"INSERT INTO {target} FROM INFILE '{file.name}' FORMAT {form}")


class MyScale:
    """What is MyScale's own, taken out of statements."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "statements.jsonl"
        self._indexes: dict[tuple[str, str], str] = {}
        self._mutex = threading.Lock()

    def translated(self, sql: str) -> str | None:
        """The statement for chDB; None for one that there is nothing to do for."""
        if found := ADD_INDEX.search(sql):
            with self._mutex:
                self._indexes[found[1], found[2]] = found[3]
        if found or sql.startswith("SYSTEM WAIT BUILDING VECTOR INDICES"):
            self._record(sql)
            return None
        if sql.startswith("DROP TABLE"):
            names = re.findall(r"`([^`]*)`", sql)
            with self._mutex:
                self._indexes.pop((names[0], names[1]), None)
        if DISTANCE.search(sql):
            self._record(sql)
            sql = DISTANCE.sub(lambda m: f"{FUNCTIONS[m[2]]}({m[2]}_", sql)
        with self._mutex:
            rows = [f"('{d}', '{t}', '{name}', 'Built')" for (d, t), name in self._indexes.items()] or ["('','','','')"]
        table = f"values('database String, table String, name String, status String', {', '.join(rows)})"
        return sql.replace("system.vector_indices", table)

    def _record(self, sql: str) -> None:
        with self._mutex, self._log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(sql) + "\n")


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    # Headers and body go out together: apart, each answer would wait 40 ms for the client's acknowledgement.
    disable_nagle_algorithm = True
    wbufsize = -1
    engine: Engine
    myscale: MyScale | None
    password: str

    def handle_one_request(self) -> None:
        """One request; its address may be as long as ClickHouse takes it, where Python's own class takes 64 KiB."""
        self.raw_requestline = self.rfile.readline(MAX_ADDRESS + 1)
        if not self.raw_requestline:
            self.close_connection = True
        elif len(self.raw_requestline) > MAX_ADDRESS:
            self.requestline, self.request_version, self.command = "", "", ""
            self.send_error(414)
        elif self.parse_request():
            getattr(self, f"do_{self.command}")()
            self.wfile.flush()

    def do_GET(self) -> None:
        self._answer(200, b"Ok.\n")

    def do_POST(self) -> None:
        asked = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
        body = self._body()
        if not self._allowed():
            denied = b"Code: 516. DB::Exception: default: Authentication failed. (AUTHENTICATION_FAILED)"
            self._answer(401, denied, {"X-ClickHouse-Exception-Code": "516"})
            return
        if "multipart/form-data" in self.headers.get("Content-Type", ""):
            asked |= self._form(body)
            body = b""
        try:
            self._answer(200, self._run(asked, body), {"X-ClickHouse-Format": self._format(asked, body)})
        except Exception as error:
            said = str(error)[str(error).find("Code: ") :] if "Code: " in str(error) else str(error)
            code = CODE.search(said)
            self._answer(500, said.encode(), {"X-ClickHouse-Exception-Code": code[1] if code else "1002"})

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _allowed(self) -> bool:
        given = self.headers.get("Authorization", "")
        wanted = base64.b64encode(f"{USER}:{self.password}".encode()).decode()
        return not self.password or given == f"Basic {wanted}"

    def _form(self, body: bytes) -> dict[str, str]:
        boundary = self.headers["Content-Type"].partition("boundary=")[2].strip('"').encode()
        found = {}
        for part in body.split(b"--" + boundary)[1:-1]:
            head, _, value = part[2:-2].partition(b"\r\n\r\n")
            name = re.search(rb'name="([^"]*)"', head)
            found[name[1].decode() if name else ""] = value.decode()
        return found

    @staticmethod
    def _format(asked: Mapping[str, str], body: bytes) -> str:
        found = re.search(r"FORMAT (\w+)\s*$", asked.get("query", "") or body[-100:].decode("utf-8", "replace"))
        return found[1] if found else "TabSeparated"

    def _run(self, asked: Mapping[str, str], body: bytes) -> bytes:
        params = {name[6:]: value for name, value in asked.items() if name.startswith("param_")}
        settings = {k: v for k, v in asked.items() if k not in OF_HTTP and not k.startswith("param_")}
        if insert := INSERT.match(body):
            self.engine.insert(insert[1].decode(), insert[2].decode(), body[insert.end() :], settings)
            return b""
        sql = asked.get("query") or body.decode()
        translated = self.myscale.translated(sql) if self.myscale else sql
        return b"" if translated is None else self.engine.query(translated, params, settings)

    def _answer(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), "X-ClickHouse-Summary": "{}", **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        with suppress(OSError):
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


class HttpServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64


class Bridge:
    """The process, for tests: started at once, on a free port that it keeps when it is started again."""

    def __init__(self, folder: Path, *, password: str = "", myscale: bool = False) -> None:
        self.folder, self.password = folder, password
        self.scheme = "myscale" if myscale else "clickhouse"
        self.port = 0
        self._process: subprocess.Popen[str] | None = None
        self.start()

    def start(self) -> None:
        """Start it and wait until it listens."""
        command = [sys.executable, "-m", "tests.support.clickhouse_bridge", str(self.folder), f"--port={self.port}"]
        command += [f"--password={self.password}"] if self.password else []
        command += ["--myscale"] if self.scheme == "myscale" else []
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def url(self, database: str = "sightline", *, password: str | None = None) -> str:
        """The URL of a database there."""
        password = self.password if password is None else password
        user = f"{USER}:{quote(password)}@" if password else ""
        return f"{self.scheme}://{user}127.0.0.1:{self.port}/{database}"

    def statements(self) -> list[str]:
        """What MyScale alone understands of what it was told."""
        log = self.folder / "statements.jsonl"
        return [json.loads(line) for line in log.read_text("utf-8").splitlines()] if log.exists() else []

    def kill(self) -> None:
        """End it as ``kill -9`` does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()
            self._process = None


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--password", default="")
    parser.add_argument("--myscale", action="store_true")
    given = parser.parse_args()
    Handler.engine = Engine(given.folder)
    Handler.myscale = MyScale(given.folder) if given.myscale else None
    Handler.password = given.password
    with HttpServer(("127.0.0.1", given.port), Handler) as server:
        sys.stdout.write(f"{server.server_port}\n")
        sys.stdout.flush()
        server.serve_forever()


if __name__ == "__main__":
    main()
