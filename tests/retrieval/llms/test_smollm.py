"""SmolLM2 itself, from its package: these fail where it is not installed."""

from __future__ import annotations

import inspect
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from retrieval.llms import ModelError, ModelTimeout, load_model, traits
from retrieval.llms.smollm import ChatSmolLM2, find_weights

pytestmark = pytest.mark.slow

FRANCE = [SystemMessage("Answer the question from the text."), HumanMessage("Text: Rex is a brown dog.\n\nWho is Rex?")]


@pytest.fixture(scope="module")
def loaded() -> Iterator[ChatSmolLM2]:
    model = load_model("offline:smollm2", max_tokens=24)
    assert isinstance(model, ChatSmolLM2)
    yield model
    model.close()


@pytest.fixture
def model(loaded: ChatSmolLM2) -> ChatSmolLM2:
    return loaded


def test_it_answers_from_a_text_and_counts_its_tokens(model: ChatSmolLM2) -> None:
    answer = model.invoke(FRANCE)
    assert "dog" in str(answer.content)
    usage = answer.usage_metadata
    assert usage is not None
    assert 1 <= usage["output_tokens"] <= 24
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    assert answer.response_metadata["finish_reason"] in ("stop", "length")
    assert traits(model) == traits(model, vision=False, context_tokens=4096)
    assert traits(model).local


def test_the_chat_template_of_the_weights_is_applied(model: ChatSmolLM2) -> None:
    """The published template: with no system's turn there is one of its own; then a turn each, then the assistant's."""
    turn = "<|im_start|>{}\n{}<|im_end|>\n"
    own = turn.format("system", "You are a helpful AI assistant named SmolLM, trained by Hugging Face")
    prompts = {
        own + turn.format("user", "Who is Rex?"): [HumanMessage("Who is Rex?")],
        "".join(
            turn.format(role, text)
            for role, text in (("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello."), ("user", "Who?"))
        ): [SystemMessage("Be brief."), HumanMessage("Hi"), AIMessage("Hello."), HumanMessage("Who?")],
    }
    for prompt, messages in prompts.items():
        raw = model._server.handle_completions(
            {"prompt": prompt + "<|im_start|>assistant\n", "n_predict": 12, "temperature": 0}
        )
        answer = model.invoke(messages, max_tokens=12)
        assert answer.usage_metadata is not None
        assert answer.usage_metadata["input_tokens"] == raw["usage"]["prompt_tokens"]
        assert answer.content == raw["choices"][0]["text"].rstrip() or answer.content == raw["choices"][0]["text"]


def test_a_stream_is_the_answer_in_pieces(model: ChatSmolLM2) -> None:
    whole = model.invoke(FRANCE)
    chunks = list(model.stream(FRANCE))
    assert "".join(str(chunk.content) for chunk in chunks) == whole.content
    assert len([chunk for chunk in chunks if chunk.content]) >= 5
    assert [chunk.usage_metadata for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    last = chunks[-1].usage_metadata
    assert last is not None
    assert whole.usage_metadata is not None
    assert last["output_tokens"] == whole.usage_metadata["output_tokens"]


def test_a_shared_beginning_is_read_once(model: ChatSmolLM2) -> None:
    evidence = "Items: " + " ".join(f"[{i}] a photo of dog number {i}." for i in range(30))
    read = []
    for question in ("Which dog is first?", "Which dog is last?"):
        usage = model.invoke([SystemMessage(evidence), HumanMessage(question)], max_tokens=2).usage_metadata
        assert usage is not None
        read.append((usage["input_tokens"], usage["input_token_details"]["cache_read"]))
    assert read[1][1] > 0.9 * read[1][0]


def test_bounds_hold(model: ChatSmolLM2) -> None:
    counted = model.invoke("Count from one to a hundred.", max_tokens=7)
    assert counted.usage_metadata is not None
    assert counted.usage_metadata["output_tokens"] == 7
    assert counted.response_metadata["finish_reason"] == "length"
    whole = str(model.invoke(FRANCE).content)
    for stop in (" dog", "e"):
        cut = model.invoke(FRANCE, stop=[stop])
        assert cut.content == whole[: whole.index(stop)]
        assert cut.response_metadata["finish_reason"] == "stop"


def test_sampling_follows_its_seed(model: ChatSmolLM2) -> None:
    story = "Begin a story about the sea."
    texts = [model.invoke(story, temperature=1.5, seed=seed, max_tokens=12).content for seed in (1, 1, 2, 3)]
    assert texts[0] == texts[1]
    assert len(set(texts)) >= 2


def test_cancelling_stops_the_writing(model: ChatSmolLM2) -> None:
    stream = model.stream("Tell a very long story about a ship.", max_tokens=3000)
    next(stream)
    generation = model._running[-1]
    stream.close()  # type: ignore[attr-defined]
    assert generation.join(30)
    assert model.invoke("Hi", max_tokens=2).content  # and the next one is answered


@pytest.mark.asyncio
async def test_a_stream_left_early_by_a_coroutine_is_stopped_too(model: ChatSmolLM2) -> None:
    stream = model.astream("Tell a very long story about a ship.", max_tokens=3000)
    assert await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]
    assert model._running[-1].join(30)


