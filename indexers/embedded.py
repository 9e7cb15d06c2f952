"""The words that a picture's file has in itself: title, headline, description, comment, tags and rating.

They are read from XMP (Dublin Core, ISO 16684-1), IPTC (IIM 4), EXIF, with the fields that Windows adds to it, and the
text chunks of PNG, in this order: of each field what is said first holds. What cameras and programs write by
themselves, such as "OLYMPUS DIGITAL CAMERA", is no word of anybody. All of it may be hostile: sizes are bounded,
entities of XML refused, and what is damaged costs a field, never the picture.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from itertools import islice
from typing import Any
from xml.etree.ElementTree import Element

from indexers.exif import decoded, one_line, plain_text
from indexers.fields import Metadata
from indexers.xmp import DC, LANGUAGE, PHOTOSHOP, RDF, XMP, parsed

MAX_WORDS_CHARS = 2000
MAX_TAGS, MAX_TAG_CHARS = 100, 100
MAX_BLOCK_BYTES = 512 * 1024
MAX_IPTC_VALUES = 1000
MAX_PNG_CHUNKS = 10_000
#: Text chunks that are unpacked of those with a wanted name; each may hold a thousand times its size.
MAX_PNG_TEXTS = 20
#: The fields whose words are searched by keyword, in the order of their lines.
WORDS = ("title", "headline", "description", "comment")

_XMP_TEXTS = ((DC + "title", "title"), (PHOTOSHOP + "Headline", "headline"), (DC + "description", "description"))
_DESCRIPTION, _USER_COMMENT, _RATING = 0x010E, 0x9286, 0x4746
_XP = {0x9C9B: "title", 0x9C9C: "comment", 0x9C9F: "description"}
_XP_KEYWORDS = 0x9C9E
_IPTC = {5: "title", 105: "headline", 120: "description"}
_IPTC_KEYWORDS = 25
_PNG = {
    "title": "title",
    "description": "description",
    "caption": "description",
    "subject": "description",
    "comment": "comment",
}
_PNG_TAGS = frozenset({"keywords", "tags"})
_CAMERAS = (
    "olympus|minolta|konica[ -]minolta|kodak|sony|samsung|pentax|ricoh|fujifilm|fuji|casio|nikon|canon|hp|vivitar|kenox"
)
_PROGRAMS = (
    "gimp|vsco|adobe|photoshop|lightroom|jpegmini|snapseed|picsart|instagram|paint|imagemagick|canva|acdsee|apple"
)
#: What cameras and programs write by themselves, whole lines of it; names and numbers of files too.
_JUNK = re.compile(
    rf"(?:(?:{_CAMERAS})\W+)?(?:digital (?:still )?camera|dsc|digimax|camera pictures|camera)"
    r"|<?(?:kenox|digimax) .*|dcf ?\d\S*|exif[_ ]jpeg[_ ]picture|jpeg picture|applemark|binary comment|charset=\S*"
    r"|(?:digital )?(?:picture|image|photo)|untitled|default|none|null|unknown|title|description|comment|caption"
    r"|user ?comment|ascii|unicode"
    rf"|(?:created|made|edited|processed|optimi[sz]ed|file written) (?:with|by|in|using) (?:the )?(?:{_PROGRAMS})\b.*"
    r"|creator: gd-jpeg.*|lead technologies.*|lavc[\d.]+|intel\(r\) .*"
    # Telephones' own codes of how a picture was taken.
    r"|dav|ptr|btf|edf|edfps|edmp|cof|mde|rbt|rbtf|rpt|rhdr|hdr|hdrpl|jpro|non|oznor|oznorwo|sdr|ssf|fbt|ptfbty"
    r"|[a-z]{0,5}[_-]?\d[\d_.:-]*(?:\.[a-z]{3,4})?|[{\[].*[}\]]|[0-9a-f]{16,}|https?://\S+",
    re.IGNORECASE | re.DOTALL,
)


def embedded_words(image: Any, data: bytes, exif: Any, detail: Mapping[int, Any]) -> Metadata:
    """title, headline, description, comment (a line each), tags (a list) and rating (up to 5), as far as there are any.

    image: opened by Pillow, undecoded; data: its file; exif, detail: its EXIF and the part of it at 0x8769.
    """
    found = _Found()
    for read in (
        lambda: _read_xmp(found, image, data, exif),
        lambda: _read_iptc(found, image, exif),
        lambda: _read_exif(found, exif, detail),
        lambda: _read_png(found, data),
    ):
        _harmlessly(read)
    return found.fields(_camera(exif))


def words_of(fields: Mapping[str, Any]) -> tuple[str, ...]:
    """The lines that keyword search reads of what `embedded_words` found."""
    tags = fields.get("tags")
    lines = [str(fields[name]) for name in WORDS if name in fields]
    return tuple(dict.fromkeys([*lines, *([", ".join(tags)] if isinstance(tags, list) and tags else [])]))


def _harmlessly(read: Callable[[], None]) -> None:
    try:
        read()
    except Exception:
        # Hostile metadata makes parsers raise nearly anything.
        return


class _Found:
    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._tags: dict[str, None] = {}
        self._rating: float | None = None

    def text(self, name: str, value: str) -> None:
        """Take a text, if it is the first of its field and says what no other field does."""
        line = one_line(value, MAX_WORDS_CHARS)
        if line and not is_junk(line) and line not in self._texts.values():
            self._texts.setdefault(name, line)

    def tags(self, values: Iterable[str]) -> None:
        for value in values:
            tag = one_line(value, MAX_TAG_CHARS)
            if tag and len(self._tags) < MAX_TAGS:
                self._tags.setdefault(tag)

    def rating(self, value: Any) -> None:
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            return
        # None at all is 0; -1 is a rejected picture.
        if self._rating is None and (0 < number <= 5 or number == -1):
            self._rating = number

    def fields(self, camera: set[str]) -> Metadata:
        found: Metadata = {
            name: text for name, text in self._texts.items() if not set(text.casefold().split()) <= camera
        }
        if self._tags:
            found["tags"] = list(self._tags)
        if self._rating is not None:
            found["rating"] = int(self._rating) if self._rating == int(self._rating) else self._rating
        return found


def is_junk(line: str) -> bool:
    """Whether a camera or a program wrote it by itself, or there is no word in it."""
    return not any(char.isalpha() for char in line) or _JUNK.fullmatch(line.strip(" .")) is not None


def _camera(exif: Any) -> set[str]:
    """The words that name the camera and nothing else."""
    names = " ".join(plain_text(exif.get(tag)) for tag in (0x010F, 0x0110)) if exif is not None else ""
    return {*names.casefold().split(), "digital", "camera"} if names else set()


def _read_xmp(found: _Found, image: Any, data: bytes, exif: Any) -> None:
    packet = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or (exif.get(700) if exif else None)
    if packet is None and data.startswith(b"\x89PNG"):
        packet = next((text for _, text in _png_texts(data, {"xml:com.adobe.xmp"})), None)
    if isinstance(packet, tuple):
        packet = bytes(packet)
    if isinstance(packet, str):
        packet = packet.encode()
    if not isinstance(packet, bytes) or len(packet) > MAX_BLOCK_BYTES:
        return
    for node in parsed(packet.strip(b"\x00 \r\n\t")).iter(RDF + "Description"):
        for name, field in _XMP_TEXTS:
            found.text(field, next(iter(_values(node, name)), ""))
        found.tags(_values(node, DC + "subject"))
        found.rating(next(iter(_values(node, XMP + "Rating")), None))


def _values(node: Element, name: str) -> list[str]:
    """The values of a property: an attribute, an element, or the members of a list, its default language first."""
    if name in node.attrib:
        return [node.attrib[name]]
    values: list[tuple[bool, str]] = []
    for child in node.findall(name):
        members = list(child.iter(RDF + "li")) or [child]
        values += [(each.get(LANGUAGE) == "x-default", each.text or "") for each in members]
    return [text for _, text in sorted(values, key=lambda value: not value[0])]


def _read_iptc(found: _Found, image: Any, exif: Any) -> None:
    resources = image.info.get("photoshop")
    block = resources.get(0x0404) if isinstance(resources, dict) else None
    if block is None and exif is not None:
        block = exif.get(33723)
    if isinstance(block, tuple):
        # A TIFF may have it as numbers of four bytes.
        block = struct.pack(f"<{len(block)}L", *block)
    if not isinstance(block, bytes) or len(block) > MAX_BLOCK_BYTES:
        return
    is_utf8 = False
    tags = []
    for record, dataset, value in islice(_iptc_values(block), MAX_IPTC_VALUES):
        if (record, dataset) == (1, 90):
            is_utf8 = value == b"\x1b%G"
            continue
        if record != 2:
            continue
        text = value.decode("utf-8", "replace") if is_utf8 else decoded(value)
        if dataset == _IPTC_KEYWORDS:
            tags.append(text)
        elif dataset in _IPTC:
            found.text(_IPTC[dataset], text)
    found.tags(tags)


def _iptc_values(block: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Record, number and value of each dataset."""
    at = 0
    while at + 5 <= len(block) and block[at] == 0x1C:
        record, dataset, length = block[at + 1], block[at + 2], int.from_bytes(block[at + 3 : at + 5], "big")
        at += 5
        if length & 0x8000:
            # The length of the length; texts have none that long.
            size = length & 0x7FFF
            length, at = int.from_bytes(block[at : at + size], "big"), at + size
        yield record, dataset, block[at : at + length]
        at += length


