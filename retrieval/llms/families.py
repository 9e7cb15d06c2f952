"""How each family of vision-language models wants to be asked: by its chat template, or in words of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

from retrieval.llms.base import ModelError
from retrieval.llms.messages import Message, Part

#: Makes the processor's arguments from the messages.
Prompt = Callable[[Any, Sequence[Message]], dict[str, Any]]


@dataclass(frozen=True)
class Family:
    """One family: `prompt` asks it, with min_images to max_images images in all messages together (None: any number).

    fit shortens, in place, what the processor made where a part of the model reads less than the rest.
    """

    name: str
    prompt: Prompt
    min_images: int = 0
    max_images: int | None = None
    fit: Callable[[Any, Any], None] = lambda inputs, config: None

    def ask(self, processor: Any, messages: Sequence[Message]) -> dict[str, Any]:
        """The processor's arguments for `messages`; `ModelError` where the family cannot take so many images."""
        images = sum(len(message.images) for message in messages)
        if self.max_images is not None and images > self.max_images:
            raise ModelError(f"{self.name} takes {_counted(self.max_images)} a request, not {images}")
        if images < self.min_images:
            raise ModelError(
                f"{self.name} answers about an image only: put {_counted(self.min_images)} into the message"
            )
        return self.prompt(processor, messages)


def _counted(images: int) -> str:
    return "one image" if images == 1 else f"{images} images"


def family_of(model_type: str) -> Family:
    """The family of a configuration's ``model_type``; one that is not in the table is asked by its chat template."""
    return FAMILIES.get(model_type) or Family(model_type, by_chat_template)


def by_chat_template(processor: Any, messages: Sequence[Message]) -> dict[str, Any]:
    """Ask by the chat template that comes with the processor, images in the places where they stand."""
    if not getattr(processor, "chat_template", None):
        raise ModelError(
            "the model comes with no chat template for images: put its chat_template.jinja beside the weights"
        )
    messages = _merged(messages)
    try:
        text = _rendered(processor, messages)
    except Exception as error:
        # Templates refuse a system's message in words of their own; there it goes in front of the first question.
        if messages[0].role != "system":
            raise ModelError(f"the model's chat template refuses these messages: {_line(error)}") from None
        try:
            text = _rendered(processor, _merged([replace(messages[0], role="user"), *messages[1:]]))
        except Exception as second:
            raise ModelError(f"the model's chat template refuses these messages: {_line(second)}") from None
    images = [image for message in messages for image in message.images]
    token = getattr(processor, "image_token", None)
    if isinstance(token, str) and text.count(token) != len(images):
        raise ModelError(f"the model's chat template has room for {text.count(token)} images, not {len(images)}")
    beginning = getattr(processor.tokenizer, "bos_token", None)
    return {
        "text": [text],
        "images": images or None,
        "add_special_tokens": not (beginning and text.startswith(beginning)),
    }


def _rendered(processor: Any, messages: Sequence[Message]) -> str:
    conversation = [
        {
            "role": message.role,
            "content": [
                {"type": "text", "text": part} if isinstance(part, str) else {"type": "image"} for part in message.parts
            ],
        }
        for message in messages
    ]
    return str(processor.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True))


def _merged(messages: Sequence[Message]) -> list[Message]:
    """`messages` with neighbours of one role made one: many templates insist on alternation."""
    merged: list[Message] = []
    for message in messages:
        if merged and merged[-1].role == message.role:
            merged[-1] = replace(message, parts=_joined(merged[-1].parts, message.parts))
        elif message.parts:
            merged.append(message)
    return merged


def _joined(before: tuple[Part, ...], after: tuple[Part, ...]) -> tuple[Part, ...]:
    """Both, with a new line where text meets text."""
    if before and after and isinstance(before[-1], str) and isinstance(after[0], str):
        return (*before[:-1], f"{before[-1]}\n{after[0]}", *after[1:])
    return (*before, *after)


