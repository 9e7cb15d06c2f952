"""JSON as engines store it: compact, not escaped to ASCII, with keys as they come.

Its numbers keep type and digits: integers of 64 bits, and doubles by their shortest form.
"""

from __future__ import annotations

import json
from typing import Any

from backends.filters import MetadataValue

#: A value as JSON. One encoder for all, as `json.dumps` makes one a call where it is told anything.
encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
# The scanner alone: what `JSONDecoder.decode` does around it, to skip white space, takes as long again.
_scan = json.JSONDecoder().scan_once  # type: ignore[attr-defined]


def decode(text: str, start: int = 0) -> Any:
    """The value that stands from `start` to the end, without white space around it. Raises ValueError for all else."""
    try:
        value, end = _scan(text, start)
    except StopIteration:
        end = -1
    if end != len(text):
        raise ValueError(f"not JSON: {text[start : start + 80]!r}")
    return value


def decode_metadata(text: str, start: int = 0) -> dict[str, MetadataValue]:
    """As `decode`, for a record's metadata. Raises ValueError too for a value that is no object."""
    found = decode(text, start)
    if not isinstance(found, dict):
        raise ValueError(f"not a JSON object: {text[start : start + 80]!r}")
    return found
