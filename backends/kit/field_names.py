"""Field names for engines that take ASCII only."""

from __future__ import annotations

from functools import lru_cache


@lru_cache(maxsize=4096)
def ascii_name(field: str) -> str:
    """A name of ASCII letters, digits and underscores for a field: its own if it is one, else one that no field has.

    The latter begin with a digit, as no field does. Then come the digits of Punycode (RFC 3492), and after an
    underscore the ASCII characters of the name, so that it can be read back.
    """
    if field.isascii():
        return field
    basic, _, digits = field.encode("punycode").decode("ascii").rpartition("-")
    return f"0{digits}_{basic}" if basic else f"0{digits}"
