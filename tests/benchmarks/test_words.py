"""The benchmark of words: captions of the same bytes, made from a seed."""

from __future__ import annotations

import json
import random
import statistics

import pytest

from benchmarks.words import CAPTION_BYTES, CHINESE, ENGLISH, main


@pytest.mark.parametrize("language", [ENGLISH, CHINESE], ids=lambda one: one.name)
def test_captions_are_the_same_for_the_same_seed_and_of_one_length(language):
    captions = language.captions(random.Random(1), 50)
    assert captions == language.captions(random.Random(1), 50)
    sizes = [len(language.space.join(caption).encode()) for caption in captions]
    assert min(sizes) >= CAPTION_BYTES - 1
    assert statistics.fmean(sizes) < CAPTION_BYTES + 6
    words = [word for caption in captions for word in caption]
    # By Zipf's law a few words are a large part of all.
    assert 20 < len(set(words)) < 0.8 * len(words)


def test_both_languages_are_measured(tmp_path, capsys):
    assert main([str(tmp_path), "--captions", "300", "--queries", "5", "--rounds", "1"]) == 0
    english, chinese = json.loads((tmp_path / "words.json").read_text(encoding="utf-8"))
    assert (english["language"], chinese["language"]) == ("English", "Chinese")
    assert abs(english["bytes"] - chinese["bytes"]) < 0.05 * english["bytes"]
    for one in (english, chinese):
        assert one["hits"] >= 1
        assert 0 < one["p50_ms"] <= one["p95_ms"]
    assert "times that of English" in capsys.readouterr().out
