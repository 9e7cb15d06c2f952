"""``POST /v1/chat``: events and answers, what is refused, who may wait, and what ends a turn."""

from __future__ import annotations

import base64
import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.core.errors import CommandError
from app.core.keys import KeyStore
from app.http.app import Limits, create_app
from backends.base import Backend
from retrieval.chat import REFUSAL, ChatOptions
from tests.support.chat_models import CAPTIONS, Calling, Scripted, prompt_of
from tests.support.chatting import DOG, OPTIONS, leave, loader, through, until, wait_for_the_model
from tests.support.cli import Run
from tests.support.fake_openai import Behaviour, Failure, FakeOpenAI
from tests.support.service import bearer, figures, is_problem, png
from tests.support.serving import running, serving
from tests.support.toy import ColourEncoder, KeptBackend


@contextmanager
def served(gallery: Backend, home: Path, **options: Any) -> Iterator[httpx.Client]:
    options = {
        "encoder": ColourEncoder(),
        "limits": Limits(rate=None),
        "roots": [home / "photos"],
        "home": home / "home",
        "load_model": loader(Scripted(replies=[DOG])),
    } | options
    with serving(create_app(gallery, collection="c", **options)) as client:
        yield client


def told(client: httpx.Client, **body: Any) -> list[tuple[str, dict[str, Any]]]:
    """The events of a turn, by name."""
    with client.stream("POST", "/v1/chat", json=body) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        return list(events(response))


def events(response: httpx.Response) -> Iterator[tuple[str, dict[str, Any]]]:
    name = ""
    for line in response.iter_lines():
        if line.startswith("event: "):
            name = line[7:]
        elif line.startswith("data: "):
            yield name, json.loads(line[6:])


def asked(client: httpx.Client, question: str = "what does the dog do?", **body: Any) -> httpx.Response:
    return client.post("/v1/chat", json={"question": question, "stream": False, **body})


# What is answered


def test_a_turn_is_evidence_a_draft_and_the_checked_answer(
    gallery: Backend, tmp_path: Path, server: FakeOpenAI
) -> None:
    with served(gallery, tmp_path, load_model=loader(through(server))) as client:
        turn = told(client, question="what does the dog on the red beach do?")
        names = [name for name, _ in turn]
        assert (names[0], names[-1]) == ("evidence", "final")
        assert set(names[1:-1]) == {"token"}
        found = turn[0][1]["evidence"]
        assert [piece["number"] for piece in found] == list(range(1, len(found) + 1))
        assert found[0]["id"] == "img-red"
        assert (found[0]["caption"], found[0]["modality"]) == (CAPTIONS["red"], "image")
        assert client.get(found[0]["image"]).headers["content-type"] == "image/jpeg"
        assert client.get(found[0]["item"]).json()["id"] == "img-red"
        final = turn[-1][1]
        assert "[1]" in final["answer"]
        assert [source["id"] for source in final["sources"]] == ["img-red"]
        assert {sentence["verdict"] for sentence in final["sentences"]} == {"stated"}
        assert final["usage"]["input_tokens"] > 0
        assert not final["usage"]["estimated"]
        assert "".join(data["text"] for name, data in turn if name == "token").startswith("A brown dog")
        # The same at once.
        whole = asked(client, "what does the dog on the red beach do?").json()
        assert (whole["answer"], whole["sources"]) == (final["answer"], final["sources"])
        assert whole["counts"]["evidence"] == len(found)


