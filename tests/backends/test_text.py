"""What a word is, for every script, and which words a query looks for."""

from __future__ import annotations

import pytest

from backends import scripts
from backends.text import MAX_WORD, fold, folded_words, shared_words, tokenize, wanted_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Two dogs, playing", ["two", "dogs", "playing"]),
        ("snake_case img_2034 C++ C#", ["snake_case", "img_2034", "c", "c"]),
        ("iPhone15", ["iphone15", "iphone", "15"]),
        ("15x20cm", ["15x20cm", "15", "x", "20", "cm"]),
        ("a1b2c3d4e5f6", ["a1b2c3d4e5f6"]),
        ("Łódź Ålesund Tromsø Đông", ["lodz", "alesund", "tromso", "dong"]),
        ("æble Œuvre ħŧ þing", ["aeble", "oeuvre", "ht", "thing"]),
        ("Straße STRASSE ﬁsh ｆｕｌｌ İzmir Ilıca", ["strasse", "strasse", "fish", "full", "izmir", "ilica"]),
        ("Άθήνα ΟΔΥΣΣΕΎΣ", ["αθηνα", "οδυσσευσ"]),
        ("ёлка й Їжак ўсё и́", ["ёлка", "й", "їжак", "ўсё", "и"]),
        ("привет2024", ["привет2024", "привет", "2024"]),
        ("iPhoneтест", ["iphoneтест", "iphone", "тест"]),
        ("مُحَمَّد أحمد ســوداء", ["محمد", "احمد", "سوداء"]),
        ("שָׁלוֹם", ["שלום"]),
        ("می‌خواهم", ["میخواهم"]),
        ("काला घोड़ा", ["काला", "घोड़ा"]),
        ("कालो", ["कालो"]),
        ("কালো কাল", ["কালো", "কাল"]),
        ("நாற்காலியில்", ["நாற்காலியில்"]),
        ("١٢٣ १२३ ๑๒๓ １２３ 𝟏𝟐𝟑", ["123"] * 5),
        ("ქართული ᲥᲐ Հայերեն", ["ქართული", "ქა", "հայերեն"]),
    ],
)
def test_words_of_spaced_scripts(text: str, words: list[str]) -> None:
    assert sorted(tokenize(text)) == sorted(words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("西湖风", ["西", "湖", "风", "西湖", "湖风"]),
        ("西湖 风", ["西", "湖", "西湖", "风"]),
        ("2024年", ["2024", "年"]),
        ("𠀀好", ["𠀀", "好", "𠀀好"]),
        ("葛󠄀城", ["葛", "城", "葛城"]),
        ("서울", ["서", "울", "서울"]),
        ("\u1109\u1165\u110b\u116e\u11af", ["서", "울", "서울"]),
        ("木の上", ["木", "の", "上", "木の", "の上"]),
        ("タワー", ["タ", "ワ", "ー", "タワ", "ワー", "タワー"]),
        ("ﾊﾞｽ", ["バ", "ス", "バス"]),
        ("か\u3099 か゛", ["が", "が"]),
        ("カ、ラ・ス", ["カ", "ラ", "ス"]),
        ("แมว", ["แม", "ว", "แมว"]),
        ("มวย", ["ม", "ว", "ย", "มว", "วย"]),
        ("ក្មេង", ["ក្មេ", "ង", "ក្មេង"]),
        ("မြန်မာ", ["မြ", "န်", "မာ", "မြန်", "န်မာ"]),
        ("ខ្ញុំ\u200bស្រី", ["ខ្ញុំ", "ស្រី", "ខ្ញុំស្រី"]),
        ("🎂🐶 ❤\ufe0f 👍🏽 🇯🇵", ["🎂", "🐶", "❤", "👍", "🇯🇵"]),
        ("🏃‍♀️", ["🏃\u200d♀", "🏃", "♀"]),
        ("→ © €", []),
    ],
)
def test_words_of_other_scripts(text: str, words: list[str]) -> None:
    assert sorted(tokenize(text)) == sorted(words)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("Two dogs, two cats", ["two", "dogs", "cats"]),
        ("mp3 DSC01234", ["mp3", "dsc01234"]),
        ("飞机", ["飞机"]),
        ("飞机场", ["飞机", "机场"]),
        ("机", ["机"]),
        ("iPhone15拍摄", ["iphone15", "拍摄"]),
        ("カラス", ["カラス"]),
        ("スカイツリー", ["スカイ", "カイツ", "イツリ", "ツリー"]),
        ("東京タワーの夜景", ["東京", "タワー", "の夜", "夜景"]),
        ("さくらの木", ["さくら", "くらの", "の木"]),
        ("カラスの", ["カラス"]),
        ("犬と猫", ["犬と", "と猫", "犬", "猫"]),
        ("猫和狗", ["猫和", "和狗", "猫", "狗"]),
        ("世界和平", ["世界", "界和", "和平"]),
        ("犬が走る", ["犬が", "が走", "走る", "犬", "走"]),
        ("ノと", ["ノ"]),
        ("食べ物", ["食べ", "べ物"]),
        ("公園の花に", ["公園", "園の", "の花", "花に", "花"]),
        ("の", ["の"]),
        ("서울타워", ["서울", "울타", "타워"]),
        ("🏃‍♀️", ["🏃\u200d♀"]),
        ("", []),
        ("!? →", []),
    ],
)
def test_a_query_looks_for_the_longest(query: str, words: list[str]) -> None:
    assert wanted_words(query) == words
    assert set(words) <= set(tokenize(query))


