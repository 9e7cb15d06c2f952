"""The Model Context Protocol's tools, called by the official SDK's own client."""

from __future__ import annotations

import base64
import io
import json
import logging
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from mcp import Client, StdioServerParameters
from PIL import Image

from app.core.keys import KeyStore
from app.http.app import Limits, create_app
from backends.base import Backend
from retrieval.chat import ChatOptions
from tests.support.chat_models import CAPTIONS, Scripted
from tests.support.chatting import DOG, STREAM_BEGINS_S, leave, loader, through, until
from tests.support.cli import Run
from tests.support.fake_openai import Behaviour, FakeOpenAI
from tests.support.mcp_client import connected, text_of
from tests.support.repository import ROOT
from tests.support.service import is_problem, png
from tests.support.serving import running
from tests.support.toy import ColourEncoder

QUESTION = "what does the dog on the red beach do?"
TOOLS = {"search", "look_up", "get_item", "ask"}
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}


def application(gallery: Backend, home: Path, **options: Any) -> Any:
    options = {
        "encoder": ColourEncoder(),
        "limits": Limits(rate=None),
        "roots": [home / "photos"],
        "home": home / "home",
        "load_model": loader(Scripted(replies=[DOG])),
    } | options
    return create_app(gallery, collection="c", **options)


def over_http(app: Any, work: Callable[[Client], Awaitable[None]], mode: str = "auto", **headers: str) -> None:
    """Run `work` with a client of the service's tools."""

    async def main(port: int) -> None:
        async with connected(port, mode, **headers) as client:
            await work(client)

    with running(app) as port:
        anyio.run(main, port)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_the_sdk_lists_and_calls_every_tool(gallery: Backend, tmp_path: Path, mode: str) -> None:
    async def work(client: Client) -> None:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == TOOLS
        assert all(
            tool.description and tool.output_schema and tool.annotations.read_only_hint for tool in tools.values()
        )
        assert tools["search"].input_schema["properties"]["k"]["maximum"] == 200

        found = await client.call_tool("search", {"text": "red", "modality": "image", "k": 1})
        assert not found.is_error
        assert [hit["id"] for hit in found.structured_content["hits"]] == ["img-red"]
        blue = base64.b64encode(png("blue")).decode()
        like = await client.call_tool("search", {"image": blue, "modality": "image", "where": {"year": {"$gt": 1990}}})
        assert like.structured_content["hits"][0]["id"] == "img-blue"

        described = await client.call_tool("look_up", {"image": blue, "k": 1})
        assert described.structured_content["hits"][0]["text"] == CAPTIONS["blue"]
        of_stored = await client.call_tool("look_up", {"item_id": "img-green", "k": 1})
        assert of_stored.structured_content["hits"][0]["text"] == CAPTIONS["green"]

        item = await client.call_tool("get_item", {"item_id": "img-red", "picture": True})
        assert item.structured_content["metadata"] == {"year": 1990}
        text, picture = item.content
        assert json.loads(text.text) == item.structured_content
        assert picture.mime_type == "image/jpeg"
        assert Image.open(io.BytesIO(base64.b64decode(picture.data))).getpixel((0, 0))[0] > 200

        answer = await client.call_tool("ask", {"question": QUESTION})
        assert answer.structured_content["answer"] == DOG
        assert [source["id"] for source in answer.structured_content["sources"]] == ["img-red"]
        past = [{"question": "is there a red beach?", "answer": "Yes [1]."}]
        assert (await client.call_tool("ask", {"question": "and what runs there?", "history": past})).structured_content

    options = ChatOptions(gate=None, rewrite="rules")
    over_http(application(gallery, tmp_path, load_model=loader(Scripted(replies=[DOG]), options)), work, mode)