def test_history_image_filter_and_strict_reach_the_turn(gallery: Backend, tmp_path: Path) -> None:
    model = Scripted(replies=[f"{DOG} It won a prize in Paris [1]."])
    with served(gallery, tmp_path, load_model=loader(model, ChatOptions(gate=None, rewrite="rules"))) as client:
        body = {"history": [{"question": "is there a red beach?", "answer": "Yes, a red beach [1]."}]}
        answer = asked(client, "and what runs along it?", **body).json()
        assert answer["query"] == "and what runs along it? (red, beach)"
        assert "is there a red beach?" in prompt_of(model.asked[-1])
        assert (answer["check"], answer["answer"]) == ("mark", f"{DOG} It won a prize in Paris [1].")
        assert "Paris" not in asked(client, strict=True).json()["answer"]
        assert asked(client, check="strict").json()["check"] == "strict"
        assert asked(client, check="off").json()["sentences"] == []
        assert asked(client, check="some").status_code == 422
        for question in ("which were taken in 2013?", "what is in here?"):
            assert asked(client, question, where={"year": {"$odd": 1}}).status_code == 422
        old = asked(client, where={"year": {"$lt": 1980}})
        assert (old.json()["answer"], old.json()["refused"]) == (REFUSAL, True)
        picture = base64.b64encode(png("blue", (3000, 300))).decode()
        turn = told(client, question="what is like this?", image=picture)
        assert turn[0][1]["evidence"][0]["id"] == "img-blue"


def test_what_the_model_looks_for_is_told_as_events(gallery: Backend, tmp_path: Path) -> None:
    calls = [("search", {"query": "cat", "filters": '{"year": 1991}'}), ("open", {"item": "../../etc/passwd"})]
    model = Calling(replies=[calls, "A cat [2]."])
    options = ChatOptions(gate=None, max_evidence=1)
    with served(gallery, tmp_path, load_model=loader(model, options)) as client:
        turn = told(client, question="what does the dog on the red beach do?")
        assert [name for name, _ in turn if name != "token"] == ["evidence", "tool", "tool", "final"]
        found, refused = (data for name, data in turn if name == "tool")
        (piece,) = found.pop("evidence")
        assert (piece["number"], piece["id"]) == (2, "img-green")
        assert client.get(piece["image"]).status_code == 200
        assert found == {
            "name": "search",
            "query": "cat",
            "filter": '{"year": 1991}',
            "found": 1,
            "at_least": False,
            "error": "",
        }
        assert (refused["error"], refused["evidence"]) == ("there is no such item", [])
        final = turn[-1][1]
        assert [source["id"] for source in final["sources"]] == ["img-green"]
        assert final["tools"][0] == found
        assert len(final["tools"]) == 2


def test_another_collection_is_told_in_the_links(gallery: Backend, tmp_path: Path) -> None:
    with served(gallery, tmp_path, encoder=ColourEncoder()) as client:
        assert client.post("/v1/collections", json={"name": "d"}).status_code == 201
        client.post(
            "/v1/items?collection=d",
            files={"files": ("a.png", png("red"))},
            data={"items": '[{"file": "a.png", "text": "a dog runs along a red beach"}]'},
        )
        with client.stream("POST", "/v1/chat?collection=d", json={"question": "red dog"}) as response:
            found = next(events(response))[1]["evidence"]
        assert len(found) == 1
        assert "collection=d" in found[0]["image"]
        assert client.get(found[0]["image"]).status_code == 200
        is_problem(client.post("/v1/chat?collection=e", json={"question": "red dog"}), 404, "'e'")
        # What takes its place is looked at afresh.
        assert client.delete("/v1/collections/d").status_code == 204
        is_problem(client.post("/v1/chat?collection=d", json={"question": "red dog"}), 404, "'d'")
        assert client.post("/v1/collections", json={"name": "d"}).status_code == 201
        body = {"question": "red dog", "stream": False}
        assert client.post("/v1/chat?collection=d", json=body).json()["refused"]


# What the model is given


