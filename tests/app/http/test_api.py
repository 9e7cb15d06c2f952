"""The API beyond search: keys, limits, origins, ids, logs, figures, pictures, items, collections and jobs."""

from __future__ import annotations

import base64
import io
import json
import logging
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from PIL import Image

from app.core.keys import KeyStore
from app.http.app import Limits, create_app
from app.http.observing import JsonLines
from backends import connect
from backends.base import Backend, Record, Unavailable
from retrieval.encoders.base import EncoderError
from tests.support.cli import paint
from tests.support.service import bearer, ended, figures, ids, is_problem, png, served
from tests.support.serving import running
from tests.support.toy import ColourEncoder, Slow, Stuck

# Keys


def test_keys_are_asked_for_from_the_first_one_on_and_their_scopes_hold(store: Backend, home: Path) -> None:
    keys = KeyStore(home / "keys.json")
    with served(store, home, keys=keys) as client:
        assert client.get("/v1/items/a/red").status_code == 200
        reader = keys.add("reader", "read")
        writer, admin = keys.add("writer", "write")[1], keys.add("admin", "admin")[1]
        for headers in (
            {},
            bearer("sl_x"),
            {"Authorization": "Bearer"},
            {"X-API-Key": "no"},
            {**bearer(admin), "X-API-Key": "no"},
        ):
            refused = client.get("/v1/items/a/red", headers=headers)
            is_problem(refused, 401, "API key")
            assert refused.headers["www-authenticate"].startswith("Bearer ")
        assert client.get("/v1/items/a/red", headers={"X-API-Key": reader[1]}).status_code == 200
        new = {"json": {"name": "d"}}
        refused = client.post("/v1/collections", **new, headers=bearer(reader[1]))
        is_problem(refused, 403, "write")
        assert 'scope="write"' in refused.headers["www-authenticate"]
        assert client.post("/v1/collections", **new, headers=bearer(writer)).status_code == 201
        is_problem(client.delete("/v1/collections/d", headers=bearer(writer)), 403, "admin")
        assert client.delete("/v1/collections/d", headers=bearer(admin)).status_code == 204
        # What monitors and browsers ask for needs none, the figures do.
        for path in ("/healthz", "/readyz", "/openapi.json", "/", "/static/page.css"):
            assert client.get(path).status_code == 200, path
        is_problem(client.get("/metrics"), 401)
        # A removed key is out at once, and the last one's removal opens nothing.
        for key in keys.listed():
            keys.remove(key.id)
        is_problem(client.get("/v1/items/a/red", headers=bearer(admin)), 401)


def test_required_keys_let_nobody_in_while_there_are_none(store: Backend, home: Path) -> None:
    with served(store, home, keys=KeyStore(home / "keys.json"), require_keys=True) as client:
        is_problem(client.get("/v1/collections"), 401)


def test_damaged_keys_let_nobody_in(store: Backend, home: Path) -> None:
    keys = KeyStore(home / "keys.json")
    _, key = keys.add("k", "admin")
    with served(store, home, keys=keys) as client:
        keys.file.write_text("{")
        is_problem(client.get("/v1/collections", headers=bearer(key)), 503, "keys")


def test_every_operation_names_its_scope_and_refuses_without_a_key(store: Backend, home: Path) -> None:
    with served(store, home, keys=KeyStore(home / "keys.json"), require_keys=True) as client:
        paths = client.get("/openapi.json").json()["paths"]
        for path, operations in paths.items():
            for method, operation in operations.items():
                if path in ("/healthz", "/readyz"):
                    continue
                assert operation["x-scope"] in ("read", "write", "admin"), path
                url = path.replace("{", "").replace("}", "")
                assert client.request(method, url).status_code == 401, (method, path)


# Limits


