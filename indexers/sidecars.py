"""Which files of a folder say something of its pictures: captions, Google Takeout's JSON, and XMP.

A sidecar has the name of its picture, with its ending or without: ``a.txt`` and ``a.jpg.txt``, ``a.xmp`` and
``a.jpg.xmp``, ``a.jpg.json`` and what Google makes of that. The names need not be alike to the byte: they may differ in
Unicode form, and in case where only one picture can be meant.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from indexers.kinds import by_suffix, split_name, suffix_of

SIDECAR_SUFFIXES = frozenset({".txt", ".xmp", ".json"})
#: Google cuts names to 46 characters, some of them those of a number or a supplement; less proves nothing.
_LEAST_CUT = 30
#: Pictures that an unclear sidecar is told to be of.
_MOST_UNCLEAR = 4
#: Kinds of files that Google writes data of.
_PICTURED = frozenset({"image", "raw", "video"})
_COPY = re.compile(r"(.+?)\((\d{1,4})\)\Z", re.DOTALL)
_SUPPLEMENT = "supplemental-metadata"
#: What Google adds to the name of a picture that was changed there, whose data stands with the first one.
_EDITED = (
    "-edited",
    "-bearbeitet",
    "-modifié",
    "-editado",
    "-modificato",
    "-bewerkt",
    "-編集済み",
    "-已修改",
    "-編輯過",
)


@dataclass(frozen=True, slots=True)
class Pairing:
    """Sidecars by name with the pictures that they belong to, and those that might belong to several."""

    owners: dict[str, list[str]] = field(default_factory=dict)
    unclear: dict[str, list[str]] = field(default_factory=dict)


def pair(names: Iterable[str], images: Iterable[str]) -> Pairing:
    """Which of the files `names` of a folder are sidecars of which of its `images`."""
    pictures = _Pictures(list(images))
    found = Pairing()
    if not pictures.names:
        return found
    taken = set(pictures.names)
    for name in names:
        suffix = suffix_of(name)
        if suffix not in SIDECAR_SUFFIXES or name in taken:
            continue
        base = name[: -len(suffix)]
        owners = pictures.of_takeout(base) if suffix == ".json" else pictures.of(base, with_stem=True)
        if len(owners) > 1:
            found.unclear[name] = sorted(image for some in owners for image in some)
        elif owners:
            found.owners[name] = owners[0]
    return found


def looks_like_sidecar(name: str) -> bool:
    """Whether a file has the name of a sidecar and can be nothing else."""
    base, suffix = split_name(name)
    if suffix.lower() != ".json":
        return suffix.lower() == ".xmp"
    match = _COPY.match(base)
    kind = by_suffix(_without_supplement(match[1] if match else base))
    return kind is not None and kind.name in _PICTURED


class _Pictures:
    """The pictures of a folder, by full name and by name without ending, as typed and as compared."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self._sorted: dict[str, list[tuple[str, str]]] | None = None
        self._whole, self._stem = _index(names, lambda name: name), _index(names, lambda name: split_name(name)[0])

    def of(self, base: str, *, with_stem: bool) -> list[list[str]]:
        """The pictures that a sidecar's name without its ending may mean, those of one spelling together.

        The first of the ways to compare that finds any decides: to the byte, by Unicode form, by case too.
        """
        for level in range(len(_LEVELS)):
            found: dict[str, list[str]] = {}
            for index in (self._whole, self._stem) if with_stem else (self._whole,):
                for spelling, images in index[level].get(_LEVELS[level](base), {}).items():
                    found.setdefault(spelling, []).extend(images)
            if found:
                return [list(dict.fromkeys(images)) for images in found.values()]
        return []

    def of_takeout(self, base: str) -> list[list[str]]:
        """The pictures of one of Google's files: ``a.jpg``, ``a.jpg(1)`` for ``a(1).jpg``, cut names, supplements."""
        match = _COPY.match(base)
        number = f"({match[2]})" if match else ""
        plain = _without_supplement(match[1] if match else base)
        for candidate in (_numbered(plain, number), _without_supplement(base)):
            if found := self.of(candidate, with_stem=False):
                return self._with_edited(found)
        return self._cut(plain, number)

    def _cut(self, base: str, number: str) -> list[list[str]]:
        """The one picture whose name begins with one that was cut."""
        if len(base) < _LEAST_CUT:
            return []
        if self._sorted is None:
            self._sorted = _by_number(self.names)
        known, start = self._sorted.get(number, []), _nfc(base)
        found: list[list[str]] = []
        # Looked up, not searched for: a folder of Google's may have thousands of files of films.
        at = bisect_left(known, (start, ""))
        while at < len(known) and len(found) < _MOST_UNCLEAR and known[at][0].startswith(start):
            found.append([known[at][1]])
            at += 1
        return found

    def _with_edited(self, found: list[list[str]]) -> list[list[str]]:
        if len(found) != 1:
            return found
        stems = dict.fromkeys(_nfc(split_name(name)[0]) for name in found[0])
        same_form = self._stem[_LEVELS.index(_nfc)]
        changed = [same_form.get(_nfc(f"{stem}{edited}"), {}) for stem in stems for edited in _EDITED]
        return [found[0] + [name for spellings in changed for names in spellings.values() for name in names]]


def _index(names: list[str], part: Callable[[str], str]) -> list[dict[str, dict[str, list[str]]]]:
    """By each way to compare: what is compared, to spellings, to names."""
    levels: list[dict[str, dict[str, list[str]]]] = [{} for _ in _LEVELS]
    for name in names:
        spelling = part(name)
        for level, compared in zip(levels, _LEVELS, strict=True):
            level.setdefault(compared(spelling), {}).setdefault(spelling, []).append(name)
    return levels


def _nfc(name: str) -> str:
    return unicodedata.normalize("NFC", name)


_LEVELS: tuple[Callable[[str], str], ...] = (str, _nfc, lambda name: _nfc(_nfc(name).casefold()))


def _without_supplement(name: str) -> str:
    """``a.jpg`` of ``a.jpg.supplemental-metadata``, of which the end may be cut anywhere."""
    head, dot, tail = name.rpartition(".")
    return head if dot and tail and _SUPPLEMENT.startswith(tail.lower()) and "." in head else name


def _numbered(name: str, number: str) -> str:
    stem, suffix = split_name(name)
    return f"{stem}{number}{suffix}"


def _by_number(names: list[str]) -> dict[str, list[tuple[str, str]]]:
    """By the number of a copy, "(1)": names without it in composed form, and as they are; by "" all names."""
    found: dict[str, list[tuple[str, str]]] = {"": [(_nfc(name), name) for name in names]}
    for name in names:
        stem, suffix = split_name(name)
        if match := _COPY.match(stem):
            found.setdefault(f"({match[2]})", []).append((_nfc(match[1] + suffix), name))
    for known in found.values():
        known.sort()
    return found