def test_pictures_outside_the_roots_reach_neither_model_nor_tagger(
    gallery: Backend, tmp_path: Path, server: FakeOpenAI
) -> None:
    class Labelling(ColourEncoder):
        labelled = 0

        def zero_shot_labels(self, image: Any, count: int) -> list[tuple[str, float]]:
            self.labelled += 1
            return [("a label of its own", 0.9)]

    seeing = loader(through(server), ChatOptions(gate=None, vision=True))
    question = "what does the dog on the red beach do?"
    with served(gallery, tmp_path, load_model=seeing) as client:
        asked(client, question)
    assert server.received[-1].images
    (tmp_path / "elsewhere").mkdir()
    outside = {"roots": [tmp_path / "elsewhere"]}
    with served(gallery, tmp_path, load_model=seeing, **outside) as client:
        assert asked(client, question).json()["sources"]
    assert not server.received[-1].images
    blind = loader(through(server, "fake-text"))
    for options, labelled in (({}, True), (outside, False)):
        encoder = Labelling()
        with served(gallery, tmp_path, load_model=blind, encoder=encoder, **options) as client:
            assert asked(client, question).json()["sources"]
        assert (encoder.labelled > 0) == labelled
        assert ("a label of its own" in server.received[-1].prompt) == labelled


def test_a_link_out_of_the_roots_is_not_followed(gallery: Backend, tmp_path: Path, server: FakeOpenAI) -> None:
    seeing = loader(through(server), ChatOptions(gate=None, vision=True, max_evidence=1))
    inside = tmp_path / "photos" / "red.png"
    inside.rename(tmp_path / "secret.png")
    inside.symlink_to(tmp_path / "secret.png")
    with served(gallery, tmp_path, load_model=seeing) as client:
        assert asked(client, "what does the dog on the red beach do?").json()["sources"][0]["id"] == "img-red"
    assert not server.received[-1].images


# What goes wrong


def test_questions_that_cannot_be_taken(gallery: Backend, tmp_path: Path) -> None:
    with served(gallery, tmp_path, limits=Limits(rate=None, max_pixels=1000)) as client:
        for body, words in (
            ({}, "question"),
            ({"question": ""}, "question"),
            ({"question": "\u200b \u0007"}, "empty"),
            ({"question": "x" * 4001}, "question"),
            ({"question": "a", "history": [{"question": "b", "answer": "c"}] * 33}, "history"),
            ({"question": "a", "image": "!"}, "base64"),
            ({"question": "a", "image": base64.b64encode(b"no").decode()}, "image"),
            ({"question": "a", "image": base64.b64encode(png("red")).decode()}, "pixels"),
            ({"question": "a", "where": {"$oops": 1}}, "oops"),
            ({"question": "a", "surprise": 1}, "surprise"),
        ):
            is_problem(client.post("/v1/chat", json=body), 422, words)
            is_problem(client.post("/v1/chat", json=body | {"stream": False}), 422, words)


