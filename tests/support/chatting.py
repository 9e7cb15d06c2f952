"""Chats with a service: its model, and what a test waits for."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import httpx
from langchain_openai import ChatOpenAI

from retrieval.chat import ChatOptions
from tests.support.fake_openai import FakeOpenAI

DOG = "The brown dog runs along a red beach [1]."


OPTIONS = ChatOptions(gate=None)


#: After it received a request, until the fake server would count the stream's end.
STREAM_BEGINS_S = 0.1


def loader(model: Any, options: ChatOptions = OPTIONS) -> Callable[[], tuple[Any, ChatOptions]]:
    return lambda: (model, options)


def through(server: FakeOpenAI, name: str = "fake-vision") -> ChatOpenAI:
    return ChatOpenAI(model=name, base_url=server.base_url, api_key="any", max_retries=0, stream_usage=True)


def leave(url: str, body: dict[str, Any], reached: Callable[[], object], **headers: str) -> None:
    """Post `body`, and go as soon as `reached` says so."""

    async def main() -> None:
        async with httpx.AsyncClient(timeout=20, headers=headers) as client, anyio.create_task_group() as group:
            group.start_soon(partial(client.post, url, json=body))
            with anyio.fail_after(10):
                while not reached():
                    await anyio.sleep(0.01)
                await anyio.sleep(STREAM_BEGINS_S)
            group.cancel_scope.cancel()

    anyio.run(main)


def wait_for_the_model(server: FakeOpenAI, requests: int = 1) -> None:
    until(lambda: len(server.received) == requests)
    time.sleep(STREAM_BEGINS_S)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
