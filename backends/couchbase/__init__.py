"""Couchbase, over HTTP: SQL++ for all but the making of collections."""

from backends.registry import EngineInfo

ENGINES = (
    EngineInfo(
        scheme="couchbase",
        backend="backends.couchbase.backend:CouchbaseBackend",
        example="couchbase://user@host:8091/bucket",
        summary="Couchbase Server 8.0 or later, over HTTP",
        tested="a fake server that knows the adapter's statements",
        client="httpcore",
        default_url="couchbase://127.0.0.1:8091/default",
        harmless=frozenset({"ca_certs", "https", "query_port", "timeout"}),
        names_database=True,
        key_variable="SIGHTLINE_COUCHBASE_PASSWORD",
        server_version="backends.couchbase.version:of_server",
    ),
)
