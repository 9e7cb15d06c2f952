"""``qdrant://host:6333``, a Qdrant server, and ``qdrant-local://``, the local mode of Qdrant's client.

Each collection is one of the server's named ``sightline_<name>``, with its spec in the collection's own
metadata (Qdrant 1.16 and later); other collections are neither listed nor touched.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
from qdrant_client import QdrantClient, models

from backends.base import Capabilities, CollectionSpec
from backends.checks import COLLECTION_NAME
from backends.errors import BackendError, CollectionExists, CollectionNotFound, Unavailable
from backends.kit.widths import Width
from backends.qdrant.connection import open_client
from backends.qdrant.driver import Floats, Found, Plan, Point, Row
from backends.qdrant.errors import as_backend_error
from backends.qdrant.payload import DENSE, SPARSE, STORED, TOKENS
from backends.qdrant.store import OVERSAMPLING, QdrantStore
from backends.text import WORDS_VERSION

PREFIX, SPEC, WORDS, WIDTH = "sightline_", "sightline", "sightline_words", "sightline_width"
QUERIES = 100
# Cosine vectors have unit length already; by dot product Qdrant leaves their bits alone.
DISTANCES = {"cosine": models.Distance.DOT, "dot": models.Distance.DOT, "l2": models.Distance.EUCLID}


class ClientDialect:
    """The filter classes of `qdrant_client`."""

    def has_any(self, keywords: Sequence[str]) -> Any:
        return models.FieldCondition(key=TOKENS, match=models.MatchAny(any=list(keywords)))

    def between(self, key: str, **bounds: float) -> Any:
        return models.FieldCondition(key=key, range=models.Range(**bounds))

    def one_of(self, point_ids: Sequence[str]) -> Any:
        return models.HasIdCondition(has_id=list(point_ids))

    def combine(self, must: Sequence[Any] = (), should: Sequence[Any] = (), must_not: Sequence[Any] = ()) -> Any:
        return models.Filter(must=list(must) or None, should=list(should) or None, must_not=list(must_not) or None)


@dataclass(slots=True, eq=False)
class Place:
    """A collection as it was when last asked for, and the payload keys that are known to be indexed."""

    spec: CollectionSpec
    keys: set[str]
    words: int
    width: Width | None = None

    @property
    def name(self) -> str:
        """Its name here; the server's has `PREFIX` before it."""
        return self.spec.name


