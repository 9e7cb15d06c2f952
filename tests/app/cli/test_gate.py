"""The relevance gate of chats: one number, wherever a chat runs, and the one that the documents name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from langchain_core.language_models.fake_chat_models import FakeListChatModel

from app.cli.ask import chat_options
from app.core.settings import Settings
from retrieval.chat.asking import options_for
from retrieval.chat.options import MIN_EVIDENCE_RELEVANCE, ChatOptions, gate_of
from retrieval.relevance.scorer import RELEVANT
from tests.support.repository import ROOT

DOCS = ROOT / "docs"


def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **settings: object) -> ChatOptions:
    monkeypatch.setenv("SIGHTLINE_HOME", str(tmp_path))
    loaded = Settings.load({"model": "openai:some", **settings})
    return chat_options(loaded, FakeListChatModel(responses=["a"]), asked_k=None)


def test_the_service_the_library_and_the_benchmark_gate_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = shipped(tmp_path, monkeypatch)
    measured = options_for(FakeListChatModel(responses=["a"]), "openai:some")
    assert ours.gate == measured.gate == ChatOptions().gate == MIN_EVIDENCE_RELEVANCE == gate_of(RELEVANT)


@pytest.mark.parametrize(
    ("setting", "gate"), [(0.8, MIN_EVIDENCE_RELEVANCE), (0.95, MIN_EVIDENCE_RELEVANCE), (0.5, 0.5), (0.0, None)]
)
def test_a_lower_setting_lowers_the_gate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: float, gate: float | None
) -> None:
    assert shipped(tmp_path, monkeypatch, min_relevance=setting).gate == gate


def test_the_documents_name_the_numbers_that_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (chats,) = re.findall(r"gate of calibrated relevance \((\d\.\d+)", (DOCS / "chat.md").read_text("utf-8"))
    (searches,) = re.findall(r"setting `min_relevance` \((\d\.\d+)", (DOCS / "relevance.md").read_text("utf-8"))
    monkeypatch.setenv("SIGHTLINE_HOME", str(tmp_path))
    assert float(chats) == MIN_EVIDENCE_RELEVANCE
    assert float(searches) == RELEVANT == Settings.load({}).min_relevance
