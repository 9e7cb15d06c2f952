"""``opensearch://host:port``: opensearch-py, and what only OpenSearch says in its own way."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, ClassVar

import opensearchpy

from backends.base import Capabilities, CollectionSpec
from backends.opensearch.backend import CAPABILITIES, LuceneBackend
from backends.opensearch.connection import Product
from backends.opensearch.dialect import EF_CONSTRUCTION, Dialect, M, Options
from backends.opensearch.records import VECTOR
from backends.urls import ServerUrl

# What it logs of errors, with their traces, is raised too.
logging.getLogger("opensearch").setLevel(logging.CRITICAL)

_SPACES = {"cosine": "cosinesimil", "dot": "innerproduct", "l2": "l2"}


class OpenSearchClient:
    """The connections of opensearch-py."""

    def __init__(self, url: ServerUrl, options: Options) -> None:
        self._client = opensearchpy.OpenSearch(
            hosts=[{"host": url.host, "port": url.port}],
            use_ssl=options.https,
            pool_maxsize=options.connections,
            timeout=options.timeout_s,
            **({"verify_certs": options.verify, "ssl_show_warn": False} if options.https else {}),
            **({"ca_certs": options.ca_certs} if options.ca_certs else {}),
        )

    def send(
        self, method: str, target: str, body: bytes | None, headers: Mapping[str, str], timeout_s: float
    ) -> tuple[int, str | bytes]:
        """One call, by the connection itself; see `backends.opensearch.connection`."""
        connection = self._client.transport.get_connection()
        try:
            status, _, text = connection.perform_request(
                method, target, body=body, timeout=timeout_s, ignore=range(300, 600), headers=headers
            )
        except opensearchpy.ConnectionError as error:
            raise ConnectionError(str(error.info or error)) from None
        return status, text

    def close(self) -> None:
        """Close them."""
        self._client.close()


class OpenSearch(Dialect):
    """OpenSearch with its k-NN plugin, whose engine is always Lucene here.

    The plugin's default engine is Faiss, a native library; Lucene filters while it searches, and is part of any node.
    """

    product = Product(
        name="OpenSearch",
        scheme="opensearch",
        variable="SIGHTLINE_OPENSEARCH_PASSWORD",
        json_type="application/json",
        lines_type="application/x-ndjson",
        oldest=(2, 16),
        takes_api_keys=False,
    )
    max_dim = 16_000

    def client(self, url: ServerUrl, options: Options) -> OpenSearchClient:
        return OpenSearchClient(url, options)

    def settings(self, spec: CollectionSpec) -> dict[str, Any]:
        return {"knn": spec.index.kind != "flat"}

    def vector_field(self, spec: CollectionSpec) -> dict[str, Any]:
        field: dict[str, Any] = {"type": "knn_vector", "dimension": spec.dim}
        if spec.index.kind == "flat":
            return field
        parameters: dict[str, Any] = {
            "m": spec.index.params.get("m", M),
            "ef_construction": spec.index.params.get("ef_construction", EF_CONSTRUCTION),
        }
        if spec.index.quantization == "int8":
            parameters["encoder"] = {"name": "sq", "parameters": {"bits": 7}}
        method = {
            "name": "hnsw",
            "engine": "lucene",
            "space_type": _SPACES[spec.metric],
            "parameters": parameters,
        }
        return {**field, "method": method}

    def near(self, query: list[float], k: int, width: int, condition: dict[str, Any] | None) -> dict[str, Any]:
        near: dict[str, Any] = {"vector": query, "k": k, "method_parameters": {"ef_search": width}}
        if condition is not None:
            near["filter"] = condition
        return {"query": {"knn": {VECTOR: near}}}

    def scanned(self, spec: CollectionSpec, query: list[float], k: int, condition: dict[str, Any]) -> dict[str, Any]:
        script = {
            "lang": "knn",
            "source": "knn_score",
            "params": {"field": VECTOR, "query_value": query, "space_type": _SPACES[spec.metric]},
        }
        return {"query": {"script_score": {"query": condition, "script": script}}}


OPENSEARCH = OpenSearch()


class OpenSearchBackend(LuceneBackend):
    """Records on an OpenSearch server or cluster.

    URL: ``opensearch://[user[:password]@]host[:9200][?https=false&verify_certs=true&ca_certs=FILE&replicas=0&
    shards=1]``; the password, or user:password, also from SIGHTLINE_OPENSEARCH_PASSWORD.
    """

    capabilities: ClassVar[Capabilities] = CAPABILITIES
    dialect = OPENSEARCH
