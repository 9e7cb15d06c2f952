"""What the page is tested on: painted pictures, and an encoder with enough spread for relevance to mean something."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from fastapi import FastAPI
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from app.core.keys import KeyStore
from app.http.app import Limits, create_app
from backends import connect
from backends.base import Backend, CollectionSpec, Record
from retrieval.encoders.base import ImageInput
from retrieval.images.decode import load_image

COLOURS = {
    "red": (214, 40, 40),
    "green": (40, 150, 60),
    "blue": (40, 80, 210),
    "yellow": (240, 210, 40),
    "purple": (130, 50, 160),
    "orange": (245, 130, 30),
    "teal": (20, 150, 150),
    "brown": (120, 80, 50),
}
OF_EACH = 8
SIZES = ((640, 480), (480, 640), (800, 450), (500, 500))


class SpreadEncoder:
    """Pictures and texts by the colour they show or name, in a space of 96 dimensions, each with noise of its own."""

    name = "spread"
    fingerprint = "spread:1"
    dim = 96

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.stack([_vector(set(re.findall(r"\w+", text.lower())), text.encode(), 0.7) for text in texts])

    def encode_images(self, images: Sequence[ImageInput]) -> NDArray[np.float32]:
        rows = []
        for image in images:
            pixels = np.asarray(load_image(image).resize((16, 16)), np.float64)
            mean = pixels.mean(axis=(0, 1))
            nearest = min(COLOURS, key=lambda name: float(((np.array(COLOURS[name]) - mean) ** 2).sum()))
            rows.append(_vector({nearest}, (pixels // 8).astype(np.uint8).tobytes(), 0.5))
        return np.stack(rows)


def _vector(names: set[str], seed: bytes, noise: float) -> NDArray[np.float32]:
    vector = noise * _direction(seed)
    for name in names & COLOURS.keys():
        vector = vector + _direction(name.encode())
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


def _direction(seed: bytes) -> NDArray[np.float64]:
    found = np.random.default_rng(zlib.crc32(seed)).normal(size=SpreadEncoder.dim)
    return np.asarray(found / np.linalg.norm(found))


def paint(path: Path, colour: str, number: int) -> Path:
    """A picture that is mostly of one colour, with a shape on it, so that no two are alike."""
    size = SIZES[number % len(SIZES)]
    image = Image.new("RGB", size, COLOURS[colour])
    draw = ImageDraw.Draw(image)
    for ring in range(number + 1):
        x, y, r = (ring * 97) % size[0], (ring * 61) % size[1], 24 + 6 * number
        draw.ellipse((x, y, x + r, y + r), fill=tuple(min(255, part + 45) for part in COLOURS[colour]))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path


def fill(folder: Path) -> Backend:
    """A store with the collections ``pictures`` (64 pictures with captions as texts) and ``other``."""
    backend, encoder = connect("exact://"), SpreadEncoder()
    for name in ("pictures", "other"):
        backend.create(CollectionSpec(name, encoder.dim, encoder=encoder.fingerprint))
    rows = []
    for colour in COLOURS:
        for number in range(OF_EACH):
            path = paint(folder / f"{colour}-{number}.png", colour, number)
            width, height = SIZES[number % len(SIZES)]
            facts = {
                "width": width,
                "height": height,
                "year": 1990 + number,
                "colour": colour,
                "warm": colour in ("red", "orange", "yellow"),
                "tags": ["painted", ("even", "odd")[number % 2]],
            }
            vector = encoder.encode_images([path])[0]
            caption = f"a {colour} picture, number {number}\nit was painted for a test"
            rows.append(Record(f"{colour}/{number}", vector, "image", caption, path.as_uri(), facts))
        note = f"a note on {colour}, which is a colour"
        facts = {"colour": colour, "image": f"{colour}/0"}
        rows.append(Record(f"note/{colour}", encoder.encode_texts([note])[0], "text", note, None, facts))
    backend.upsert("pictures", rows)
    return backend


def keyed_service(place: Path) -> tuple[FastAPI, str]:
    """A service over `fill`ed pictures that wants a key, and one that may read."""
    keys = KeyStore(place / "keys.json")
    _, key = keys.add("reader", "read")
    app = create_app(
        fill(place / "pictures"),
        SpreadEncoder(),
        "pictures",
        home=place / "home",
        roots=[place / "pictures"],
        keys=keys,
        require_keys=True,
        limits=Limits(rate=None),
    )
    return app, key
