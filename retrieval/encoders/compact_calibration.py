"""Calibrates `compact-int8`: ``python -m retrieval.encoders.compact_calibration`` writes compact_int8.npz anew.

It takes a minute on a core, and pictures that scikit-image and scikit-learn carry, in colour and in grey. The file
is shipped because it decides the vectors: on each machine the pictures, and the rounding, would be others.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retrieval.encoders.compact_graph import Graph, Network
from retrieval.encoders.compact_image import DECODE_PIXELS, cut_views, image_graph
from retrieval.encoders.compact_int8 import DATA_FILE, Calibration, activations, int8_graph
from retrieval.images.decode import load_image

# Photographs, surfaces, pictures from microscopes and telescopes, and pages.
_PICTURES = {
    "skimage": (
        *("astronaut.png", "brick.png", "camera.png", "cell.png", "chelsea.png", "clock_motion.png", "coffee.png"),
        *(
            "coins.png",
            "grass.png",
            "gravel.png",
            "hubble_deep_field.jpg",
            "ihc.png",
            "moon.png",
            "motorcycle_left.png",
        ),
        *("motorcycle_right.png", "page.png", "retina.jpg", "rocket.jpg", "text.png"),
    ),
    "sklearn": ("china.jpg", "flower.jpg"),
}
_FOLDERS = {"skimage": "data", "sklearn": "datasets/images"}
# Of each view so many values of each activation are looked at: enough for bounds, and few enough to be kept.
_SAMPLED = 1000
_SHRINKS = np.linspace(0.3, 1, 36)

Views = NDArray[np.uint8]


def picture_files() -> list[Path]:
    """The pictures that the calibration looks at; scikit-image and scikit-learn must be installed."""
    return [
        Path(str(resources.files(package))) / _FOLDERS[package] / name
        for package, names in _PICTURES.items()
        for name in names
    ]


def pictures_digest(files: Sequence[Path]) -> str:
    """SHA-256 of the pictures' contents, by which a stale data file is noticed."""
    return hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files)).hexdigest()


def picture_views(files: Sequence[Path]) -> list[Views]:
    """The views of each picture, and those of its grey twin: archives are grey."""
    pictures: list[Image.Image] = []
    for file in files:
        picture = load_image(file, target_size=DECODE_PIXELS)
        grey = picture.convert("L").convert("RGB")
        pictures += [picture] if picture.tobytes() == grey.tobytes() else [picture, grey]
    return [cut_views(picture) for picture in pictures]


def bounds(graph: Graph, views: Sequence[Views], names: Sequence[str]) -> list[tuple[float, float]]:
    """For each activation of `names` the bounds at which eight bits have the least squared error."""
    samples = dict(zip(names, _samples(graph, views, names), strict=True))
    cut = {node.output for node in graph.nodes if node.operator == "Clip"}
    return [_least_squares(sample, positive=name in cut) for name, sample in samples.items()]


def _samples(graph: Graph, views: Sequence[Views], names: Sequence[str]) -> list[NDArray[np.float32]]:
    # One each, so that the first few have the same samples without the others.
    chances = [np.random.default_rng(number) for number in range(len(names))]
    network = Network(Graph(graph.inputs, graph.constants, graph.nodes, list(names)))
    kept: list[list[NDArray[np.float32]]] = [[] for _ in names]
    for of_picture in views:
        for view in of_picture:
            for chance, sample, values in zip(chances, kept, network.run(views=view[None]), strict=True):
                sample.append(values.ravel()[chance.integers(0, values.size, _SAMPLED)])
    return [np.concatenate(sample) for sample in kept]


def _least_squares(sample: NDArray[np.float32], *, positive: bool) -> tuple[float, float]:
    low, high = 0.0 if positive else min(float(sample.min()), 0.0), max(float(sample.max()), 0.0)
    errors = []
    for shrink in _SHRINKS:
        step = max((high - low) * shrink / 255, 1e-8)
        zero = np.clip(np.rint(-low * shrink / step), 0, 255)
        errors.append(float(np.square((np.clip(np.rint(sample / step) + zero, 0, 255) - zero) * step - sample).mean()))
    best = float(_SHRINKS[int(np.argmin(errors))])
    return low * best, high * best


def corrections(
    graph: Graph, views: Sequence[Views], calibration: Calibration, names: Sequence[str]
) -> list[NDArray[np.float16]]:
    """By how much the channels of the convolutions' activations `names` are too low on average, one after the other.

    Each is looked at with those before it corrected already.
    """
    wanted = _means(Network(Graph(graph.inputs, graph.constants, graph.nodes, list(names))), views, (0, 2, 3))
    made: list[NDArray[np.float16]] = []
    for name, mean in zip(names, wanted, strict=True):
        so_far = tuple(correction.astype(np.float32) for correction in made)
        corrected = Calibration(calibration.lows, calibration.highs, so_far)
        (found,) = _means(Network(int8_graph(graph, corrected, end=name)), views, (0, 1, 2))
        made.append((mean - found).astype(np.float16))
    return made


def _means(network: Network, views: Sequence[Views], axes: tuple[int, ...]) -> list[NDArray[np.float64]]:
    means = [[values.mean(axes, dtype=np.float64) for values in network.run(views=of_one)] for of_one in views]
    return [np.mean(of_value, axis=0) for of_value in zip(*means, strict=True)]


def write_calibration(path: Path = DATA_FILE) -> None:
    """Calibrate, and replace the data file in one step."""
    graph, _ = image_graph()
    files = picture_files()
    views = picture_views(files)
    kept = activations(graph)
    lows, highs = np.array(bounds(graph, views, list(kept)), np.float32).T
    convolutions = {node.output for node in graph.nodes if node.operator == "Conv"}
    # The first of them is the last value in fp32.
    corrected = [value for value, computed in kept.items() if computed in convolutions][1:]
    found = corrections(graph, views, Calibration(lows, highs, ()), corrected)
    unfinished = path.with_suffix(".tmp.npz")
    np.savez_compressed(
        unfinished,
        lows=lows,
        highs=highs,
        corrections=np.concatenate(found),
        channels=np.array([len(correction) for correction in found]),
        pictures_sha256=pictures_digest(files),
    )
    unfinished.replace(path)


if __name__ == "__main__":
    write_calibration()
    sys.stdout.write(f"wrote {DATA_FILE} ({DATA_FILE.stat().st_size} bytes)\n")