class ClientDriver:
    """Collections behind a `QdrantClient`: of a server, or in local mode, which one thread at a time may use."""

    dialect = ClientDialect()

    def __init__(self, client: QdrantClient, address: str, *, local: bool) -> None:
        self.address = address
        self._client = client
        self._local = local
        self._turn: AbstractContextManager[Any] = threading.RLock() if local else nullcontext()
        self._known: dict[str, Place] = {}
        self._closed = False

    @contextmanager
    def _calling(self, name: str | None = None) -> Iterator[QdrantClient]:
        """The client for one call; what it raises becomes a `BackendError`."""
        if self._closed:
            raise BackendError(f"the connection to {self.address} is closed: connect again")
        try:
            with self._turn:
                yield self._client
        except BackendError:
            raise
        except Exception as error:
            if name is not None:
                # Whatever went wrong, the collection may no longer be the one that was remembered.
                self._known.pop(name, None)
            raise as_backend_error(error, self.address, name=name) from error

    def names(self) -> list[str]:
        with self._calling() as client:
            listed = [c.name.removeprefix(PREFIX) for c in client.get_collections().collections if _is_ours(c.name)]
        return [name for name in listed if self._look_up(name) is not None]

    def _look_up(self, name: str) -> Place | None:
        """The collection that the engine has now, `None` where there is no collection or it is not ours."""
        try:
            with self._calling(name) as client:
                info = client.get_collection(PREFIX + name)
        except CollectionNotFound:
            return None
        metadata = info.config.metadata or {}
        text = metadata.get(SPEC)
        if not isinstance(text, str):
            return None
        keys, words = set(info.payload_schema or {}), int(metadata.get(WORDS, 1))
        width = Width.from_json(metadata.get(WIDTH))
        self._known[name] = place = Place(CollectionSpec.from_json(text), keys, words, width)
        return place

    def find(self, name: str) -> Place:
        if self._closed:
            raise BackendError(f"the connection to {self.address} is closed: connect again")
        found = self._known.get(name)
        if found is None and isinstance(name, str) and COLLECTION_NAME.match(name):
            found = self._look_up(name)
        if found is None:
            raise CollectionNotFound(f"no collection {name!r} in {self.address}")
        return found

    def create(self, spec: CollectionSpec) -> None:
        name = PREFIX + spec.name
        with self._calling(spec.name) as client:
            if client.collection_exists(name):
                raise CollectionExists(f"collection {spec.name!r} is already in {self.address} (as {name!r})")
            client.create_collection(
                name,
                vectors_config={DENSE: _vector_params(spec)},
                sparse_vectors_config={SPARSE: models.SparseVectorParams(modifier=models.Modifier.IDF)},
                # Asked for by name, the graph is built however few vectors there are.
                optimizers_config=models.OptimizersConfigDiff(indexing_threshold=1)
                if spec.index.kind == "hnsw"
                else None,
                metadata={SPEC: spec.to_json(), WORDS: WORDS_VERSION},
            )
        try:
            self._create_index(spec.name, TOKENS, models.PayloadSchemaType.KEYWORD)
        except CollectionNotFound:
            # Made, and dropped by someone else at once.
            return
        except BackendError:
            with self._calling(spec.name) as client:
                client.delete_collection(name)
            raise

    def spec_now(self, name: str) -> CollectionSpec:
        # Another handle may have set another encoder.
        self._known.pop(name, None)
        return self.find(name).spec

    def set_encoder(self, name: str, fingerprint: str) -> None:
        spec = replace(self.spec_now(name), encoder=fingerprint)
        with self._calling(name) as client:
            client.update_collection(PREFIX + name, metadata={SPEC: spec.to_json()})
        self._known.pop(name, None)

    def _create_index(self, name: str, key: str, schema: models.PayloadSchemaType) -> None:
        if not self._local:
            with self._calling(name) as client:
                client.create_payload_index(PREFIX + name, key, schema, wait=True)

    def drop(self, name: str) -> None:
        try:
            self.find(name)
            with self._calling(name) as client:
                client.delete_collection(PREFIX + name)
        except CollectionNotFound:
            return
        finally:
            self._known.pop(name, None)

    def writing(self, at: Place) -> AbstractContextManager[None]:
        # A server has other clients too, so nobody here can be alone; it acknowledges what is in its log.
        return self._turn if self._local else nullcontext()

    def upsert(self, at: Place, points: Sequence[Point]) -> None:
        structs = []
        for point, vector, weights, payload in points:
            named: dict[str, Any] = {DENSE: vector.tolist()} if vector.size else {}
            if weights:
                named[SPARSE] = models.SparseVector(indices=list(weights), values=list(weights.values()))
            structs.append(models.PointStruct(id=point, vector=named, payload=payload))
        with self._calling(at.name) as client:
            client.upsert(PREFIX + at.name, structs, wait=True)

    def retrieve(self, at: Place, ids: Sequence[str], *, payload: bool, vectors: bool) -> list[Row]:
        wanted = list(STORED) if payload else False
        with self._calling(at.name) as client:
            rows = client.retrieve(PREFIX + at.name, list(ids), wanted, [DENSE] if vectors else False)
        return [_row(row) for row in rows]

    def delete_ids(self, at: Place, ids: Sequence[str]) -> None:
        with self._calling(at.name) as client:
            client.delete(PREFIX + at.name, models.PointIdsList(points=list(ids)), wait=True)

    def delete_where(self, at: Place, condition: Any) -> None:
        with self._calling(at.name) as client:
            client.delete(PREFIX + at.name, models.FilterSelector(filter=condition), wait=True)

    def count(self, at: Place, condition: Any | None) -> int:
        with self._calling(at.name) as client:
            return int(client.count(PREFIX + at.name, condition, exact=True).count)

    def estimate(self, at: Place, condition: Any | None) -> int | None:
        # Local mode scans whatever it is asked.
        return 0 if self._local else None

    def scroll(self, at: Place, start: str | None, limit: int, condition: Any | None, *, vectors: bool) -> list[Row]:
        with self._calling(at.name) as client:
            rows, _ = client.scroll(
                PREFIX + at.name,
                scroll_filter=condition,
                limit=limit,
                offset=start,
                with_payload=list(STORED),
                with_vectors=[DENSE] if vectors else False,
            )
        return [_row(row) for row in rows]

    def search(self, at: Place, queries: Floats, limit: int, condition: Any | None, plan: Plan) -> list[list[Found]]:
        params = None if self._local else _search_params(at.spec, plan, condition is not None)
        requests = [
            models.QueryRequest(
                query=query.tolist(),
                using=DENSE,
                filter=condition,
                params=params,
                limit=limit,
                with_payload=list(STORED),
            )
            for query in queries
        ]
        answers: list[list[Found]] = []
        for start in range(0, len(requests), QUERIES):
            with self._calling(at.name) as client:
                responses = client.query_batch_points(PREFIX + at.name, requests[start : start + QUERIES])
            answers.extend(_found(response.points) for response in responses)
        return answers

    def search_words(self, at: Place, indices: list[int], limit: int, condition: Any | None) -> list[Found]:
        query = models.SparseVector(indices=indices, values=[1.0] * len(indices))
        with self._calling(at.name) as client:
            response = client.query_points(
                PREFIX + at.name, query, using=SPARSE, query_filter=condition, limit=limit, with_payload=list(STORED)
            )
        return _found(response.points)

    def set_words(self, at: Place, weights: Mapping[str, dict[int, float]]) -> None:
        named = {point: models.SparseVector(indices=list(w), values=list(w.values())) for point, w in weights.items()}
        points = [models.PointVectors(id=point, vector={SPARSE: vector}) for point, vector in named.items()]
        with self._calling(at.name) as client:
            client.update_vectors(PREFIX + at.name, points, wait=True)

    def note_words(self, at: Place, version: int) -> None:
        with self._calling(at.name) as client:
            # The server adds it to the metadata that are there.
            client.update_collection(PREFIX + at.name, metadata={WORDS: version})
        at.words = version

    def note_width(self, at: Place, width: Width) -> None:
        with self._calling(at.name) as client:
            client.update_collection(PREFIX + at.name, metadata={WIDTH: width.to_json()})
        at.width = width

    def index(self, at: Place, key: str) -> None:
        try:
            self._create_index(at.name, key, models.PayloadSchemaType.INTEGER)
        except Unavailable as error:
            # A key that may only read has no index made for it; the filter works without, only slower.
            if "refused" not in str(error):
                raise
        at.keys.add(key)

    def flush(self, at: Place) -> None:
        pause_s = 0.05
        while not self._local:
            with self._calling(at.name) as client:
                info = client.get_collection(PREFIX + at.name)
                if info.status == models.CollectionStatus.GREEN:
                    return
                if info.status == models.CollectionStatus.RED:
                    raise BackendError(f"{self.address} cannot index {at.name!r}: {info.optimizer_status}")
                if info.status == models.CollectionStatus.GREY:
                    # After a restart the server waits for a change before it goes on indexing.
                    client.update_collection(PREFIX + at.name, optimizers_config=models.OptimizersConfigDiff())
            time.sleep(pause_s)
            pause_s = min(1.0, pause_s * 1.5)

    def close(self) -> None:
        with self._turn:
            if not self._closed:
                self._closed = True
                self._client.close()


