"""Whether a second list helps or harms: ``python -m benchmarks.fusion FOLDER``.

FOLDER holds captions.jsonl as for ``benchmarks.encoders``. A query has one answer, its photograph, and is itself in
no caption that is stored: of several captions a photograph each is asked while the next one stands for its text; of a
single caption the first half of the words is asked and the rest stored. Six settings:

- ``none``: no photograph has a caption;
- ``half``: every second one has, by which those with and without are also told apart;
- ``all``: every one has;
- ``names``: no captions; the query is a photograph's file name without its ending, which says nothing to an encoder;
- ``language``: captions for half, asked in another language (``--captions``, a file as for ``benchmarks.languages``;
  the folder's own multilingual.jsonl unless given; left out where there is none);
- ``texts``: captions for half, each also a text of its own as `sightline index` stores it, searched for images and
  texts; the photograph or its caption is the answer.

Each is asked by vectors, by keywords, and by both, merged by rank and by worth: the shares of queries whose answer is
first and among the first ten, and by how many points worth is above the better of the two single lists.

Then images and texts in one list by vectors alone: the photographs with all captions as texts, and with the
texts of ``--texts FOLDER`` (another dataset) among them. nDCG at 10 is compared with that of an oracle
which knows for each query which modality to search, and is told no more.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backends.base import Modality, Record
from benchmarks.captioned import CachingEncoder, Collections
from benchmarks.encoders import DatasetError, read_dataset
from benchmarks.languages import read_captions
from retrieval import Retriever
from retrieval.encoders import DEFAULT_ENCODER, EncoderError, load_encoder
from retrieval.encoders.base import Encoder
from retrieval.images.decode import ImageError
from retrieval.search.fusion import Fusion
from retrieval.search.query import UnreadableQuery
from retrieval.search.results import Result
from retrieval.search.retriever import Mode

WAYS: dict[str, tuple[Mode, Fusion]] = {
    "vectors": ("vector", "worth"),
    "keywords": ("keyword", "worth"),
    "ranks": ("hybrid", "ranks"),
    "worth": ("hybrid", "worth"),
}
DEPTH = 10
NOT_FOUND = 10**6


@dataclass(frozen=True)
class Asked:
    """A query, the number of its photograph, and whether that one has a caption."""

    query: str
    image: int
    captioned: bool


@dataclass(frozen=True)
class Part:
    """One collection of a setting, what is asked of it, and which modality is searched."""

    retriever: Retriever
    asked: list[Asked]
    modality: Modality | None = "image"


@dataclass(frozen=True)
class Recall:
    """The shares, in percent, of queries whose answer is first and among the first ten."""

    at_1: float
    at_10: float

    @classmethod
    def of(cls, ranks: NDArray[np.int64]) -> Recall:
        """The recall of ranks from 0."""
        return cls(*(100 * float(np.mean(ranks < k)) if len(ranks) else float("nan") for k in (1, DEPTH)))

    def __str__(self) -> str:
        return f"{self.at_1:.1f} / {self.at_10:.1f}"


class Settings:
    """The collections of each setting, made from a dataset that is indexed once."""

    def __init__(self, folder: Path, encoder: Encoder, captions: Path | None) -> None:
        self.dataset = read_dataset(folder)
        self.collections = Collections.of(folder, self.dataset, CachingEncoder(encoder))
        own = folder / "multilingual.jsonl"
        self.foreign = captions or (own if own.is_file() else None)
        self._of_image: list[list[str]] = [[] for _ in self.dataset.files]
        for caption, image in zip(self.dataset.captions, self.dataset.image_of, strict=True):
            self._of_image[image].append(caption)

    @property
    def rounds(self) -> int:
        """How often a collection is made with other captions."""
        return min(len(captions) for captions in self._of_image)

    def parts(self, setting: str) -> Iterator[Part]:
        """The collections of a setting and their queries."""
        if setting == "names":
            asked = [Asked(file.stem, i, captioned=False) for i, file in enumerate(self.dataset.files)]
            yield Part(self._filled(0, _never), asked)
        elif setting == "language":
            retriever = self._filled(0, _every_second)
            for each in read_captions(self.foreign, self.dataset) if self.foreign else ():
                pairs = zip(each.texts, each.image_of, strict=True)
                yield Part(retriever, [Asked(text, i, _every_second(i)) for text, i in pairs])
        else:
            chosen = {"none": _never, "all": _always}.get(setting, _every_second)
            for number in range(self.rounds):
                retriever = self._filled(number, chosen, with_texts=setting == "texts")
                asked = [Asked(self._pair(i, number)[0], i, chosen(i)) for i in range(len(self.dataset.files))]
                yield Part(retriever, asked, None if setting == "texts" else "image")

    def with_texts(self, others: Sequence[Record]) -> Iterator[Part]:
        """The photographs, without words, with other texts; or with their own captions where there are none."""
        for number in range(self.rounds):
            images = [replace(image, text=None) for image in self.collections.images]
            texts = list(others) or [self._text(i, self._pair(i, number)[1]) for i in range(len(images))]
            asked = [Asked(self._pair(i, number)[0], i, captioned=False) for i in range(len(images))]
            yield Part(self.collections.filled([*images, *texts]), asked, None)

    def answers(self, image: int, hit: Result) -> bool:
        """Whether a hit is the photograph, or a caption of it."""
        wanted = self.collections.images[image].id
        return hit.id == wanted or hit.metadata.get("image") == wanted

    def _pair(self, image: int, number: int) -> tuple[str, str]:
        """What is asked, and what is stored, of a photograph."""
        captions = self._of_image[image]
        if self.rounds > 1:
            return captions[number], captions[(number + 1) % len(captions)]
        words = captions[0].split()
        return " ".join(words[: (len(words) + 1) // 2]), " ".join(words[(len(words) + 1) // 2 :]) or captions[0]

    def _text(self, image: int, caption: str) -> Record:
        owner = self.collections.images[image]
        vector = self.collections.encoder.encode_texts([caption])[0]
        return Record(f"text-{image:06}", vector, "text", caption, owner.uri, {"image": owner.id})

    def _filled(self, number: int, captioned: Callable[[int], bool], *, with_texts: bool = False) -> Retriever:
        records: list[Record] = []
        for i, image in enumerate(self.collections.images):
            caption = self._pair(i, number)[1] if captioned(i) else None
            records.append(replace(image, text=caption))
            if caption is not None and with_texts:
                records.append(self._text(i, caption))
        return self.collections.filled(records)


def _never(_image: int) -> bool:
    return False


def _always(_image: int) -> bool:
    return True


def _every_second(image: int) -> bool:
    return image % 2 == 1


def ranks(settings: Settings, parts: Sequence[Part], mode: Mode, fusion: Fusion) -> NDArray[np.int64]:
    """The rank, from 0, of each query's answer; `NOT_FOUND` for one that is not among the first ten."""
    found = []
    for part in parts:
        for each in part.asked:
            try:
                hits = part.retriever.search(each.query, DEPTH, modality=part.modality, mode=mode, fusion=fusion)
            except UnreadableQuery:
                hits = []  # type: ignore[assignment]
            places = [place for place, hit in enumerate(hits) if settings.answers(each.image, hit)]
            found.append(min(places, default=NOT_FOUND))
    return np.array(found, dtype=np.int64)


