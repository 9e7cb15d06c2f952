"""The bodies of a chat: what is asked, what was found, and the checked answer."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, urlencode

from pydantic import BaseModel, ConfigDict, Field

from app.http.schemas.common import CheckName, ImageAddress, Text
from backends.base import Modality
from backends.urls import local_path
from retrieval.turn import Turn

if TYPE_CHECKING:
    from backends.base import Hit
    from retrieval.chat import Answer, Evidence, Sentence, ToolUsed

MAX_QUESTION_CHARS = 4_000
MAX_ANSWER_CHARS = 20_000
MAX_HISTORY = 32
SHOWN_SIZE = 640


class PastTurn(BaseModel):
    """An earlier question and its answer, as an `answer` gave them."""

    model_config = ConfigDict(extra="forbid")
    question: Text = Field(min_length=1, max_length=MAX_QUESTION_CHARS)
    answer: Text = Field(max_length=MAX_ANSWER_CHARS)
    query: Text = Field("", max_length=MAX_QUESTION_CHARS, description="The answer's `query`, if known.")

    def turn(self) -> Turn:
        """The turn itself, within the bounds of HTTP."""
        return Turn(self.question, self.answer, self.query)


class ChatBody(BaseModel):
    """A question to the collection."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"question": "what is the dog doing?"},
                {
                    "question": "and where is it?",
                    "history": [{"question": "what is the dog doing?", "answer": "The dog is running [1]."}],
                    "where": {"year": {"$gte": 1990}},
                    "stream": False,
                },
            ]
        },
    )
    question: Text = Field(min_length=1, max_length=MAX_QUESTION_CHARS)
    history: list[PastTurn] = Field(
        default_factory=list,
        max_length=MAX_HISTORY,
        description="The conversation so far, oldest first; the last turns count.",
    )
    image: str | None = Field(None, description="A picture that belongs to the question: a file's bytes in base64.")
    image_url: ImageAddress = None
    where: dict[str, Any] | None = Field(
        None, examples=[{"year": {"$gte": 1990}}], description="Only items that match, as in a search."
    )
    strict: bool = Field(False, description="Short for the check `strict`.")
    check: CheckName = None
    stream: bool = Field(True, description="Server-sent events as the turn goes on; else one JSON object at its end.")


class EvidenceBody(BaseModel):
    """One found item under the number that the answer cites."""

    number: int
    id: str
    modality: Modality
    caption: str | None = Field(description="An image's caption, or the text itself. Show it as text only.")
    relevance: float | None
    uri: str | None
    item: str = Field(description="Where the item is, relative to this service.")
    image: str | None = Field(description="Where its picture is, relative to this service; null where it has none.")
    gone: bool = Field(description="Its file was on the server and is not there any more.")

    @classmethod
    def of(cls, piece: Evidence, collection: str | None) -> EvidenceBody:
        """The body of a piece of evidence from `collection`."""
        item, image = links(piece.item, collection)
        return cls(
            number=piece.number,
            id=piece.item.id,
            modality=piece.item.modality,
            caption=piece.item.text,
            relevance=piece.relevance,
            uri=piece.item.uri,
            item=item,
            image=image,
            gone=piece.item.gone,
        )


class ToolBody(BaseModel):
    """What the model looked for itself, by a tool."""

    name: Literal["search", "count", "facet", "open", "unknown"]
    query: str = Field(description="The words, the field, or the item. Show it as text only.")
    filter: str = Field(description="The filter as JSON, empty for none.")
    found: int = Field(description="How many items, or values of a field.")
    at_least: bool = Field(description="There may be more.")
    error: str = Field(description="Why it was not done, empty where it was.")

    @classmethod
    def of(cls, used: ToolUsed) -> ToolBody:
        """The body of a call."""
        return cls(
            name=used.name,  # type: ignore[arg-type]
            query=used.query,
            filter=used.filter,
            found=used.found,
            at_least=used.at_least,
            error=used.error,
        )


class SentenceBody(BaseModel):
    """A sentence of the model's, and what the check made of it."""

    text: str
    verdict: Literal["stated", "seen", "cited", "uncited", "contradicted", "dangling", "unsupported", "no_claim"]
    citations: list[int]
    support: float
    start: int | None = Field(description="Where it is in `answer`, in characters; null for one that is not there.")
    end: int | None
    removed: list[int] = Field(description="Numbers that it cited and that name no source.")
    conflict: str = Field(description="Of `contradicted`, the source's words. Show them as text only.")
    conflict_source: int | None = Field(description="The number of the source that conflicts.")
    verified: bool = Field(description="The verdict is a model's, by the check `verify`.")
    attached: bool = Field(False, description="It cites the picture that came with the question, as [image].")

    @classmethod
    def of(cls, sentence: Sentence) -> SentenceBody:
        """The body of a judged sentence."""
        told = asdict(sentence)
        return cls(**told | {"citations": list(sentence.citations), "removed": list(sentence.removed)})