class QdrantBackend(QdrantStore[Place]):
    """A Qdrant server, 1.16 or later, over gRPC or HTTP."""

    capabilities: ClassVar[Capabilities] = Capabilities(
        keyword=True,
        persistent=True,
        server=True,
        concurrent_writers=True,
        effort=True,
        index_kinds=frozenset({"auto", "flat", "hnsw"}),
        quantizations=frozenset({"none", "int8", "binary"}),
    )

    @classmethod
    def connect(cls, url: str) -> Self:
        """Connect to ``qdrant://host[:6333]``.

        Options: ``https`` (false), ``prefer_grpc`` (true), ``grpc_port`` (6334), ``timeout_s`` (60) of
        one call, ``api_key``, which is better given in SIGHTLINE_QDRANT_API_KEY. Raises `Unavailable`
        within ten seconds when nothing answers or the key is refused, ValueError for a malformed URL.
        """
        client, address, _ = open_client(url)
        return cls(ClientDriver(client, address, local=False))


class QdrantLocalBackend(QdrantStore[Place]):
    """The local mode of Qdrant's client: NumPy in memory behind Qdrant's own interface, for tests."""

    capabilities: ClassVar[Capabilities] = Capabilities(
        keyword=True,
        persistent=False,
        server=False,
        concurrent_writers=False,
        effort=False,
    )

    @classmethod
    def connect(cls, url: str) -> Self:
        """A new empty store; ``qdrant-local://`` takes no path and no options."""
        if url != "qdrant-local://":
            raise ValueError(
                "qdrant-local:// lives in memory and takes nothing after it: "
                "for Qdrant in a folder write qdrant-edge:///dir"
            )
        client = QdrantClient(location=":memory:", force_disable_check_same_thread=True)
        return cls(ClientDriver(client, url, local=True))


