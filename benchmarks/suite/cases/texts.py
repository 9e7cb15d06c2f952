"""Cases about words: keyword and hybrid search, retrieval quality of captions, and from words to pictures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.base import Hit
from benchmarks.suite.context import Context, judged
from benchmarks.suite.host_noise import watched
from benchmarks.suite.keyword import Bm25, keyword_queries
from benchmarks.suite.loops import Recorder, closed_loop
from benchmarks.suite.photos import file_of
from benchmarks.suite.runs import Array, Block, Point
from retrieval.encoders import load_encoder
from retrieval.images.decode import load_image
from retrieval.search.fusion import RRF_CONSTANT, reciprocal_rank_fusion

FUSED_DEPTH = 50
STAGES = ("encode", "search", "fetch", "decode")


def keyword(context: Context, point: Point) -> Block:
    """Keyword search one query at a time, judged by BM25 as Lucene defines it; engines' own BM25s differ a little."""
    backend, name, k = context.session.backend, context.name, context.settings.k
    queries, oracle = _keyword_truth(context)

    def ask(query: int) -> list[Hit]:
        return backend.search_text(name, queries[query], k)

    return _text_block(context, point, ask, [oracle.scores(text) for text in queries])


def hybrid(context: Context, point: Point) -> Block:
    """Search by vector and by words, merge by rank here; judged by the same fusion of exact rankings."""
    backend, name, k, data = context.session.backend, context.name, context.settings.k, context.data
    queries, oracle = _keyword_truth(context)
    exact = context.truth()

    def ask(query: int) -> list[Hit]:
        near = backend.search(name, data.queries[query : query + 1], FUSED_DEPTH)[0]
        worded = backend.search_text(name, queries[query], FUSED_DEPTH)
        return reciprocal_rank_fusion([near, worded])[:k]

    fused = [_fuse(exact.rows[i][:FUSED_DEPTH], oracle.scores(text)) for i, text in enumerate(queries)]
    return _text_block(context, point, ask, fused)


def _keyword_truth(context: Context) -> tuple[list[str], Bm25]:
    key = f"keyword {context.data.name}"
    if key not in context.scratch:
        count = min(context.settings.queries, len(context.data.queries))
        context.scratch[key] = (
            keyword_queries(context.data, count, context.settings.seed),
            Bm25(context.data.texts),
        )
    found: tuple[list[str], Bm25] = context.scratch[key]
    return found


def _fuse(nearest: Array, worded: NDArray[np.float64]) -> NDArray[np.float64]:
    fused = np.zeros(len(worded))
    ranked = np.argsort(-worded, kind="stable")[:FUSED_DEPTH]
    for ranking in (nearest[nearest >= 0], ranked[worded[ranked] > 0]):
        fused[ranking] += 1.0 / (RRF_CONSTANT + 1 + np.arange(len(ranking)))
    return fused


def _text_block(
    context: Context, point: Point, ask: Callable[[int], list[Hit]], truths: list[NDArray[np.float64]]
) -> Block:
    """Time the queries, then judge each hit by the scores that every row truly has for the query."""
    settings = context.settings
    facts: dict[str, Any] = {"limit_s": settings.block_s}
    order = np.random.default_rng([settings.seed, point.repetition]).permutation(len(truths)).tolist()
    context.warm_up(lambda query: ask(query % len(truths)), facts)
    with watched(facts):
        recorder = closed_loop(ask, order, settings.k, context.clock, limit_s=settings.block_s)
    arrays = recorder.arrays()
    rows = arrays["rows"]
    rows[rows >= len(context.data.vectors)] = -2
    own = [truths[query] for query in arrays["query"]]
    picked = np.array([truth[np.where(row >= 0, row, 0)] for truth, row in zip(own, rows, strict=True)])
    arrays["true"] = np.where(rows >= 0, picked.reshape(rows.shape), np.nan).astype(np.float32)
    arrays["allowed"] = (rows >= 0) & (np.nan_to_num(arrays["true"]) > 0)
    arrays["expected"] = np.array([min(settings.k, int((truth > 0).sum())) for truth in own], np.int32)
    kth = [np.sort(truth)[::-1][max(0, least - 1)] for truth, least in zip(own, arrays["expected"], strict=True)]
    arrays["kth"] = np.array(kth, np.float32)
    # Every engine has its own scale here, so there is nothing to compare their scores with.
    arrays["scores"] = np.full_like(arrays["scores"], np.nan)
    return Block(arrays, {**facts, "errors": list(recorder.errors), "k": settings.k, "planned": len(order)})


def quality(context: Context, point: Point) -> Block:
    """Every caption once, at the default effort; ``answer`` is the row of the picture that it describes."""
    data, settings = context.data, context.settings
    assert data.answers is not None
    facts: dict[str, Any] = {"encoder": data.encoder}
    ask = context.ask()
    context.warm_up(ask, facts)
    with watched(facts):
        recorder = closed_loop(ask, range(len(data.captions)), settings.k, context.clock)
    block = judged(recorder, context)
    block.arrays["answer"] = data.answers[block.arrays["query"]]
    return Block(block.arrays, {**facts, **block.facts})


def end_to_end(context: Context, point: Point) -> Block:
    """From a caption to the pixels of the pictures found: ``stages_ns`` has the four stages of every query."""
    data, settings, clock = context.data, context.settings, context.clock
    key = f"encoder {data.encoder}"
    if key not in context.scratch:
        context.scratch[key] = load_encoder(data.encoder, device="cpu")
    encoder = context.scratch[key]
    backend, name = context.session.backend, context.name
    stages: list[tuple[int, ...]] = []

    def ask(query: int) -> list[Hit]:
        moments = [clock.now_ns()]
        try:
            vector = encoder.encode_texts([data.captions[query]])
            moments.append(clock.now_ns())
            hits: list[Hit] = backend.search(name, vector, settings.k)[0]
            moments.append(clock.now_ns())
            contents = [file_of(hit.uri or "").read_bytes() for hit in hits]
            moments.append(clock.now_ns())
            for content in contents:
                load_image(content)
            return hits
        finally:
            moments.append(clock.now_ns())
            # A stage that was not reached took no time.
            moments += [moments[-1]] * (5 - len(moments))
            stages.append(tuple(np.diff(moments).tolist()))

    facts: dict[str, Any] = {"stages": list(STAGES), "encoder": data.encoder, "limit_s": settings.block_s}
    order = [query for query in context.order(len(data.queries), point.repetition) if query < len(data.captions)]
    for query in order[:5]:
        ask(query)
    facts["warmup_queries"] = len(order[:5])
    stages.clear()
    with watched(facts):
        recorder: Recorder = closed_loop(ask, order[: settings.queries], settings.k, clock, limit_s=settings.block_s)
    block = judged(recorder, context)
    block.arrays["stages_ns"] = np.array(stages, np.int64).reshape(-1, len(STAGES))
    return Block(block.arrays, {**facts, **block.facts})