def test_each_caller_has_a_rate(store: Backend, home: Path) -> None:
    keys = KeyStore(home / "keys.json")
    one, other = keys.add("one", "read")[1], keys.add("other", "read")[1]
    with served(store, home, keys=keys, limits=Limits(rate="3/hour")) as client:
        codes = [client.get("/v1/collections", headers=bearer(one)).status_code for _ in range(4)]
        assert codes == [200, 200, 200, 429]
        refused = client.get("/v1/collections", headers=bearer(one))
        assert 0 < int(refused.headers["retry-after"]) <= 3600
        assert client.get("/v1/collections", headers=bearer(other)).status_code == 200
        # Guessing counts for the address.
        assert [client.get("/v1/collections", headers=bearer("x")).status_code for _ in range(4)] == [401] * 3 + [429]
        assert client.get("/healthz").status_code == 200


def test_rates_that_cannot_be_read_are_refused(store: Backend) -> None:
    with pytest.raises(ValueError, match="no rate"):
        create_app(store, ColourEncoder(), "c", limits=Limits(rate="many"))


def test_what_finds_no_room_is_told_to_come_again(store: Backend, home: Path) -> None:
    encoder = Slow()
    with served(store, home, encoder=encoder, limits=Limits(rate=None, max_in_flight=2)) as client:
        answers: list[int] = []
        threads = [
            threading.Thread(target=lambda: answers.append(client.post("/v1/search", json={"text": "red"}).status_code))
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        assert encoder.began.acquire(timeout=10)
        deadline = time.monotonic() + 10
        # Not asked by what may itself take the place that the second search comes for.
        while "sightline_requests_in_flight 2.0" not in client.get("/metrics").text:
            assert time.monotonic() < deadline
        refused = client.get("/v1/collections")
        is_problem(refused, 503, "try again")
        assert refused.headers["retry-after"] == "1"
        assert client.get("/healthz").status_code == 200
        encoder.go.set()
        for thread in threads:
            thread.join()
        assert answers == [200, 200]
        assert client.get("/v1/collections").status_code == 200


def test_a_full_queue_of_texts_is_a_503(store: Backend, home: Path) -> None:
    encoder = Slow()
    with served(store, home, encoder=encoder, limits=Limits(rate=None, max_waiting_texts=1)) as client:
        threads = [threading.Thread(target=lambda: client.post("/v1/search", json={"text": "red"})) for _ in range(2)]
        threads[0].start()
        assert encoder.began.acquire(timeout=10)
        threads[1].start()
        deadline = time.monotonic() + 10
        while "sightline_encoder_waiting_texts 1.0" not in client.get("/metrics").text:
            assert time.monotonic() < deadline
        refused = client.post("/v1/search", json={"text": "red"})
        is_problem(refused, 503, "waiting to be encoded")
        assert refused.headers["retry-after"] == "1"
        encoder.go.set()
        for thread in threads:
            thread.join()


# What can be seen


def test_request_ids_logs_and_what_they_leave_out(store: Backend, home: Path, caplog: pytest.LogCaptureFixture) -> None:
    keys = KeyStore(home / "keys.json")
    key, text = keys.add("k", "read")
    caplog.set_level(logging.INFO, "app.requests")
    with served(store, home, keys=keys) as client:
        mine = client.post(
            "/v1/search", json={"text": "secretquery"}, headers={**bearer(text), "X-Request-ID": "abc-1.2"}
        )
        assert mine.headers["x-request-id"] == "abc-1.2"
        for odd in ("a b", "x" * 65, 'a"b', ""):
            made = client.get("/v1/items/a/secretid", headers={**bearer(text), "X-Request-ID": odd})
            assert len(made.headers["x-request-id"]) == 16, odd
        client.get("/nowhere-secret")
    lines = [JsonLines().format(record) for record in caplog.records if record.name == "app.requests"]
    first = json.loads(lines[0])
    assert (first["request_id"], first["method"], first["route"]) == ("abc-1.2", "POST", "/v1/search")
    assert (first["status"], first["key"]) == (200, key.id)
    assert first["ms"] > 0
    assert json.loads(lines[1])["route"] == "/v1/items/{item_id:path}"
    assert json.loads(lines[-1])["route"] == "none"
    assert "secret" not in "".join(lines)
    assert text not in caplog.text


@pytest.fixture
def json_log() -> Iterator[io.StringIO]:
    """What the service would write to standard error; afterwards logging is as it was."""
    from app.http.server import log_as_json

    names = [None, *logging.root.manager.loggerDict]
    before = [
        (logger, list(logger.handlers), logger.level, logger.propagate) for logger in map(logging.getLogger, names)
    ]
    hooks = threading.excepthook, sys.unraisablehook
    stream = io.StringIO()
    # A service that another test ran has set it.
    logging.getLogger("uvicorn.error").setLevel(logging.NOTSET)
    log_as_json(stream)
    yield stream
    logging.captureWarnings(False)
    threading.excepthook, sys.unraisablehook = hooks
    logging.root.handlers.clear()
    for logger, handlers, level, propagate in before:
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)


