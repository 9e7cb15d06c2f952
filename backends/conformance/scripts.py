"""Checks of keyword search in many scripts: every engine takes words as `backends.text` does, whole and unchanged."""

from __future__ import annotations

import pytest

from backends.base import Record
from backends.conformance.oracle import in_order
from backends.conformance.samples import vectors
from backends.conformance.store import Store
from backends.exact.backend import ExactBackend

#: By id: a text, then queries that find this text and, of all the texts here, no other one.
TEXTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "latin": ("Łódź nocą, Ålesund og Tromsø", ("lodz", "ŁÓDŹ", "tromso", "Ålesund", "Ale\u0301sund")),
    "turkish": ("Ilıca plajı, İzmir", ("ılıca", "ilica", "IZMIR", "izmir", "İZMİR")),
    "german": ("Ein Schäferhund auf der Straße", ("strasse", "STRASSE", "schaferhund", "Scha\u0308ferhund")),
    "vietnamese": ("Hà Nội và cầu Đông Trù", ("noi", "Nội", "dong tru", "ĐÔNG")),
    "compound": ("iPhone15拍摄的西湖风景2024年", ("iPhone", "IPHONE15", "2024", "西湖", "风景", "西湖风景")),
    "greek": ("Ακρόπολη της Αθήνας", ("ακροπολη", "ΑΘΗΝΑΣ", "Αθήνας")),
    "cyrillic": ("Красный чай и ёлка", ("чай", "ёлка", "КРАСНЫЙ", "ча\u0438\u0306")),
    "not й": ("чаи и елка", ("чаи", "елка")),
    "armenian": ("Երևանի գիշերը", ("երեւանի", "ԳԻՇԵՐԸ")),
    "georgian": ("თბილისი ღამით", ("თბილისი", "ᲦᲐᲛᲘᲗ")),
    "arabic": ("قطة سوداء على الأريكة", ("قطة", "قِطَّة", "الاريكة", "سـوداء")),
    "persian": ("کتاب‌ها روی میز ۱۲۳۴", ("کتابها", "1234", "۱۲۳۴", "میز")),
    "hebrew": ("חתול שחור על הספה", ("חתול", "חָתוּל", "שחור")),
    "devanagari": ("काला घोड़ा", ("काला", "घोड़ा")),
    "a nail": ("कील और हथौड़ा", ("कील", "हथौड़ा")),
    "bengali": ("কালো বিড়াল", ("কালো", "বিড়াল")),
    "tomorrow": ("কাল", ("কাল",)),
    "tamil": ("பூனை நாற்காலியில்", ("பூனை", "நாற்காலியில்")),
    "thai": ("แมวสีดำนอนอยู่บนโซฟา", ("แมว", "สีดำ", "โซฟา", "แมวสีดำ")),
    "boxing": ("มวย", ("มวย",)),
    "lao": ("ແມວດຳນອນຢູ່ເທິງໂຊຟາ", ("ແມວ", "ໂຊຟາ")),
    "khmer": ("ឆ្មាខ្មៅដេកលើសាឡុង", ("ឆ្មា", "សាឡុង", "ខ្មៅ")),
    "burmese": ("ကြောင်နက်လေးအိပ်နေသည်", ("ကြောင်", "အိပ်နေ")),
    "han": ("一只黑白相间的猫坐在窗台上", ("猫", "窗台", "黑白相间", "坐在窗台")),
    "aeroplane": ("飞机停在跑道", ("飞机", "跑道")),
    "phone": ("手机和耳机", ("手机", "耳机")),
    "japanese": ("東京タワーの夜景を撮影", ("東京", "タワー", "東京タワー", "夜景", "ﾀﾜｰ", "東京タワーの夜景")),
    "crow": ("カラス 公園", ("カラス", "カラスの", "ｶﾗｽ", "公園")),
    "glass": ("ガラスのコップ", ("ガラス", "ｶﾞﾗｽ", "カ\u3099ラス", "コップ")),
    "weather": ("てんき", ("てんき",)),
    "power": ("でんき", ("でんき", "て\u3099んき")),
    "hangul": ("서울타워에서 본 야경", ("서울", "타워", "야경", "\u1109\u1165\u110b\u116e\u11af")),
    "rare han": ("\U00020bb7野家の看板と葛\U000e0100城", ("\U00020bb7野家", "看板", "葛城")),
    "mathematical": ("𝔉raktur ｆｕｌｌ ﬁsh", ("fraktur", "full", "fish", "ＦＵＬＬ")),
    "adlam": ("𞤆𞤵𞤤𞤢𞤪", ("𞤆𞤵𞤤𞤢𞤪", "𞤨𞤵𞤤𞤢𞤪")),
    "emoji": ("birthday party 🎂🐶 ❤\ufe0f", ("🎂", "🐶", "❤", "🐶🎂")),
    "family": ("👨\u200d👩\u200d👧 in 🇯🇵 👍🏽", ("👨\u200d👩\u200d👧", "👩", "🇯🇵", "👍", "👍🏿")),
    "signs": ("slides about C++ and C#", ("C++", "c#", "slides")),
}
#: Queries that find nothing, though some text looks much like them.
STRANGERS = (
    "機",
    "かす",
    "ラ゛ス",
    "क",
    "हथ",
    "แมล",
    "ἀκρο",
    "ча",
    "🎁",
    "🇯🇲",
    "👨\u200d👩\u200d👦\u200d👦",
    "iPhone16",
    "lod",
)
LONG = {
    "latin": "x" * 60_000,
    "han": "天" * 10_000 + "西湖" + "地" * 10_000,
    "thai": "กา" * 9_000,
    "marks": "e" + "\u0301" * 12_000 + "a" + "\u0948" * 12_000,
    "emoji": "🐶\u200d" * 9_000,
    "mixed": "a1" * 30_000,
}


