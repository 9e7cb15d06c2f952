"""OpenSearch and Elasticsearch: two servers on Lucene, one adapter with a client of each."""

from pathlib import Path

from backends.registry import EngineInfo

_OPTIONS = frozenset({"ca_certs", "https", "replicas", "shards", "verify_certs"})

ENGINES = (
    EngineInfo(
        scheme="opensearch",
        backend="backends.opensearch.opensearch:OpenSearchBackend",
        example="opensearch://host:9200",
        summary="an OpenSearch server or cluster",
        extra="opensearch",
        client="opensearch-py",
        default_url="opensearch://127.0.0.1:9200",
        harmless=_OPTIONS,
        key_variable="SIGHTLINE_OPENSEARCH_PASSWORD",
        server_version="backends.opensearch.version:of_opensearch",
        local_server="backends.opensearch.local_server:OPENSEARCH",
        native="backends.opensearch.native:NativeOpenSearch",
        bench=Path(__file__).with_name("bench.toml"),
    ),
    EngineInfo(
        scheme="elasticsearch",
        backend="backends.opensearch.elasticsearch:ElasticsearchBackend",
        example="elasticsearch://host:9201",
        summary="an Elasticsearch server or cluster",
        extra="elasticsearch",
        client="elasticsearch",
        # Its own port is 9200; the local server has another, beside OpenSearch.
        default_url="elasticsearch://127.0.0.1:9201",
        harmless=_OPTIONS,
        key_variable="SIGHTLINE_ELASTICSEARCH_API_KEY",
        server_version="backends.opensearch.version:of_elasticsearch",
        local_server="backends.opensearch.local_server:ELASTICSEARCH",
        native="backends.opensearch.native:NativeElasticsearch",
        bench=Path(__file__).with_name("bench_elasticsearch.toml"),
    ),
)