class Failing:
    def __del__(self) -> None:
        raise ValueError("at the end")


def test_every_line_of_the_log_is_json(json_log: io.StringIO) -> None:
    own = logging.getLogger("some.library")
    own.addHandler(logging.StreamHandler(io.StringIO()))
    own.warning("two\nlines \u202e \x1b[2J %s", "\ud800")
    own.info("not told")
    logging.getLogger("app.requests").info("request", extra={"fields": {"ms": float("nan"), "what": object()}})
    logging.getLogger("uvicorn.error").warning("with a stack", stack_info=True)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("a\nwarning", stacklevel=1)
    thread = threading.Thread(target=lambda: 1 / 0, name="work")
    thread.start()
    thread.join()
    failing = Failing()
    del failing
    text = json_log.getvalue()
    assert text.isascii()
    lines = [json.loads(line, parse_constant=pytest.fail) for line in text.splitlines()]
    said = [line["message"] for line in lines]
    assert said[0].startswith("two\nlines")
    assert lines[1]["ms"] == "nan"
    assert "test_every_line" in lines[2]["stack"]
    assert "a\nwarning" in said[3]
    assert (said[4], "ZeroDivisionError" in lines[4]["trace"]) == ("work ended with an error", True)
    assert "at the end" in lines[5]["trace"]
    assert len(lines) == 6
    wrong = logging.LogRecord("a", logging.WARNING, "a.py", 1, "wrong %d", ("number",), None)
    assert json.loads(JsonLines().format(wrong))["message"] == "wrong %d ('number',)"


def test_figures(store: Backend, home: Path) -> None:
    with served(store, home) as client:
        # The first search also takes the sample that relevance is judged by.
        client.post("/v1/search", json={"text": "red"})
        before = figures(client)
        client.post("/v1/search", json={"text": "red"})
        client.get("/v1/items/a/red/image")
        client.get("/v1/items/a/red/image")
        client.get("/v1/items/none")
        after = figures(client)
    wanted = {
        'sightline_request_seconds_count{method="POST",route="/v1/search",status="200"}': 1,
        'sightline_request_seconds_count{method="GET",route="/v1/items/{item_id:path}",status="404"}': 1,
        'sightline_stage_seconds_count{stage="encode"}': 1,
        'sightline_stage_seconds_count{stage="search"}': 2,
        'sightline_stage_seconds_count{stage="fetch"}': 3,
        "sightline_encoder_batch_texts_sum": 1,
        "sightline_encoder_waiting_texts": 0,
        'sightline_jobs{state="queued"}': 0,
        'sightline_thumbnails_total{cached="yes"}': 1,
        'sightline_thumbnails_total{cached="no"}': 1,
    }
    assert {name: after[name] - before.get(name, 0) for name in wanted} == wanted


def test_spans_of_request_and_stages(store: Backend, home: Path) -> None:
    trace = pytest.importorskip("opentelemetry.sdk.trace")
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    spans = InMemorySpanExporter()
    provider = trace.TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with served(store, home, tracer=provider.get_tracer("test")) as client:
        client.post("/v1/search", json={"text": "red", "modality": "image"})
        spans.clear()
        client.post("/v1/search", json={"text": "red", "modality": "image"}, headers={"traceparent": parent})
    made = {span.name: span for span in spans.get_finished_spans()}
    assert set(made) == {"request", "encode", "search"}
    assert format(made["encode"].context.trace_id, "032x") == "0af7651916cd43dd8448eb211c80319c"
    assert made["search"].parent.span_id == made["request"].context.span_id