def test_threads_may_ask_at_once(model: ChatSmolLM2) -> None:
    questions = ["What is a cat?", "What is a ship?", "What is bread?"]
    expected = {question: model.invoke(question, max_tokens=8).content for question in questions}
    found: dict[str, Any] = {}

    def ask(question: str) -> None:
        found[question] = model.invoke(question, max_tokens=8).content

    threads = [threading.Thread(target=ask, args=(question,)) for question in questions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected


def test_what_waits_for_its_turn_can_be_cancelled(model: ChatSmolLM2) -> None:
    with model._turn:
        waiting = model._start([HumanMessage("Hi")], None, {})
        waiting.cancel()
        assert waiting.join(10)
    assert [piece.reason for piece in waiting] == ["cancelled"]  # type: ignore[union-attr]


def test_too_long_a_prompt_is_refused(model: ChatSmolLM2) -> None:
    with pytest.raises(ModelError, match=r"the prompt has \d+ tokens, more than the 4096"):
        model.invoke("word " * 5000)


def test_what_it_cannot_take_is_said(model: ChatSmolLM2) -> None:
    image = {"type": "image", "base64": "aGVsbG8=", "mime_type": "image/png"}
    with pytest.raises(ModelError, match="reads text only"):
        model.invoke([HumanMessage([image])])
    with pytest.raises(ModelError, match="there is no question"):
        model.invoke([SystemMessage("Be brief.")])
    with pytest.raises(ModelError, match="does not know the option tools"):
        model.invoke("Hi", tools=[{}])
    with pytest.raises(ModelError, match="load another model"):
        model.invoke("Hi", model="gpt-4o")
    assert model.invoke([HumanMessage("Hi"), ToolMessage("found", tool_call_id="1")], max_tokens=2).content


def test_text_cannot_end_its_turn(model: ChatSmolLM2) -> None:
    def length(text: str) -> int:
        usage = model.invoke(text, max_tokens=1).usage_metadata
        assert usage is not None
        return usage["input_tokens"]

    # As one control token each they would take one token; as the text that they are, they take several.
    plain = length("a b")
    assert length("a <|im_end|> b") >= plain + 4
    assert length("a <|im_start|> b <repo_name> c") >= plain + 8


def test_nothing_is_written_to_the_terminal() -> None:
    code = (
        "from retrieval.llms import load_model\n"
        "model = load_model('offline:smollm2', max_tokens=3)\n"
        "print(len(model.invoke('Hi').content) > 0)\nmodel.close()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_the_port_that_llama_cpp_opens_answers_nobody(model: ChatSmolLM2) -> None:
    for path, body in (("/v1/models", None), ("/slots", None), ("/v1/chat/completions", b'{"messages": []}')):
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{model._server.listening_address}{path}", data=body, timeout=10)


def test_a_late_answer_is_stopped_and_a_closed_model_says_so() -> None:
    hurried = load_model("offline:smollm2", max_tokens=2000, timeout_s=0.05)
    assert isinstance(hurried, ChatSmolLM2)
    with pytest.raises(ModelTimeout, match=r"was not done after 0\.05 s and was stopped"):
        hurried.invoke("Tell a very long story.")
    hurried.close()
    hurried.close()
    with pytest.raises(ModelError, match="is closed"):
        hurried.invoke("Hi")


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        ChatSmolLM2(model_path=tmp_path / "none.gguf").load()
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(ModelError, match=r"bad\.gguf cannot be loaded"):
        ChatSmolLM2(model_path=tmp_path / "bad.gguf").load()


class _Standard:
    """What LangChain's suites are told of the model."""

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatSmolLM2

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model_path": find_weights(), "n_ctx": 1024}

    @property
    def has_tool_calling(self) -> bool:
        return False

    @property
    def has_structured_output(self) -> bool:
        return False


class TestAsLangChainModel(_Standard, ChatModelUnitTests):
    """LangChain's standard unit tests for chat models, unmodified."""


class TestAgainstLangChainsIntegration(_Standard, ChatModelIntegrationTests):
    """LangChain's standard integration tests for chat models, unmodified, over the real weights."""

    @pytest.fixture
    def model(self, request: pytest.FixtureRequest, loaded: ChatSmolLM2) -> BaseChatModel:
        # The same weights for all, and short answers: what they say is not looked at here.
        return loaded.model_copy(update={"max_tokens": 8, **getattr(request, "param", {})})


for _name, _test in vars(ChatModelIntegrationTests).items():
    if inspect.iscoroutinefunction(_test):
        pytest.mark.asyncio(_test)  # the suite leaves this to a setting of the whole project
