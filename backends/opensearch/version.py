"""Which server answers; asking changes nothing there."""

from __future__ import annotations


def of_opensearch(url: str, within_s: float) -> str:
    """``OpenSearch 2.19.6``."""
    from backends.opensearch.opensearch import OPENSEARCH

    return OPENSEARCH.version_of(url, within_s)


def of_elasticsearch(url: str, within_s: float) -> str:
    """``Elasticsearch 8.19.20``."""
    from backends.opensearch.elasticsearch import ELASTICSEARCH

    return ELASTICSEARCH.version_of(url, within_s)
