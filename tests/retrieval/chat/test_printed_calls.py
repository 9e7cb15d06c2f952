"""Calls of tools that a server prints as text: done, and never shown; and what only looks like one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from langchain_core.messages import BaseMessage, HumanMessage, ToolMessage

from retrieval.chat import ChatOptions, Final, GroundedChat, Token
from retrieval.chat.printed_calls import PrintedCalls
from retrieval.chat.rounds import MAX_ROUNDS
from retrieval.chat.toolbox import NAMES
from retrieval.search.retriever import Retriever
from tests.support.chat_models import Calling, collection, prompt_of
from tests.support.fake_openai import Behaviour, FakeOpenAI, over_http

QUESTION = "what does the dog on the red beach do?"
ARGUMENTS = {"query": "a cat on a green sofa", "k": 1}
CALL = json.dumps({"name": "search", "arguments": ARGUMENTS})
FORMS = [
    f"<tool_call>\n{CALL}\n</tool_call>",
    f"<tool_call>{CALL}",
    f"<tool_calls>[{CALL}]</tool_calls>",
    f"<|tool_call|>[{CALL}]<|/tool_call|>",
    f"<function_call> {CALL} </function_call>",
    f"<function=search>{json.dumps(ARGUMENTS)}</function>",
    "<tool_call>\n<function=search>\n<parameter=query>\na cat on a green sofa\n</parameter>\n<parameter=k>\n1\n"
    "</parameter>\n</function>\n</tool_call>",
    f"[TOOL_CALLS] [{CALL}]",
    f"<|python_tag|>{CALL}",
    f"<｜tool▁calls▁begin｜>function<｜tool▁sep｜>search\n```json\n{json.dumps(ARGUMENTS)}\n```<｜tool▁calls▁end｜>",
    f"```json\n{CALL}\n```",
    f"```tool_call\n{CALL}\n```",
    f"```\n[{CALL}]\n```",
    CALL,
    json.dumps([{"name": "search", "parameters": ARGUMENTS}]),
    json.dumps({"type": "function", "function": {"name": "search", "arguments": json.dumps(ARGUMENTS)}}, indent=2),
    json.dumps({"tool_calls": [{"function": {"name": "search", "arguments": ARGUMENTS}}]}),
    json.dumps({"tool": "search", "tool_input": ARGUMENTS}),
]
PLAIN = [
    "A dog [1] runs { and a cat.",
    'The sign says {"name": "search"} in the middle of a line.',
    '```json\n{"name": "Rex", "arguments": {}}\n```\nIs a dog [1].',
    '{"dogs": 2, "cats": 1}',
    "```python\nprint('<tool>')\n```",
    "x < y and [TOOL] and `code` and [{]",
    '{"name": "search", ',
    '[\n{"a": 1}, 2]',
    "A dog [1][2]. <br> ```",
]


def through(text: str, size: int) -> PrintedCalls:
    """Feeds a text in pieces; what was shown on the way is what is shown at the end."""
    printed = PrintedCalls(NAMES)
    told = "".join(printed.feed(text[at : at + size]) for at in range(0, len(text), size)) + printed.end()
    assert told == printed.shown
    return printed


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_call_is_read_and_not_shown(form: str, size: int) -> None:
    for before in ("", "Let me look.\n"):
        printed = through(before + form, size)
        assert printed.shown.strip() == before.strip()
        (call,) = printed.calls
        given = json.loads(call["args"]) if isinstance(call["args"], str) else call["args"]
        assert (call["name"], given["query"], str(given["k"])) == ("search", "a cat on a green sofa", "1")


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize("text", PLAIN)
def test_what_is_no_call_is_shown_to_the_letter(text: str, size: int) -> None:
    printed = through(text, size)
    assert (printed.shown, printed.calls, printed.cut) == (text, [], False)


def test_several_calls_in_one_reply() -> None:
    two = json.dumps({"name": "count", "arguments": {}})
    printed = through(f"<tool_call>{CALL}</tool_call>\n<tool_call>{two}</tool_call>", 7)
    assert [call["name"] for call in printed.calls] == ["search", "count"]
    assert printed.shown.strip() == ""


def test_a_broken_call_is_not_shown_and_has_no_name() -> None:
    printed = through("Wait. <tool_call>search(a cat)</tool_call>", 5)
    assert (printed.shown, [call["name"] for call in printed.calls]) == ("Wait. ", [""])


def test_brackets_without_end_are_not_all_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []
    read = json.JSONDecoder.raw_decode

    def counted(self: json.JSONDecoder, text: str, place: int = 0) -> tuple[object, int]:
        tried.append(len(text))
        return read(self, text, place)

    monkeypatch.setattr(json.JSONDecoder, "raw_decode", counted)
    for broken in ("[" * 50_000, '[{"a": 1},' * 5_000):
        printed = through(f"<tool_call>{broken}", 100_000)
        assert [call["name"] for call in printed.calls] == [""]
    assert len(tried) <= 200
    assert max(tried) <= 20_000
    assert through(f"<tool_call>{'[' * 50}{CALL}</tool_call>", 7).calls[0]["name"] == "search"


@pytest.fixture
def retriever(tmp_path: Path) -> Retriever:
    return collection(tmp_path)


ONE = ChatOptions(gate=None, max_evidence=1)


@pytest.mark.parametrize("form", [FORMS[0], FORMS[10], FORMS[13]])
def test_a_printed_call_is_done_and_its_result_told_in_a_plain_message(retriever: Retriever, form: str) -> None:
    model = Calling(replies=[f"Let me look.\n{form}", "A brown dog runs [1]. A white cat sleeps [2]."])
    events = list(GroundedChat(retriever, model, ONE).stream(QUESTION))
    final = events[-1]
    assert isinstance(final, Final)
    answer = final.answer
    assert answer.text == "Let me look.\n\nA brown dog runs [1]. A white cat sleeps [2]."
    assert "".join(event.text for event in events if isinstance(event, Token) and event.final) == answer.text
    assert [(event.name, event.query, event.found) for event in answer.tools] == [("search", ARGUMENTS["query"], 1)]
    assert [source.item.id for source in answer.sources] == ["img-red", "img-green"]
    assert not any(isinstance(message, ToolMessage) for message in model.asked[1])
    assert isinstance(model.asked[1][-1], HumanMessage)
    assert "[2] photo | caption: a white cat sleeps on a green sofa" in prompt_of(model.asked[1][-1:])


@pytest.mark.parametrize("streaming", [True, False])
def test_printed_calls_over_http(retriever: Retriever, server: FakeOpenAI, streaming: bool) -> None:
    said = "A white cat sleeps on a green sofa [2]."
    called = f"Let me look.\n{FORMS[0]}\nThe cat is purple."
    server.behaviour = Behaviour(script=lambda prompt: said if "Results of the calls" in prompt else called)
    chat = GroundedChat(retriever, over_http(server, disable_streaming=not streaming), ONE)
    answer = chat.ask(QUESTION)
    assert (answer.text, [event.name for event in answer.tools]) == (f"Let me look.\n\n{said}", ["search"])
    assert [message["role"] for message in server.received[1].body["messages"]][-2:] == ["assistant", "user"]


def test_what_a_model_says_behind_its_printed_call_rests_on_nothing(retriever: Retriever) -> None:
    model = Calling(replies=[f"{FORMS[0]}\nThe cat is purple [2].", "A white cat sleeps [2]."])
    events = list(GroundedChat(retriever, model, ONE).stream(QUESTION))
    shown = "".join(event.text for event in events if isinstance(event, Token))
    assert "purple" not in shown
    assert "purple" not in prompt_of(model.asked[1]), "nor is it told to the model"
    final = events[-1]
    assert isinstance(final, Final)
    assert final.answer.text.strip() == "A white cat sleeps [2]."


def test_a_model_that_prints_calls_for_ever_shows_none_of_them(retriever: Retriever) -> None:
    def reply(messages: list[BaseMessage]) -> str:
        plain = "call the tools" not in prompt_of(messages[:1])
        return f"A brown dog runs [1].\n{FORMS[0]}" if plain else FORMS[0]

    answer = GroundedChat(retriever, Calling(replies=[reply]), ONE).ask(QUESTION)
    assert answer.text == "A brown dog runs [1]."
    assert len(answer.tools) == MAX_ROUNDS


def test_thoughts_call_nothing(retriever: Retriever) -> None:
    model = Calling(replies=[f"<think>Perhaps {FORMS[0]}?</think>A brown dog runs [1]."])
    answer = GroundedChat(retriever, model, ONE).ask(QUESTION)
    assert (answer.text, answer.tools) == ("A brown dog runs [1].", ())
