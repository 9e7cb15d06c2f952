"""An address where another server is, or none: one line that says so, and nothing else on the terminal."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from backends import connect
from backends.errors import Unavailable
from tests.support.repository import ROOT

QUIET = """
import logging
logging.basicConfig(level=logging.WARNING)
# Its retries are warnings of its own.
logging.getLogger("urllib3.connectionpool").disabled = True
from backends import connect
from backends.errors import Unavailable
try:
    connect("URL")
except Unavailable as error:
    print("does not answer" in str(error))
"""


class Stranger(BaseHTTPRequestHandler):
    """Answers everything, in JSON that means nothing."""

    def answer(self) -> None:
        body = b'{"hello": "world"}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = answer  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def stranger() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Stranger) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("url", "product"),
    [
        ("opensearch://127.0.0.1:{port}", "OpenSearch"),
        ("elasticsearch://127.0.0.1:{port}", "Elasticsearch"),
        ("couchbase://127.0.0.1:{port}/b?query_port={port}", "Couchbase Server"),
    ],
)
def test_what_is_another_server_is_said_to_be_one(url: str, product: str, stranger: int) -> None:
    with pytest.raises(Unavailable, match=rf"127\.0\.0\.1:{stranger}.* is no {product}: check host and port"):
        connect(url.format(port=stranger))


@pytest.mark.parametrize("url", ["clickhouse://127.0.0.1:1/d", "opensearch://127.0.0.1:1"])
def test_a_server_that_is_not_there_is_told_once(url: str) -> None:
    program = QUIET.replace("URL", url)
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("True\n", "")