def test_readiness_says_which_part_does_not_answer(store: Backend, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.http.routes.health.FRESH_S", 0.0)
    monkeypatch.setattr("app.http.routes.health.ANSWER_WITHIN_S", 0.2)
    encoder = ColourEncoder()
    with served(store, home, encoder=encoder) as client:
        assert client.get("/readyz").json() == {"status": "ready", "backend": "ok", "encoder": "ok"}

        def away(*_: object) -> None:
            raise Unavailable("postgresql://host:5432 does not answer")

        def stuck(*_: object) -> None:
            time.sleep(0.5)

        with monkeypatch.context() as patch:
            patch.setattr(store, "collections", away)
            response = client.get("/readyz")
            is_problem(response, 503, "backend")
            assert "encoder" not in response.text
            assert "5432" not in response.text
        with monkeypatch.context() as patch:
            patch.setattr(encoder, "encode_texts", stuck)
            is_problem(client.get("/readyz"), 503, "encoder does not answer")
        time.sleep(0.5)
        assert client.get("/readyz").status_code == 200
        assert client.get("/healthz").json() == {"status": "ok"}


def test_failures_of_parts_are_clean_problems(store: Backend, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = ColourEncoder()

    def away(*_: object, **__: object) -> None:
        raise Unavailable("postgresql://ann@host:5432 does not answer")

    def broken(*_: object) -> None:
        raise EncoderError("CUDA is out of memory")

    with served(store, home, encoder=encoder) as client:
        monkeypatch.setattr(encoder, "encode_texts", broken)
        refused = client.post("/v1/search", json={"text": "red"})
        is_problem(refused, 503, "encoder")
        assert "retry-after" in refused.headers
        monkeypatch.setattr(type(store), "count", away)
        refused = client.get("/v1/collections")
        is_problem(refused, 503, "database")
        assert "5432" not in refused.text


def test_other_origins_may_call_only_if_they_are_named(store: Backend, home: Path) -> None:
    page = {"Origin": "https://page.example"}
    asked = {**page, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    with served(store, home) as client:
        assert "access-control-allow-origin" not in client.get("/v1/collections", headers=page).headers
        assert client.options("/v1/search", headers=asked).status_code == 405
        # A form of another page needs no leave to be sent, so it is refused here.
        is_problem(client.post("/v1/items", files={"files": png("red")}, headers=page), 403, "origin")
        is_problem(client.post("/v1/items", files={"files": png("red")}, headers={"Origin": "null"}), 403, "origin")
        own = {"Origin": str(client.base_url).rstrip("/")}
        assert client.post("/v1/search", json={"text": "red"}, headers=own).status_code == 200
    with served(store, home, origins=["https://page.example"]) as client:
        assert client.options("/v1/search", headers=asked).headers["access-control-allow-origin"] == page["Origin"]
        # What the SDKs of others send with each request is let through as well.
        theirs = {**asked, "Access-Control-Request-Headers": "authorization, x-stainless-os, mcp-protocol-version"}
        allowed = client.options("/v1/chat/completions", headers=theirs)
        assert (allowed.status_code, "x-stainless-os" in allowed.headers["access-control-allow-headers"]) == (200, True)
        response = client.post("/v1/search", json={"text": "red"}, headers=page)
        assert response.headers["access-control-allow-origin"] == page["Origin"]
        other = client.get("/v1/collections", headers={"Origin": "https://other.example"})
        assert "access-control-allow-origin" not in other.headers


# Items and pictures


def test_ranges_tags_and_head_of_pictures(store: Backend, home: Path) -> None:
    url = "/v1/items/a/red/image?size=160"
    with served(store, home) as client:
        whole = client.get(url)
        data, tag = whole.content, whole.headers["etag"]
        assert whole.headers["accept-ranges"] == "bytes"
        head = client.head(url)
        assert (head.status_code, head.content) == (200, b"")
        assert (head.headers["etag"], head.headers["content-length"]) == (tag, str(len(data)))
        for header, part in (("0-9", data[:10]), ("10-", data[10:]), ("-5", data[-5:]), ("0-99999999", data)):
            response = client.get(url, headers={"Range": f"bytes={header}"})
            assert (response.status_code, response.content) == (206, part), header
            first = data.index(part) if part != data[-5:] else len(data) - 5
            expected = f"bytes {first}-{first + len(part) - 1}/{len(data)}"
            assert response.headers["content-range"] == expected
        for header in ("bytes=5-1", "bytes=-", "lines=0-1", "bytes=0-1,4-5", "bytes=x-1"):
            assert client.get(url, headers={"Range": header}).content == data, header
        for header in (f"bytes={len(data)}-", "bytes=-0"):
            refused = client.get(url, headers={"Range": header})
            is_problem(refused, 416)
            assert refused.headers["content-range"] == f"bytes */{len(data)}"
        part = {"Range": "bytes=0-0"}
        assert client.get(url, headers={**part, "If-Range": tag}).status_code == 206
        assert client.get(url, headers={**part, "If-Range": '"old"'}).status_code == 200
        for known in (tag, f'"x", {tag}', f"W/{tag}", "*"):
            response = client.get(url, headers={"If-None-Match": known})
            assert (response.status_code, response.content) == (304, b"")
        # Another picture under the same name has another tag.
        paint(home.parent / "photos" / "red.png", "blue", (300, 900))
        again = client.get(url, headers={"If-None-Match": tag})
        assert (again.status_code, Image.open(io.BytesIO(again.content)).size) == (200, (53, 160))


def test_thumbnails_are_kept_within_a_bound(store: Backend, home: Path) -> None:
    kept = home / "thumbnails"
    with served(store, home, limits=Limits(rate=None, thumbnails_bytes=1)) as client:
        sizes = [len(client.get(f"/v1/items/a/red/image?size={size}").content) for size in (160, 320, 640)]
        # The newest stays, whatever its size.
        assert [file.stat().st_size for file in kept.rglob("*.jpg")] == sizes[-1:]
    with served(store, home, limits=Limits(rate=None, thumbnails_bytes=sum(sizes))) as client:
        for size in (160, 320, 160):
            client.get(f"/v1/items/a/red/image?size={size}")
        assert len(list(kept.rglob("*.jpg"))) == 3
        # 640 was used least recently, even though by the process before this one.
        client.get("/v1/items/a/green/image?size=160")
        left = {file.stat().st_size for file in kept.rglob("*.jpg")}
        assert sizes[2] not in left
        assert sizes[0] in left
    assert not list(kept.rglob("*.tmp"))


def test_ids_may_hold_anything_even_the_ends_of_routes(store: Backend, home: Path) -> None:
    vector = ColourEncoder().encode_texts(["red"])[0]
    odd = ["x/image", "x/similar", "a b/ü?&#%2F", "../../etc/passwd", "'; DROP TABLE x; --", "a//b", "x"]
    store.upsert("c", [Record(name, vector, "text", name) for name in odd])
    with served(store, home) as client:
        for name in odd:
            url = f"/v1/items/{quote(name, safe='')}"
            assert client.get(url).json()["id"] == name
            assert client.get(f"{url}/similar?k=1").status_code == 200
            is_problem(client.get(f"{url}/image"), 404, "no local image")
        is_problem(client.get("/v1/items/x/image"), 404, "no local image")
        for name in ("%00", "%ff%fe", "a" * 600, ""):
            assert client.get(f"/v1/items/{name}").status_code == 404, name


def test_adding_and_removing_items(store: Backend, home: Path) -> None:
    about = [
        {"file": "b.png", "text": "a blue square", "metadata": {"year": 2024, "tags": ["x"]}},
        {"text": "a yellow note", "id": "note/1", "metadata": {"kind": "note"}},
        {"text": "x", "metadata": {"modality": "image"}},
    ]
    files = [
        ("files", ("b.png", png("blue"))),
        ("files", ("../../evil.png", png("yellow"))),
        ("files", ("broken.png", png("red")[:60])),
        ("files", ("page.html", b"<script>alert(1)</script>")),
    ]
    with served(store, home) as client:
        done = client.post("/v1/items", files=files, data={"items": json.dumps(about)}).json()
        assert (done["added"], done["failed"]) == (3, 3)
        rows = {row["name"]: row for row in done["items"]}
        assert list(rows) == ["b.png", "../../evil.png", "broken.png", "page.html", "items[1]", "items[2]"]
        assert "cannot be decoded" in rows["broken.png"]["error"] or "truncated" in rows["broken.png"]["error"]
        assert "not an image" in rows["page.html"]["error"]
        assert "reserved" in rows["items[2]"]["error"]
        item = client.get(f"/v1/items/{rows['b.png']['id']}").json()
        assert item["metadata"]["year"] == 2024
        assert (item["metadata"]["width"], item["text"]) == (40, "a blue square")
        assert client.get(f"/v1/items/{rows['b.png']['id']}/image").status_code == 200
        assert client.get("/v1/items/note%2F1").json()["metadata"]["kind"] == "note"
        found = client.post("/v1/search", json={"text": "blue", "modality": "text", "k": 1}).json()["hits"][0]
        assert found["text"] == "a blue square"
        kept = sorted(path.name for path in (home / "uploads").rglob("*") if path.is_file())
        assert len(kept) == 2
        assert all(name.endswith(".png") and "evil" not in name for name in kept)
        # Again: the same items, nothing more.
        before = store.count("c")
        again = client.post("/v1/items", files=files, data={"items": json.dumps(about)}).json()
        assert (again["items"], store.count("c")) == (done["items"], before)
        # An image goes with its captions and its file.
        assert client.delete(f"/v1/items/{rows['b.png']['id']}").json() == {"deleted": 2}
        assert len([path for path in (home / "uploads").rglob("*") if path.is_file()]) == 1
        is_problem(client.delete(f"/v1/items/{rows['b.png']['id']}"), 404)
        # Only what was uploaded is removed from disk.
        assert client.delete("/v1/items/a/red").json() == {"deleted": 1}
        assert (home.parent / "photos" / "red.png").is_file()


def test_additions_that_say_nothing_usable(store: Backend, home: Path) -> None:
    with served(store, home, limits=Limits(rate=None, max_files=2)) as client:
        image = {"files": png("red")}
        for data, words in (
            ({"items": "["}, "items"),
            ({"items": '[{"file": "other.png"}]'}, "other.png"),
            ({"items": '[{"oops": 1}]'}, "oops"),
        ):
            is_problem(client.post("/v1/items", files=image, data=data), 422, words)
        many = [("files", (f"{n}.png", png("red"))) for n in range(3)]
        is_problem(client.post("/v1/items", files=many), 413, "up to 2")
        is_problem(client.post("/v1/items?collection=absent", files=image), 404, "absent")
        is_problem(client.post("/v1/items", json={}), 415, "multipart")


def test_a_store_that_fails_leaves_no_file_behind(store: Backend, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise Unavailable("gone")

    with served(store, home) as client:
        monkeypatch.setattr(store, "upsert", away)
        is_problem(client.post("/v1/items", files={"files": png("red")}), 503)
    assert not [path for path in (home / "uploads").rglob("*") if path.is_file()]


def test_a_service_begins_with_nothing(home: Path) -> None:
    with served(connect("exact://"), home) as client:
        is_problem(client.post("/v1/search", json={"text": "red"}), 404, "'c'")
        assert client.post("/v1/items", files={"files": png("red")}).json()["added"] == 1
        assert len(ids(client.post("/v1/search", json={"text": "red"}))) == 1


# Collections and jobs


def test_collections_come_and_go(store: Backend, home: Path) -> None:
    with served(store, home) as client:
        made = client.post("/v1/collections", json={"name": "d", "index": "flat"})
        assert (made.status_code, made.json()["index"], made.json()["count"]) == (201, "flat", 0)
        is_problem(client.post("/v1/collections", json={"name": "d"}), 409)
        is_problem(client.post("/v1/collections", json={"name": "../d"}), 422)
        is_problem(client.post("/v1/collections", json={"name": "e", "index": "ivf"}), 422, "ivf")
        assert client.post("/v1/items?collection=d", files={"files": png("red")}).json()["added"] == 1
        assert client.get("/v1/collections/d").json()["count"] == 1
        assert client.post("/v1/search?collection=d", json={"text": "red"}).status_code == 200
        assert client.delete("/v1/collections/d").status_code == 204
        assert not (home / "uploads" / "d").exists()
        for response in (
            client.delete("/v1/collections/d"),
            client.get("/v1/collections/d"),
            client.post("/v1/search?collection=d", json={"text": "red"}),
            client.get("/v1/collections/.."),
        ):
            is_problem(response, 404)
        assert [row["name"] for row in client.get("/v1/collections").json()] == ["c"]


def events(client: httpx.Client, job: dict[str, Any]) -> list[dict[str, Any]]:
    with client.stream("GET", f"/v1/jobs/{job['id']}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        return [json.loads(line[6:]) for line in stream.iter_lines() if line.startswith("data: ")]


def test_a_folder_is_indexed_and_watched(store: Backend, home: Path) -> None:
    photos = home.parent / "photos"
    for number in range(20):
        Image.new("RGB", (30, 30), (number, 2 * number, 0)).save(photos / f"{number}.png")
    (photos / "bad.png").write_bytes(b"bad")
    (photos / "@eaDir").mkdir()
    (photos / "@eaDir" / "small.png").write_bytes(png("red"))
    (photos / "film.mov").write_bytes(b"\0\0\0\x14ftypqt  ")
    with served(store, home) as client:
        assert client.get("/v1/index").json() == {"folders": [str(photos)]}
        started = client.post("/v1/index", json={"folder": str(photos), "collection": "fresh"})
        assert started.status_code == 202
        seen = events(client, started.json())
        last = seen[-1]
        assert last["state"] == "done"
        assert (last["report"]["indexed"], last["report"]["quarantined_count"]) == (22, 1)
        assert last["report"]["quarantined"][0]["path"] == "bad.png"
        unread = {row["told"]: row["paths"] for row in last["report"]["not_read"]}
        assert unread == {"1 thumbnail of a NAS (@eaDir)": ["@eaDir"], "1 video (.mov)": ["film.mov"]}
        (row, _) = client.get("/v1/jobs").json()["jobs"][0]["report"]["not_read"]
        assert (row["count"], row["paths"]) == (1, [])
        assert client.get("/v1/collections/fresh").json()["count"] == 22
        assert [job["id"] for job in client.get("/v1/jobs").json()["jobs"]] == [last["id"]]
        assert client.get(f"/v1/jobs/{last['id']}").json() == last
        assert client.delete(f"/v1/jobs/{last['id']}").json()["state"] == "done"
        for response in (client.get("/v1/jobs/x"), client.get("/v1/jobs/x/events"), client.delete("/v1/jobs/x")):
            is_problem(response, 404)
        is_problem(client.post("/v1/index", json={"folder": str(home)}), 403)


def test_jobs_are_cancelled_bounded_and_keep_their_collection(store: Backend, home: Path) -> None:
    encoder = Stuck()
    body = {"folder": str(home.parent / "photos"), "collection": "fresh"}
    with served(store, home, encoder=encoder) as client:
        first = client.post("/v1/index", json=body).json()
        while client.get(f"/v1/jobs/{first['id']}").json()["state"] == "queued":
            time.sleep(0.01)
        waiting = [client.post("/v1/index", json=body) for _ in range(16)]
        assert {response.status_code for response in waiting} == {202}
        refused = client.post("/v1/index", json=body)
        is_problem(refused, 429, "16 jobs")
        assert "retry-after" in refused.headers
        for response in waiting:
            assert client.delete(f"/v1/jobs/{response.json()['id']}").json()["state"] == "cancelled"
        while "fresh" not in store.collections():
            time.sleep(0.01)
        is_problem(client.delete("/v1/collections/fresh"), 409, "job")
        client.delete(f"/v1/jobs/{first['id']}")
        encoder.go.set()
        assert ended(client, first)["state"] in ("cancelled", "done")
        assert client.delete("/v1/collections/fresh").status_code == 204


def test_a_cancelled_job_ends_after_the_picture_in_hand(store: Backend, home: Path) -> None:
    class Gated(ColourEncoder):
        begun, go = threading.Semaphore(0), threading.Semaphore(0)

        def encode_images(self, images: Any) -> Any:
            for _ in images:
                self.begun.release()
                assert self.go.acquire(timeout=60)
            return super().encode_images(images)

    photos = home.parent / "photos"
    for number in range(30):
        Image.new("RGB", (30, 30), (number, 2 * number, 0)).save(photos / f"{number}.png")
    encoder = Gated()
    with served(store, home, encoder=encoder) as client:
        job = client.post("/v1/index", json={"folder": str(photos), "collection": "fresh"}).json()
        assert encoder.begun.acquire(timeout=60)
        client.delete(f"/v1/jobs/{job['id']}")
        encoder.go.release()
        job = ended(client, job)
        assert (job["state"], job["report"]["indexed"], job["report"]["found"]) == ("cancelled", 1, 32)
        assert store.count("fresh") == 1
        encoder.go.release(1000)
        again = ended(client, client.post("/v1/index", json={"folder": str(photos), "collection": "fresh"}).json())
        assert (again["state"], again["report"]["indexed"], again["report"]["unchanged"]) == ("done", 31, 1)


def test_streams_are_bounded_and_end_with_the_service(store: Backend, home: Path) -> None:
    encoder = Stuck()
    app = create_app(
        store, encoder, "c", home=home, roots=[home.parent / "photos"], limits=Limits(rate=None, max_streams=1)
    )
    with running(app) as port:
        client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20)
        job = client.post("/v1/index", json={"folder": str(home.parent / "photos")}).json()
        seen: list[dict[str, Any]] = []
        watcher = threading.Thread(target=lambda: seen.extend(events(client, job)))
        watcher.start()
        deadline = time.monotonic() + 10
        while not app.state.service.streams.taken:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        is_problem(client.get(f"/v1/jobs/{job['id']}/events"), 503, "1 streams are open")
        encoder.go.set()
    # The server ended, and with it the stream, whether or not the job had.
    watcher.join(10)
    assert not watcher.is_alive()
    assert seen
    client.close()


def test_an_image_in_a_body_is_bounded_by_its_pixels(store: Backend, home: Path) -> None:
    with served(store, home, limits=Limits(rate=None, max_pixels=1000)) as client:
        big = base64.b64encode(png("red")).decode()
        is_problem(client.post("/v1/search", json={"image": big}), 422, "pixels")
        is_problem(client.post("/v1/lookup", files={"image": png("red")}), 422, "pixels")
        assert "pixels" in client.post("/v1/items", files={"files": png("red")}).json()["items"][0]["error"]


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/items/a/red", {"GET", "DELETE"}),
        ("/v1/items/a%2Fred/image", {"GET", "HEAD", "DELETE"}),
        ("/v1/items", {"POST"}),
        ("/v1/collections", {"GET", "POST"}),
        ("/v1/collections/c", {"GET", "DELETE"}),
        ("/v1/index", {"GET", "POST"}),
        ("/v1/jobs/0123456789abcdef", {"GET", "DELETE"}),
        ("/v1/chat/completions", {"POST"}),
        ("/v1/models", {"GET"}),
        ("/healthz", {"GET"}),
        ("/openapi.json", {"GET", "HEAD"}),
        ("/static/page.css", {"GET", "HEAD"}),
    ],
)
def test_a_wrong_method_is_told_all_that_the_path_has(store: Backend, home: Path, path: str, allowed: set[str]) -> None:
    with served(store, home) as client:
        for method in ("PUT", "PATCH", "OPTIONS"):
            refused = client.request(method, path)
            assert refused.status_code == 405, path
            assert set(refused.headers["allow"].split(", ")) == allowed
            assert ("error" if path.startswith(("/v1/chat/", "/v1/models")) else "detail") in refused.json()
