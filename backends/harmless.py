"""What others wrote, made harmless to show: it drives no terminal, and stands where it seems to stand.

Texts of items, names of files and answers of models come from anybody. Control characters could clear a screen or
write into its title; overrides of the direction of writing can show ``photo_gpj.exe`` as ``photo_exe.jpg``, and move
the rest of a line. Both go. What ordinary text needs stays: letters of every script, right-to-left ones with their
marks, and the joiners of Persian, of Indian scripts and of emoji.
"""

from __future__ import annotations

import re

from backends.graphemes import MAX_POINTS, graphemes

# Embeddings, overrides and isolates of Unicode's bidirectional algorithm, deprecated formats, and annotations.
_REORDERING = "\u202a-\u202e\u2066-\u2069\u206a-\u206f\ufff9-\ufffb"
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_CONTROL_BUT_BREAKS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_ORDER = re.compile(f"[{_REORDERING}]")
_ANY = re.compile(f"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff{_REORDERING}]")
_IN_JSON = re.compile(f"[\x7f-\x9f\u2028\u2029\ud800-\udfff{_REORDERING}]")


def harmless(text: str) -> str:
    """`text` without what could drive a terminal or reorder a line; line breaks and tabs stay."""
    return _ORDER.sub("", _CONTROL_BUT_BREAKS.sub("", text))


def one_line(text: str) -> str:
    """`text` on one line as `harmless` leaves it, with single spaces for the ends of lines and control characters."""
    return " ".join(_ORDER.sub("", _CONTROL.sub(" ", text)).split())


def escaped(text: str) -> str:
    """`text` on one line, with what is not harmless as its escape, so that two names of files stay told apart."""
    return _ANY.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def shortened(text: str, limit: int) -> str:
    """`text` of at most `limit` code points, cut between characters and ended by ``…`` where it was longer."""
    if len(text) <= limit:
        return text
    kept = 0
    for cluster in graphemes(text[: limit + MAX_POINTS]):
        if kept + len(cluster) >= limit:
            break
        kept += len(cluster)
    return text[:kept] + "…"


def harmless_json(text: str) -> str:
    """A JSON text of the same value in which what is not harmless is written as escapes."""
    return _IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
