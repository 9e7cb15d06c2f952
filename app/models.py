"""The command that lists encoders."""

from __future__ import annotations

from app import options


def models(as_json: options.Json = False) -> None:
    """List encoders."""
