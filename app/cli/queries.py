"""What the arguments of commands say about a query: its terms, its filter, its modality and its mode."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from app.core.errors import CommandError, UsageError

if TYPE_CHECKING:
    from backends.base import Modality
    from retrieval.search.fusion import Fusion
    from retrieval.search.query import Term
    from retrieval.search.retriever import Mode

MODALITIES = ("image", "text", "any")


def read_query(
    words: Sequence[str] | None,
    images: Sequence[Path] | None,
    term: Sequence[str] | None,
    terms: Sequence[str] | None,
) -> list[Term]:
    """The terms of a query as the command line gives it. Raises UsageError when there is none."""
    from retrieval.search.query import Term, parse_terms

    query: list[Term] = []
    if words:
        query.append(Term(" ".join(words)))
    for path in images or ():
        require_file(path)
        query.append(Term(path))
    parts = [*(term or ()), *(part for line in terms or () for part in split_terms(line))]
    for parsed in parse_terms(parts) if parts else ():
        if isinstance(parsed.value, Path):
            require_file(parsed.value)
        query.append(parsed)
    if not query:
        raise UsageError("say what to look for: words, --image FILE, or --term; see sightline search --help")
    return query


def split_terms(line: str) -> list[str]:
    """Split a line of terms at spaces that are not between double quotes."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="")
    lexer.whitespace_split, lexer.quotes, lexer.commenters, lexer.escape = True, '"', "", ""
    try:
        return list(lexer)
    except ValueError:
        raise UsageError(f"--terms {line!r}: a quotation mark is not closed") from None


def read_where(text: str | None) -> dict[str, Any] | None:
    """The filter that ``--where`` gives as JSON. Raises UsageError where it is none."""
    if text is None:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f'--where is not JSON ({error}): write it as \'{{"year": {{"$gte": 1990}}}}\'') from None
    if not isinstance(value, dict):
        raise UsageError(f"--where must be a JSON object, not {text[:80]!r}")
    from backends.filters import parse_where

    try:
        parse_where(value)
    except ValueError as error:
        raise UsageError(f"--where: {error}") from None
    return value


def read_modality(name: str | None, known: Sequence[str] = MODALITIES) -> Modality | None:
    """The modality that ``--modality`` names; None for any, and where nothing was said."""
    if name is not None and name not in known:
        raise UsageError(f"--modality must be one of {', '.join(known)}, not {name!r}")
    if name == "image":
        return "image"
    return "text" if name == "text" else None


def read_mode(name: str) -> Mode:
    """The mode that ``--mode`` names."""
    from retrieval.search.retriever import Mode

    for mode in get_args(Mode):
        if mode == name:
            return mode  # type: ignore[no-any-return]
    raise UsageError(f"--mode must be one of {', '.join(get_args(Mode))}, not {name!r}")


def read_fusion(name: str) -> Fusion:
    """The way of merging lists that ``--fusion`` names."""
    from retrieval.search.fusion import Fusion

    for fusion in get_args(Fusion):
        if fusion == name:
            return fusion  # type: ignore[no-any-return]
    raise UsageError(f"--fusion must be one of {', '.join(get_args(Fusion))}, not {name!r}")


def require_file(path: Path) -> None:
    """Raise CommandError unless `path` is a file."""
    try:
        found = path.is_file()
    except (OSError, ValueError):
        found = False
    if not found:
        raise CommandError(f"no file {path}: check the path of the picture")
