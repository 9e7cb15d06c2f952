"""Which NumPy is installed."""

from __future__ import annotations

from importlib import metadata


def of_library() -> str:
    """``NumPy 2.3.1``."""
    return f"NumPy {metadata.version('numpy')}"