def margin(found: dict[str, Recall]) -> float:
    """By how many points worth is above the better single list, where it is least so."""
    single = [found["vectors"], found["keywords"]]
    return min(
        found["worth"].at_1 - max(each.at_1 for each in single),
        found["worth"].at_10 - max(each.at_10 for each in single),
    )


def measure(settings: Settings, setting: str) -> dict[str, dict[str, Recall]]:
    """The recall of each way; for ``half`` also of the photographs with and without a caption."""
    parts = list(settings.parts(setting))
    captioned = np.array([each.captioned for part in parts for each in part.asked], dtype=bool)
    groups = {setting: np.ones(len(captioned), dtype=bool)}
    if setting == "half":
        groups |= {"half: with a caption": captioned, "half: without": ~captioned}
    found = {way: ranks(settings, parts, mode, fusion) for way, (mode, fusion) in WAYS.items()}
    return {
        name: {way: Recall.of(places[chosen]) for way, places in found.items()}
        for name, chosen in groups.items()
        if chosen.any()
    }


def measure_order(settings: Settings, others: Sequence[Record]) -> dict[str, float]:
    """Mean nDCG at 10 of images and texts in one list by vectors; of an oracle which knows the modality, too."""
    gains: dict[str, list[float]] = {"oracle": [], "ranks": [], "worth": []}
    fusions: tuple[Fusion, ...] = ("ranks", "worth")
    for part in settings.with_texts(others):
        for each in part.asked:
            try:
                for fusion in fusions:
                    gains[fusion].append(_gain(settings, part, each, modality=None, fusion=fusion))
                single: tuple[Modality, ...] = ("image", "text")
                gains["oracle"].append(max(_gain(settings, part, each, modality=m, fusion="worth") for m in single))
            except UnreadableQuery:
                continue
    return {name: float(np.mean(values)) for name, values in gains.items()}


