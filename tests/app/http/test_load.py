"""The service under load: what may not wait for what, and the load test itself."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from app.http.app import Limits, create_app
from app.http.limits import FairSemaphore
from backends import connect
from backends.base import Backend, CollectionSpec, Record
from benchmarks import load
from benchmarks.load_clients import Client, Fault, World, ends_with_done_job, ends_with_final, has_hits, has_json
from benchmarks.load_record import Attempt, memory_of, outage_of, summarize
from benchmarks.load_record import Record as Seen
from retrieval import Retriever
from retrieval.chat import ChatOptions
from retrieval.chat.evidence import Tagger, find
from retrieval.encoders.compact import CompactEncoder
from retrieval.encoders.compact_text import SentenceEncoder
from retrieval.images.decode import available_cores
from tests.support.cli import paint
from tests.support.service import png
from tests.support.serving import running
from tests.support.toy import ColourEncoder

WAIT_S = 20.0


def filled(encoder: ColourEncoder) -> Backend:
    """A few colours as texts."""
    store = connect("exact://")
    store.create(CollectionSpec("c", encoder.dim, encoder=encoder.fingerprint))
    names = ("red", "green", "blue")
    store.upsert("c", [Record(name, encoder.encode_texts([name])[0], "text", name) for name in names])
    return store


# What may not wait for what


def test_a_text_does_not_wait_for_pictures() -> None:
    encoder, go = CompactEncoder("cpu"), threading.Event()
    encoder.encode_texts(["loads the weights"])
    # As many pictures as there could ever be turns for.
    busy = [encoder._pool.submit(go.wait, WAIT_S) for _ in range(64)]
    with ThreadPoolExecutor(1) as caller:
        try:
            assert caller.submit(encoder.encode_texts, ["a dog"]).result(WAIT_S / 2).shape == (1, 384)
            assert not any(each.done() for each in busy)
        finally:
            go.set()


@pytest.mark.slow
def test_a_long_call_hands_its_texts_over_a_few_at_a_time() -> None:
    class Pool:
        """Runs a task when its result is asked for, and knows how many were waiting at most."""

        waiting = most = 0

        def submit(self, function: Callable[..., Any], *arguments: Any) -> Any:
            self.waiting += 1
            self.most = max(self.most, self.waiting)
            task: Future[Any] = Future()

            def result() -> Any:
                self.waiting -= 1
                return function(*arguments)

            task.result = result  # type: ignore[method-assign, assignment]
            return task

    pool = Pool()
    with ThreadPoolExecutor(1) as plain:
        texts = [f"number {number} " + "and so on " * (number % 7) for number in range(80)]
        expected = SentenceEncoder(plain).encode(texts)
    assert SentenceEncoder(pool).encode(texts) == pytest.approx(expected, abs=1e-6)  # type: ignore[arg-type]
    assert 1 < pool.most <= 1 + available_cores()


def test_one_query_is_encoded_once_for_all_that_is_asked_of_it(tmp_path: Path) -> None:
    encoder = ColourEncoder()
    store = filled(encoder)
    retriever = Retriever(store, encoder, "c", calibrate=False)
    encoder.texts = 0
    find(retriever, "red", ChatOptions(gate=None))
    assert encoder.texts == 1
    with (
        running(create_app(store, encoder, "c", home=tmp_path)) as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        # The texts that relevance is judged by are encoded first.
        client.post("/v1/search", json={"text": "blue"})
        encoder.texts = encoder.images = 0
        body = client.post("/v1/search", json={"text": "red", "facets": ["modality"]}).json()
        assert (encoder.texts, body["hits"][0]["id"]) == (1, "red")
        assert body["facets"]["modality"]["values"][0]["count"] == 3
        picture = base64.b64encode(png("green")).decode()
        body = client.post("/v1/search", json={"image": picture, "facets": ["modality"]}).json()
        assert (encoder.images, body["hits"][0]["id"]) == (1, "green")


def test_searches_go_on_while_one_of_them_checks_the_sample() -> None:
    encoder = ColourEncoder()
    store = filled(encoder)
    retriever = Retriever(store, encoder, "c")
    assert retriever.calibrator is not None
    first = retriever.calibrator.sample()
    began, go = threading.Event(), threading.Event()
    current = retriever.calibrator._cache.current

    def slow() -> Any:
        began.set()
        assert go.wait(WAIT_S)
        return current()

    retriever.calibrator._cache.current = slow  # type: ignore[method-assign]
    retriever.calibrator.check_every_s = 0.0
    with ThreadPoolExecutor(1) as other:
        checking = other.submit(retriever.search, "red", 1)
        assert began.wait(WAIT_S)
        assert retriever.calibrator.sample() is first
        assert retriever.search("green", 1)[0].id == "green"
        assert not checking.done()
        store.upsert("c", [Record("white", encoder.encode_texts(["white"])[0], "text", "white")])
        go.set()
        checking.result(WAIT_S)
    assert retriever.calibrator.sample().samples["text"].population == 4


class StuckOnImages(ColourEncoder):
    """Encodes images when it is let to."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def encode_images(self, images: Any) -> Any:
        assert self.go.wait(WAIT_S)
        return super().encode_images(images)


