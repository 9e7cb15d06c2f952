"""The command that measures retrieval: Recall@1/5/10 and median rank, words to pictures and back."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli import options
from app.cli.context import load_named, open_backend, waiting
from app.cli.output import note, print_json, print_table
from app.core.errors import CommandError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from backends.base import Backend, Modality
    from retrieval.encoders import Encoder

BATCH = 64
QUERIES_AT_A_TIME = 256
MAX_NOTED = 5
# Ranks beyond this are told as "not found": all ranks of COCO would be 250 million hits.
MAX_RANK = 1000


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pictures and the texts that describe them: ``captions[i]`` are those of ``images[i]``."""

    images: list[Path]
    captions: list[tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Measured:
    """The report of both directions, and how much was encoded how fast."""

    report: dict[str, dict[str, float | None]]
    images: int
    texts: int
    images_per_s: float
    texts_per_s: float


@options.grouped
def evaluate_command(
    captions: Annotated[Path, typer.Argument(metavar="CAPTIONS", help="A manifest, e.g. captions.jsonl, or a folder.")],
    *,
    backend: Annotated[
        str | None, typer.Option("--backend", metavar="URL", help="Search there, in a collection dropped afterwards.")
    ] = None,
    chosen: options.EncoderFlags,
    as_json: options.Json = False,
) -> None:
    """Measure R@1, R@5, R@10 and the median rank, text to image and image to text.

    Each line of CAPTIONS names a picture and its captions: {"file": "a.jpg", "captions": ["a dog", …]}.
    Nothing is kept: the search runs in memory by an exact scan, or in the store that --backend names.
    """
    settings = options.load_settings(chosen, backend=backend or "exact://")
    pairs = read_pairs(captions)
    model = load_named(settings.encoder, settings)
    with contextlib.ExitStack() as stack:
        if backend is None:
            import backends

            store = stack.enter_context(backends.connect("exact://"))
        else:
            store = stack.enter_context(open_backend(settings))
        measured = measure_both_ways(pairs, model, store)
    note(
        f"{measured.images:,} images at {measured.images_per_s:.1f}/s, {measured.texts:,} texts at "
        f"{measured.texts_per_s:.1f}/s, encoder {model.name}"
    )
    if as_json:
        print_json(measured.report)
        return
    columns = ("R@1", "R@5", "R@10", "median_rank")
    header = ("direction", "R@1 %", "R@5 %", "R@10 %", "median rank")
    rows = [
        (name.replace("_", " "), *("–" if report[c] is None else f"{report[c]:.1f}" for c in columns))
        for name, report in measured.report.items()
    ]
    print_table(header, rows, right=header[1:])


def read_pairs(path: Path) -> Pairs:
    """The pictures with captions that a manifest or folder lists; what cannot be used is noted on stderr."""
    from indexers import open_source

    source = open_source(path)
    listing = source.listing()
    for item in listing.quarantined[:MAX_NOTED]:
        note(f"note: skipped {item.path} ({item.reason})")
    if len(listing.quarantined) > MAX_NOTED:
        note(f"note: skipped {len(listing.quarantined) - MAX_NOTED:,} more")
    entries = [entry for entry in listing.entries if entry.kind == "image" and entry.captions]
    if not entries:
        raise CommandError(
            f'{path} lists no picture with a caption: it needs lines like {{"file": …, "captions": […]}}'
        )
    return Pairs([source.root / entry.path for entry in entries], [entry.captions for entry in entries])


def measure_both_ways(pairs: Pairs, encoder: Encoder, backend: Backend) -> Measured:
    """Index the pairs into a collection of its own, search both ways, and drop it.

    Raises `EvaluationError`, `BackendError`, or CommandError when no picture can be read.
    """
    started = time.perf_counter()
    with waiting(f"encoding {len(pairs.images):,} images"):
        kept, image_vectors = encode_images(pairs.images, encoder)
    image_s = time.perf_counter() - started
    texts = [text for row in kept for text in pairs.captions[row]]
    owner = [position for position, row in enumerate(kept) for _ in pairs.captions[row]]
    started = time.perf_counter()
    with waiting(f"encoding {len(texts):,} texts"):
        text_vectors = _in_batches(encoder.encode_texts, texts)
    unread = int((~text_vectors.any(axis=1)).sum())
    if unread:
        note(f"note: {unread:,} texts cannot be read by {encoder.name}: none of them finds anything, or is found")
    text_s = time.perf_counter() - started
    with _filled(backend, encoder, image_vectors, text_vectors) as name, waiting("searching both ways"):
        to_images = _rankings(backend, name, text_vectors, "image", depth=len(kept))
        to_texts = _rankings(backend, name, image_vectors, "text", depth=len(texts))
    from retrieval.evaluation import ranking_report

    answers: list[set[str]] = [set() for _ in kept]
    for row, position in enumerate(owner):
        answers[position].add(f"text-{row}")
    report = {
        "text_to_image": ranking_report(to_images, [{f"image-{position}"} for position in owner]),
        "image_to_text": ranking_report(to_texts, answers),
    }
    return Measured(
        report, images=len(kept), texts=len(texts), images_per_s=len(kept) / image_s, texts_per_s=len(texts) / text_s
    )


def encode_images(paths: Sequence[Path], encoder: Encoder) -> tuple[list[int], NDArray[np.float32]]:
    """Rows of the pictures that could be read, and their vectors; the others are noted on stderr."""
    import numpy as np

    from retrieval.images.decode import ImageError

    kept: list[int] = []
    vectors: list[NDArray[np.float32]] = []
    for start in range(0, len(paths), BATCH):
        rows = list(range(start, min(start + BATCH, len(paths))))
        try:
            vectors.append(encoder.encode_images([paths[row] for row in rows]))
            kept += rows
            continue
        except ImageError:
            pass
        for row in rows:
            try:
                vectors.append(encoder.encode_images([paths[row]]))
                kept.append(row)
            except ImageError as error:
                note(f"note: left out {paths[row]}: {error}")
    if not kept:
        raise CommandError("none of the pictures can be read, so there is nothing to measure")
    return kept, np.concatenate(vectors)


def _in_batches(encode: Callable[[list[str]], NDArray[np.float32]], texts: list[str]) -> NDArray[np.float32]:
    import numpy as np

    step = 16 * BATCH
    return np.concatenate([encode(texts[start : start + step]) for start in range(0, len(texts), step)])


@contextlib.contextmanager
def _filled(
    backend: Backend, encoder: Encoder, images: NDArray[np.float32], texts: NDArray[np.float32]
) -> Iterator[str]:
    """A collection with these vectors, gone again at the end however the evaluation ends."""
    from backends.base import CollectionSpec, Record
    from retrieval.encoders.text_side import to_store

    name = f"sightline_eval_{secrets.token_hex(6)}"
    kinds: list[tuple[Modality, Any]] = [("image", images), ("text", texts)]
    backend.create(CollectionSpec(name, encoder.dim, encoder=encoder.fingerprint))
    try:
        for kind, vectors in kinds:
            backend.upsert(
                name, (Record(f"{kind}-{row}", vector, kind) for row, vector in enumerate(to_store(vectors)))
            )
        backend.flush(name)
        yield name
    finally:
        backend.drop(name)


def _rankings(
    backend: Backend, name: str, queries: NDArray[np.float32], modality: Modality, *, depth: int
) -> list[list[str]]:
    """For each query the ids of the best items of `modality`, best first, down to `MAX_RANK`."""
    from backends.base import Compare
    from retrieval.encoders.text_side import readable

    k = min(depth, MAX_RANK, backend.capabilities.max_k or MAX_RANK)
    only = Compare("modality", "eq", modality)
    found: list[list[str]] = [[] for _ in queries]
    read = [row for row, query in enumerate(queries) if readable(query)]
    for start in range(0, len(read), QUERIES_AT_A_TIME):
        rows = read[start : start + QUERIES_AT_A_TIME]
        for row, hits in zip(rows, backend.search(name, queries[rows], k, where=only), strict=True):
            found[row] = [hit.id for hit in hits]
    return found
