"""Chroma: in process, in a folder, or a server."""
