"""The bodies of requests and responses."""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Any, Literal

from fastapi import Query
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from app.core.jobs import Job
from backends.base import IndexKind, Modality, Quantization, Record
from backends.filters import check_field_name, check_string
from retrieval.search.facets import Facet
from retrieval.search.fusion import Fusion
from retrieval.search.results import Result
from retrieval.search.retriever import Mode

MAX_REPORTED = 100

K = Annotated[int, Field(ge=1, le=200, description="How many hits to return.")]
Offset = Annotated[int, Field(ge=0, le=9_800, description="How many hits to skip.")]
CheckName = Annotated[
    Literal["off", "mark", "strict", "verify"] | None,
    Field(description="What is done with the answer's sentences, see docs/chat.md. Default: what fits the model."),
]
Collection = Annotated[
    str | None, Query(max_length=63, description="Which collection; the service's own when left out.")
]


def _storable(text: str) -> str:
    check_string(text, "a text")
    return text


#: No NUL and no half of a surrogate pair, which JSON can say and no tokenizer or database takes.
Text = Annotated[str, AfterValidator(_storable)]


class ThumbnailSize(IntEnum):
    """The sizes a thumbnail comes in, in pixels of the square it fits into."""

    SMALL = 160
    MEDIUM = 320
    LARGE = 640
    FULL = 1280


FacetField = Annotated[
    str, AfterValidator(check_field_name), Field(max_length=256, description="A metadata field, or modality.")
]


ImageAddress = Annotated[
    str | None,
    Field(
        json_schema_extra={"examples": ["https://images.example.org/dog.jpg"]},
        description="Instead of `image`: an https:// address, on a host that the service was told to fetch from.",
    ),
]


class TermBody(BaseModel):
    """One weighted part of a composed query: text, an image in base64, or a stored item; exactly one of them."""

    model_config = ConfigDict(extra="forbid")
    text: Text | None = None
    image: str | None = Field(None, description="An image file's bytes in base64.")
    item: Text | None = Field(
        None, min_length=1, max_length=512, description="The id of a stored item, which is then left out of the hits."
    )
    weight: float = Field(1.0, allow_inf_nan=False, description="Negative to steer away.")


