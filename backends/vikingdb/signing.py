"""The signature of Volcengine's interfaces, version 4 (HMAC-SHA256), for a request with a body.

It is like that of AWS, with three differences: the algorithm's name, no prefix before the secret, and ``request`` at
the end of the scope.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import quote

ALGORITHM = "HMAC-SHA256"


@dataclass(frozen=True, slots=True)
class AccessKey:
    """An access key of an account, and where it is used. `repr` does not show it."""

    key_id: str = field(repr=False)
    secret: str = field(repr=False)
    region: str
    service: str = "vikingdb"

    def sign(
        self,
        method: str,
        host: str,
        path: str,
        query: Mapping[str, str],
        content: bytes,
        *,
        content_type: str = "application/json",
        now: datetime | None = None,
    ) -> dict[str, str]:
        """The headers that a request needs to be taken for this key's.

        Args:
            host: as the header Host has it.
            now: when it is signed; the server's clock may differ by a few minutes.
        """
        stamp = (now or datetime.now(UTC)).strftime("%Y%m%dT%H%M%SZ")
        digest = hashlib.sha256(content).hexdigest()
        signed = {
            "content-type": content_type,
            "host": host.removesuffix(":80").removesuffix(":443"),
            "x-content-sha256": digest,
            "x-date": stamp,
        }
        names = ";".join(signed)
        lines = "".join(f"{name}:{value}\n" for name, value in signed.items())
        canonical = "\n".join((method, quote(path), canonical_query(query), lines, names, digest))
        scope = f"{stamp[:8]}/{self.region}/{self.service}/request"
        text = "\n".join((ALGORITHM, stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()))
        key = self.secret.encode()
        for part in (stamp[:8], self.region, self.service, "request"):
            key = _hmac(key, part)
        return {
            "Content-Type": content_type,
            "X-Content-Sha256": digest,
            "X-Date": stamp,
            "Authorization": f"{ALGORITHM} Credential={self.key_id}/{scope}, SignedHeaders={names}, "
            f"Signature={_hmac(key, text).hex()}",
        }


def canonical_query(query: Mapping[str, str]) -> str:
    """A query as it is signed and sent: sorted by name, everything percent-encoded but letters, digits and ``-_.~``."""
    return "&".join(f"{quote(name, safe='-_.~')}={quote(query[name], safe='-_.~')}" for name in sorted(query))


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()
