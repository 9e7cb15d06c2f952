"""OpenAI's chat completions: the request's body, the objects of the answer, and the shape of errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.http.schemas.chat import ToolBody
from app.http.schemas.common import CheckName, Text

if TYPE_CHECKING:
    from retrieval.chat import ToolUsed

MODEL = "sightline"

#: Verdicts that are told to a client; of the others nothing needs to be said.
SHOWN_VERDICTS = frozenset({"stated", "uncited", "contradicted", "dangling", "unsupported"})

#: Parameters that say how a model writes; what is cited and checked here does not depend on them.
WITHOUT_EFFECT = frozenset(
    {
        "frequency_penalty",
        "function_call",
        "functions",
        "logit_bias",
        "max_completion_tokens",
        "max_tokens",
        "metadata",
        "moderation",
        "parallel_tool_calls",
        "prediction",
        "presence_penalty",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "reasoning_effort",
        "safety_identifier",
        "seed",
        "service_tier",
        "stop",
        "store",
        "temperature",
        "tool_choice",
        "tools",
        "top_p",
        "user",
        "verbosity",
        "web_search_options",
    }
)
ERROR: dict[str, Any] = {
    "type": "object",
    "title": "OpenAIError",
    "description": "An error as OpenAI's API gives it.",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string", "examples": ["The model 'gpt-4o' does not exist."]},
                "type": {"type": "string", "examples": ["invalid_request_error"]},
                "param": {"type": ["string", "null"], "examples": ["model"]},
                "code": {"type": ["string", "null"], "examples": ["model_not_found"]},
            },
        }
    },
}


class ImageUrl(BaseModel):
    """A picture as a data: URL, or at an https:// address on a host that the service was told to fetch from."""

    url: str = Field(
        examples=["data:image/png;base64,iVBORw0KGgo…"],
        json_schema_extra={
            "pattern": "^(data:(image/[a-z0-9.+-]{1,40}|application/octet-stream)?(;[^,]*)?;base64,|https://)"
        },
    )
    detail: Any = Field(None, description="Without effect.")


class Part(BaseModel):
    """A part of a message: a text, or a picture."""

    type: str = Field(json_schema_extra={"enum": ["text", "image_url", "refusal"]})
    text: Text | None = None
    image_url: ImageUrl | None = None


class Message(BaseModel):
    """A message of the conversation. Further fields are ignored."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Text | list[Part] | None = None


class StreamOptions(BaseModel):
    """What a stream holds beside the answer. Further fields are ignored."""

    include_usage: bool | None = None


_EXAMPLES: list[dict[str, Any]] = [
    {"model": MODEL, "messages": [{"role": "user", "content": "what is the dog doing?"}]},
    {
        "model": MODEL,
        "messages": [
            {"role": "system", "content": "You are helpful."},
            {"role": "user", "content": "is there a dog?"},
            {"role": "assistant", "content": "A dog runs along a beach [1]."},
            {"role": "user", "content": [{"type": "text", "text": "what colour is the beach?"}]},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.2,
    },
]


def _with_parameters(schema: dict[str, Any]) -> None:
    """Describe what is taken without effect as well."""
    schema["properties"] |= {name: {"description": "Without effect."} for name in sorted(WITHOUT_EFFECT)}
    schema["additionalProperties"] = True
    schema["examples"] = _EXAMPLES


class CompletionBody(BaseModel):
    """A chat completion to make. Parameters that say how a model writes, and those of front ends, have no effect."""

    model_config = ConfigDict(extra="allow", json_schema_extra=_with_parameters)
    # Another one is no wrong value but a model that does not exist, which the SDK tells apart.
    model: str = Field(max_length=200, description="Always `sightline`.", json_schema_extra={"enum": [MODEL]})
    messages: list[Message] = Field(min_length=1, max_length=1000)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = Field(None, description="Only 1.")
    response_format: dict[str, Any] | None = Field(None, description='Only `{"type": "text"}`.')
    modalities: list[str] | None = Field(None, description="Only text.")
    logprobs: bool | None = Field(None, description="Only false.")
    top_logprobs: int | None = Field(None, description="Only 0.")
    audio: dict[str, Any] | None = Field(None, description="Refused.")
    where: dict[str, Any] | None = Field(None, description="Not OpenAI's: only items that match, as in a search.")
    strict: bool = Field(False, description="Not OpenAI's: short for the check `strict`.")
    check: CheckName = None


class UrlCitation(BaseModel):
    """The source of the [n] that stands from `start_index` to before `end_index` in the answer."""

    start_index: int
    end_index: int
    title: str
    url: str


class Annotation(BaseModel):
    """One citation."""

    type: Literal["url_citation"] = "url_citation"
    url_citation: UrlCitation


class SentenceVerdict(BaseModel):
    """What the check says of the sentence from `start_index` to before `end_index`; see docs/chat.md."""

    start_index: int
    end_index: int
    verdict: str = Field(json_schema_extra={"enum": [*sorted(SHOWN_VERDICTS)]})
    conflict: str = Field(description="Of `contradicted`, the words of the source. Show them as text only.")
    source: int | None = Field(description="The number of the source that conflicts.")


class Lookup(ToolBody):
    """Not OpenAI's: what the model looked for itself; see docs/http.md."""

    index: int = Field(description="Its place among all of the answer.")

    @classmethod
    def at(cls, index: int, used: ToolUsed) -> Lookup:
        """The body of the call at this place."""
        return cls(index=index, **ToolBody.of(used).model_dump())


class AnswerMessage(BaseModel):
    """The checked answer."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None
    annotations: list[Annotation]
    verdicts: list[SentenceVerdict] = Field(
        description="Not OpenAI's: of the sentences that a reader should look at, and of those that a source states."
    )
    lookups: list[Lookup] = Field(description="Not OpenAI's: what the model looked for itself, one after another.")


class Choice(BaseModel):
    """The one answer."""

    index: int = 0
    message: AnswerMessage
    logprobs: None = None
    finish_reason: Literal["stop", "length"]


class TokenUsage(BaseModel):
    """What the model that answers counted, or our estimate."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Completion(BaseModel):
    """A chat completion."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: TokenUsage


class ModelBody(BaseModel):
    """A model."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str


class ModelsBody(BaseModel):
    """All models: one."""

    object: Literal["list"] = "list"
    data: list[ModelBody]