def test_searches_by_words_do_not_wait_for_requests_that_wait_for_room_to_decode(tmp_path: Path) -> None:
    encoder = StuckOnImages()
    store = filled(encoder)
    limits = Limits(rate=None, max_decoding=1)
    app = create_app(store, encoder, "c", home=tmp_path, limits=limits)

    async def crowd(port: int) -> list[int]:
        picture = base64.b64encode(png("red")).decode()
        timeout = httpx.Timeout(WAIT_S, pool=None)
        many = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=timeout, limits=many) as client:
            # More than the 40 threads that there are where nobody says otherwise.
            waiting = [asyncio.create_task(client.post("/v1/search", json={"image": picture})) for _ in range(60)]
            while app.state.service.requests.taken < 60:
                await asyncio.sleep(0.01)
            words = await asyncio.wait_for(client.post("/v1/search", json={"text": "green"}), WAIT_S / 4)
            # Nor does what a chat shows a model, which is decoded only.
            with app.state.service.decoding(briefly=True):
                encoder.go.set()
            return [words.status_code, *[(await each).status_code for each in waiting]]

    with running(app) as port:
        try:
            assert asyncio.run(crowd(port)) == [200] * 61
        finally:
            encoder.go.set()


def test_who_waits_for_room_is_let_in_before_who_comes_later() -> None:
    room, order = FairSemaphore(1), []
    assert room.enter(0)

    def wait(number: int) -> None:
        assert room.enter(WAIT_S)
        order.append(number)
        room.leave()

    waiting = []
    for number in range(5):
        waiting.append(threading.Thread(target=wait, args=(number,)))
        waiting[-1].start()
        while room.waiting <= number:
            time.sleep(0.001)
    assert not room.enter(0.01)
    assert room.waiting == 5
    room.leave()
    for thread in waiting:
        thread.join(WAIT_S)
    assert order == [0, 1, 2, 3, 4]
    assert room.enter(0)
    assert not room.enter(0)


def test_labels_that_are_known_need_no_picture(tmp_path: Path) -> None:
    class Labels:
        asked = 0

        def zero_shot_labels(self, image: Any, k: int) -> list[tuple[str, float]]:
            self.asked += 1
            return [("a lake", 0.9)]

    labels = Labels()
    tagger = Tagger(labels)  # type: ignore[arg-type]
    paint(tmp_path / "a.png", "blue")
    assert tagger.known(tmp_path / "a.png", 3) is None
    assert tagger.tags(png("blue"), 3, tmp_path / "a.png") == "a lake"
    assert (tagger.known(tmp_path / "a.png", 3), labels.asked) == ("a lake", 1)
    assert tagger.known(tmp_path / "none.png", 3) is None


# The load test


def attempt(
    endpoint: str, start_s: float, seconds: float, outcome: Any = "ok", status: int = 200, error: str = ""
) -> Attempt:
    return Attempt(endpoint, 0, int(1e9 * start_s), int(1e9 * seconds), status, 10, outcome, error)