def test_a_service_without_a_model_says_what_to_set(
    gallery: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses() -> Any:
        loads.append(1)
        raise CommandError("no model is set: use --model")

    def breaks() -> Any:
        raise RuntimeError("secret detail")

    loads: list[int] = []
    with served(gallery, tmp_path, load_model=refuses) as client:
        assert client.get("/readyz").status_code == 200
        assert not loads
        is_problem(asked(client), 503, "--model")
        # What was missing may be there now.
        is_problem(asked(client), 503, "--model")
        assert len(loads) == 2
    with served(gallery, tmp_path, load_model=breaks) as client:
        refused = asked(client)
        is_problem(refused, 503, "log")
        assert "secret" not in refused.text
    with served(gallery, tmp_path, load_model=None) as client:
        is_problem(asked(client), 503, "without a model")
    with served(gallery, tmp_path) as client:
        monkeypatch.setitem(sys.modules, "retrieval.chat", None)
        is_problem(asked(client), 503, "sightline[chat]")


def test_the_model_is_loaded_once_whoever_asks_first(gallery: Backend, tmp_path: Path) -> None:
    def load() -> Any:
        loads.append(1)
        time.sleep(0.1)
        return Scripted(replies=[DOG]), OPTIONS

    loads: list[int] = []
    with served(gallery, tmp_path, load_model=load) as client:
        threads = [threading.Thread(target=asked, args=(client,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert asked(client).status_code == 200
    assert loads == [1]


def test_what_goes_wrong_with_the_model_is_told_without_its_address(
    gallery: Backend, tmp_path: Path, server: FakeOpenAI
) -> None:
    options = ChatOptions(gate=None, retries=1, backoff_s=0.01, first_token_s=0.3)
    port = server.base_url.split(":")[2].split("/")[0]
    with served(gallery, tmp_path, load_model=loader(through(server), options)) as client:
        server.behaviour.failures = [Failure(500), Failure(500)]
        refused = asked(client)
        is_problem(refused, 502, "fake-vision")
        assert port not in refused.text
        server.behaviour.failures = [Failure(401)]
        is_problem(asked(client), 502, "refused the key")
        server.behaviour = Behaviour(failures=[Failure(503)])
        turn = told(client, question="what does the dog on the red beach do?")
        assert [name for name, _ in turn][:2] == ["evidence", "retrying"]
        assert port not in json.dumps(turn)
        assert turn[-1][0] == "final"
        server.behaviour = Behaviour(first_token_s=5)
        name, problem = told(client, question="what does the dog on the red beach do?")[-1]
        assert (name, problem["status"], problem["type"]) == ("error", 504, "about:blank")
        assert port not in problem["detail"]
        is_problem(asked(client), 504, "0.3 s")


# Who may wait, and what ends a turn


def test_turns_are_bounded_and_one_that_is_left_is_cancelled(
    gallery: Backend, tmp_path: Path, server: FakeOpenAI
) -> None:
    server.behaviour = Behaviour(token_s=0.5)
    question = "what does the dog on the red beach do?"
    limits = Limits(rate=None, max_chats=1)
    with served(gallery, tmp_path, load_model=loader(through(server)), limits=limits) as client:
        with client.stream("POST", "/v1/chat", json={"question": question}) as response:
            seen = events(response)
            assert [next(seen)[0], next(seen)[0]] == ["evidence", "token"]
            refused = asked(client)
            is_problem(refused, 503, "being answered")
            assert refused.headers["retry-after"] == "10"
            assert figures(client)["sightline_chats_running"] == 1
        # The client went.
        until(lambda: server.abandoned == 1)
        until(lambda: figures(client)["sightline_chats_running"] == 0)
        server.behaviour = Behaviour(first_token_s=5)
        server.received.clear()
        leave(str(client.base_url.join("/v1/chat")), {"question": question, "stream": False}, lambda: server.received)
        until(lambda: server.abandoned == 2)
        server.behaviour = Behaviour()
        until(lambda: asked(client, question).status_code == 200)
        until(lambda: server.finished == 1)


def test_streams_of_answers_are_bounded(gallery: Backend, tmp_path: Path, server: FakeOpenAI) -> None:
    server.behaviour = Behaviour(token_s=0.5)
    body = {"question": "what does the dog on the red beach do?"}
    limits = Limits(rate=None, max_streams=1)
    with served(gallery, tmp_path, load_model=loader(through(server)), limits=limits) as client:
        with client.stream("POST", "/v1/chat", json=body) as response:
            seen = events(response)
            assert next(seen)[0] == "evidence"
            is_problem(client.post("/v1/chat", json=body), 503, "streams")
            wait_for_the_model(server)
        until(lambda: server.abandoned == 1)


def test_a_turn_that_cannot_begin_keeps_no_room(
    gallery: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Any) -> None:
        raise RuntimeError("can't start new thread")

    with served(gallery, tmp_path, limits=Limits(rate=None, max_chats=1)) as client:
        with monkeypatch.context() as patch:
            patch.setattr("retrieval.chat.RunningTurn.start", full)
            is_problem(asked(client), 503, "thread")
        assert asked(client).status_code == 200
        # Nor does one that fails.
        is_problem(asked(client, where={"$oops": 1}), 422)
        assert asked(client).status_code == 200


def test_the_end_of_the_service_ends_turns(gallery: Backend, tmp_path: Path, server: FakeOpenAI) -> None:
    server.behaviour = Behaviour(token_s=2)
    app = create_app(
        gallery,
        ColourEncoder(),
        "c",
        home=tmp_path / "home",
        load_model=loader(through(server)),
        limits=Limits(rate=None),
    )
    turns: list[Any] = []
    body = {"question": "what does the dog on the red beach do?"}
    with running(app) as port:
        client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20)
        watchers = [
            threading.Thread(target=lambda: turns.append(told(client, **body)[-1])),
            threading.Thread(target=lambda: turns.append(client.post("/v1/chat", json=body | {"stream": False}))),
        ]
        for watcher in watchers:
            watcher.start()
        wait_for_the_model(server, 2)
        started_s = time.monotonic()
    assert time.monotonic() - started_s < 5
    for watcher in watchers:
        watcher.join(10)
        assert not watcher.is_alive()
    (event,) = [turn for turn in turns if isinstance(turn, tuple)]
    (response,) = [turn for turn in turns if not isinstance(turn, tuple)]
    assert (event[0], event[1]["status"]) == ("error", 503)
    is_problem(response, 503, "stopping")
    until(lambda: server.abandoned == 2)
    client.close()


def test_chat_needs_a_key_that_may_read(gallery: Backend, tmp_path: Path) -> None:
    keys = KeyStore(tmp_path / "keys.json")
    _, key = keys.add("reader", "read")
    with served(gallery, tmp_path, keys=keys) as client:
        is_problem(asked(client), 401)
        assert (
            client.post("/v1/chat", json={"question": "a dog?", "stream": False}, headers=bearer(key)).status_code
            == 200
        )


def test_a_connection_without_news_is_kept_open(
    gallery: Backend, tmp_path: Path, server: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.http.routes.chat.KEEP_ALIVE_S", 0.1)
    server.behaviour = Behaviour(first_token_s=0.5)
    body = {"question": "what does the dog on the red beach do?"}
    with served(gallery, tmp_path, load_model=loader(through(server))) as client:
        text = client.post("/v1/chat", json=body).text
    assert 2 <= text.count(": still there\n\n") <= 6
    assert "event: final\n" in text


def test_answers_are_counted_as_a_stage(gallery: Backend, tmp_path: Path) -> None:
    with served(gallery, tmp_path) as client:
        asked(client)
        asked(client)
        seen = figures(client)
    assert seen['sightline_stage_seconds_count{stage="answer"}'] == 2
    assert seen['sightline_request_seconds_count{method="POST",route="/v1/chat",status="200"}'] == 2


def test_the_spans_of_a_turn_belong_to_its_request(gallery: Backend, tmp_path: Path) -> None:
    trace = pytest.importorskip("opentelemetry.sdk.trace")
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    spans = InMemorySpanExporter()
    provider = trace.TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    with served(gallery, tmp_path, tracer=provider.get_tracer("test")) as client:
        asked(client)
    made = spans.get_finished_spans()
    (request,) = [span for span in made if span.name == "request"]
    (answer,) = [span for span in made if span.name == "answer"]
    assert answer.parent.span_id == request.context.span_id
    searches = [span for span in made if span.name == "search" and span.parent.span_id == answer.context.span_id]
    assert searches


# The command


def test_the_command_answers_with_the_model_that_is_set(
    run: Run, gallery: Backend, tmp_path: Path, server: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    def used(service: Any, listener: Any) -> None:
        with serving(service) as client:
            assert client.get("/readyz").status_code == 200
            answers.append(asked(client, "what does the dog on the red beach do?"))

    answers: list[httpx.Response] = []
    monkeypatch.setitem(KeptBackend.stores, "kept://", gallery)
    monkeypatch.setattr(gallery, "close", lambda: None)
    monkeypatch.setenv("SIGHTLINE_MIN_RELEVANCE", "0")
    monkeypatch.setattr("app.serve.run", used)
    flags = ["--port", 0, "--collection", "c", "--root", tmp_path / "photos"]
    seeing = ["--model", "openai:fake-vision", "--model-url", server.base_url, "--model-vision", "yes"]
    done = run("serve", *flags, *seeing)
    assert done.code == 0, done.err
    assert answers[-1].json()["sources"][0]["id"] == "img-red"
    assert server.received[-1].images
    assert run("serve", *flags, "--model-url", server.base_url).code == 0
    is_problem(answers[-1], 503, "--model")