class CitedBody(BaseModel):
    """A group of citations in `answer`, as [1] or [2, 3]: where it is, in characters, and the numbers it names."""

    start: int
    end: int
    numbers: list[int]


_SOURCE: dict[str, Any] = {
    "number": 1,
    "id": "img-5583",
    "modality": "image",
    "caption": "a dog runs along a beach",
    "relevance": 0.99,
    "uri": "file:///srv/photos/dog.jpg",
    "item": "/v1/items/img-5583",
    "image": "/v1/items/img-5583/image?size=640",
    "gone": False,
}
_ANSWER: dict[str, Any] = {
    "question": "what is the dog doing?",
    "query": "what is the dog doing?",
    "answer": "The dog runs along a beach [1].",
    "refused": False,
    "quoted": False,
    "truncated": False,
    "sources": [_SOURCE],
    "citations": [{"start": 27, "end": 30, "numbers": [1]}],
    "check": "mark",
    "sentences": [
        {
            "text": "The dog runs along a beach [1].",
            "verdict": "stated",
            "citations": [1],
            "support": 1.0,
            "start": 0,
            "end": 31,
            "removed": [],
            "conflict": "",
            "conflict_source": None,
            "verified": False,
            "attached": False,
        }
    ],
    "counts": {
        "evidence": 3,
        "images": 3,
        "citations": 1,
        "unresolved": 0,
        "corrected": 0,
        "stated": 1,
        "seen": 0,
        "uncited": 0,
        "contradicted": 0,
        "unsupported": 0,
        "links": 0,
        "withheld": 0,
    },
    "usage": {"input_tokens": 2310, "output_tokens": 9, "images": 3, "calls": 1, "retries": 0, "estimated": False},
    "seconds": {"search": 0.02, "first_token": 0.4, "total": 0.9},
}


class AnswerBody(BaseModel):
    """A checked answer: every [n] in it is the number of one of its sources."""

    model_config = ConfigDict(json_schema_extra={"examples": [_ANSWER]})
    question: str
    query: str = Field(description="The question made to stand alone, which was searched for.")
    translation: str = Field("", description="The same in the collection's language, searched for as well.")
    answer: str
    refused: bool = Field(description="Nothing in the collection supports an answer, and `answer` says so.")
    quoted: bool = Field(description="The answer is the best source itself, as the model had none with support.")
    truncated: bool = Field(description="The model stopped at its length limit.")
    sources: list[EvidenceBody]
    citations: list[CitedBody]
    check: Literal["off", "mark", "strict", "verify"] = Field(description="What was done with the model's sentences.")
    sentences: list[SentenceBody]
    counts: dict[str, int]
    usage: dict[str, Any]
    seconds: dict[str, float | None]
    tools: list[ToolBody] = Field(default_factory=list, description="What the model looked for itself.")
    notices: list[str] = Field(
        default_factory=list, description="What to know of the search, e.g. that only the question's words were found."
    )

    @classmethod
    def of(cls, answer: Answer, collection: str | None) -> AnswerBody:
        """The body of an answer from `collection`."""
        return cls(
            question=answer.question,
            query=answer.query,
            translation=answer.translation,
            answer=answer.text,
            refused=answer.refused,
            quoted=answer.quoted,
            truncated=answer.truncated,
            sources=[EvidenceBody.of(source, collection) for source in answer.sources],
            citations=[
                CitedBody(start=group.start, end=group.end, numbers=list(group.numbers)) for group in answer.citations
            ],
            check=answer.check,
            sentences=[SentenceBody.of(each) for each in answer.sentences],
            counts=asdict(answer.counts),
            usage=asdict(answer.usage),
            seconds={"search": answer.search_s, "first_token": answer.first_token_s, "total": answer.total_s},
            tools=[ToolBody.of(used) for used in answer.tools],
            notices=list(answer.notices),
        )


def links(hit: Hit, collection: str | None) -> tuple[str, str | None]:
    """The paths of an item and of its picture, None where there is no local file; collection: None for the default."""
    item = f"/v1/items/{quote(hit.id, safe='')}"
    named = {"collection": collection} if collection else {}
    image = None
    if hit.modality == "image" and local_path(hit.uri) is not None:
        image = f"{item}/image?{urlencode({'size': SHOWN_SIZE, **named})}"
    return (f"{item}?{urlencode(named)}" if named else item), image
