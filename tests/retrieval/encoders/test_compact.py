"""The compact encoder with its real weights, on photographs that scikit-image carries."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from retrieval.encoders import EncoderError, load_encoder
from retrieval.encoders.base import Encoder
from retrieval.encoders.compact import CompactEncoder, _in_batches, space_fingerprint
from retrieval.encoders.compact_classes import class_texts, embed_classes, load_classes, texts_digest, write_classes
from retrieval.encoders.compact_image import WEIGHTS_SHA256 as IMAGE_SHA256
from retrieval.encoders.compact_image import ImageNetwork, cut_views, weights_file
from retrieval.encoders.compact_space import SpaceSettings
from retrieval.encoders.compact_text import WEIGHTS_SHA256 as TEXT_SHA256
from retrieval.encoders.compact_text import SentenceEncoder, model_folder
from retrieval.encoders.threads import one_core_threads
from retrieval.images.decode import ImageError, load_image

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
    texts = encoder.encode_texts(["", "x", "Zwölf Boxkämpfer", "犬", "a\x00b", "lone \ud800 surrogate", "word " * 50])
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
    with one_core_threads() as pool, caplog.at_level(logging.WARNING):
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


def test_torch_keeps_its_threads_elsewhere() -> None:
    before = torch.get_num_threads()
    with one_core_threads() as pool:
        assert set(pool.map(lambda _: torch.get_num_threads(), range(8))) == {1}
        assert torch.get_num_threads() == before
        with ThreadPoolExecutor(1) as other:
            assert other.submit(torch.get_num_threads).result() == before


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
    assert encoder.fingerprint == space_fingerprint(classes, SpaceSettings()) == CompactEncoder().fingerprint
    moved = dataclasses.replace(classes, vectors=classes.vectors + np.float32(1e-3))
    others = {space_fingerprint(moved, SpaceSettings())}
    for field in dataclasses.fields(SpaceSettings):
        changed = dataclasses.replace(SpaceSettings(), **{field.name: getattr(SpaceSettings(), field.name) + 1})
        others.add(space_fingerprint(classes, changed))
    assert encoder.fingerprint not in others
    assert len(others) == 1 + len(dataclasses.fields(SpaceSettings))


def test_declared_weights_are_the_installed_ones() -> None:
    assert hashlib.sha256(weights_file().read_bytes()).hexdigest() == IMAGE_SHA256
    assert hashlib.sha256((model_folder() / "model.safetensors").read_bytes()).hexdigest() == TEXT_SHA256


def test_class_vectors_are_what_the_command_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = load_classes()
    labels, texts = class_texts()
    assert shipped.labels == tuple(labels)
    assert shipped.texts_sha256 == texts_digest(texts)
    # Every fortieth class stands for all: embedding the 5,000 texts takes longer than a test may.
    sample = slice(None, None, 40)
    monkeypatch.setattr("retrieval.encoders.compact_classes.class_texts", lambda: (labels[sample], texts[sample]))
    write_classes(tmp_path / "classes.npz")
    made = load_classes(tmp_path / "classes.npz")
    assert made.labels == shipped.labels[sample]
    np.testing.assert_allclose(made.vectors, shipped.vectors[sample], atol=2e-4)  # half precision
    assert [file.name for file in tmp_path.iterdir()] == ["classes.npz"]
    assert embed_classes(texts[:1]).dtype == np.float16


def test_text_tower_is_minilm() -> None:
    from transformers.models.bert.configuration_bert import BertConfig
    from transformers.models.bert.modeling_bert import BertModel
    from transformers.models.bert.tokenization_bert import BertTokenizer

    folder = model_folder()
    texts = [*CAPTIONS, "A much longer sentence, with Ümläuts and 3 numbers, so that there is padding."]
    tokens = BertTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    model = BertModel(BertConfig.from_json_file(str(folder / "config.json")), add_pooling_layer=False).eval()
    from safetensors.torch import load_file

    weights = load_file(str(folder / "model.safetensors"))
    assert not model.load_state_dict(weights, strict=False).missing_keys
    with torch.inference_mode():
        states = model(**tokens).last_hidden_state
    mask = tokens["attention_mask"][..., None]
    expected = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1).numpy()
    with one_core_threads() as pool:
        np.testing.assert_allclose(SentenceEncoder(pool).encode(texts), expected, atol=1e-5)


def test_image_tower_is_efficientnet_lite2(photos: list[Image.Image]) -> None:
    from efficientnet_lite_pytorch import EfficientNet

    model = EfficientNet.from_name("efficientnet-lite2").eval()
    model.load_state_dict(torch.load(weights_file(), weights_only=True))
    views = cut_views(photos[1])
    pixels = torch.from_numpy((views.astype(np.float32) / 255 - 0.498) / 0.502).permute(0, 3, 1, 2).contiguous()
    with torch.inference_mode():
        expected = model(pixels).numpy()
    network = ImageNetwork()
    np.testing.assert_allclose(network.logits(network.features(views)), expected, atol=1e-3)


@pytest.mark.slow
def test_views_batched_for_a_gpu_come_back_by_image(photos: list[Image.Image]) -> None:
    network = ImageNetwork()
    views = [cut_views(photo) for photo in photos[:3]]
    batched = list(_in_batches(iter(views), network, images_per_batch=2))
    assert len(batched) == 3
    for features, of_image in zip(batched, views, strict=True):
        np.testing.assert_allclose(features, network.features(of_image), atol=1e-4)


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


def test_damaged_weights_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrieval.encoders.compact_image.WEIGHTS_BYTES", 1)
    with pytest.raises(EncoderError, match="force-reinstall"):
        ImageNetwork()
    monkeypatch.setattr("retrieval.encoders.compact_text.WEIGHTS_BYTES", 1)
    with pytest.raises(EncoderError, match="force-reinstall"):
        CompactEncoder(device="cpu").encode_texts(["a cat"])


def test_files_decoded_ahead_give_the_same_vectors(
    encoder: CompactEncoder, photos: list[Image.Image], tmp_path: Path
) -> None:
    large = photos[1].resize((3000, 2000))
    large.save(tmp_path / "large.jpg", quality=95)
    ahead = load_image(tmp_path / "large.jpg", target_size=encoder.decode_size)
    assert ahead.width < large.width
    by_path, decoded = encoder.encode_images([tmp_path / "large.jpg", ahead])
    np.testing.assert_allclose(by_path, decoded, atol=1e-5)
