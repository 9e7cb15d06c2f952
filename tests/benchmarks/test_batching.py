"""The benchmark of micro-batching, on an encoder that is quick."""

from __future__ import annotations

import pytest

from benchmarks.batching import load_of, measure_batching
from tests.support.counting_encoder import CountingEncoder


class Failing(CountingEncoder):
    def encode_texts(self, texts):
        raise RuntimeError("out of order")


def test_both_sides_are_loaded_by_all_clients() -> None:
    encoder = CountingEncoder()
    found = measure_batching(encoder, clients=4, seconds=0.05, rounds=2)
    assert list(found) == ["plain", "batched"]
    for load in found.values():
        assert load.per_s > 0
        assert 0 < load.p50_s <= load.p99_s
    assert len(set(encoder.texts)) >= 4


def test_an_encoder_that_fails_is_no_measurement() -> None:
    with pytest.raises(RuntimeError, match="out of order"):
        load_of(Failing(), clients=2, seconds=0.05)
