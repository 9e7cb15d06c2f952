"""Text in the cells of a terminal, of which a Chinese character takes two and an accent none.

Everything that is cut, filled up or folded for a terminal goes through `fitting`, so that no character is cut in two;
`backends.graphemes` says what one is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backends.graphemes import graphemes

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.measure import Measurement
    from rich.text import Text

ELLIPSIS = "…"


def width(text: str) -> int:
    """How many cells of a terminal `text` takes."""
    if text.isascii():
        return len(text)
    # Imported when something is measured, so that --help does not wait for it.
    from rich.cells import cell_len

    return cell_len(text)


def fitting(clusters: Iterable[str], cells: int) -> list[str]:
    """The first of the clusters that fit into so many cells together."""
    kept: list[str] = []
    for cluster in clusters:
        cells -= width(cluster)
        if cells < 0:
            break
        kept.append(cluster)
    return kept


def cut(text: str, cells: int) -> str:
    """`text` in at most `cells` cells, its end ``…`` where there was more."""
    return text if width(text) <= cells else "".join(fitting(graphemes(text), cells - 1)) + ELLIPSIS


def cut_start(text: str, cells: int) -> str:
    """`text` in at most `cells` cells, its beginning ``…`` where there was more: the end of a path says most."""
    if width(text) <= cells:
        return text
    return ELLIPSIS + "".join(reversed(fitting(reversed(list(graphemes(text))), cells - 1)))


def padded(text: str, cells: int) -> str:
    """`text` with spaces after it, so that it takes at least `cells` cells."""
    return text + " " * (cells - width(text))


def folded(text: str, cells: int) -> list[str]:
    """A line as lines of at most `cells` cells, broken at spaces and beside wide characters where possible."""
    lines: list[str] = []
    line: list[str] = []
    breaks = used = 0
    for cluster in graphemes(text):
        wide = width(cluster)
        if line and used + wide > cells:
            end = len(line) if cluster == " " or wide > 1 else breaks or len(line)
            lines.append("".join(line[:end]).rstrip(" "))
            line, breaks = line[end:], 0
            used = width("".join(line))
            if cluster == " ":
                continue
        line.append(cluster)
        used += wide
        if cluster == " " or wide > 1:
            breaks = len(line)
    return [*lines, "".join(line)]


@dataclass(frozen=True, slots=True)
class Line:
    """A styled text in a table of `rich`, cut to the width that its column turns out to have; `keep_end` of a path."""

    text: Text
    keep_end: bool = False

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The text as it fits."""
        from rich.text import Text

        plain = self.text.plain
        kept = (cut_start if self.keep_end else cut)(plain, options.max_width)
        if kept == plain:
            yield self.text
        elif self.keep_end:
            yield Text(ELLIPSIS, self.text.style) + self.text[len(plain) - len(kept) + len(ELLIPSIS) :]
        else:
            yield self.text[: len(kept) - len(ELLIPSIS)] + Text(ELLIPSIS)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """From one cell to all that the text takes."""
        from rich.measure import Measurement

        return Measurement(1, max(1, width(self.text.plain)))


@dataclass(frozen=True, slots=True)
class Folded:
    """A text in a table of `rich`, folded to the width that its column turns out to have; `whole` where it may not be.

    A column in which something is `whole` gives way last.
    """

    text: str
    whole: bool = False

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The text as it fits."""
        from rich.text import Text

        yield Text("\n".join(folded(self.text, options.max_width)))

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """From its longest word, or all, to all that the text takes."""
        from rich.measure import Measurement

        whole = max(1, width(self.text))
        least = whole if self.whole else max((width(word) for word in self.text.split(" ")), default=1)
        return Measurement(max(1, least), whole)
