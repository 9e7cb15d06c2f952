"""What lets in so many and no more, when all ask at once, and gives the room back whatever becomes of those inside."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.core.jobs import IndexJobs, JobError
from app.http.app import Limits, create_app
from app.http.limits import Places, RateLimit, caller_of
from backends import connect
from backends.base import Backend, CollectionSpec
from tests.support.chatting import loader, through
from tests.support.fake_openai import Behaviour, FakeOpenAI
from tests.support.jobs import Work, ended
from tests.support.service import png
from tests.support.serving import running, serving
from tests.support.toy import ColourEncoder, Stuck

TOGETHER = 40


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


async def at_once(
    url: str, number: int, method: str = "GET", *, refused: Callable[[], None] | None = None, **request: Any
) -> Counter[int]:
    """The statuses of so many answers that are asked for together and held until all have begun.

    refused: called when all but three were refused, so that those may go on.
    """
    answered = asyncio.Event()
    statuses: list[int] = []

    async def one(client: httpx.AsyncClient) -> None:
        async with client.stream(method, url, **request) as response:
            statuses.append(response.status_code)
            if refused is not None and statuses.count(503) == number - 3:
                refused()
            if len(statuses) == number:
                answered.set()
            await answered.wait()

    limits = httpx.Limits(max_connections=number)
    async with httpx.AsyncClient(limits=limits, timeout=20) as client, asyncio.TaskGroup() as group:
        for _ in range(number):
            group.create_task(one(client))
    return Counter(statuses)


def test_watchers_of_a_job_that_come_at_once_are_bounded(store: Backend, home: Path) -> None:
    encoder = Stuck()
    options = {"home": home, "roots": [home.parent / "photos"]}
    app = create_app(store, encoder, "c", limits=Limits(rate=None, max_streams=5), **options)
    with serving(app) as client:
        job = client.post("/v1/index", json={"folder": str(home.parent / "photos")}).json()
        url = str(client.base_url.join(f"/v1/jobs/{job['id']}/events"))
        for _ in range(2):
            assert asyncio.run(at_once(url, TOGETHER)) == {200: 5, 503: TOGETHER - 5}
            # Those who left gave their places back.
            until(lambda: app.state.service.streams.taken == 0)
        encoder.go.set()


def test_answers_in_streams_that_are_asked_for_at_once_are_bounded(
    store: Backend, home: Path, server: FakeOpenAI
) -> None:
    server.behaviour = Behaviour(first_token_s=30)
    options = {"home": home, "load_model": loader(through(server))}
    app = create_app(store, ColourEncoder(), "c", limits=Limits(rate=None, max_streams=3), **options)
    with serving(app) as client:
        url, body = str(client.base_url.join("/v1/chat")), {"question": "what is red?"}
        assert asyncio.run(at_once(url, 12, "POST", json=body)) == {200: 3, 503: 9}
        until(lambda: app.state.service.streams.taken == 0)
        # A question that is refused keeps no place either.
        wrong = {"question": "what is red?", "where": {"$oops": 1}}
        assert [client.post("/v1/chat", json=wrong).status_code for _ in range(5)] == [422] * 5
        assert app.state.service.streams.taken == 0


def test_requests_in_flight_that_come_at_once_are_bounded(store: Backend, home: Path) -> None:
    encoder = Stuck()
    app = create_app(store, encoder, "c", home=home, limits=Limits(rate=None, max_in_flight=3, max_decoding=3))
    with serving(app) as client:
        url = str(client.base_url.join("/v1/lookup"))
        found = asyncio.run(at_once(url, 12, "POST", refused=encoder.go.set, files={"image": png("red")}))
        assert found == {200: 3, 503: 9}
        until(lambda: app.state.service.requests.taken == 0)


@pytest.mark.parametrize("path", ["/v1/items", "/v1/search", "/mcp"])
def test_a_large_body_keeps_its_place_as_long_as_it_is_read(store: Backend, home: Path, path: str) -> None:
    limits = Limits(rate=None, large_body_bytes=100, max_large_bodies=2)
    app = create_app(store, ColourEncoder(), "c", home=home, limits=limits)
    kind = "multipart/form-data; boundary=x" if path == "/v1/items" else "application/json"
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: 1000\r\n\r\n"
    with running(app) as port:
        slow = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(2)]
        for connection in slow:
            connection.sendall(head.encode())
        until(lambda: app.state.service.large_bodies.taken == 2)
        with socket.create_connection(("127.0.0.1", port), timeout=10) as third:
            third.sendall(head.encode())
            assert third.recv(4096).startswith(b"HTTP/1.1 503 ")
        for connection in slow:
            connection.close()
        until(lambda: app.state.service.large_bodies.taken == 0)


def test_places_that_many_threads_ask_for() -> None:
    places, begin = Places(10), threading.Barrier(32)
    got: list[Any] = []

    def ask() -> None:
        begin.wait()
        for _ in range(200):
            got.append(places.take())

    threads = [threading.Thread(target=ask) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    held = [place for place in got if place is not None]
    assert (len(held), places.taken) == (10, 10)
    held[0].leave()
    held[0].leave()
    assert places.taken == 9
    # What was lost sight of gives its place back.
    del held[0], got[:]
    held.clear()
    gc.collect()
    assert places.taken == 0


# Rates


def test_a_rate_holds_for_threads_that_come_at_once() -> None:
    limit, begin = RateLimit("50/hour"), threading.Barrier(16)
    waits: list[int] = []

    def ask() -> None:
        begin.wait()
        waits.extend([limit.wait_s("a") for _ in range(25)])

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(waits), waits.count(0)) == (400, 50)


def test_a_rate_slides_and_says_when_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 6000.0
    monkeypatch.setattr("app.http.limits.time.monotonic", lambda: now_s)
    limit = RateLimit("10/minute")
    assert [limit.wait_s("a") for _ in range(11)] == [0] * 10 + [60]
    now_s = 6075.0
    # A quarter of the next minute has gone, so that three quarters of the last one's requests still count.
    *let_in, wait_s = [limit.wait_s("a") for _ in range(4)]
    assert (let_in, wait_s in (3, 4)) == ([0, 0, 0], True)
    now_s += wait_s
    assert limit.wait_s("a") == 0
    assert limit.wait_s("a") > 1
    now_s = 6500.0
    assert [limit.wait_s("a") for _ in range(11)].count(0) == 10


def test_callers_without_end_take_no_memory_without_end() -> None:
    limit = RateLimit("2/hour", max_callers=100)
    assert [limit.wait_s("steady"), limit.wait_s("steady")] == [0, 0]
    for number in range(1000):
        limit.wait_s(f"address {number}")
        # Who keeps coming is not forgotten.
        assert limit.wait_s("steady") > 0
    assert len(limit._counts) == 100


@pytest.mark.parametrize(
    ("one", "other"),
    [("1.2.3.4", "::ffff:1.2.3.4"), ("2001:db8::1", "2001:db8::ffff:2"), ("fe80::1%eth0", "fe80::2%eth1")],
)
def test_addresses_of_one_caller_are_counted_together(one: str, other: str) -> None:
    assert caller_of(one) == caller_of(other)


# Looking first and acting then


def test_a_collection_that_is_being_removed_gets_no_job(tmp_path: Path) -> None:
    work = Work()
    jobs = IndexJobs(tmp_path / "jobs", work)
    with jobs.without("c") as free:
        assert free
        with pytest.raises(JobError, match="'c' is being removed"):
            jobs.add("/a", "c")
        with jobs.without("c") as again:
            assert again
        with pytest.raises(JobError, match="'c' is being removed"):
            jobs.add("/a", "c")
        other = jobs.add("/b", "d")
    job = jobs.add("/a", "c")
    with jobs.without("c") as free:
        assert not free
        jobs.add("/a", "c")
    work.go.release(3)
    assert [ended(jobs, each).state for each in (other, job)] == ["done", "done"]
    jobs.close()


def test_a_collection_is_removed_while_nobody_can_begin_to_fill_it(
    store: Backend, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = create_app(store, ColourEncoder(), "c", home=home, roots=[home.parent / "photos"], limits=Limits(rate=None))
    begun: list[httpx.Response] = []
    real = store.drop
    with serving(app) as client:
        body = {"folder": str(home.parent / "photos")}

        def dropping(name: str) -> None:
            begun.append(client.post("/v1/index", json=body))
            real(name)

        monkeypatch.setattr(app.state.service.backend, "drop", dropping)
        assert client.delete("/v1/collections/c").status_code == 204
        assert [response.status_code for response in begun] == [503]
        assert client.post("/v1/index", json=body).status_code == 202


def test_the_first_uploads_may_come_together(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = connect("exact://")
    app = create_app(store, ColourEncoder(), "c", home=home, limits=Limits(rate=None))
    real = store.create

    def after_another(spec: CollectionSpec) -> None:
        real(spec)
        real(spec)

    monkeypatch.setattr(app.state.service.backend, "create", after_another)
    with serving(app) as client:
        added = client.post("/v1/items", files={"files": ("a.png", png("red"))})
        assert (added.status_code, added.json()["added"]) == (200, 1)


def test_what_is_dropped_while_it_is_looked_at_is_not_kept(
    store: Backend, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = create_app(store, ColourEncoder(), "c", home=home).state.service
    real = store.describe

    def described(name: str) -> CollectionSpec:
        found = real(name)
        service.forget(name)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(store, "describe", described)
        stale = service.retriever("c")
    assert service.retriever("c") is not stale
    assert service.retriever("c") is service.retriever("c")
    service.close()
