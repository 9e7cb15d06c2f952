"""``elasticsearch://host:port``: elasticsearch-py, and what only Elasticsearch says in its own way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import elastic_transport
import elasticsearch

from backends.base import Capabilities, CollectionSpec
from backends.opensearch.backend import CAPABILITIES, LuceneBackend
from backends.opensearch.connection import Product
from backends.opensearch.dialect import EF_CONSTRUCTION, Dialect, M, Options
from backends.opensearch.records import VECTOR
from backends.urls import ServerUrl

_SIMILARITIES = {"cosine": "cosine", "dot": "max_inner_product", "l2": "l2_norm"}


class ElasticsearchClient:
    """The connections of elasticsearch-py."""

    def __init__(self, url: ServerUrl, options: Options) -> None:
        self._client = elasticsearch.Elasticsearch(
            [{"host": url.host, "port": url.port, "scheme": "https" if options.https else "http"}],
            connections_per_node=options.connections,
            request_timeout=options.timeout_s,
            **({"verify_certs": options.verify, "ssl_show_warn": False} if options.https else {}),
            **({"ca_certs": options.ca_certs} if options.ca_certs else {}),
        )

    def send(
        self, method: str, target: str, body: bytes | None, headers: Mapping[str, str], timeout_s: float
    ) -> tuple[int, str | bytes]:
        """One call, by the node itself; see `backends.opensearch.connection`."""
        node = self._client.transport.node_pool.get()
        try:
            meta, data = node.perform_request(
                method, target, body=body, headers=elastic_transport.HttpHeaders(headers), request_timeout=timeout_s
            )
        except elastic_transport.TransportError as error:
            raise ConnectionError(str(error.message)) from None
        return meta.status, data

    def close(self) -> None:
        """Close them."""
        self._client.close()


class Elasticsearch(Dialect):
    """Elasticsearch 8 and 9, asked in the language of 8, which both speak."""

    product = Product(
        name="Elasticsearch",
        scheme="elasticsearch",
        variable="SIGHTLINE_ELASTICSEARCH_API_KEY",
        json_type="application/vnd.elasticsearch+json; compatible-with=8",
        lines_type="application/vnd.elasticsearch+x-ndjson; compatible-with=8",
        oldest=(8, 15),
        takes_api_keys=True,
    )
    max_dim = 4_096

    def client(self, url: ServerUrl, options: Options) -> ElasticsearchClient:
        return ElasticsearchClient(url, options)

    def settings(self, spec: CollectionSpec) -> dict[str, Any]:
        return {}

    def vector_field(self, spec: CollectionSpec) -> dict[str, Any]:
        # Said, as the default of 9 is a quantized graph.
        kind = {"none": "", "int8": "int8_"}[spec.index.quantization]
        if spec.index.kind == "flat":
            options: dict[str, Any] = {"type": f"{kind}flat"}
        else:
            options = {
                "type": f"{kind}hnsw",
                "m": spec.index.params.get("m", M),
                "ef_construction": spec.index.params.get("ef_construction", EF_CONSTRUCTION),
            }
        similarity = _SIMILARITIES[spec.metric]
        return {"type": "dense_vector", "dims": spec.dim, "similarity": similarity, "index_options": options}

    def near(self, query: list[float], k: int, width: int, condition: dict[str, Any] | None) -> dict[str, Any]:
        near: dict[str, Any] = {"field": VECTOR, "query_vector": query, "k": k, "num_candidates": max(k, width)}
        if condition is not None:
            near["filter"] = condition
        return {"knn": near}

    def scanned(self, spec: CollectionSpec, query: list[float], k: int, condition: dict[str, Any]) -> dict[str, Any]:
        # An index of this kind compares all.
        return self.near(query, k, k, condition)


ELASTICSEARCH = Elasticsearch()


class ElasticsearchBackend(LuceneBackend):
    """Records on an Elasticsearch server or cluster.

    URL: ``elasticsearch://[:APIKEY@ or user:password@]host[:9200][?https=false&verify_certs=true&ca_certs=FILE&
    replicas=0&shards=1]``; the API key, or user:password, also from SIGHTLINE_ELASTICSEARCH_API_KEY.
    """

    capabilities: ClassVar[Capabilities] = CAPABILITIES
    dialect = ELASTICSEARCH
