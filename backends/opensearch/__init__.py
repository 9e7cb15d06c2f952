"""OpenSearch and Elasticsearch: one family of filters and mappings, two clients."""