@pytest.mark.parametrize(
    ("query", "text"),
    [("カラス", "ガラス"), ("てんき", "でんき"), ("でんき", "てんき"), ("飞机", "手机"), ("แมว", "มวย")],
)
def test_words_that_share_characters_are_not_the_same(query: str, text: str) -> None:
    assert not set(wanted_words(query)) & set(tokenize(text))


@pytest.mark.parametrize(
    "unit", ["x", "é", "я", "क", "का", "か", "天", "서", "ก", "กา", "က", "ខ្", "🐶\u200d", "\u0e34", "a1", "_"]
)
def test_no_word_is_longer_than_engines_take(unit: str) -> None:
    words = tokenize(unit * 20_000) + wanted_words(unit * 20_000)
    assert words
    assert max(map(len, words)) <= MAX_WORD


def test_words_are_taken_alike_whatever_stands_beside_them() -> None:
    # Characters beyond U+FFFF choose other patterns, others than ASCII another way.
    for text in ("Straße 15 काला 西湖", "plain words 15", "カラスの公園 서울 แมว"):
        for beside in (" 🎂", " 𠀀", " é", " 𝟏"):
            assert set(tokenize(text)) <= set(tokenize(text + beside))
            assert set(wanted_words(text)) <= set(wanted_words(text + beside))


def test_every_letter_is_in_some_word() -> None:
    lost = [
        chr(cp)
        for cp in (*range(0x3500), *range(0xA000, 0xAC80), *range(0xF900, 0x1FC00))
        if chr(cp).isalpha() and not tokenize(chr(cp)) and f"{cp:X}" not in ("640", "FE70", "FE72")
    ]
    # Marks of their own that NFKC makes a space and a mark, which is on no letter then.
    assert [c for c in lost if any(part.isalpha() for part in fold(c))] == []


def test_folding_twice_changes_nothing() -> None:
    for cp in (*range(0x3400), *range(0xA000, 0xAC00), *range(0xF900, 0x1FC00)):
        assert fold(fold(chr(cp))) == fold(chr(cp)), f"U+{cp:04X}"


def test_matching_pairs_are_shown_as_one() -> None:
    assert shared_words("西湖风景", "在西湖看风景") == ["西湖", "风景"]
    assert shared_words("西湖风景", "西湖风景很美") == ["西湖风景"]
    assert shared_words("スカイツリー", "東京スカイツリー") == ["スカイツリー"]
    assert shared_words("Two dogs", "dogs and two cats") == ["two", "dogs"]
    assert shared_words("кот том", "кот, том и котом") == ["кот", "том"]
    assert shared_words("แมวดำ", "เห็นแมวดำตัวหนึ่ง") == ["แมวดํา"]
    assert shared_words("飞机", "手机") == []


def test_folded_words_are_not_taken_apart() -> None:
    assert folded_words("Das Café, 西湖风景 iPhone15 काला") == ["das", "cafe", "西湖风景", "iphone15", "काला"]


def test_classes_of_characters_hold_what_they_name() -> None:
    assert scripts.near("a-c\U00010000-\U00010010x") == "a-cx-x"
    assert scripts.far("a-c\U00010000-\U00010010x") == "\U00010000-\U00010010"


def test_a_run_of_leading_vowels_costs_no_more_than_its_length() -> None:
    assert len(tokenize("\u0e40" * 100_000)) < 300_000


def test_a_word_in_hiragana_is_found_beside_a_particle() -> None:
    assert set(wanted_words("ねこの写真")) & set(tokenize("かわいいねこ"))
    assert set(wanted_words("いぬとねこ")) & set(tokenize("いぬ"))
    assert not set(wanted_words("カラス")) & set(tokenize("ガラスのコップ"))