def _gain(settings: Settings, part: Part, asked: Asked, *, modality: Modality | None, fusion: Fusion) -> float:
    """The discounted gain of the best answer among the first ten."""
    hits = part.retriever.search(asked.query, DEPTH, modality=modality, mode="vector", fusion=fusion)
    places = [place for place, hit in enumerate(hits) if settings.answers(asked.image, hit)]
    return float(1 / np.log2(places[0] + 2)) if places else 0.0


def markdown(settings: Settings, texts: Sequence[Record]) -> Iterator[str]:
    """The lines of the two tables, as they are measured."""
    yield f"\n{settings.dataset.name}, `{settings.collections.encoder.name}`, R@1 / R@10 in percent\n"
    yield "| captions | vectors | keywords | by rank | by worth | worth above the better list |"
    yield "|---|---|---|---|---|---|"
    for setting in ("none", "half", "all", "names", "language", "texts"):
        if setting == "language" and settings.foreign is None:
            continue
        for name, found in measure(settings, setting).items():
            cells = " | ".join(str(found[way]) for way in WAYS)
            yield f"| {name} | {cells} | {margin(found):+.1f} |"
    yield "\n| images and texts in one list | oracle nDCG@10 | by rank | by worth | worth of the oracle |"
    yield "|---|---|---|---|---|"
    for name, others in (("their captions", ()), ("other texts", texts)):
        if name == "other texts" and not texts:
            continue
        found_order = measure_order(settings, others)
        cells = " | ".join(f"{found_order[each]:.3f}" for each in ("oracle", "ranks", "worth"))
        yield f"| {name} | {cells} | {100 * found_order['worth'] / found_order['oracle']:.1f}% |"


def read_texts(folder: Path, encoder: Encoder) -> list[Record]:
    """The captions of another dataset as texts of no image."""
    captions = list(dict.fromkeys(read_dataset(folder).captions))
    vectors = encoder.encode_texts(captions)
    return [Record(f"other-{i:06}", vectors[i], "text", caption) for i, caption in enumerate(captions)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the measurement; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fusion", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder with captions.jsonl")
    parser.add_argument("--captions", type=Path, metavar="FILE", help="captions in other languages")
    parser.add_argument("--texts", type=Path, metavar="FOLDER", help="a dataset whose captions are texts among them")
    parser.add_argument("--encoder", default=DEFAULT_ENCODER, help=f"{DEFAULT_ENCODER} unless given")
    options = parser.parse_args(arguments)
    try:
        encoder = load_encoder(options.encoder)
        settings = Settings(options.folder, encoder, options.captions)
        texts = read_texts(options.texts, encoder) if options.texts else []
        for line in chain(markdown(settings, texts), ("",)):
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
    except (DatasetError, EncoderError, ImageError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