def _read_exif(found: _Found, exif: Any, detail: Mapping[int, Any]) -> None:
    if exif is None:
        return
    found.text("description", plain_text(exif.get(_DESCRIPTION), MAX_WORDS_CHARS))
    for tag, name in _XP.items():
        found.text(name, _utf16(exif.get(tag)))
    found.text("comment", _user_comment(detail.get(_USER_COMMENT)))
    found.tags(re.split("[;\x00]", _utf16(exif.get(_XP_KEYWORDS))))
    found.rating(exif.get(_RATING))


def _utf16(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        value = bytes(value)
    if not isinstance(value, bytes):
        return value if isinstance(value, str) else ""
    return value[:MAX_BLOCK_BYTES].decode("utf-16-le", "ignore").rstrip("\x00")


def _user_comment(value: Any) -> str:
    """EXIF's UserComment, which begins with the name of its character set."""
    if isinstance(value, str):
        value = value.encode("latin-1", "ignore")
    if not isinstance(value, bytes) or len(value) > MAX_BLOCK_BYTES:
        return ""
    charset, text = value[:8], value[8:]
    if charset.startswith(b"UNICODE"):
        return _unicode(text)
    if charset.startswith(b"JIS"):
        return text.decode("iso2022_jp", "replace")
    return decoded(text if charset.startswith(b"ASCII") or not charset.strip(b"\x00 ") else value)


def _unicode(text: bytes) -> str:
    if text[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return text.decode("utf-16", "ignore")
    # Nobody says in which order; some even write UTF-8. What is mostly Latin has its zeros on one side.
    high, low = text[0::2].count(0), text[1::2].count(0)
    if not high and not low and len(text) > 1:
        try:
            return text.decode("utf-8")
        except UnicodeDecodeError:
            pass
    return text.decode("utf-16-be" if high > low else "utf-16-le", "ignore")


def _read_png(found: _Found, data: bytes) -> None:
    if not data.startswith(b"\x89PNG"):
        return
    for name, text in _png_texts(data, _PNG.keys() | _PNG_TAGS):
        if name in _PNG:
            found.text(_PNG[name], text)
        else:
            found.tags(re.split("[;,]", text))


def _png_texts(data: bytes, names: Set[str]) -> Iterator[tuple[str, str]]:
    """Name and text of the first text chunks with these names, also behind the pixels, which are not decoded."""
    at, left = 8, MAX_PNG_TEXTS
    for _ in range(MAX_PNG_CHUNKS):
        size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if len(kind) < 4 or kind == b"IEND" or not left:
            return
        if kind in (b"tEXt", b"zTXt", b"iTXt") and size <= MAX_BLOCK_BYTES:
            key, _, rest = data[at + 8 : at + 8 + size].partition(b"\x00")
            name = key.decode("latin-1").casefold()
            if name in names:
                left -= 1
                yield name, _png_text(kind, rest)
        at += 12 + size


def _png_text(kind: bytes, rest: bytes) -> str:
    if kind == b"tEXt":
        # Latin-1, says the standard; programs write UTF-8.
        return decoded(rest)
    if kind == b"zTXt":
        return decoded(_inflated(rest[1:]))
    is_packed, rest = rest[:1] == b"\x01", rest[2:]
    _language, _, rest = rest.partition(b"\x00")
    _translated, _, text = rest.partition(b"\x00")
    return (_inflated(text) if is_packed else text).decode("utf-8", "replace")


def _inflated(packed: bytes) -> bytes:
    return zlib.decompressobj().decompress(packed, MAX_BLOCK_BYTES)
