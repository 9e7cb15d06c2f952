"""Qdrant: a server, its engine in process, or its client's local mode."""