def _filled(store: Store, texts: dict[str, str]) -> tuple[str, ExactBackend]:
    """A collection of these texts, and its twin; skips where the engine has no keyword search."""
    if not store.capabilities.keyword:
        pytest.skip("the engine declares no keyword search; that it is refused is another check")
    name, oracle = store.collection(), ExactBackend()
    rows = vectors(len(texts), 8)
    records = [Record(i, rows[n], "text", text) for n, (i, text) in enumerate(texts.items())]
    oracle.create(store.backend.describe(name))
    for backend in (store.backend, oracle):
        backend.upsert(name, records)
    return name, oracle


class ScriptChecks:
    """Words of all scripts, as `backends.text` says."""

    def test_words_of_every_script(self, store: Store) -> None:
        name, oracle = _filled(store, {i: text for i, (text, _) in TEXTS.items()})
        for record_id, (_, queries) in TEXTS.items():
            for query in queries:
                found = [hit.id for hit in store.backend.search_text(name, query, 50)]
                assert [hit.id for hit in oracle.search_text(name, query, 50)] == [record_id], f"for {query!r}"
                assert found == [record_id], f"for {query!r}"
        for query in STRANGERS:
            assert store.backend.search_text(name, query, 50) == [], f"for {query!r}"

    def test_characters_side_by_side_rank_higher(self, store: Store) -> None:
        texts = {
            "side by side": "我们在西湖看风景",
            "apart": "西边有湖水风光景",
            "half": "我们在西边看风景",
            "東京 side by side": "きのう東京タワーの夜景を見た",
            "東京 half": "きのう東京へタクシーで行った",
            "犬": "犬と猫が走る",
            "猫": "猫はと犬はと",
            "서울 side by side": "어제 서울타워에서 보았다",
            "서울 half": "어제 서울역에서 만났다",
            "ไทย side by side": "เมื่อวานเห็นแมวดำตัวหนึ่ง",
            "ไทย half": "เมื่อวานเห็นแมวขาวตัวหนึ่ง",
        }
        name, oracle = _filled(store, texts)
        for query, wanted in {
            "西湖风景": ["side by side", "half"],
            "犬と猫": ["犬", "猫"],
            "東京タワー": ["東京 side by side", "東京 half"],
            "서울타워": ["서울 side by side", "서울 half"],
            "แมวดำ": ["ไทย side by side", "ไทย half"],
        }.items():
            hits = store.backend.search_text(name, query, 20)
            assert [hit.id for hit in oracle.search_text(name, query, 20)] == wanted
            assert [hit.id for hit in hits] == wanted
            assert in_order(hits)
            assert hits[0].score > hits[1].score

    def test_words_without_end_are_stored_and_found(self, store: Store) -> None:
        name, oracle = _filled(store, LONG | {"short": "西湖"})
        for query in (*LONG.values(), "西湖", "x" * 255, "กา", "🐶"):
            wanted = {hit.id for hit in oracle.search_text(name, query, 20)}
            assert {hit.id for hit in store.backend.search_text(name, query, 20)} == wanted, f"for {query[:9]!r}…"
            assert wanted
        assert {hit.id for hit in oracle.search_text(name, "西湖", 20)} == {"han", "short"}
        store.backend.delete(name, ids=list(LONG))
        assert [hit.id for hit in store.backend.search_text(name, "西湖", 20)] == ["short"]
