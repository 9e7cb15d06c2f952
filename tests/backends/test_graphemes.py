"""Characters as people see them: none is cut in two, in any script."""

from __future__ import annotations

import pytest

from backends.graphemes import MAX_POINTS, graphemes
from backends.harmless import shortened

#: Each entry is one character to whoever reads it.
CLUSTERS = {
    "Chinese": ["一", "只", "猫", "𠮷"],
    "Japanese": ["カ", "ラ", "ス", "か\u3099", "ｶ\uff9e"],
    "Korean jamo": ["\u1112\u1161\u11ab", "\u1100\u1173\u11af"],
    "Thai": ["แ", "ม", "ว", "น\u0e49\u0e33", "กี\u0e48"],
    "Hindi": ["हि", "न्दी", "क्ष", "त्रि", "य"],
    "Khmer": ["ខ្មែ", "រ"],
    "Persian": ["م", "ی\u200c", "خ", "و"],
    "Latin": ["e\u0301", "a\u0300\u0323", "x"],
    "emoji": [
        "👩\u200d👩\u200d👧\u200d👦",
        "👍🏽",
        "❤\ufe0f",
        "1\ufe0f\u20e3",
        "🇨🇳",
        "🇯🇵",
        "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
        "🐱",
    ],
}


@pytest.mark.parametrize("script", CLUSTERS)
def test_a_text_falls_into_what_people_see(script: str) -> None:
    clusters = CLUSTERS[script]
    for text in (clusters, clusters[::-1], ["a", *clusters, " "]):
        assert list(graphemes("".join(text))) == text


@pytest.mark.parametrize("script", CLUSTERS)
def test_a_text_is_shortened_between_them(script: str) -> None:
    clusters = CLUSTERS[script] * 3
    text = "".join(clusters)
    whole = {"".join(clusters[:count]) + "…" for count in range(len(clusters))}
    for limit in range(1, len(text)):
        said = shortened(text, limit)
        assert said in whole
        assert len(said) <= limit
    assert shortened(text, len(text)) == text


def test_a_cluster_without_end_has_one() -> None:
    endless = "a" + 1000 * "\u0301"
    assert {len(cluster) for cluster in graphemes(endless)} <= {MAX_POINTS, len(endless) % MAX_POINTS}
    assert "".join(graphemes(endless)) == endless
    assert list(graphemes("")) == []
