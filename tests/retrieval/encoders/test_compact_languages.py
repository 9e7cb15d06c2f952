"""Which tower of `compact` reads a text, by the rules on text alone."""

from __future__ import annotations

from collections import Counter

import pytest

from retrieval.encoders.compact_languages import ENGLISH, LANGUAGES, UNREADABLE, Route, route_of, script_of
from retrieval.relevance.background import BACKGROUND_LANGUAGES, background_texts

# A few words of MiniLM's vocabulary: enough for the rules, of which its own is tested with the encoder.
VOCABULARY = frozenset(
    "dog cat red street scene plain city shoe air black white big nice cafe paris dvorak skate board hall dance "  # noqa: SIM905
    "photo vegas sign says xe rac".split()
)


def route(text: str) -> Route:
    return route_of(text, VOCABULARY.__contains__)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "a red dog",
            "DOG",
            "the Kwyjibo and a dog",
            "2024",
            "Ａ ｂｉｇ ｄｏｇ",
            "a cat 😻",
            "skateboards",
            "a nice café",
        ),
        *(
            "Ben Shahn, 'Street scene, Plain City'",
            "Dvořák",
            "a man हिन्दी",
            "a sign that says стоп, and much more of it",
        ),
        *("Tromsø street scene", "photo in Tromsø", "Hà Nội street scene, black and white"),
        *("dance hall in Las Vegas, a street scene", "a black and white photo of the Champs Élysées in Paris"),
    ],
)
def test_english(text: str) -> None:
    assert route(text) == ENGLISH


@pytest.mark.parametrize(
    ("text", "language"),
    [
        *(("一只狗在海滩上", "zh"), ("沙灘上的一隻貓", "zh-TW"), ("海辺の犬", "ja"), ("ｶﾞﾗｽ", "ja"), ("개", "ko")),
        *(("собака на пляже", "ru"), ("كلب على الشاطئ", "ar"), ("العَرَبِيَّة", "ar"), ("หมาบนชายหาด", "th")),
        *(
            ("ein Hund sitzt auf der Straße", "de"),
            ("un chien dans la rue", "fr"),
            ("l’homme à la mer", "fr"),
            ("dos perros en la calle", "es"),
        ),
        *(("un cane su una spiaggia", "it"), ("dois cachorros na praia", "pt"), ("een hond op het strand", "nl")),
        *(("pies na plaży z dzieckiem", "pl"), ("kumsalda oynayan bir köpek", "tr")),
        *(
            ("iPhone15拍摄的西湖风景2024年", "zh"),
            ("运动鞋 Nike Air Max 270 black and white", "zh"),
            ("我爱猫😻", "zh"),
        ),
        *(("a sign that says 出口", "zh"), ("Nike 运动鞋", "zh")),
    ],
)
def test_other_languages(text: str, language: str) -> None:
    assert route(text).language == language
    assert route(text).tower in ("multilingual", "either")
    if not text.isascii():
        assert route(text.upper()).language == language


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            " ",
            "!!!",
            "→ ♥",
            "😀",
            "👩‍👩‍👧",
            "\u200b",
            "हिन्दी बिल्ली",
            "გამარჯობა",
            "Γάτα στο δρόμο",
            "חתול",
            "ສະບາຍດີ",
            "ကြောင်",
        ),
        *(
            "một con mèo trên đường phố",
            "kočka spí na židli",
            "кіт спить на дивані",
            "گربه روی مبل قرمز",
            "một",
            "dog गेंद बिल्ली",
        ),
    ],
)
def test_what_no_tower_reads(text: str) -> None:
    assert route(text) == UNREADABLE


def test_where_the_towers_have_to_be_asked() -> None:
    # With a sign of another language they must agree well for it to stay English, without any sign very little.
    assert (route("un quokka").tower, route("un quokka").nearness) == ("either", 0.45)
    assert (route("quokka").tower, route("quokka").nearness) == ("either", 0.2)
    assert route("quokka").language == "und"
    # What is long and has no word of another language is English, however rare its words.
    assert route("quokka numbat bilby dunnart quoll") == ENGLISH


@pytest.mark.parametrize("text", ["red van", "dance van", "street den", "dove", "Van", "rot"])
def test_a_word_that_english_shares_is_english_where_nothing_else_is_foreign(text: str) -> None:
    assert route(text) == ENGLISH


@pytest.mark.parametrize("text", ["un perro", "van quokka", "la van", "mer", "den hond", "rôt"])
def test_a_shared_word_beside_others_is_for_the_towers(text: str) -> None:
    assert route(text).tower != "english"


def test_each_language_is_known_by_its_background_queries() -> None:
    assert {"en", *BACKGROUND_LANGUAGES} == set(LANGUAGES)
    for language in BACKGROUND_LANGUAGES:
        texts = background_texts(language)
        assert len(texts) == len(set(texts)) == 96
        found = Counter(route(text).language for text in texts)
        # Japanese without kana looks Chinese, and most Chinese characters are the same in Taiwan.
        assert found.most_common(1)[0][0] in (language, "und")
        assert "en" not in found or language in ("de", "it", "pl", "tr", "fr", "es", "nl", "pt")
    for text in background_texts():
        assert route(text).tower in ("english", "either")


def test_scripts() -> None:
    letters = {"a": "latin", "ß": "latin", "я": "cyrillic", "ب": "arabic", "ก": "thai", "가": "hangul", "カ": "kana"}
    letters |= {
        "犬": "han",
        "々": "han",
        "α": "other",
        "ह": "other",
        "\u0301": "mark",
        "1": "none",
        "😀": "none",
        "。": "none",
    }
    assert {letter: script_of(letter) for letter in letters} == letters


def test_long_texts_cost_no_more() -> None:
    assert route("dog " * 100_000) == ENGLISH
    assert route("犬" * 1_000_000).tower == "multilingual"
