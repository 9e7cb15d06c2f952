"""`compact`: the encoder that needs no model hub, from weights that ordinary packages carry."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple
from functools import cached_property, lru_cache
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retrieval.encoders import compact_image, compact_text
from retrieval.encoders.base import ImageInput
from retrieval.encoders.compact_classes import ClassVectors, load_classes, load_ridge
from retrieval.encoders.compact_graph import Graph, Network, Runner
from retrieval.encoders.compact_space import Space, SpaceSettings, softmax
from retrieval.encoders.compact_texts import CompactTexts, texts_fingerprint
from retrieval.encoders.devices import choose_device, choose_precision, require
from retrieval.encoders.threads import encoder_threads
from retrieval.images.decode import ImageError, available_cores, map_images

VERSION = 1
_GPU_BATCH = 16


class CompactEncoder:
    """Puts photographs and sentences into one 384-d space, offline, at some images a second per core.

    Images go through EfficientNet-Lite2, texts through all-MiniLM-L6-v2 or, in fifteen languages beside English, the
    multilingual Universal Sentence Encoder (`compact_texts`), and ConSE (Norouzi et al.,
    Zero-shot learning by convex combination of semantic embeddings, ICLR 2014) joins them: an image is
    where the names of what it probably shows are. Details and figures: `compact_space`. It knows what
    ImageNet's 1,000 classes and their neighbourhood in language cover; people, text in images and
    relations between things are beyond it.

    device: auto, cpu, cuda, cuda:N or mps. precision: auto, fp32, fp16 or bf16; auto is fp32, since
    networks this small are fast enough. On the CPU in fp32 it runs on ONNX Runtime; the rest needs torch, of the
    extra openclip. Each tower is loaded when it is first used. Thread-safe.
    Raises `EncoderError` for a device that is not there, or weights that cannot be used.
    """

    context_length = compact_text.MAX_TOKENS
    decode_size = compact_image.DECODE_PIXELS

    def __init__(self, device: str = "auto", precision: str = "auto") -> None:
        self._device = choose_device(device)
        chosen = choose_precision(precision, self._device)
        self._precision = "fp32" if precision == "auto" else chosen
        self._in_torch = (self._device, self._precision) != ("cpu", "fp32")
        if self._in_torch:
            require("torch", f"compact in {self._precision} on {self._device}")
        # One a tower: the weights of one may have to be fetched, which the other need not wait for.
        self._text_lock, self._image_lock = threading.RLock(), threading.RLock()

    @property
    def name(self) -> str:
        """``compact``."""
        return "compact"

    @property
    def image_space(self) -> str:
        """Identity of the image vectors: weights, class vectors, preprocessing and constants."""
        return space_fingerprint(_classes(), SpaceSettings())

    @property
    def fingerprint(self) -> str:
        """Identity of the vector space: `image_space`, and how texts are read."""
        return f"{self.image_space}+{texts_fingerprint()}"

    @property
    def dim(self) -> int:
        """384."""
        return compact_text.DIM

    @property
    def images_at_once(self) -> int:
        """One for each core, or what a GPU takes in one go."""
        return _GPU_BATCH if self._in_torch else available_cores()

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n, 384) float32 rows of unit length, in the order given; n may be 0. Zeros for a text that it cannot read.

        Texts over 256 tokens are cut there, and the log says so once.
        """
        return self._texts.encode(texts)

    def text_language(self, text: str) -> str:
        """As which language a text is read, e.g. ``en`` or ``zh``; ``und`` where that is not known."""
        return self._texts.language(text)

    def encode_images(self, images: Sequence[ImageInput]) -> NDArray[np.float32]:
        """(n, 384) float32 rows of unit length, in the order given; n may be 0.

        Decoding and resizing run in threads beside the network. Raises `ImageError` for the first of
        `images` that is not a usable image.
        """
        rows = np.empty((len(images), self.dim), dtype=np.float32)
        for row, features in enumerate(self._view_features(images)):
            rows[row] = self._image_placer.run(features=features)[0]
        return rows

    def zero_shot_labels(self, image: ImageInput, k: int = 5) -> list[tuple[str, float]]:
        """The `k` likeliest ImageNet classes of an image and their probabilities, best first.

        Probabilities are the classifier's own, averaged over the views. Raises `ImageError`.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
        (features,) = self._view_features([image])
        _, logits = self._image_placer.run(features=features)
        probabilities = softmax(logits).mean(axis=0)
        best = np.argsort(-probabilities, kind="stable")[:k]
        return [(_classes().labels[index], float(probabilities[index])) for index in best.tolist()]

    def _view_features(self, images: Sequence[ImageInput]) -> Iterator[NDArray[np.float32]]:
        """(5, 1280) features of each image's views, in order."""
        if not images:
            return
        network, pool = self._image_network, self._pool

        def on_a_core(image: Image.Image) -> NDArray[np.float32]:
            # One image's views are the fastest batch on a core: larger activations only cause page faults.
            (features,) = pool.submit(network.run, views=compact_image.cut_views(image)).result()
            return features

        work: Callable[[Image.Image], NDArray[Any]] = compact_image.cut_views if self._in_torch else on_a_core
        results = map_images(images, work, target_size=compact_image.DECODE_PIXELS)
        usable = (_or_raise(result) for result in results)
        yield from _in_batches(usable, network) if self._in_torch else usable

    def _network(self, graph: Graph) -> Runner:
        """What runs a tower on the device."""
        if not self._in_torch:
            return Network(graph)
        from retrieval.encoders.compact_torch import TorchNetwork

        return TorchNetwork(graph, self._device, self._precision)

    # cached_property is not locked: two threads' first calls would each load the weights.
    @property
    def _texts(self) -> CompactTexts:
        with self._text_lock:
            return self._started_texts

    @property
    def _image_network(self) -> Runner:
        with self._image_lock:
            return self._loaded_image_tower[0]

    @property
    def _image_placer(self) -> Network:
        with self._image_lock:
            return self._loaded_image_tower[1]

    @property
    def _pool(self) -> ThreadPoolExecutor:
        with self._image_lock:
            return self._started_pool

    @cached_property
    def _started_pool(self) -> ThreadPoolExecutor:
        return encoder_threads()

    @cached_property
    def _started_texts(self) -> CompactTexts:
        # Threads of its own: a text takes some milliseconds, and would wait behind the pictures of an index job.
        pool = encoder_threads()

        def english() -> compact_text.SentenceEncoder:
            return compact_text.SentenceEncoder(pool, self._network(compact_text.text_graph()))

        return CompactTexts(english, lambda: Network(self._space.text_graph()), pool)

    @cached_property
    def _loaded_image_tower(self) -> tuple[Runner, Network]:
        graph, classifier = self._image_tower_graph()
        return self._network(graph), Network(self._space.image_graph(classifier, load_ridge()))

    def _image_tower_graph(self) -> tuple[Graph, compact_image.Classifier]:
        return compact_image.image_graph()

    @cached_property
    def _space(self) -> Space:
        return Space(_classes().vectors, _classes().spectral)


