"""Command line, HTTP API, web page and settings."""