def test_rows_count_what_happened() -> None:
    seen = Seen([attempt("a", number, 0.1 * number) for number in range(1, 5)])
    seen.attempts += [attempt("a", 5, 9, "throttled", 503), attempt("b", 6, 9, "error", 500, "broken")]
    seen.given_up["a"] += 1
    a, b, everything = summarize(seen, 10.0)
    assert (a["count"], a["ok"], a["throttled"], a["given_up"], a["errors"]) == (5, 4, 1, 1, 0)
    assert (a["p50_ms"], a["max_ms"], a["per_s"]) == (pytest.approx(250), pytest.approx(400), 0.5)
    assert a["warm_p99_ms"] is None
    seen.attempts.append(attempt("a", 30, 0.2))
    assert summarize(seen, 10.0)[0]["warm_p99_ms"] == pytest.approx(200)
    assert (b["p50_ms"], b["errors"], b["statuses"]) == (None, 1, {"500": 1})
    assert (everything["count"], everything["statuses"]) == (6, {"200": 4, "500": 1, "503": 1})


def test_memory_is_flat_or_it_is_not() -> None:
    random = np.random.default_rng(3)
    noise = random.normal(0, 2e6, 120)
    still = [(float(second), int(1e9 + noise[second])) for second in range(120)]
    leaking = [(at_s, size + int(1e6 * at_s)) for at_s, size in still]
    flat, grows = memory_of(still), memory_of(leaking)
    assert flat is not None
    assert grows is not None
    assert (flat["flat"], grows["flat"]) == (True, False)
    assert flat["low_mb_min"] < 0 < flat["high_mb_min"]
    assert grows["low_mb_min"] < 60 < grows["high_mb_min"]
    assert memory_of(still[:30]) is None


def test_an_outage_is_told_from_what_the_clients_saw() -> None:
    seen = Seen(
        [
            attempt("a", 1, 1),
            attempt("b", 1, 1),
            attempt("a", 9.5, 11),
            attempt("a", 11, 3, "throttled", 503),
            attempt("healthz", 15, 0.1),
            attempt("healthz", 20.1, 0.1),
            attempt("job events", 1, 4, "error", 200, "job failed: before"),
            attempt("job events", 8, 4, "error", 200, "job failed: away"),
            attempt("a", 19, 2.5, "ok"),
            attempt("a", 22, 0.5),
            attempt("b", 22, 1, "error", 500, "broken"),
        ]
    )
    told = outage_of(seen, 10.0, 20.0)
    assert told["outage_s"] == 10.0
    assert told["statuses"] == {"200": 2, "503": 1}
    assert told["first_success_s"] == told["all_recovered_s"] == pytest.approx(1.5)
    assert told["never_recovered"] == ["b", "job events"]
    assert told["unclean"] == {"b: 500 broken": 1, "job events: 200 job failed: away": 1}
    assert told["slowest_answer_s"] == pytest.approx(3)


def answered(reply: Callable[[httpx.Request], httpx.Response], read: Any, **options: Any) -> tuple[Any, Seen]:
    """What a client makes of an answer, and what it records."""
    seen = Seen()

    async def ask() -> Any:
        async with httpx.AsyncClient(transport=httpx.MockTransport(reply), base_url="http://test") as http:
            world = World(http, seen, [b""], ["a"], Path(), 0.0)
            return await Client(world, 0).call("e", "GET", "/", read, **options)

    return asyncio.run(ask()), seen


def problem(status: int, **headers: str) -> httpx.Response:
    body = {"type": "about:blank", "title": "", "status": status, "detail": "why"}
    return httpx.Response(status, json=body, headers=headers)


def test_a_throttled_client_tries_again() -> None:
    replies = iter([problem(503, **{"Retry-After": "0"}), problem(429, **{"Retry-After": "0"})])
    value, seen = answered(lambda _: next(replies, httpx.Response(200, json={"hits": [1]})), has_hits)
    assert value == {"hits": [1]}
    assert [(each.outcome, each.status) for each in seen.attempts] == [
        ("throttled", 503),
        ("throttled", 429),
        ("ok", 200),
    ]
    value, seen = answered(lambda _: problem(503, **{"Retry-After": "9999"}), has_hits)
    assert (value, seen.given_up["e"], seen.errors()) == (None, 1, [])


