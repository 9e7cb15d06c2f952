"""A vision-language model in this process, through transformers."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, PrivateAttr

from retrieval.encoders.base import EncoderError
from retrieval.encoders.devices import choose_device, choose_precision
from retrieval.llms.base import ModelError
from retrieval.llms.decoding import Stop, TextStreamer
from retrieval.llms.families import Family, family_of
from retrieval.llms.local import Emit, Ending, LocalChatModel, Request
from retrieval.llms.messages import Message, Part, defuse, read_messages
from retrieval.llms.repositories import find_model_folder
from retrieval.llms.traits import DEFAULT_CONTEXT_TOKENS

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

# Attributes in which processors keep the tokens that they put in for an image; some are no added tokens.
_PLACEHOLDERS = ("image_token", "video_token", "image_newline_token", "image_start_token", "image_end_token")


class ChatTransformers(LocalChatModel):
    """A vision-language model of transformers as a LangChain chat model: texts and images in, text out, streamed.

    `model_path` is a folder as `save_pretrained` writes it: configuration, processor, and weights as safetensors. No
    code of a repository is ever run. Any family of `AutoModelForImageTextToText` that has a chat template is asked by
    it; those without are asked as `retrieval.llms.families` says. Images are made smaller than `max_image_side`
    before the processor sees them; none is fetched. Requests wait for one another.

    device and precision are those of the encoders, except that auto takes bf16 on a GPU that has it: these models
    are trained in it, and some overflow in fp16.
    """

    model_path: Path
    device: str = "auto"
    precision: str = "auto"
    max_image_side: int = Field(default=1280, ge=28, le=8192)

    _model: Any = PrivateAttr(default=None)
    _processor: Any = PrivateAttr(default=None)
    _family: Family = PrivateAttr()
    _control: re.Pattern[str] = PrivateAttr()
    _context_tokens: int | None = PrivateAttr(default=None)
    _turn: Any = PrivateAttr(default_factory=threading.Lock)

    def _load(self) -> None:
        try:
            device = choose_device(self.device)
            dtype = _DTYPES[_precision(self.precision, device)]
        except EncoderError as error:
            raise ModelError(str(error)) from None
        self._family, self._processor, self._model = _load_folder(self.model_path, dtype, device)
        self._control = _control_tokens(self._processor)
        self._context_tokens = _context_tokens(self._model.config)
        if self.profile is None:
            self.profile = {
                "name": self.model_name,
                "max_input_tokens": self._context_tokens or DEFAULT_CONTEXT_TOKENS,
                "text_inputs": True,
                "image_inputs": True,
                "image_url_inputs": False,
                "text_outputs": True,
                "tool_calling": False,
            }

    @property
    def _llm_type(self) -> str:
        return "transformers"

    @property
    def max_images(self) -> int | None:
        """How many images the family takes in one request; None where the context is the only bound."""
        return self.load()._family.max_images

    def _write(self, request: Request, emit: Emit) -> Ending:
        inputs = self._inputs(request)
        streamer = TextStreamer(self._processor.tokenizer, emit, request.stop)
        while not self._turn.acquire(timeout=0.05):
            if emit(""):
                return Ending("cancelled", 0, 0)
        try:
            with torch.inference_mode(), _seeded(request.seed, self._model.device):
                self._model.generate(
                    **inputs, **self._options(request), streamer=streamer, stopping_criteria=[Stop(streamer)]
                )
        except torch.OutOfMemoryError:
            raise ModelError(
                "the images and texts do not fit into the device's memory: send fewer, or smaller"
            ) from None
        finally:
            self._turn.release()
        written = len(streamer.token_ids)
        reason = "stop"
        if streamer.wants_no_more and not streamer.stopped:
            reason = "cancelled"
        elif not streamer.stopped and written >= request.max_tokens and streamer.token_ids[-1] not in self._end_ids():
            reason = "length"
        return Ending(reason, int(inputs["input_ids"].shape[-1]), written)

    def _inputs(self, request: Request) -> Any:
        """What the processor makes of the messages, on the model's device."""
        messages = [
            Message(message.role, tuple(self._defused(part) for part in message.parts))
            for message in read_messages(request.messages, max_image_side=self.max_image_side)
        ]
        arguments = self._family.ask(self._processor, messages)
        try:
            inputs = self._processor(**arguments, return_tensors="pt")
        except Exception as error:
            raise ModelError(f"{self.model_name}'s processor refuses the messages: {_line(error)}") from None
        self._family.fit(inputs, self._model.config)
        length = int(inputs["input_ids"].shape[-1])
        if self._context_tokens is not None and length + request.max_tokens > self._context_tokens:
            raise ModelError(
                f"the prompt has {length} tokens with its images, and with {request.max_tokens} for the answer that is "
                f"more than the {self._context_tokens} of {self.model_name}: send fewer images or less text"
            )
        return inputs.to(self._model.device, dtype=self._model.dtype)

    def _defused(self, part: Part) -> Part:
        return defuse(part, self._control) if isinstance(part, str) else part

    def _options(self, request: Request) -> dict[str, Any]:
        options: dict[str, Any] = {"max_new_tokens": request.max_tokens, "num_beams": 1, "do_sample": False}
        if request.temperature > 0:
            options |= {"do_sample": True, "temperature": request.temperature}
        return options

    def _end_ids(self) -> set[int]:
        """The tokens that end an answer."""
        ends = self._model.generation_config.eos_token_id
        return {ends} if isinstance(ends, int) else set(ends or ())

    def _release(self) -> None:
        self._model = self._processor = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def load_vision_model(
    source: str, *, timeout_s: float, max_tokens: int, temperature: float, device: str = "auto", precision: str = "auto"
) -> ChatTransformers:
    """Load the model in the folder `source`, or of the hub repository of that name, as a chat model.

    Raises `ModelError` for weights that are neither here nor downloadable, or that transformers cannot load safely.
    """
    return ChatTransformers(
        model_path=find_model_folder(source),
        model_name=source,
        timeout_s=timeout_s,
        max_tokens=max_tokens,
        temperature=temperature,
        device=device,
        precision=precision,
    ).load()


