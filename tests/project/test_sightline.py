"""The one name that users import: what it re-exports, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from langchain_core.language_models.fake_chat_models import FakeListChatModel

import indexers
import retrieval
import sightline as sl
from backends.wrappers.aliases import Aliased
from tests.support.cli import paint
from tests.support.toy import ColourEncoder


def test_it_names_what_the_packages_have() -> None:
    assert isinstance(sl.connect("exact://"), Aliased)
    assert sl.index is indexers.index
    assert sl.Retriever is retrieval.Retriever
    assert sl.load_encoder is retrieval.load_encoder
    assert set(sl.__all__) == {"Retriever", "ask", "connect", "explain", "index", "load_encoder", "remove"}
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = sl.nothing


def test_importing_it_imports_no_client_no_network_and_no_langchain() -> None:
    code = "import sys, sightline; print(' '.join(sorted({name.split('.')[0] for name in sys.modules})))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"faiss", "torch", "open_clip", "transformers", "qdrant_client", "langchain_core", "fastapi"}
    assert not heavy & set(ended.stdout.split())


def test_a_question_is_answered_from_what_was_indexed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for colour in ("red", "blue"):
        paint(tmp_path / "pictures" / f"{colour}.png", colour)
        (tmp_path / "pictures" / f"{colour}.txt").write_text(f"a {colour} square\n")
    asked = []

    def load(name: str, *, base_url: str | None) -> FakeListChatModel:
        asked.append((name, base_url))
        return FakeListChatModel(responses=["A red square is there [1]."])

    monkeypatch.setattr("retrieval.chat.asking.load_model", load)
    encoder = ColourEncoder()
    with sl.connect("exact://") as backend:
        sl.index(tmp_path / "pictures", backend, encoder, "c")
        retriever = sl.Retriever(backend, encoder, "c")
        answer = sl.ask("is there a red square?", retriever, model="openai:some", model_url="http://127.0.0.1:1/v1")
    assert asked == [("openai:some", "http://127.0.0.1:1/v1")]
    assert not answer.refused
    assert "red square" in answer.text
    assert answer.sources[0].number == 1