class SearchBody(BaseModel):
    """A search: exactly one of `text`, `image`, `image_url` and `terms`."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"text": "a dog on a beach", "k": 5, "modality": "image"},
                {"terms": [{"text": "a beach"}, {"text": "people", "weight": -0.5}], "where": {"year": {"$gte": 1990}}},
            ]
        },
    )
    text: Text | None = None
    image: str | None = Field(None, description="An image file's bytes in base64.")
    image_url: ImageAddress = None
    terms: list[TermBody] | None = Field(None, max_length=64)
    k: K = 10
    offset: Offset = 0
    where: dict[str, Any] | None = Field(
        None,
        examples=[{"year": {"$gte": 1990}}],
        description="$eq $ne $in $nin $gt $gte $lt $lte $exists $contains on fields, joined by $and $or $not.",
    )
    modality: Modality | None = None
    effort: float | None = Field(None, gt=0, le=1, description="Speed against recall; 1 is the most thorough.")
    mode: Mode = Field("vector", description="By meaning, by words (keyword), or by both (hybrid).")
    fusion: Fusion = Field("worth", description="How lists are merged: by what their scores are worth, or by ranks.")
    min_relevance: float | None = Field(
        None, ge=0, le=1, description="Leave out what is less relevant; nothing is left out unless this is given."
    )
    diversity: float = Field(0.0, ge=0, lt=1, description="The more, the less alike the first 100 hits are.")
    group_duplicates: float | None = Field(
        None, gt=0, le=1, description="Fold hits of at least this cosine into one, e.g. 0.95."
    )
    facets: list[FacetField] | None = Field(
        None,
        max_length=16,
        examples=[["modality", "year"]],
        description="Fields whose values are counted over the first 100 hits, whatever `k`, `offset` and relevance.",
    )
    explain: bool = Field(False, description="Say how the engine found the hits, in `plans`.")


class HitBody(BaseModel):
    """One result; `score` is higher for better hits, `relevance` the share of unrelated queries that find less."""

    id: str
    score: float
    relevance: float | None = Field(description="In [0, 1]; null where it was not judged.")
    modality: Modality
    uri: str | None
    text: str | None
    metadata: dict[str, Any]
    exact: bool
    duplicates: list[str] = Field(description="The near-duplicates that were folded into this one.")
    gone: bool = Field(description="Its file was on the server and is not there any more.")

    @classmethod
    def of(cls, hit: Result) -> HitBody:
        """The body of a hit."""
        return cls(
            id=hit.id,
            score=hit.score,
            modality=hit.modality,
            uri=hit.uri,
            text=hit.text,
            metadata=dict(hit.metadata),
            exact=hit.exact,
            relevance=hit.relevance,
            duplicates=list(hit.duplicates),
            gone=hit.gone,
        )


class HitsBody(BaseModel):
    """Results, best first."""

    hits: list[HitBody]
    nothing: str | None = Field(None, description="Why there are no hits; null where there are.")
    notices: list[str] = Field(
        default_factory=list,
        description="What whoever reads the hits should know: that only words were searched, or what to do with the "
        "collection.",
    )


class FacetValue(BaseModel):
    """A value, and how many hits have it."""

    value: str | bool | int | float
    count: int


class FacetBody(BaseModel):
    """The values of one field, the most frequent first."""

    values: list[FacetValue] = Field(description="At most 20.")
    more: int = Field(description="How many further values there are.")
    missing: int = Field(description="How many of the hits lack the field.")
    items: int = Field(description="How many hits were counted over.")

    @classmethod
    def of(cls, facet: Facet) -> FacetBody:
        """The body of a facet."""
        values = [FacetValue(value=value, count=count) for value, count in facet.counts]
        return cls(values=values, more=facet.more, missing=facet.missing, items=facet.items)


class PlanBody(BaseModel):
    """How the engine answered one search by vector: one for each kind of item that was looked for."""

    kind: Literal["index", "scan"] = Field(description="scan: everything that matches was compared.")
    width: int | None = Field(description="The index's candidate list; null for a scan, or where it is not known.")
    candidates: int | None = Field(description="How many items were compared, or came out of the index.")
    share: float | None = Field(description="How much of the collection passes the filter, counted or estimated.")
    note: str = Field(description="What else the engine says of it.")
    k: int = Field(description="How many hits it was asked for.")
    where: dict[str, Any] | None


class SearchHitsBody(HitsBody):
    """Results, best first, and what was counted over them."""

    facets: dict[str, FacetBody] | None = Field(None, description="By field; null unless asked for.")
    plans: list[PlanBody] | None = Field(None, description="How they were found; null unless asked for.")


class ItemBody(BaseModel):
    """One stored item, without its vector."""

    id: str
    modality: Modality
    uri: str | None
    text: str | None
    metadata: dict[str, Any]

    @classmethod
    def of(cls, record: Record) -> ItemBody:
        """The body of a record."""
        return cls(
            id=record.id, modality=record.modality, uri=record.uri, text=record.text, metadata=dict(record.metadata)
        )


class NewItem(BaseModel):
    """A text item, or what is known of one of the uploaded files."""

    model_config = ConfigDict(extra="forbid")
    file: str | None = Field(None, max_length=1000, description="The name of an uploaded file; a text item without.")
    text: Text | None = Field(None, min_length=1, max_length=10_000, description="A caption, or the text itself.")
    id: Text | None = Field(None, min_length=1, max_length=512, description="Taken from the content when left out.")
    metadata: dict[str, Any] = Field(default_factory=dict, description="Strings, numbers, booleans, lists of strings.")


class AddedItem(BaseModel):
    """What became of one uploaded file or text."""

    name: str = Field(description="The file's name, or items[N] for a text.")
    id: str | None = Field(None, description="The stored item; null where there is an error.")
    error: str | None = Field(None, description="Why it was not taken.")


class AddedBody(BaseModel):
    """One entry for each file and text, in their order."""

    added: int = Field(description="How many items were stored; what a request says twice is one.")
    updated: int = Field(description="How many of these were there already.")
    unreadable: int = Field(
        description="How many of their texts the encoder cannot read: they are found by keywords only."
    )
    failed: int = Field(description="How many files and texts were not taken.")
    items: list[AddedItem]


class DeletedBody(BaseModel):
    """How many records went: the item, and the captions of an image."""

    deleted: int


class Removal(BaseModel):
    """Which items to remove: exactly one of `path`, `ids` and `where`."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"path": "/srv/photos/2019", "dry_run": True}]}
    )
    path: Text | None = Field(
        None,
        min_length=1,
        max_length=4096,
        description="Of a file or folder on the server, from the root on, also one that is gone.",
    )
    ids: list[Annotated[Text, Field(min_length=1, max_length=512)]] | None = Field(None, max_length=10_000)
    where: dict[str, Any] | None = Field(
        None, examples=[{"year": {"$lt": 1990}}], description="All items that match, as in a search."
    )
    dry_run: bool = Field(False, description="Only count.")