def _is_ours(name: str) -> bool:
    return name.startswith(PREFIX) and COLLECTION_NAME.match(name.removeprefix(PREFIX)) is not None


def _vector_params(spec: CollectionSpec) -> models.VectorParams:
    index = spec.index
    quantized: Any = None
    if index.quantization == "int8":
        scalar = models.ScalarQuantizationConfig(type=models.ScalarType.INT8, quantile=0.99, always_ram=True)
        quantized = models.ScalarQuantization(scalar=scalar)
    elif index.quantization == "binary":
        quantized = models.BinaryQuantization(
            binary=models.BinaryQuantizationConfig(
                always_ram=True,
                encoding=models.BinaryQuantizationEncoding.TWO_BITS,
                query_encoding=models.BinaryQuantizationQueryEncoding.SCALAR8BITS,
            )
        )
    graph = models.HnswConfigDiff(
        m=0 if index.kind == "flat" else index.params.get("m"), ef_construct=index.params.get("ef_construction")
    )
    return models.VectorParams(
        size=spec.dim, distance=DISTANCES[spec.metric], hnsw_config=graph, quantization_config=quantized
    )


def _search_params(spec: CollectionSpec, plan: Plan, filtered: bool) -> models.SearchParams:
    if plan.exact:
        return models.SearchParams(exact=True, quantization=models.QuantizationSearchParams(ignore=True))
    oversampling = OVERSAMPLING.get(spec.index.quantization)
    return models.SearchParams(
        hnsw_ef=plan.ef,
        quantization=models.QuantizationSearchParams(rescore=True, oversampling=oversampling) if oversampling else None,
        acorn=models.AcornSearchParams(enable=True, max_selectivity=1.0) if filtered else None,
    )


def _row(record: Any) -> Row:
    vector = record.vector or {}
    return str(record.id), record.payload or {}, np.asarray(vector[DENSE], np.float32) if DENSE in vector else None


def _found(points: Sequence[Any]) -> list[Found]:
    return [(point.score, point.payload) for point in points]