def _precision(precision: str, device: str) -> str:
    if precision == "auto" and device.startswith("cuda") and torch.cuda.is_bf16_supported():
        return "bf16"
    return choose_precision(precision, device)


def _load_folder(folder: Path, dtype: torch.dtype, device: str) -> tuple[Family, Any, Any]:
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        # No code from the folder, no pickles, nothing from the network.
        safe = {"trust_remote_code": False, "local_files_only": True}
        config = AutoConfig.from_pretrained(folder, **safe)
        if type(config) not in AutoModelForImageTextToText._model_mapping:
            raise ModelError(f"{config.model_type} is no vision-language model that transformers knows")
        processor = AutoProcessor.from_pretrained(folder, **safe)
        model = AutoModelForImageTextToText.from_pretrained(
            folder, config=config, dtype=dtype, use_safetensors=True, **safe
        )
    except Exception as error:
        raise ModelError(f"transformers:{folder}: {_line(error)}") from None
    finally:
        if bars:
            logging.enable_progress_bar()
    return family_of(config.model_type), processor, model.eval().to(device)


def _context_tokens(config: Any) -> int | None:
    """The longest sequence of the part that reads the text; None where the configuration does not say."""
    text = config.get_text_config(decoder=True)
    for field in ("max_position_embeddings", "max_sequence_length", "n_positions"):
        length = getattr(text, field, None)
        if isinstance(length, int) and length > 0:
            return length
    return None


def _control_tokens(processor: Any) -> re.Pattern[str]:
    """What the tokenizer reads as more than text, wherever it stands: special and added tokens, image placeholders."""
    tokenizer = processor.tokenizer
    tokens = set(tokenizer.all_special_tokens)
    tokens |= {str(token) for name in _PLACEHOLDERS if (token := getattr(processor, name, None))}
    for token in tokenizer.added_tokens_decoder.values():
        # Some vocabularies add runs of spaces or plain words: those are text.
        if token.special or not token.content.isalnum():
            tokens.add(token.content)
    spoken = sorted((token for token in tokens if len(token) > 2 and token.strip()), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, spoken)) or r"(?!)")


@contextlib.contextmanager
def _seeded(seed: int | None, device: torch.device) -> Iterator[None]:
    """Sampling from `seed`, without disturbing anyone else's random numbers."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:500] or type(error).__name__
