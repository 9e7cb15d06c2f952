"""The user's own pictures as a data set: their vectors, captions as text queries, pictures as image queries."""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np

from backends import connect
from backends.base import Compare
from backends.redaction import shown
from benchmarks.suite.datasets import DataError, DataSet, Floats
from indexers import IndexingError, open_source
from retrieval.encoders import DEFAULT_ENCODER, Encoder, EncoderError, load_encoder
from retrieval.images.decode import ImageError

# So that the image half of the queries cannot crowd out the texts.
IMAGE_SHARE = 0.2


def open_photos(spec: str, queries: int, cache: Path, seed: int) -> DataSet:
    """``DIR[@ENCODER]`` or ``URL#COLLECTION[@ENCODER]`` as a data set. Raises DataError.

    Four fifths of the queries, or as many as there are, are captions; the rest are pictures of the set, each of
    which is its own nearest neighbour.
    """
    if "://" in spec:
        return _from_collection(spec, queries, seed)
    # A folder's own name may hold an @.
    place, _, name = (spec, "", "") if Path(spec).exists() else spec.rpartition("@")
    path = Path(place)
    model = _encoder(name or DEFAULT_ENCODER)
    try:
        source = open_source(path)
        entries = [entry for entry in source.listing().entries if entry.kind == "image" and entry.captions]
    except IndexingError as error:
        raise DataError(str(error)) from None
    if not entries:
        raise DataError(f"{path} has no picture with a caption")
    files = [source.root / entry.path for entry in entries]
    kept, vectors = _encoded(files, model, cache)
    captions = [list(entries[row].captions) for row in kept]
    uris = [files[row].as_uri() for row in kept]
    label = f"photos-{source.root.name}-{model.name}".replace(":", "-").replace("/", "-")
    return _made(label, vectors, captions, uris, model, queries, seed, len(files))


def _from_collection(place: str, queries: int, seed: int) -> DataSet:
    url, separator, rest = place.rpartition("#")
    collection, _, encoder = rest.partition("@")
    if not separator or not collection:
        raise DataError("this names no collection: write photos:URL#COLLECTION")
    vectors, captions, uris = [], [], []
    with connect(url) as backend:
        spec = backend.describe(collection)
        if spec.metric != "cosine":
            raise DataError(f"collection {collection!r} has the metric {spec.metric}; photos are compared by cosine")
        for page in backend.scan(collection):
            for record in page.records:
                if record.modality == "image" and record.text and record.has_vector and record.vector is not None:
                    vectors.append(record.vector)
                    captions.append(record.text.split("\n"))
                    uris.append(record.uri or "")
        count = backend.count(collection, Compare("modality", "eq", "image"))
    if not vectors:
        raise DataError(f"collection {collection!r} has no picture with a caption")
    model = _encoder(encoder or DEFAULT_ENCODER)
    if model.fingerprint != spec.encoder:
        raise DataError(
            f"collection {collection!r} was indexed with {spec.encoder}, not {model.name}: "
            f"photos:{shown(url)}#{collection}@ENCODER names the encoder of its text queries"
        )
    return _made(f"photos-{collection}", np.stack(vectors), captions, uris, model, queries, seed, count)


def _made(
    name: str,
    vectors: Floats,
    captions: list[list[str]],
    uris: list[str],
    model: Encoder,
    queries: int,
    seed: int,
    found: int,
) -> DataSet:
    rng = np.random.default_rng(seed)
    texts = [(caption, row) for row, own in enumerate(captions) for caption in own]
    images = min(len(vectors), max(1, round(queries * IMAGE_SHARE)))
    chosen = np.sort(rng.permutation(len(texts))[: max(1, queries - images)])
    asked = [texts[i][0] for i in chosen]
    asked_by = np.sort(rng.permutation(len(vectors))[:images])
    return DataSet(
        name,
        vectors,
        np.concatenate([model.encode_texts(asked), vectors[asked_by]]),
        texts=[" ".join(own) for own in captions],
        uris=uris,
        captions=asked,
        answers=np.concatenate([np.array([texts[i][1] for i in chosen], np.int64), asked_by]),
        encoder=model.name,
        origin={
            "kind": "photos",
            "encoder": model.name,
            "fingerprint": model.fingerprint,
            "pictures": found,
            "unreadable": found - len(vectors),
            "captions": len(texts),
        },
        seed=seed,
    )


def _encoder(name: str) -> Encoder:
    try:
        return load_encoder(name, device="cpu")
    except EncoderError as error:
        raise DataError(str(error)) from None


def _encoded(files: list[Path], model: Encoder, cache: Path) -> tuple[list[int], Floats]:
    """Rows of the pictures that can be read and their vectors, from the cache where nothing has changed."""
    state = hashlib.blake2b(model.fingerprint.encode(), digest_size=12)
    for file in files:
        try:
            about = file.stat()
        except OSError:
            continue
        state.update(f"{file}\0{about.st_size}\0{about.st_mtime_ns}\n".encode(errors="surrogateescape"))
    path = cache / f"photos-{state.hexdigest()}.npz"
    try:
        with np.load(path, allow_pickle=False) as stored:
            return stored["kept"].tolist(), stored["vectors"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass
    kept: list[int] = []
    vectors: list[Floats] = []
    for row, file in enumerate(files):
        try:
            vectors.append(model.encode_images([file]))
            kept.append(row)
        # What cannot be read is counted in the data set's origin.
        except ImageError:
            continue
    if not kept:
        raise DataError("none of the pictures can be read")
    made = np.concatenate(vectors)
    cache.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as stream:
        np.savez(stream, kept=np.array(kept), vectors=made)
    temporary.replace(path)
    return kept, made


def file_of(uri: str) -> Path:
    """The file that a ``file:`` location names. Raises DataError for any other: nothing is fetched from elsewhere."""
    parts = urlsplit(uri)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost"):
        raise DataError(f"{uri[:200]!r} is not a file on this machine")
    return Path(unquote(parts.path))
