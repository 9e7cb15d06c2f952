"""Calls every operation of the API with thousands of generated requests: ``python -m tests.support.fuzzing``.

Schemathesis reads the API's own description and makes requests that it allows and that it forbids. A
status of 500 or above, one that is not documented, or a body that is not as described is a failure. The
service has a key, jobs, uploads and a folder to index, so that no operation ends at its door.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

import backends
from app.core.keys import KeyStore
from app.http.app import Limits, create_app
from app.http.server import GracefulServer, configuration
from backends.base import CollectionSpec, Record
from retrieval.chat import ChatOptions
from retrieval.encoders.base import Encoder
from tests.support.chat_models import Scripted

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance,ignored_auth,unsupported_method"
)
_CASES = re.compile(r"([\d,]+) generated")


@dataclass(frozen=True)
class Outcome:
    """What a run came to: requests made, the exit code (0 when nothing failed), and all that was said."""

    cases: int
    code: int
    text: str


@contextlib.contextmanager
def _served(home: Path, encoder: Encoder) -> Iterator[tuple[int, str]]:
    """A service with a few items; its port, and a key that may do everything."""
    store = backends.connect("exact://")
    store.create(CollectionSpec("default", encoder.dim, encoder=encoder.fingerprint))
    folder = home / "photos"
    folder.mkdir()
    rows = []
    for number, colour in enumerate(("red", "green", "blue")):
        Image.new("RGB", (64, 48), colour).save(folder / f"{colour}.png")
        vector = encoder.encode_images([folder / f"{colour}.png"])[0]
        rows.append(
            Record(f"{number}", vector, "image", colour, (folder / f"{colour}.png").as_uri(), {"number": number})
        )
        rows.append(Record(f"txt/{colour}", encoder.encode_texts([colour])[0], "text", colour))
    store.upsert("default", rows)
    keys = KeyStore(home / "keys.json")
    _, key = keys.add("fuzzing", "admin")
    model = Scripted(replies=["It is red [1]. It was made in 1931 [7]."])
    app = create_app(
        store,
        encoder,
        "default",
        home=home,
        roots=[folder],
        keys=keys,
        require_keys=True,
        limits=Limits(rate=None),
        load_model=lambda: (model, ChatOptions(gate=None)),
    )
    server = GracefulServer(configuration(app))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        try:
            yield int(listener.getsockname()[1]), key
        finally:
            server.should_exit = True
            thread.join()
            store.close()


def fuzz(encoder: Encoder, examples: int, *, phases: str = "examples,coverage,fuzzing", seed: int = 1) -> Outcome:
    """Run Schemathesis with up to `examples` generated requests for each operation."""
    with tempfile.TemporaryDirectory() as name, _served(Path(name), encoder) as (port, key):
        url = f"http://127.0.0.1:{port}/openapi.json"
        command: list[Any] = [
            sys.executable,
            "-m",
            "schemathesis.cli",
            "run",
            url,
            "--checks",
            CHECKS,
            "--phases",
            phases,
            "-n",
            examples,
            "--seed",
            seed,
            # The first one that asks for engines imports every client, which takes long on a busy machine.
            "--request-timeout",
            "60",
            "--header",
            f"Authorization: Bearer {key}",
            "--generation-database",
            "none",
            "--suppress-health-check",
            "all",
            "--warnings",
            "off",
            "--continue-on-failure",
            "--no-color",
            # A made-up key beside the right one is refused, and most requests would end at the door.
            "--generation-with-security-parameters",
            "false",
        ]
        done = subprocess.run([str(part) for part in command], cwd=name, capture_output=True, text=True, check=False)
    text = (done.stdout + done.stderr).replace(key, "KEY")
    found = _CASES.search(text)
    return Outcome(int(found[1].replace(",", "")) if found else 0, done.returncode, text)


def main() -> int:
    """Run with the small built-in encoder and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=150, help="generated requests for each operation")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    from retrieval.encoders import load_encoder

    start_s = time.perf_counter()
    outcome = fuzz(load_encoder("compact"), arguments.examples, seed=arguments.seed)
    sys.stdout.write(outcome.text)
    row = {"cases": outcome.cases, "failed": outcome.code != 0, "seconds": round(time.perf_counter() - start_s, 1)}
    sys.stdout.write(json.dumps(row) + "\n")
    return outcome.code


if __name__ == "__main__":
    sys.exit(main())
