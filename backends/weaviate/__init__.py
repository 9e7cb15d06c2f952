"""Weaviate: a server."""
