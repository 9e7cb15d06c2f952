"""The results page: one HTML file with its thumbnails inside, which needs no script and fetches nothing."""

from __future__ import annotations

import base64
import functools
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.cli.output import GONE, NOT_KNOWN, NOTHING_FOUND, is_gone, local_path, part_of, place, show_relevance

if TYPE_CHECKING:
    from PIL import Image

    from backends.base import Hit
    from retrieval.images.parts import Place
    from retrieval.search.query import Stored, Term

THUMBNAIL_PX = 480
QUERY_THUMBNAIL_PX = 240
TEXT_THUMBNAIL_PX = 168
MAX_SHOWN_CHARS = 600
MAX_LABEL_CHARS = 40


@dataclass(frozen=True, slots=True)
class Part:
    """One part of what was asked: words, or a picture, and its weight."""

    text: str = ""
    image: Place | bytes | Image.Image | None = None
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Section:
    """One query with its results. `facts` are short phrases shown under the query, such as the filter."""

    title: str
    parts: Sequence[Part]
    hits: Sequence[Hit]
    facts: Sequence[str] = field(default_factory=tuple)
    first_rank: int = 1
    nothing: str = NOTHING_FOUND


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A small JPEG as a data: URI, and the width of the original over its height."""

    uri: str
    ratio: float


def parts_of(terms: Sequence[Term]) -> list[Part]:
    """The terms of a query as the page shows them."""
    return [_part_of(term.value, term.weight) for term in terms]


def _part_of(value: str | Path | bytes | Image.Image | Stored, weight: float) -> Part:
    from retrieval.search.query import Stored

    if isinstance(value, str):
        return Part(text=value, weight=weight)
    if isinstance(value, Stored):
        # A query holds only its vector.
        return Part(text=value.id, weight=weight)
    return Part(text=str(value) if isinstance(value, Path) else "", image=value, weight=weight)


def render(title: str, sections: Sequence[Section], facts: Sequence[str] = ()) -> str:
    """The page as HTML; every text in it is escaped, images that cannot be read become a placeholder.

    facts: short phrases for the foot of the page, such as the collection and the encoder.
    """
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, finalize=_harmless
    )
    here = resources.files("app.cli")
    template = environment.from_string((here / "results.html").read_text(encoding="utf-8"))
    return template.render(
        title=title,
        style=(here / "results.css").read_text(encoding="utf-8"),
        sections=[_section(section) for section in sections],
        facts=list(facts),
        written=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
    )


def _harmless(value: Any) -> Any:
    """What the template writes, whoever wrote it; styles are ours."""
    from backends.harmless import harmless

    return harmless(value) if type(value) is str else value


def _section(section: Section) -> dict[str, Any]:
    exact = all(hit.exact for hit in section.hits)
    cards = [_card(hit, rank) for rank, hit in enumerate(section.hits, start=section.first_rank)]
    count = f"{len(cards)} result" + ("" if len(cards) == 1 else "s")
    precision = ["exact search" if exact else "approximate search"] if cards else []
    return {
        "title": section.title,
        "label": _label(section.parts),
        "parts": [_part(part) for part in section.parts],
        "facts": [count, *precision, *section.facts],
        "nothing": section.nothing[:1].upper() + section.nothing[1:] + ".",
        "images": [card for card in cards if card["modality"] == "image"],
        "passages": [card for card in cards if card["modality"] != "image"],
    }


def _label(parts: Sequence[Part]) -> str:
    """A query in a few words, for the links at the top of the page."""
    from backends.harmless import shortened

    words = []
    for number, part in enumerate(parts):
        sign = "− " if part.weight < 0 else "+ " if number else ""
        words.append(sign + (Path(part.text).name if part.image is not None else part.text))
    label = " ".join(words)
    return shortened(label, MAX_LABEL_CHARS)


def _part(part: Part) -> dict[str, Any]:
    weight = f"× {abs(part.weight):g}" if abs(part.weight) != 1 else ""
    thumbnail = make_thumbnail(part.image, QUERY_THUMBNAIL_PX) if part.image is not None else None
    return {"text": part.text, "thumbnail": thumbnail, "weight": weight, "negative": part.weight < 0}


def _card(hit: Hit, rank: int) -> dict[str, Any]:
    from backends.harmless import shortened
    from retrieval.places import existing_uri

    uri = existing_uri(hit)
    path = local_path(uri)
    text = hit.text or ""
    return {
        "rank": rank,
        "id": hit.id,
        "score": f"{hit.score:.3f}",
        "relevance": (relevance := show_relevance(hit)),
        "shown": ("score", f"{hit.score:.3f}") if relevance == NOT_KNOWN else ("relevance", relevance),
        "modality": hit.modality,
        "text": shortened(text, MAX_SHOWN_CHARS),
        "place": place(hit.uri),
        "name": path.name + part_of(uri) if path is not None else place(hit.uri) or hit.id,
        # Only files are linked: an address from a collection could be a script.
        "link": path.absolute().as_uri() if path is not None else None,
        "metadata": [(name, _plain(value)) for name, value in sorted(hit.metadata.items())],
        "exact": hit.exact,
        "gone": GONE if is_gone(hit) else "",
        "thumbnail": _hit_thumbnail(hit, uri, path) if path is not None else None,
    }


def _hit_thumbnail(hit: Hit, uri: str | None, path: Path) -> Thumbnail | None:
    """The picture of an image, large; of a caption the picture that it describes, small."""
    from retrieval.images.formats import IMAGE_SUFFIXES
    from retrieval.images.parts import located

    if hit.modality == "image":
        return make_thumbnail(located(uri) or path, THUMBNAIL_PX)
    return make_thumbnail(path, TEXT_THUMBNAIL_PX) if path.suffix.lower() in IMAGE_SUFFIXES else None


def _plain(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, (list, tuple)):
        return ", ".join(value)
    return json.dumps(value)


def make_thumbnail(source: Place | bytes | Image.Image, longest_px: int) -> Thumbnail | None:
    """A thumbnail of at most `longest_px` a side; None for what is not a readable image.

    The same file is decoded once per page, as long as it does not change.
    """
    from retrieval.images.parts import Located, file_of

    if isinstance(source, Path | Located):
        try:
            return _file_thumbnail(source, file_of(source).stat().st_mtime_ns, longest_px)
        except OSError:
            return None
    return _thumbnail(source, longest_px)


@functools.lru_cache(maxsize=256)
def _file_thumbnail(path: Place, mtime_ns: int, longest_px: int) -> Thumbnail | None:
    return _thumbnail(path, longest_px)


def _thumbnail(source: Place | bytes | Image.Image, longest_px: int) -> Thumbnail | None:
    from retrieval.images.decode import ImageError, load_image
    from retrieval.images.plan import Wanted

    try:
        image = load_image(source, wanted=Wanted(fit=longest_px))
    except ImageError:
        return None
    ratio = image.width / image.height
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=82, optimize=True)
    return Thumbnail("data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii"), ratio)
