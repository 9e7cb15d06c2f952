"""Small pictures in the terminal, in the three protocols that terminals know; off where none is recognised."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from PIL import Image

    from retrieval.images.parts import Place

Protocol: TypeAlias = Literal["kitty", "iterm2", "sixel"]
THUMBNAIL_PX = 160
_KITTY_CHUNK = 4096
_SIXEL_COLOURS = 64
_ITERM2 = frozenset({"iTerm.app", "WezTerm", "mintty", "Tabby", "rio"})
_KITTY = frozenset({"ghostty"})
_SIXEL = ("foot", "mlterm", "contour", "yaft", "xterm-sixel")


def protocol(env: Mapping[str, str] | None = None) -> Protocol | None:
    """What the terminal shows pictures in, by the variables that terminals set about themselves; None if unsure.

    Asking the terminal itself would be surer, but leaves garbage on the screen of one that does not answer. A
    multiplexer (tmux, screen) passes none of the protocols on by default, so there it is None.
    """
    env = os.environ if env is None else env
    term, program = env.get("TERM", ""), env.get("TERM_PROGRAM", "")
    if env.get("TMUX") or env.get("STY") or term.startswith(("screen", "tmux")) or term == "dumb":
        return None
    if env.get("KITTY_WINDOW_ID") or "kitty" in term or program in _KITTY or "ghostty" in term:
        return "kitty"
    if program in _ITERM2 or env.get("LC_TERMINAL") == "iTerm2":
        return "iterm2"
    return "sixel" if term.startswith(_SIXEL) else None


def thumbnail(path: Place, how: Protocol) -> str:
    """The escape sequence that shows a small version of the image at `path`. Raises `ImageError`."""
    from retrieval.images.decode import load_image
    from retrieval.images.plan import Wanted

    image = load_image(path, wanted=Wanted(fit=THUMBNAIL_PX))
    if how == "sixel":
        return sixel(image)
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return kitty(stream.getvalue()) if how == "kitty" else iterm2(stream.getvalue())


def kitty(png: bytes) -> str:
    """Kitty's terminal graphics protocol: PNG data, shown at the cursor, in chunks of 4,096 characters."""
    data = base64.b64encode(png).decode("ascii")
    chunks = [data[start : start + _KITTY_CHUNK] for start in range(0, len(data), _KITTY_CHUNK)]
    parts = []
    for number, chunk in enumerate(chunks):
        control = "a=T,f=100,q=2," if number == 0 else ""
        parts.append(f"\x1b_G{control}m={int(number < len(chunks) - 1)};{chunk}\x1b\\")
    return "".join(parts)


def iterm2(png: bytes) -> str:
    """iTerm2's inline images protocol (OSC 1337)."""
    data = base64.b64encode(png).decode("ascii")
    return f"\x1b]1337;File=inline=1;size={len(png)};preserveAspectRatio=1:{data}\x07"


def sixel(image: Image.Image) -> str:
    """DEC sixel graphics (VT340): bands of six rows, one pass for each of at most 64 colours."""
    import numpy as np

    reduced = image.quantize(_SIXEL_COLOURS)
    pixels = np.asarray(reduced)
    palette = reduced.getpalette() or []
    parts = [f'\x1bPq"1;1;{image.width};{image.height}']
    for colour in np.unique(pixels).tolist():
        red, green, blue = (round(value / 2.55) for value in palette[3 * colour : 3 * colour + 3])
        parts.append(f"#{colour};2;{red};{green};{blue}")
    weights = 1 << np.arange(6)
    for top in range(0, image.height, 6):
        band = pixels[top : top + 6]
        for colour in np.unique(band).tolist():
            bits = ((band == colour) * weights[: len(band), None]).sum(axis=0)
            parts.append(f"#{colour}" + "".join(chr(63 + bit) for bit in bits.tolist()) + "$")
        parts.append("-")
    return "".join(parts) + "\x1b\\"
