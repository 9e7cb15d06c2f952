"""Numbers as integers that any engine orders rightly: many compare all numbers as doubles, or only strings."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable

_SIGN, _ALL = 1 << 63, (1 << 64) - 1


def ordered_bits(value: float) -> int:
    """The bits of a double as an unsigned 64-bit integer, in the order of the doubles; 0.0 and -0.0 are one."""
    (bits,) = struct.unpack(">Q", struct.pack(">d", value + 0.0))
    return int(bits ^ (_ALL if bits & _SIGN else _SIGN))


def double_below(value: float) -> float:
    """The greatest double not above `value`, which differs from it for some integers beyond 2^53."""
    nearest = float(value)
    if isinstance(value, int) and int(nearest) > value:
        return math.nextafter(nearest, -math.inf)
    return nearest


def number_parts(value: float, double_of: Callable[[float], float] = double_below) -> tuple[int, int]:
    """Two integers that compare, as a pair, as 64-bit integers and doubles do by value; equal for equal ones.

    The `ordered_bits` of a double near the value, and what an integer beyond 2^53 has more than that: 0 to 1023.
    With ``double_of=float``, the nearest double, it is -512 to 512.
    """
    double = double_of(value)
    return ordered_bits(double), value - int(double) if isinstance(value, int) else 0
