"""Which ids engines are asked for, and the UUIDs that stand for ids where an engine takes nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha1
from uuid import UUID

from backends.base import MAX_ID_BYTES
from backends.filters import check_string


def storable_ids(ids: Iterable[str]) -> list[str]:
    """Those that a `Record` can have, each once. Engines fail when they are asked for some of the others."""
    return [record_id for record_id in dict.fromkeys(ids) if _is_storable(record_id)]


def _is_storable(record_id: str) -> bool:
    try:
        check_string(record_id, "id", limit_bytes=MAX_ID_BYTES)
    except ValueError:
        return False
    return record_id != ""


def id_uuid(namespace: UUID, record_id: str) -> str:
    """The UUID of a record's id: version 5 (RFC 9562), as `uuid.uuid5` makes it but quicker."""
    digest = sha1(namespace.bytes + record_id.encode(), usedforsecurity=False).digest()
    text = (digest[:6] + bytes((digest[6] & 0x0F | 0x50, digest[7], digest[8] & 0x3F | 0x80)) + digest[9:16]).hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def check_uuid_cursor(cursor: str, name: str) -> str:
    """The UUID after which a scan of the collection `name` goes on. Raises ValueError for what is none."""
    try:
        return str(UUID(cursor))
    except ValueError:
        raise ValueError(f"{cursor!r} is no cursor of a scan of {name!r}: start without one") from None