def _dialogue(messages: Sequence[Message], question: str, answer: str, between: str) -> str:
    """The texts of `messages`, each behind its side's name, ending with the name of who is to answer."""
    space = " " if question else ""
    said = [
        f"{answer if message.role == 'assistant' else question}{space if message.text else ''}{message.text}"
        for message in _with_system_in_front(messages)
    ]
    return between.join([*said, answer]).rstrip(" ") if answer else between.join(said)


def _with_system_in_front(messages: Sequence[Message]) -> list[Message]:
    """`messages` where what the system said is the beginning of the user's first message."""
    return _merged([replace(message, role="user") if message.role == "system" else message for message in messages])


def _images(messages: Sequence[Message]) -> list[Image.Image]:
    return [image for message in messages for image in message.images]


def _blip2(processor: Any, messages: Sequence[Message]) -> dict[str, Any]:
    """``Question: ... Answer:`` (Li et al., BLIP-2, ICML 2023, section 4.1), earlier messages in front."""
    return {"text": [_dialogue(messages, "Question:", "Answer:", " ")], "images": _images(messages)}


def _instructblip(processor: Any, messages: Sequence[Message]) -> dict[str, Any]:
    """The instruction as it is; with earlier messages, the dialogue format of Dai et al., InstructBLIP, appendix E."""
    alone = not any(message.role == "assistant" for message in messages)
    text = _dialogue(messages, "", "", "\n") if alone else _dialogue(messages, "Question:", "Answer:", "\n")
    return {"text": [text], "images": _images(messages)}


def _fit_qformer(inputs: Any, config: Any) -> None:
    """Cut the instruction that steers the Q-Former to its positions, as in training; the language model reads all."""
    for name in ("qformer_input_ids", "qformer_attention_mask"):
        inputs[name] = inputs[name][:, : config.qformer_config.max_position_embeddings]


def _kosmos2(processor: Any, messages: Sequence[Message]) -> dict[str, Any]:
    """``Question: ... Answer:`` behind the image, without ``<grounding>`` (Peng et al., arXiv:2306.14824)."""
    return {"text": [_dialogue(messages, "Question:", "Answer:", " ")], "images": _images(messages)}


def _fuyu(processor: Any, messages: Sequence[Message]) -> dict[str, Any]:
    r"""The text and a line's end; the processor puts the image in front (the model card of Fuyu-8B)."""
    text = _dialogue(messages, "", "", "\n") + "\n"
    return {"text": text, "images": _images(messages), "return_legacy_image_output": False}


def _chameleon(processor: Any, messages: Sequence[Message]) -> dict[str, Any]:
    """Images and texts in their order; the processor ends the prompt (Chameleon team, arXiv:2405.09818)."""
    parts = [part for message in _with_system_in_front(messages) for part in message.parts]
    text = "".join(part if isinstance(part, str) else processor.image_token for part in parts)
    return {"text": [text], "images": _images(messages) or None}


def _idefics(processor: Any, messages: Sequence[Message]) -> dict[str, Any]:
    """``User: ...`` and ``Assistant:`` with images among the text (Laurençon et al., OBELICS, NeurIPS 2023).

    A text that is a web address and nothing else would be fetched by the processor: none is left whole.
    """
    items: list[Any] = []
    for message in _with_system_in_front(messages):
        items.append("\nAssistant:" if message.role == "assistant" else "\nUser:")
        items.extend(part.replace("://", ": //") if isinstance(part, str) else part for part in message.parts)
        if message.role == "user":
            items.append("<end_of_utterance>")
    return {"text": [[*items, "\nAssistant:"]], "add_end_of_utterance_token": False}


#: By ``model_type``; what is not named here goes by its chat template and takes several images.
FAMILIES: Mapping[str, Family] = {
    "blip-2": Family("BLIP-2", _blip2, min_images=1, max_images=1),
    "instructblip": Family("InstructBLIP", _instructblip, min_images=1, max_images=1, fit=_fit_qformer),
    "kosmos-2": Family("Kosmos-2", _kosmos2, min_images=1, max_images=1),
    "fuyu": Family("Fuyu", _fuyu, min_images=1, max_images=1),
    "chameleon": Family("Chameleon", _chameleon),
    "idefics": Family("IDEFICS", _idefics),
}


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
