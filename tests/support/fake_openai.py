"""The fake OpenAI server of `benchmarks.fake_openai`, for tests."""

from __future__ import annotations

from langchain_openai import ChatOpenAI

from benchmarks.fake_openai import Behaviour, Failure, FakeOpenAI, Received

__all__ = ["Behaviour", "Failure", "FakeOpenAI", "Received", "over_http"]


def over_http(server: FakeOpenAI, model: str = "fake-text", **options: object) -> ChatOpenAI:
    settings = {"api_key": "sk-thekeythekeythekey", "max_retries": 0, "stream_usage": True} | options
    return ChatOpenAI(model=model, base_url=server.base_url, **settings)
