"""What a file is, by its content first and by its name's ending second, and what reads it.

Every kind of file that indexing knows is a row of `KINDS`, also those that are told apart only so that a report can
say what was not read. A listing gives an `Entry` the name of its file's kind: files with the ending of a kind that is
read are not opened for that, all others are (`recognise`). When a file is read, its content has the last word
(`by_content`): a JPEG that is called ``notes.txt`` is a picture.

To have another kind of file read:

1. Give it a row, or its row a `reader`, e.g. ``"indexers.pdf:read_pdf"``: a function that is imported when the first
   such file is read. It takes the `indexers.items.Reader` and the `Entry`, and gives the file's items in order: one for
   each part that has a picture of its own, that picture's record first in it, or a single one for all its texts. It
   raises `Unreadable` for a file that cannot be used; that file is quarantined with the reason.
2. Where it needs a package of an extra, name both in `needs`: as long as the package is missing, the files count as
   not read, and the report says what to install.
3. A picture that is a part of its file (a page, a moment, a member) has its own `Entry.part`, such as ``page=2``, which
   is the fragment of the record's address: ``file:///photo.tif#page=2``. `retrieval.images.parts` opens such addresses
   for indexing, thumbnails and chat; a new kind of part is a row of its table.
4. Say in docs/sources.md what is read of it, and its limits.
"""

from __future__ import annotations

import importlib.util
import posixpath
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, TypeAlias

from retrieval.images.formats import IMAGE_SUFFIXES

if TYPE_CHECKING:
    from indexers.items import Item, Reader
    from indexers.sources import Entry

#: What is looked at of a file's beginning to recognise it.
HEAD_BYTES = 4096
Read: TypeAlias = "Callable[[Reader, Entry], list[Item]]"


@dataclass(frozen=True, slots=True)
class FileKind:
    """A kind of file.

    name: what an `Entry` has as its kind. what: the plural that people read. suffixes: in lower case, with the dot.
    begins: a pattern that the first bytes of its files match, None for what has no mark of its own. reader: what reads
    it, as ``module:function``; None for a kind that is not read. needs: a module, and the extra that brings it.
    why: what a report says of files that are not read.
    """

    name: str
    what: str
    suffixes: frozenset[str] = frozenset()
    begins: re.Pattern[bytes] | None = None
    reader: str | None = None
    needs: tuple[str, str] | None = None
    why: str = ""

    @property
    def is_read(self) -> bool:
        """Whether indexing reads such files, with the packages that are installed."""
        return self.reader is not None and (self.needs is None or is_installed(self.needs[0]))

    @property
    def why_not(self) -> str:
        """Why such files are not read, and what to do; "" where there is nothing to be said."""
        if self.reader is not None and self.needs is not None:
            return f"install what reads them: pip install 'sightline[{self.needs[1]}]'"
        return self.why


def _begins(*patterns: bytes) -> re.Pattern[bytes]:
    return re.compile(b"|".join(patterns), re.DOTALL)


def _suffixes(names: str) -> frozenset[str]:
    return frozenset(f".{name}" for name in names.split())


_TEXT_START = rb"(?:\xef\xbb\xbf)?\s{0,200}"
# No comment holds an end of one: else there are as many ways to read several as take minutes to try.
_COMMENTS = rb"(?:<!--(?:(?!-->).){0,1000}-->\s{0,200}){0,4}"
_HEIF = rb"....ftyp(?:avif|avis|hei[cxms]|hev[cxms]|mif1|msf1)"
_ZIPPED_OFFICE = rb"PK\x03\x04.{26}(?:\[Content_Types\]\.xml|_rels/|docProps/|word/|xl/|ppt/)"
MARKDOWN_SUFFIXES = frozenset({".md", ".markdown"})