class RemovalBody(BaseModel):
    """What was removed, or with `dry_run` would be."""

    items: int
    captions: int = Field(description="Those of removed images, and those that came from the path.")
    kept_elsewhere: int = Field(description="How many stay, as they lie elsewhere too.")
    dry_run: bool


class CollectionBody(BaseModel):
    """One collection and what fills it."""

    name: str
    count: int
    dim: int
    metric: str
    encoder: str
    index: str = Field(description="The kind of index: auto, flat, hnsw or ivf.")
    searchable: bool = Field(description="Whether this service's encoder is the one that filled it.")
    default: bool = Field(description="Whether it is the service's own, which is meant where none is named.")


class NewCollection(BaseModel):
    """A collection to make, for this service's encoder."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"name": "holidays", "index": "hnsw"}]})
    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,62}$")
    index: IndexKind = "auto"
    quantization: Quantization = "none"


class NewJob(BaseModel):
    """A folder to bring a collection up to date with."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"folder": "/srv/photos"}]})
    folder: str = Field(min_length=1, max_length=4096, description="An allowed folder on the server, or one below.")
    collection: str | None = Field(None, pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,62}$")
    prune: bool = Field(False, description="Remove items whose file has gone.")


class JobBody(BaseModel):
    """An index job at a moment; times in seconds since 1970."""

    id: str
    folder: str
    collection: str
    prune: bool
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    created_s: float
    started_s: float | None
    ended_s: float | None
    progress: dict[str, Any] | None = Field(
        description="stage, done, total, rate_per_s, remaining_s, quarantined, path."
    )
    report: dict[str, Any] | None = Field(
        description="Counts; `quarantined` holds up to 100 of the skipped files, `notes` of those taken with a remark, "
        "and `not_read` up to 100 paths of each kind of files that were not read."
    )
    error: str | None

    @classmethod
    def of(cls, job: Job, reported: int = MAX_REPORTED) -> JobBody:
        """The body of a job, with at most `reported` of the files that it skipped."""
        report = dict(job.report) if job.report is not None else None
        if report is not None:
            quarantined = report.get("quarantined") or []
            not_read = [{**row, "paths": row["paths"][:reported]} for row in report.get("not_read") or []]
            report |= {"quarantined_count": len(quarantined), "quarantined": quarantined[:reported]}
            report |= {"notes": (report.get("notes") or [])[:reported], "not_read": not_read}
        return cls(
            id=job.id,
            folder=job.source,
            collection=job.collection,
            prune=job.prune,
            state=job.state,
            created_s=job.created_s,
            started_s=job.started_s,
            ended_s=job.ended_s,
            progress=job.progress,
            report=report,
            error=job.error,
        )


class JobsBody(BaseModel):
    """Jobs, newest first."""

    jobs: list[JobBody]


class FoldersBody(BaseModel):
    """What `POST /v1/index` takes: these folders, and those below."""

    folders: list[str]


class SizedCollection(CollectionBody):
    """One collection with its size."""

    images: int = Field(description="How many of its items are images; the others are texts.")
    vectors_bytes: int = Field(description="Its vectors alone, in float32: what an exact search reads.")


class BackendBody(BaseModel):
    """The engine that the service works with."""

    scheme: str | None = Field(description="As in its URL, e.g. faiss; null where it is not known.")
    summary: str | None
    version: str | None
    answers: bool
    can: list[str] = Field(description="Its capabilities in words.")
    capabilities: dict[str, Any]


class ServerBody(BaseModel):
    """What a server said; its address is not told."""

    origin: str = Field(description="Why it was asked: engines up, default address, or setting backend.")
    state: str = Field(description="answers, does not answer, refused: wrong key, needs a key, or failed.")
    version: str | None
    used: bool = Field(description="Whether this service works with it.")


class EngineBody(BaseModel):
    """An engine that Sightline knows."""

    scheme: str
    summary: str
    installed: bool
    install: str | None = Field(description="The command that installs it, where it is not.")
    client: str | None
    version: str | None = Field(description="Of an engine in process.")
    can: list[str]
    servers: list[ServerBody]


class EnginesBody(BaseModel):
    """What is behind the service."""

    backend: BackendBody
    collections: list[SizedCollection]
    engines: list[EngineBody]


class HealthBody(BaseModel):
    """Whether the service lives."""

    status: Literal["ok"]


class ReadyBody(BaseModel):
    """Whether the parts answer."""

    status: Literal["ready"]
    backend: Literal["ok"]
    encoder: Literal["ok"]
