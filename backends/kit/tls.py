"""Whom a client trusts by TLS."""

from __future__ import annotations

import ssl


def trusted(authority: str | None, *, option: str, address: str) -> ssl.SSLContext:
    """TLS that checks the server's name and certificate, by the authorities in a file or by the system's.

    `option` is that of the URL which named the file. Raises ValueError where it cannot be read.
    """
    try:
        return ssl.create_default_context(cafile=authority)
    except (OSError, ssl.SSLError) as error:
        # An error of TLS is one of the system too, with words of its own.
        plain = isinstance(error, OSError) and not isinstance(error, ssl.SSLError)
        reason = (error.strerror if plain else None) or "it holds no certificate in PEM form"
        raise ValueError(f"{address}: the file that {option} names cannot be read: {reason}") from None
