"""API keys: who may call the service, and for what.

A key is ``sl_ID_SECRET``: the ID finds its row, the SECRET is 256 random bits, of which only the SHA-256 is
kept. (A slow hash guards guessable passwords; a random key of this length cannot be guessed.)
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import re
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from backends.redaction import redact

#: What a key may be for; each scope includes those before it.
SCOPES = ("read", "write", "admin")
LOCK_S = 10.0
MAX_KEYS = 10_000
_KEY = re.compile(r"sl_([0-9a-f]{12})_([A-Za-z0-9_-]{43})\Z", re.ASCII)
_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,100}\Z")


class KeyStoreError(Exception):
    """A key that cannot be made, read or removed: one line that says why and what to do."""


class LastKey(KeyStoreError):
    """The only key there is was not removed."""


@dataclass(frozen=True, slots=True)
class Key:
    """What is known of one key; the key itself is nowhere."""

    id: str
    name: str
    scope: str
    created_s: float

    def allows(self, scope: str) -> bool:
        """Whether the key may do what `scope` may."""
        return SCOPES.index(self.scope) >= SCOPES.index(scope)


class KeyStore:
    """The keys in one JSON file that only its owner can read; changes by other processes are seen.

    Thread-safe; writers of several processes take turns by a lock file. Raises KeyStoreError for a file
    that is not readable: a damaged file lets nobody in, and is never overwritten.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._lock = threading.Lock()
        self._seen: tuple[int, int, int] | None = None
        self._rows: dict[str, tuple[Key, bytes]] = {}

    def add(self, name: str, scope: str) -> tuple[Key, str]:
        """Make a key and return it with its text, which is shown this once and cannot be had again."""
        if scope not in SCOPES:
            raise KeyStoreError(f"a scope is one of {', '.join(SCOPES)}, not {scope!r}")
        if not _NAME.match(name.strip()):
            raise KeyStoreError(f"a key's name has 1 to 100 printable characters, not {name!r}")
        with self._changing() as rows:
            if len(rows) >= MAX_KEYS:
                raise KeyStoreError(f"there are {MAX_KEYS:,} keys already: remove some")
            secret = secrets.token_urlsafe(32)
            key = Key(secrets.token_hex(6), name.strip(), scope, time.time())
            rows[key.id] = (key, _digest(secret))
        return key, f"sl_{key.id}_{secret}"

    def remove(self, key_id: str, *, last: bool = True) -> Key:
        """Forget the key of this id, from now on refused.

        Raises KeyStoreError when there is none, LastKey for the only one left unless `last` may go.
        """
        with self._changing() as rows:
            if key_id not in rows:
                raise KeyStoreError(f"no key has the id {redact(key_id)!r}; sightline keys shows those there are")
            if len(rows) == 1 and not last:
                raise LastKey(f"{key_id} is the last key")
            return rows.pop(key_id)[0]

    def listed(self) -> list[Key]:
        """All keys, oldest first."""
        return sorted((key for key, _ in self._current().values()), key=lambda key: (key.created_s, key.id))

    def find(self, text: str) -> Key | None:
        """The key whose text this is, or None. The comparison takes the same time wherever the two differ."""
        match = _KEY.match(text)
        rows = self._current()
        # An unknown id costs the same comparison as a known one.
        key, digest = rows.get(match[1], (None, bytes(32))) if match else (None, bytes(32))
        same = hmac.compare_digest(_digest(match[2] if match else text), digest)
        return key if same else None

    def _current(self) -> dict[str, tuple[Key, bytes]]:
        with self._lock:
            try:
                stat = self.file.stat()
            except FileNotFoundError:
                self._seen, self._rows = None, {}
                return self._rows
            except OSError as error:
                raise KeyStoreError(f"cannot read {self.file}: {error.strerror}") from None
            seen = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if seen != self._seen:
                self._rows = _read(self.file)
                self._seen = seen
            return self._rows

    @contextlib.contextmanager
    def _changing(self) -> Iterator[dict[str, tuple[Key, bytes]]]:
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self.file.with_suffix(".lock"), timeout=LOCK_S):
                rows = dict(self._current())
                yield rows
                _write(self.file, list(rows.values()))
        except Timeout:
            raise KeyStoreError(f"another process holds {self.file} for more than {LOCK_S:.0f} s") from None
        except OSError as error:
            raise KeyStoreError(f"cannot write {self.file}: {error.strerror or error}") from None


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def _read(file: Path) -> dict[str, tuple[Key, bytes]]:
    try:
        data: Any = json.loads(file.read_text("utf-8"))
        rows = {}
        for row in data["keys"]:
            key = Key(str(row["id"]), str(row["name"]), str(row["scope"]), float(row["created_s"]))
            if key.scope not in SCOPES:
                raise ValueError(f"unknown scope {key.scope!r}")
            rows[key.id] = (key, bytes.fromhex(row["sha256"]))
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise KeyStoreError(f"{file} is not readable as a file of keys ({error}): restore it, or delete it") from None
    return rows


def _write(file: Path, rows: Sequence[tuple[Key, bytes]]) -> None:
    keys = [
        {"id": key.id, "name": key.name, "scope": key.scope, "created_s": key.created_s, "sha256": digest.hex()}
        for key, digest in rows
    ]
    temporary = file.with_name(f".{file.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            json.dump({"keys": keys}, stream, indent=1)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