def stream(*events: tuple[str, Any]) -> httpx.Response:
    text = "".join(f"event: {name}\ndata: {json.dumps(data)}\n\n" for name, data in events)
    return httpx.Response(200, text=text, headers={"Content-Type": "text/event-stream"})


@pytest.mark.parametrize(
    ("reply", "read", "error"),
    [
        (problem(503), has_json, "why (Retry-After: none)"),
        (problem(500), has_json, "why (Retry-After: none)"),
        (httpx.Response(502, text="<html>"), has_json, "no problem document: '<html>'"),
        (httpx.Response(200, text="{"), has_json, "JSONDecodeError"),
        (httpx.Response(200, json={"hits": []}), has_hits, "no hits"),
        (stream(("evidence", {}), ("token", {"text": "a"})), ends_with_final, "the last event is 'token'"),
        (stream(("error", {"status": 502, "detail": "broken"})), ends_with_final, "broken"),
        (stream(("job", {"state": "failed", "error": "disk"})), ends_with_done_job, "job failed: disk"),
        (stream(), ends_with_done_job, "no event"),
    ],
)
def test_what_is_no_success_is_an_error(reply: httpx.Response, read: Any, error: str) -> None:
    value, seen = answered(lambda _: reply, read)
    assert value is None
    [told] = seen.errors()
    assert told.error.startswith(error)


def test_errors_within_streams_may_say_to_come_again() -> None:
    replies = iter([stream(("error", {"status": 503, "detail": "away"}))])
    final = stream(("evidence", {}), ("final", {"answer": "yes"}))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.load_clients.RETRY_S", 0.0)
        value, seen = answered(lambda _: next(replies, final), ends_with_final)
    assert value == {"answer": "yes"}
    assert [(each.outcome, each.status) for each in seen.attempts] == [("throttled", 503), ("ok", 200)]
    assert Fault("away", 503).throttled


def test_command_lines_that_cannot_be_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paint(tmp_path / "red.png", "red")
    for arguments, told in (
        ([str(tmp_path / "none")], "is no folder"),
        ([str(tmp_path), "--clients", "0"], "--clients"),
        ([str(tmp_path), "--restart-backend"], "--backend postgresql://"),
        ([str(tmp_path), "--out", str(tmp_path / "red.png")], "red.png"),
    ):
        assert load.main(arguments) == 1
        assert told in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert load.main([str(tmp_path / "empty")]) == 1
    assert "no picture" in capsys.readouterr().err


@pytest.mark.slow
def test_the_real_service_under_a_little_load(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # The one test here that takes its time: it starts `sightline serve` with its models in a process.
    photos = tmp_path / "photos"
    photos.mkdir()
    for number, colour in enumerate(("red", "green", "blue", "yellow")):
        paint(photos / f"{colour}.png", colour, (64 + number, 48))
        (photos / f"{colour}.txt").write_text(f"a {colour} wall by the window")
    out = tmp_path / "out"
    assert load.main([str(photos), "--clients", "8", "--seconds", "3", "--out", str(out)]) == 0, capsys.readouterr().err
    raw = json.loads((out / "load.json").read_text())
    assert {path.name for path in out.iterdir()} == {"load.json", "latency.png", "memory.png"}
    assert raw["exit"]["code"] == 0
    assert raw["endpoints"][-1]["errors"] == raw["hung_clients"] == 0
    rows = [dict(zip(raw["columns"], row, strict=True)) for row in raw["attempts"]]
    assert {"chat", "index", "job events", "upload", "completions", "thumbnail", "search text"} <= {
        row["endpoint"] for row in rows
    }
    assert all(row["outcome"] == "ok" and row["latency_ns"] > 0 for row in rows)
    assert all(size > 50e6 for _, size in raw["memory_samples"])