#: The first whose pattern matches is what a file is, so the special stand before the general.
KINDS: tuple[FileKind, ...] = (
    FileKind(
        name="image",
        what="pictures",
        suffixes=IMAGE_SUFFIXES,
        begins=_begins(
            rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|RIFF....WEBP|II[*+]\0|MM\0[*+]",
            rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51|P[1-6][ \t\r\n]+[\d#]|P[Ff]\n|BM....\0\0\0\0",
            _HEIF,
        ),
        reader="indexers.items:read_image",
    ),
    FileKind(
        name="raw",
        what="camera raws",
        suffixes=_suffixes(
            "3fr arw cr2 cr3 crw dcr dng erf fff iiq kdc mef mos mrw nef nrw orf pef raf raw rw2 rwl sr2 srf srw x3f"
        ),
        begins=_begins(rb"....ftypcrx |FUJIFILMCCD-RAW|FOVb|\0MRM|II\x1a\0\0\0HEAPCCDR|IIR[OS]|MMOR|IIU\0"),
        why="export them as JPEG",
    ),
    FileKind(name="pdf", what="PDF files", suffixes=_suffixes("pdf"), begins=_begins(_TEXT_START + rb"%PDF-\d")),
    FileKind(
        name="audio",
        what="sound files",
        suffixes=_suffixes("aac aif aiff amr ape flac m4a m4b mid midi mp3 oga ogg opus wav wma"),
        begins=_begins(rb"ID3|fLaC|OggS|RIFF....WAVE|FORM....AIF|....ftypM4[ABP] |\xff[\xfb\xf3\xf2\xfa]|MThd"),
    ),
    FileKind(
        name="video",
        what="videos",
        suffixes=_suffixes("3g2 3gp asf avi flv m2ts m4v mkv mov mp4 mpeg mpg mts ogv vob webm wmv"),
        begins=_begins(
            rb"....ftyp|....(?:moov|mdat|wide|pnot)|\x1a\x45\xdf\xa3|RIFF....AVI |FLV\x01",
            rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11|\0\0\x01[\xb3\xba]",
        ),
    ),
    FileKind(
        name="book",
        what="e-books",
        suffixes=_suffixes("azw azw3 djvu epub fb2 mobi"),
        begins=_begins(rb"PK\x03\x04.{26}mimetypeapplication/epub"),
    ),
    FileKind(
        name="office",
        what="office documents",
        suffixes=_suffixes(
            "doc docm docx dot dotx key numbers odp ods odt pages pot potx pps ppsx ppt pptm pptx rtf xls xlsb xlsm "
            "xlsx"
        ),
        begins=_begins(
            rb"\{\\rtf|\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1|PK\x03\x04.{26}mimetypeapplication/vnd\.oasis",
            _ZIPPED_OFFICE,
        ),
    ),
    FileKind(name="mail", what="e-mails", suffixes=_suffixes("eml emlx mbox msg")),
    FileKind(
        name="archive",
        what="archives",
        suffixes=_suffixes("7z bz2 cab gz iso lz4 rar tar tbz tgz txz xz zip zst"),
        begins=_begins(
            rb"PK(?:\x03\x04|\x05\x06)|7z\xbc\xaf\x27\x1c|Rar!|\x1f\x8b\x08|BZh[1-9]|\xfd7zXZ\0|\x28\xb5\x2f\xfd",
            rb".{257}ustar",
        ),
        why="unpack them",
    ),
    FileKind(
        name="svg",
        what="SVG drawings",
        suffixes=_suffixes("svg svgz"),
        begins=_begins(
            _TEXT_START
            + rb"(?:<\?xml[^>]{0,200}>\s{0,200})?"
            + _COMMENTS
            + rb"(?i:<!DOCTYPE svg[^>]{0,400}>\s{0,200})?<svg[\s>]"
        ),
        why="export them as PNG",
    ),
    FileKind(
        name="design",
        what="files of drawing programs",
        suffixes=_suffixes(
            "afdesign afphoto ai blend cdr dwg dxf emf eps exr fig hdr icns ico indd kra psb psd sketch tga wmf xcf"
        ),
        begins=_begins(rb"8BPS|gimp xcf|%!PS|BLENDER|\x76\x2f\x31\x01|\0\0\x01\0[^\0]\0|icns"),
        why="export them as JPEG or PNG",
    ),
    FileKind(
        name="page",
        what="web pages",
        suffixes=_suffixes("htm html mht mhtml xhtml"),
        begins=_begins(_TEXT_START + _COMMENTS + rb"(?i:<(?:!doctype\s+html|html[\s>]|head[\s>]))"),
    ),
    FileKind(
        name="document",
        what="texts",
        suffixes=MARKDOWN_SUFFIXES | _suffixes("txt rst"),
        reader="indexers.items:read_document",
    ),
    FileKind(
        name="data",
        what="tables and data",
        suffixes=_suffixes(
            "csv db dbf geojson gpx h5 ini json jsonl kml log mat ndjson npy npz parquet pickle pkl sqlite sqlite3 tsv "
            "xml xmp yaml yml"
        ),
        begins=_begins(rb"SQLite format 3\0|PAR1|\x89HDF"),
    ),
    FileKind(
        name="program",
        what="programs",
        suffixes=_suffixes("bat bin class dll dmg exe jar lnk msi o pyc sh so"),
        begins=_begins(rb"MZ|\x7fELF|\xca\xfe\xba\xbe|[\xcf\xfe]\xed\xfa[\xcf\xfe]|#!"),
    ),
    FileKind(name="other", what="files of unknown kinds"),
)
_BY_NAME = {kind.name: kind for kind in KINDS}
_BY_SUFFIX = {suffix: kind for kind in reversed(KINDS) for suffix in kind.suffixes}
IMAGE, OTHER = _BY_NAME["image"], _BY_NAME["other"]
#: Formats that hold files of several kinds, of which the name's ending tells which: raws are TIFF, most documents zip.
_REFINED = {
    "image": frozenset({"raw"}),
    "archive": frozenset({"office", "book", "design", "program", "data"}),
    "office": frozenset({"mail", "book", "design", "data", "program"}),
    "video": frozenset({"audio"}),
}
#: Kinds whose files begin with words that nothing else begins with.
_BEGIN_AS_TEXT = frozenset({"pdf", "office", "svg", "page"})
#: Kinds of which what is no text is none, whatever its ending.
_OF_TEXT = frozenset({"document", "mail", "page", "svg"})


def kind_named(name: str) -> FileKind:
    """The row of `KINDS` with this name. Raises KeyError."""
    return _BY_NAME[name]


def by_suffix(name: str) -> FileKind | None:
    """The kind that a file's ending tells; None for an ending of no known kind, or none at all."""
    return _BY_SUFFIX.get(suffix_of(name))


def by_content(head: bytes) -> FileKind | None:
    """The kind that a file's first `HEAD_BYTES` prove; None where they prove nothing, as those of texts do."""
    found = (kind for kind in KINDS if kind.begins is not None and kind.begins.match(head))
    if not is_text(head):
        return next(found, None)
    # Words may begin with any letters, so that MZ or ID3 prove nothing then.
    return next((kind for kind in found if kind.name in _BEGIN_AS_TEXT or head.startswith(b"#!")), None)


def recognise(head: bytes, name: str) -> FileKind:
    """What a file is, by its first `HEAD_BYTES` and its name."""
    named, proved = by_suffix(name), by_content(head)
    if proved is not None:
        if named is not None and named.name in _REFINED.get(proved.name, ()) and _may_be_raw(head, named):
            return named
        return proved
    if named is not None:
        return named if named.name not in _OF_TEXT or is_text(head) else OTHER
    # README, LICENSE, notes; with an ending nobody knows it is a program's business.
    return _BY_NAME["document"] if not suffix_of(name) and is_text(head) else OTHER


def _may_be_raw(head: bytes, named: FileKind) -> bool:
    return named.name != "raw" or head[:2] in (b"II", b"MM")


def suffix_of(name: str) -> str:
    """A name's ending in lower case, with the dot; "" if it has none."""
    return split_name(name)[1].lower()


def split_name(name: str) -> tuple[str, str]:
    """A file's name without its ending, and the ending, "" if there is none."""
    stem, suffix = posixpath.splitext(name)  # several times faster than pathlib, and asked of every file
    return (stem, suffix) if suffix != "." else (name, "")


def is_text(head: bytes) -> bool:
    """Whether a file that begins so may be a text: UTF-8, a text of an older encoding, or UTF-16 with its mark."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return True
    return bool(head.strip()) and not _BINARY.search(head)


_BINARY = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")


@cache
def reader_of(name: str) -> Read:
    """The function that reads files of a kind that is read."""
    module, _, function = (_BY_NAME[name].reader or "").partition(":")
    read: Read = getattr(import_module(module), function)
    return read


@cache
def is_installed(module: str) -> bool:
    """Whether a module can be imported, without importing it."""
    return importlib.util.find_spec(module) is not None
