"""How long `index` takes to find that nothing has changed, and to take in one new file.

    python -m benchmarks.unchanged FOLDER [--files 100000] [--backend faiss] [--rounds 3]

FOLDER/photos is filled with small pictures, 500 a folder, every fourth with a caption beside it, and what an index run
stores of them is put into the store directly, with made vectors and the ledger: nothing is decoded or encoded for it.
Then `index` runs over it as often as asked, and once more after a picture was added. FOLDER then has `unchanged.json`:
seconds by the clock, of the processor, and of each stage. Run again, the same FOLDER is used as it is.
"""

from __future__ import annotations

import argparse
import json
import struct
import sys
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends import connect, engines
from backends.base import Backend, CollectionSpec, IndexSpec, Record
from indexers import index, open_source
from indexers.items import Item, Reader
from indexers.ledger import Ledger

PER_FOLDER, BATCH, DIM = 500, 1000, 384
COLLECTION = "photos"


@dataclass(frozen=True)
class MadeEncoder:
    """An encoder that costs nothing."""

    name: str = "made"
    fingerprint: str = "made/1"
    dim: int = DIM

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Any vectors."""
        return made_vectors(len(texts), seed=1)

    def encode_images(self, images: Sequence[Any]) -> NDArray[np.float32]:
        """Any vectors."""
        return made_vectors(len(images), seed=2)


def made_vectors(count: int, *, seed: int) -> NDArray[np.float32]:
    """Unit vectors, (count, DIM)."""
    drawn: NDArray[np.float32] = np.random.default_rng(seed).normal(size=(count, DIM)).astype(np.float32)
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    return drawn


def picture(number: int) -> bytes:
    """A PNG of 2 x 2 pixels that no other number has."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">L", len(content)) + body + struct.pack(">L", zlib.crc32(body))

    row = b"\x00" + struct.pack(">Q", number)[-6:]
    pixels = chunk(b"IDAT", zlib.compress(row + row, 1))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">LLBBBBB", 2, 2, 8, 2, 0, 0, 0))
        + pixels
        + chunk(b"IEND", b"")
    )


def make_files(folder: Path, count: int) -> None:
    """Write the pictures and captions that are not there yet."""
    for number in range(count):
        place = folder / f"{number // PER_FOLDER:04d}"
        file = place / f"{number:06d}.png"
        if file.exists():
            continue
        place.mkdir(parents=True, exist_ok=True)
        file.write_bytes(picture(number))
        if number % 4 == 0:
            file.with_suffix(".txt").write_text(f"picture number {number} of a made library", encoding="utf-8")


def fill(backend: Backend, photos: Path, ledger: Path) -> None:
    """Store what an index run would, with made vectors."""
    # A graph over the vectors takes minutes to build, and no part in what is measured.
    flat = IndexSpec(kind="flat")
    backend.create(CollectionSpec(COLLECTION, DIM, encoder=MadeEncoder().fingerprint, index=flat))
    with Ledger(ledger) as cache:
        found = _items(photos, cache)
        for number, items in enumerate(iter(lambda: list(islice(found, BATCH)), [])):
            cache.put(photos.resolve(), [item.fresh for item in items if item.fresh is not None])
            records = [planned.record for item in items for planned in item.records]
            vectors = made_vectors(len(records), seed=number)
            backend.upsert(COLLECTION, [_with(record, row) for record, row in zip(records, vectors, strict=True)])
    backend.flush(COLLECTION)


def _items(photos: Path, cache: Ledger) -> Iterator[Item]:
    source = open_source(photos)
    reader = Reader(source, cache, 100)
    for entry in source.listing().entries:
        items = reader.read(entry)
        assert isinstance(items, list), items
        yield from items


def _with(record: Record, vector: NDArray[np.float32]) -> Record:
    return replace(record, vector=vector)


def timed(backend: Backend, photos: Path, ledger: Path) -> dict[str, Any]:
    """One run of `index`: its counts and times."""
    began_s, processor_s = time.perf_counter(), time.process_time()
    report = index(photos, backend, MadeEncoder(), COLLECTION, ledger=ledger)
    return {
        "wall_s": round(time.perf_counter() - began_s, 2),
        "processor_s": round(time.process_time() - processor_s, 2),
        "unchanged": report.unchanged,
        "indexed": report.indexed,
        "updated": report.updated,
        "stages_s": {stage: round(seconds, 2) for stage, seconds in report.seconds.items() if seconds >= 0.01},
    }


def main(arguments: list[str] | None = None) -> int:
    """Run the program."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--backend", default="faiss", choices=sorted(engines()))
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args(arguments)
    folder: Path = chosen.folder.resolve()
    photos, ledger = folder / "photos", folder / "ledger.sqlite"
    make_files(photos, chosen.files)
    with connect(f"{chosen.backend}://{folder / 'store'}") as backend:
        if COLLECTION not in backend.collections():
            fill(backend, photos, ledger)
        rounds = [timed(backend, photos, ledger) for _ in range(chosen.rounds)]
        new = photos / "new.png"
        new.write_bytes(picture(time.time_ns() % 2**40))
        added = timed(backend, photos, ledger)
    new.unlink()
    result = {"files": chosen.files, "backend": chosen.backend, "unchanged": rounds, "one_added": added}
    (folder / "unchanged.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    sys.stdout.write(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
