"""Reading files that may be anything: bounded, never blocking, with reasons a person understands."""

from __future__ import annotations

import codecs
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote_from_bytes

from indexers.legacy import guessed_encodings

MAX_IMAGE_BYTES = 512 * 1024 * 1024
MAX_TEXT_BYTES = 16 * 1024 * 1024
MAX_MANIFEST_BYTES = 256 * 1024 * 1024


#: No text of any encoding has these.
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]")


class Unreadable(Exception):
    """A file or line that cannot be used; says why in one line."""


class NotUnicode(Unreadable):
    """A text in another encoding."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """What tells whether a file is still the one that was read: size, times and inode."""

    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    inode: int


def stamp_of(status: os.stat_result) -> Stamp:
    """The stamp of a file from its `os.stat_result`."""
    return Stamp(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


def explain(error: OSError | ValueError) -> str:
    """An error of opening or reading a file, in words."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, PermissionError):
        return "not readable: permission denied"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def check_regular(status: os.stat_result, limit_bytes: int) -> None:
    """Raise `Unreadable` for what is not a regular file, is empty, or has more than `limit_bytes`."""
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe, socket or device"
        raise Unreadable(f"is {kind}, not a file")
    if status.st_size == 0:
        raise Unreadable("is empty")
    check_size(status.st_size, limit_bytes)


def check_size(size_bytes: int, limit_bytes: int) -> None:
    """Raise `Unreadable` for more than `limit_bytes`."""
    if size_bytes > limit_bytes:
        raise Unreadable(f"has {size_bytes} bytes, more than the {limit_bytes} allowed")


def read_bounded(path: Path, limit_bytes: int) -> tuple[bytes, Stamp]:
    """The whole content of a regular file, and its stamp. Raises `Unreadable`; never waits on a pipe."""
    try:
        check_regular(path.stat(), limit_bytes)
        # Between that and the open the path may become a pipe: O_NONBLOCK keeps even that from waiting.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(descriptor, "rb") as file:
            before = os.fstat(descriptor)
            check_regular(before, limit_bytes)
            # One more than there should be shows that it grew. Room for the limit would be taken from the system, and
            # given back, at each read: ten times the time of reading a photograph.
            data = file.read(before.st_size + 1)
            after = os.fstat(descriptor)
    except (OSError, ValueError) as error:
        raise Unreadable(explain(error)) from None
    if stamp_of(before) != stamp_of(after) or len(data) != before.st_size:
        raise Unreadable("changed while it was read: run again")
    return data, stamp_of(after)


def decode_guessed(data: bytes, encoding: str | None = None) -> tuple[str, str]:
    """Text as `decode_text` has it, or in the encoding that it is in, and that encoding where it was guessed, else "".

    encoding: the one to read it in; one with a byte order mark is what that says all the same. Raises `Unreadable`.
    """
    try:
        return decode_text(data), ""
    except Unreadable as error:
        if not encoding and not isinstance(error, NotUnicode):
            raise
        tried = [encoding] if encoding else guessed_encodings(data)
        for name in tried:
            try:
                text = data.decode(name)
            except (UnicodeDecodeError, LookupError):
                continue
            if not _CONTROLS.search(text):
                return text.replace("\r\n", "\n").replace("\r", "\n"), "" if encoding else name
        if encoding:
            raise Unreadable(f"is not text in {encoding}: --encoding names another") from None
        raise Unreadable(str(error)) from None


def guessed_note(encoding: str) -> str:
    """What is told of a text that was read in a guessed encoding."""
    return f"read as {encoding}, which was guessed: --encoding names another"


def decode_text(data: bytes) -> str:
    """Text of UTF-8, or of UTF-8 or UTF-16 with a byte order mark, with ``\\n`` line ends. Raises `Unreadable`."""
    encoding = "utf-8"
    if data.startswith(codecs.BOM_UTF8):
        encoding = "utf-8-sig"
    elif data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        kind = NotUnicode if encoding == "utf-8" else Unreadable
        name = "UTF-16" if encoding == "utf-16" else "UTF-8"
        raise kind(f"is not {name} text (byte {error.start}): save it as UTF-8, or name its --encoding") from None
    if "\x00" in text:
        raise Unreadable("holds NUL characters: it is not a text file")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def file_uri(path: Path) -> str:
    """The ``file://`` URI of an absolute path; bytes that are not UTF-8 are percent-encoded like any other."""
    if os.name == "nt":
        return path.as_uri()
    return "file://" + quote_from_bytes(os.fsencode(path))


def display(path: str) -> str:
    """A path as storable text: bytes of a name that are not UTF-8 appear as ``\\xNN``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