def test_what_goes_wrong_is_told_to_the_model_that_called(
    gallery: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(client: Client) -> None:
        for name, arguments, words in (
            ("search", {}, "exactly one"),
            ("search", {"text": "red", "k": 1000}, "200"),
            ("search", {"text": "red\0"}, "NUL"),
            ("search", {"text": "red", "where": {"$oops": 1}}, "oops"),
            ("search", {"text": "red", "collection": "absent"}, "absent"),
            ("search", {"image": "!"}, "base64"),
            ("look_up", {}, "exactly one"),
            ("look_up", {"image": base64.b64encode(png("red")).decode()}, "pixels"),
            ("get_item", {"item_id": "absent"}, "absent"),
            ("get_item", {"item_id": "txt-1", "picture": True}, "no local image"),
            ("ask", {"question": ""}, "question"),
            ("ask", {"question": "\u200b"}, "empty"),
            ("ask", {"question": "?", "collection": "absent"}, "absent"),
            ("absent", {}, "absent"),
        ):
            result = await client.call_tool(name, arguments)
            assert result.is_error, (name, arguments)
            assert words in text_of(result), text_of(result)
        monkeypatch.setattr("app.http.tools.stored", lambda *_: {}["secret detail"])
        broken = await client.call_tool("get_item", {"item_id": "a"})
        assert broken.is_error
        assert "secret" not in text_of(broken)

    caplog.set_level(logging.CRITICAL, "mcp")
    over_http(application(gallery, tmp_path, limits=Limits(rate=None, max_pixels=1000)), work)


def test_without_a_model_all_but_ask_works(gallery: Backend, tmp_path: Path) -> None:
    async def work(client: Client) -> None:
        refused = await client.call_tool("ask", {"question": QUESTION})
        assert refused.is_error
        assert "without a model" in text_of(refused)
        assert not (await client.call_tool("search", {"text": "red"})).is_error

    over_http(application(gallery, tmp_path, load_model=None), work)


def test_pictures_outside_the_roots_are_not_given(gallery: Backend, tmp_path: Path) -> None:
    async def work(client: Client) -> None:
        result = await client.call_tool("get_item", {"item_id": "img-red", "picture": True})
        assert result.is_error
        assert "not below" in text_of(result)
        assert not (await client.call_tool("get_item", {"item_id": "img-red"})).is_error

    (tmp_path / "elsewhere").mkdir()
    over_http(application(gallery, tmp_path, roots=[tmp_path / "elsewhere"]), work)


def test_the_same_keys_and_bounds_stand_before_the_tools(gallery: Backend, tmp_path: Path) -> None:
    keys = KeyStore(tmp_path / "keys.json")
    _, key = keys.add("reader", "read")

    async def work(client: Client) -> None:
        assert {tool.name for tool in (await client.list_tools()).tools} == TOOLS

    over_http(application(gallery, tmp_path, keys=keys), work, Authorization=f"Bearer {key}")
    limits = Limits(rate=None, max_body_bytes=2000)
    json_body = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    with running(application(gallery, tmp_path, keys=keys, limits=limits)) as port:
        url = f"http://127.0.0.1:{port}/mcp"
        is_problem(httpx.post(url, json=INITIALIZE, headers=json_body), 401, "API key")
        json_body["Authorization"] = f"Bearer {key}"
        assert httpx.post(url, json=INITIALIZE, headers=json_body).status_code == 200
        is_problem(httpx.post(url, content=b" " * 3000, headers=json_body), 413, "2000")
        is_problem(httpx.post(url, content=b"{}", headers=json_body | {"Content-Type": "text/plain"}), 415)
        is_problem(httpx.post(url, json=INITIALIZE, headers=json_body | {"Host": "evil.example"}), 400, "Host")
        is_problem(
            httpx.post(url, json=INITIALIZE, headers=json_body | {"Origin": "http://evil.example"}), 403, "origin"
        )
        is_problem(httpx.get(url, headers=json_body), 405)
    with running(application(gallery, tmp_path, keys=keys, limits=Limits(rate="1/hour"))) as port:
        url = f"http://127.0.0.1:{port}/mcp"
        assert httpx.post(url, json=INITIALIZE, headers=json_body).status_code == 200
        is_problem(httpx.post(url, json=INITIALIZE, headers=json_body), 429)


def test_who_leaves_cancels_the_question(gallery: Backend, tmp_path: Path, server: FakeOpenAI) -> None:
    server.behaviour = Behaviour(first_token_s=10)

    async def work(client: Client) -> None:
        with anyio.fail_after(10):
            async with anyio.create_task_group() as group:
                group.start_soon(client.call_tool, "ask", {"question": QUESTION})
                while not server.received:
                    await anyio.sleep(0.01)
                await anyio.sleep(STREAM_BEGINS_S)
                group.cancel_scope.cancel()
            while not server.abandoned:
                await anyio.sleep(0.01)

    over_http(application(gallery, tmp_path, load_model=loader(through(server))), work)


def test_a_closed_connection_cancels_the_question_of_an_older_client(
    gallery: Backend, tmp_path: Path, server: FakeOpenAI
) -> None:
    server.behaviour = Behaviour(first_token_s=10)
    params = {"name": "ask", "arguments": {"question": QUESTION}}
    call = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": params}
    headers = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-06-18"}
    with running(application(gallery, tmp_path, load_model=loader(through(server)))) as port:
        leave(f"http://127.0.0.1:{port}/mcp", call, lambda: server.received, **headers)
        until(lambda: server.abandoned == 1)


def test_the_end_of_the_service_ends_a_call(gallery: Backend, tmp_path: Path, server: FakeOpenAI) -> None:
    server.behaviour = Behaviour(first_token_s=10)
    app = application(gallery, tmp_path, load_model=loader(through(server)))

    async def work(client: Client) -> None:
        async def stop() -> None:
            while not server.received:
                await anyio.sleep(0.02)
            await anyio.sleep(STREAM_BEGINS_S)
            app.state.service.stop()

        async with anyio.create_task_group() as group:
            group.start_soon(stop)
            with anyio.fail_after(5):
                result = await client.call_tool("ask", {"question": QUESTION})
        assert result.is_error
        assert "stopping" in text_of(result)

    over_http(app, work)
    until(lambda: server.abandoned == 1)


LAUNCH = """
import sys
from pathlib import Path

import backends
import retrieval.encoders
from app.main import main
from tests.support.chat_models import collection
from tests.support.toy import ColourEncoder
from tests.support.toy import KeptBackend

backends.engines()["kept"] = backends.EngineInfo(
    scheme="kept", backend="tests.support.toy:KeptBackend", example="kept://", summary="for tests"
)
KeptBackend.stores["kept://"] = collection(Path(sys.argv[1])).backend
retrieval.encoders.load_encoder = lambda *_, **__: ColourEncoder()
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.slow
def test_the_command_speaks_over_standard_input_and_output(tmp_path: Path, server: FakeOpenAI) -> None:
    environment = {
        **os.environ,
        "SIGHTLINE_HOME": str(tmp_path / "home"),
        "SIGHTLINE_BACKEND": "kept://",
        "SIGHTLINE_MIN_RELEVANCE": "0",
        "PYTHONPATH": str(ROOT),
        "OPENAI_API_KEY": "",
    }
    photos = tmp_path / "photos"
    flags = ["--collection", "c", "--root", str(photos), "--model", "openai:fake-text", "--model-url", server.base_url]
    photos.mkdir()
    command = StdioServerParameters(
        command=sys.executable, args=["-c", LAUNCH, str(photos), "mcp", *flags], env=environment, cwd=tmp_path
    )

    async def main() -> None:
        async with Client(command) as client:
            assert {tool.name for tool in (await client.list_tools()).tools} == TOOLS
            item = await client.call_tool("get_item", {"item_id": "img-red", "picture": True})
            assert [block.type for block in item.content] == ["text", "image"]
            answer = await client.call_tool("ask", {"question": QUESTION})
            assert "[1]" in answer.structured_content["answer"]

    anyio.run(main)
    assert server.received
    # What a service left to be done in this home is not begun.
    assert not (tmp_path / "home" / "jobs").exists()


def test_the_command_says_what_is_missing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run("mcp", "--collection", "absent")
    assert (done.code, done.out) == (1, "")
    assert "absent" in done.err
    monkeypatch.setitem(sys.modules, "mcp", None)
    monkeypatch.setitem(sys.modules, "mcp.server.mcpserver", None)
    monkeypatch.delitem(sys.modules, "app.http.tools", raising=False)
    done = run("mcp")
    assert done.code == 1
    assert "pip install 'sightline[mcp]'" in done.err
