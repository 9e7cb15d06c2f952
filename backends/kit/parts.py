"""What is too much for one request, in parts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def in_pieces(items: Sequence[T], most: int) -> Iterator[Sequence[T]]:
    """The items in order, `most` at a time, fewer in the last piece."""
    for start in range(0, len(items), most):
        yield items[start : start + most]


def in_parts(
    items: Iterable[T], bytes_of: Callable[[T], int], *, most_bytes: int, most: int = sys.maxsize
) -> Iterator[list[T]]:
    """The items in order, in lists of up to `most` and of no more than `most_bytes`; a larger one stands alone."""
    part: list[T] = []
    size_bytes = 0
    for item in items:
        item_bytes = bytes_of(item)
        if part and (len(part) >= most or size_bytes + item_bytes > most_bytes):
            yield part
            part, size_bytes = [], 0
        part.append(item)
        size_bytes += item_bytes
    if part:
        yield part
