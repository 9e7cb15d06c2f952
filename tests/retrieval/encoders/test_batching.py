"""Micro-batching of texts over threads."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from retrieval.encoders.base import Encoder, EncoderError
from retrieval.encoders.batching import BatchedEncoder, Overloaded


class Slow:
    """Encodes a text as its length, holds each call until it is let go, and keeps the sizes of its calls."""

    name = fingerprint = "slow"
    dim = 2
    context_length = 77

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.go = threading.Semaphore(0)
        self.entered = threading.Semaphore(0)

    def encode_texts(self, texts):
        self.calls.append(list(texts))
        self.entered.release()
        assert self.go.acquire(timeout=10)
        if "bad" in texts:
            raise EncoderError("a bad text")
        return np.array([[len(text), 1] for text in texts], dtype=np.float32).reshape(-1, 2)

    def encode_images(self, images):
        return np.ones((len(images), 2), dtype=np.float32)


@pytest.fixture
def slow():
    return Slow()


def wait_until(condition) -> None:
    for _ in range(1000):
        if condition():
            return
        threading.Event().wait(0.005)
    raise AssertionError("it never happened")


def test_it_is_an_encoder_with_the_hints_of_the_one_inside(slow):
    with BatchedEncoder(slow) as encoder:
        assert isinstance(encoder, Encoder)
        assert (encoder.name, encoder.fingerprint, encoder.dim, encoder.context_length) == ("slow", "slow", 2, 77)
        assert encoder.encode_images([None]).shape == (1, 2)  # type: ignore[list-item]
        with pytest.raises(AttributeError):
            _ = encoder.nothing


def test_what_comes_during_a_batch_is_the_next_batch(slow):
    sizes: list[int] = []
    with BatchedEncoder(slow, max_batch=4, observe=sizes.append) as encoder, ThreadPoolExecutor(8) as pool:
        first = pool.submit(encoder.encode_texts, ["a"])
        assert slow.entered.acquire(timeout=10)
        others = []
        for texts, waiting in ((["bb"], 1), (["ccc", "dddd"], 3), (["eeeee"], 4), (["ffffff"], 5)):
            others.append(pool.submit(encoder.encode_texts, texts))
            wait_until(lambda waiting=waiting: encoder.waiting == waiting)
        slow.go.release(3)
        assert first.result(10).tolist() == [[1, 1]]
        assert [f.result(10)[:, 0].tolist() for f in others] == [[2], [3, 4], [5], [6]]
    assert slow.calls == [["a"], ["bb", "ccc", "dddd", "eeeee"], ["ffffff"]]
    assert sizes == [1, 4, 1]


def test_a_request_larger_than_a_batch_is_encoded_whole(slow):
    slow.go.release(1)
    with BatchedEncoder(slow, max_batch=2, max_waiting=3) as encoder:
        assert len(encoder.encode_texts(["a"] * 9)) == 9
    assert len(slow.calls) == 1


def test_an_error_reaches_only_its_own_request(slow):
    with BatchedEncoder(slow) as encoder, ThreadPoolExecutor(4) as pool:
        held = pool.submit(encoder.encode_texts, ["x"])
        assert slow.entered.acquire(timeout=10)
        good = pool.submit(encoder.encode_texts, ["good"])
        wait_until(lambda: encoder.waiting == 1)
        bad = pool.submit(encoder.encode_texts, ["bad"])
        wait_until(lambda: encoder.waiting == 2)
        slow.go.release(10)
        assert held.result(10).tolist() == [[1, 1]]
        assert good.result(10).tolist() == [[4, 1]]
        with pytest.raises(EncoderError, match="a bad text"):
            bad.result(10)
        assert encoder.encode_texts(["still works"]).tolist() == [[11, 1]]


def test_a_full_queue_refuses_at_once(slow):
    with BatchedEncoder(slow, max_waiting=2) as encoder, ThreadPoolExecutor(4) as pool:
        held = pool.submit(encoder.encode_texts, ["x"])
        assert slow.entered.acquire(timeout=10)
        waiting = pool.submit(encoder.encode_texts, ["a", "b"])
        wait_until(lambda: encoder.waiting == 2)
        with pytest.raises(Overloaded, match="2 texts are waiting"):
            encoder.encode_texts(["c"])
        slow.go.release(2)
        assert len(held.result(10)) == 1
        assert len(waiting.result(10)) == 2


def test_closing_finishes_what_waits_and_refuses_the_rest(slow):
    encoder = BatchedEncoder(slow)
    with ThreadPoolExecutor(4) as pool:
        held = pool.submit(encoder.encode_texts, ["x"])
        assert slow.entered.acquire(timeout=10)
        waiting = pool.submit(encoder.encode_texts, ["yy"])
        wait_until(lambda: encoder.waiting == 1)
        closing = pool.submit(encoder.close)
        slow.go.release(2)
        closing.result(10)
        assert held.result(10).tolist() == [[1, 1]]
        assert waiting.result(10).tolist() == [[2, 1]]
    with pytest.raises(EncoderError, match="closed"):
        encoder.encode_texts(["z"])


def test_no_texts_need_no_batch(slow):
    slow.go.release(1)
    with BatchedEncoder(slow) as encoder:
        assert encoder.encode_texts([]).shape == (0, 2)


@pytest.mark.parametrize("limits", [{"max_batch": 0}, {"max_waiting": 0}])
def test_limits_below_one_are_refused(slow, limits):
    with pytest.raises(ValueError, match="at least 1"):
        BatchedEncoder(slow, **limits)
