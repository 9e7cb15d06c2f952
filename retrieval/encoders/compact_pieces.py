"""SentencePiece's unigram model of `compact`'s tower of many languages, read without SentencePiece."""

from __future__ import annotations

import struct
import unicodedata
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

UNKNOWN, START, END = 0, 1, 2
# Unicode's compatibility form would make a plain tilde of it, which is another piece of the vocabulary.
_WIDE_TILDE = "～"
_SPACE = "▁"


class PiecesError(ValueError):
    """A file that is no unigram model as this module knows them."""


class Pieces:
    """Cuts texts into the pieces of a SentencePiece model, by the same rules as SentencePiece. Thread-safe.

    The normalizer in the model wants marks and letters in Unicode's composed order, which is given to it; marks in
    another order than Unicode's are the same text here, and for SentencePiece another one.

    Raises `PiecesError` for another kind of file.
    """

    def __init__(self, model: bytes) -> None:
        self._pieces, self._character_map = parse_model(model)
        #: No piece has more characters, so that many tokens of text are never more than as many times this.
        self.longest = max(len(piece) for piece, _ in self._pieces)
        #: The number of the piece that is a space, and nothing else.
        self.space = next((number for number, (piece, _) in enumerate(self._pieces) if piece == _SPACE), UNKNOWN)

    def ids(self, text: str) -> list[int]:
        """The numbers of a text's pieces; characters next to each other that none has are one `UNKNOWN`."""
        parts = (unicodedata.normalize("NFKC", part) for part in text.split(_WIDE_TILDE))
        ids: list[int] = self._tokenizer.encode(_WIDE_TILDE.join(parts)).ids
        return ids

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        from tokenizers import Regex, Tokenizer, models, normalizers

        tokenizer = Tokenizer(models.Unigram(self._pieces, unk_id=UNKNOWN, byte_fallback=False))
        tokenizer.normalizer = normalizers.Sequence(
            [
                normalizers.Precompiled(self._character_map),
                normalizers.Strip(),
                normalizers.Replace(Regex(" {2,}"), " "),
                normalizers.Replace(" ", _SPACE),
                normalizers.Prepend(_SPACE),
            ]
        )
        return tokenizer


def parse_model(model: bytes) -> tuple[list[tuple[str, float]], bytes]:
    """Pieces with their scores, and the normalizer's map of characters, of a model in SentencePiece's first layout.

    That is a protocol buffer: a message of field 1 for each piece, whose fields 1 and 2 are the piece and its score,
    and the normalizer as field 3, whose field 2 is the map. Raises `PiecesError` for what else there is.
    """
    pieces: list[tuple[str, float]] = []
    character_map = b""
    for field, content in _fields(model):
        if field == 1:
            described = dict(_fields(content))
            score = described.get(2, bytes(4))
            pieces.append((described.get(1, b"").decode(), struct.unpack("<f", score)[0]))
        elif field == 3:
            character_map = dict(_fields(content)).get(2, b"")
    if len(pieces) <= END or not character_map or pieces[UNKNOWN][0] != "<unk>":
        raise PiecesError("no unigram model of SentencePiece with a normalizer")
    return pieces, character_map


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and content of a message's fields that hold bytes or four of them; numbers are passed over."""
    at, end = 0, len(message)
    while at < end:
        key, at = _varint(message, at)
        kind = key & 7
        if kind == 0:
            _, at = _varint(message, at)
            continue
        if kind == 2:
            length, at = _varint(message, at)
        elif kind == 5:
            length = 4
        else:
            raise PiecesError(f"field {key >> 3} is of the unknown kind {kind}")
        if at + length > end:
            raise PiecesError(f"field {key >> 3} ends behind its message")
        yield key >> 3, message[at : at + length]
        at += length


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(message) or shift > 63:
            raise PiecesError("a number that does not end")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