def space_fingerprint(classes: ClassVectors, settings: SpaceSettings) -> str:
    """``compact:VERSION:`` and a short hash of all that decides where an image or a text lies."""
    parts = (
        compact_image.WEIGHTS_SHA256,
        compact_text.WEIGHTS_SHA256,
        hashlib.sha256(classes.vectors.tobytes()).hexdigest(),
        (compact_image.INPUT_PIXELS, compact_image.MEAN, compact_image.STD, compact_image.CORNER),
        (compact_image.DECODE_PIXELS, compact_text.MAX_TOKENS),
        astuple(settings),
    )
    return f"compact:{VERSION}:{hashlib.sha256(repr(parts).encode()).hexdigest()[:16]}"


def _or_raise(result: NDArray[Any] | ImageError) -> NDArray[Any]:
    if isinstance(result, ImageError):
        raise result
    return result


def _in_batches(
    views: Iterable[NDArray[np.uint8]], network: Runner, images_per_batch: int = _GPU_BATCH
) -> Iterator[NDArray[np.float32]]:
    images = iter(views)
    while batch := list(islice(images, images_per_batch)):
        (features,) = network.run(views=np.concatenate(batch))
        yield from features.reshape(len(batch), compact_image.VIEWS, -1)


@lru_cache(maxsize=1)
def _classes() -> ClassVectors:
    return load_classes()
