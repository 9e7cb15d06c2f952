"""Milvus: a server, or Milvus Lite in process."""
