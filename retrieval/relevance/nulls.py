"""What scores unrelated queries reach: the statistics behind relevance, on plain arrays.

1. **Background queries** (a querybank; Bogolin et al., Cross Modal Retrieval with Querybank Normalisation,
   CVPR 2022) are scored against the sample. They are about all sorts of things, so most of them have no
   answer in any one collection.
2. **Hubness.** Some items come near to every query. What an item scores with its ten nearest background
   queries is what it scores with anything: CSLS (Conneau et al., Word translation without parallel data,
   ICLR 2018, whose k is 10 as well). A query's baseline is the mean of that over the three items of the sample
   that it is nearest to, so it depends on the query alone, and relevance never reorders results.
3. **Typical scores.** Some queries score higher with everything, above all across the gap between texts and
   images in CLIP spaces (Liang et al., Mind the gap, NeurIPS 2022; in speaker verification it is what T-norm
   takes out: Auckenthaler, Carey and Lloyd-Thomas, Score normalization for text-independent speaker
   verification systems, 2000). How far a query's lower quartile says what it scores best is measured on the
   background queries, by the robust regression of Theil (1950) and Sen (JASA 1968), and no further is it taken
   out: not at all where the slope is 0. A query's quartile counts up to the 95th percentile of the
   background's, so that "a dog" still answers a collection of nothing but dogs.
4. **Extremes.** A background query's best score above its baseline is a maximum of many, so it follows the
   Gumbel distribution (Gumbel, Statistics of Extremes, 1958; for matching scores Scheirer et al.,
   Meta-recognition, TPAMI 2011; for database search Karlin and Altschul, PNAS 1990). It is fitted to the lower
   half of the background queries only, for in the upper half are those that do have an answer: an empirical
   null (Efron, Large-scale simultaneous hypothesis testing, JASA 2004).
5. **Size.** The best of N items scores higher than the best of the n that were sampled. Beyond a high
   threshold excesses are about exponential, so the null moves up by their mean times ln(N / n) (peaks over
   threshold: Pickands, 1975; Weissman, Estimation of parameters and large quantiles, JASA 1978).

6. **Two modalities.** An unrelated query has two chances in a collection of images and texts, and they are not
   independent. Of two maxima that follow an extreme-value law, each at its level r, neither is exceeded with
   probability r^θ, where θ, the extremal coefficient, is from 1 (one chance) to 2 (two independent ones)
   (Pickands, Multivariate extreme value distributions, 1981; Schlather and Tawn, A dependence measure for
   multivariate and spatial extreme values, Biometrika 2003). It is measured on the background queries, again
   on the lower half of what they reach in both.

Everything is a location or a scale, so shifting or stretching all scores changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["MIN_BACKGROUND", "Null", "extremal_coefficient", "fit_null"]

Floats = NDArray[np.float32] | NDArray[np.float64]

# CSLS's own; a few queries of a diverse bank are near to any item, and more than one, for one may be an answer.
HUBNESS_QUERIES = 10
# The few best items bear the decision; more than one steadies it.
BASELINE_ITEMS = 3
# What unrelated items score: unlike the mean it does not move when up to three quarters of the items are answers.
_TYPICAL = 0.25
_TYPICAL_BOUNDS = (0.05, 0.95)
# With fewer background queries the quantiles of the fit would be guesses.
MIN_BACKGROUND = 16
# The lower half without its own lowest few, whose order statistics scatter most.
_FITTED = np.linspace(0.05, 0.5, 10)
# The excesses of the highest 5% of a query's scores make the tail.
_TAIL = 0.05
# Below this, relative to the scores, differences are rounding of float32.
_ROUNDING = 1e-6
_FAR = 600.0


@dataclass(frozen=True, slots=True, eq=False)
class Null:
    """The distribution of the best score of an unrelated query over a collection, and what gives a query's baseline.

    hubness: (n,) of the sample's items. slope, middle, bounds: of the regression of best on typical score, and
    the typical scores of the background queries. location, scale: of the Gumbel distribution of the best score above
    the query's baseline, for the whole collection. background: (m,) the relevance of each background query's best
    within the sample.
    """

    hubness: NDArray[np.float64]
    slope: float
    middle: float
    bounds: tuple[float, float]
    location: float
    scale: float
    background: NDArray[np.float64]

    def query_baseline(self, scores: Floats) -> float:
        """What a query scores best whatever it is about, from its (n,) scores over the sample."""
        best = np.argsort(-scores, kind="stable")[:BASELINE_ITEMS]
        typical = np.clip(np.quantile(scores, _TYPICAL), *self.bounds)
        return float(self.hubness[best].mean() + self.slope * (typical - self.middle))

    def relevance(self, scores: Floats, baseline: float) -> NDArray[np.float64]:
        """The probability that an unrelated query finds nothing as good, for scores of a query of that baseline."""
        return _gumbel_cdf(np.asarray(scores, np.float64) - baseline, self.location, self.scale)

    def improbability(self, scores: Floats, baseline: float) -> NDArray[np.float64]:
        """-log(1 - relevance), in nats and without rounding to 1: what a score is worth as evidence for an item."""
        above = (np.asarray(scores, np.float64) - baseline - self.location) / self.scale
        # Far beyond, 1 - relevance is exp(-above); far below, where exp overflows, it is 1.
        return -np.log(-np.expm1(-np.exp(-np.clip(above, -_FAR, _FAR))))


def fit_null(scores: Floats, population: int, related: NDArray[np.bool_] | None = None) -> Null | None:
    """Fit the null to (m, n) scores of m background queries over n sampled items of a collection of `population`.

    related: (m, n), what to leave out, where a background query is itself an item and has relatives among
    the items. None where there are too few background queries or no items.
    """
    table = np.array(scores, dtype=np.float64)
    if table.ndim != 2 or not table.shape[1] or not np.isfinite(table).all():
        return None
    if related is not None:
        table = _without_related(table, related)
    m, n = table.shape
    if m < MIN_BACKGROUND:
        return None
    best, hubness = _best_above_hubness(table)
    typical = np.quantile(table, _TYPICAL, axis=1)
    slope, middle = _slope(typical, best), float(np.median(typical))
    low, high = (float(bound) for bound in np.quantile(typical, _TYPICAL_BOUNDS))
    above = best - slope * (np.clip(typical, low, high) - middle)
    location, scale = _gumbel(above)
    scale = max(scale, _ROUNDING * float(np.abs(table).max()), np.finfo(np.float64).tiny)
    tail = _tail(table) if population > n else 0.0
    background = _gumbel_cdf(above, location, scale)
    location += tail * float(np.log(max(population / n, 1.0)))
    return Null(
        hubness=hubness,
        slope=slope,
        middle=middle,
        bounds=(low, high),
        location=location,
        scale=scale,
        background=background,
    )


def extremal_coefficient(first: Null, second: Null) -> float:
    """How many independent chances an unrelated query has in two modalities together: θ, from 1 to 2.

    Both nulls are of the same background queries, in the same order. Of unrelated queries a share r^θ finds
    nothing of relevance r in either.
    """
    if first.background.shape != second.background.shape:
        return 2.0
    # -log of the better one is exponential with rate θ: a line through the origin on its quantiles.
    best = np.clip(np.maximum(first.background, second.background), 1e-300, 1 - 1e-12)
    reached = -np.log(np.quantile(best, _FITTED))
    return float(np.clip(reached @ -np.log(_FITTED) / (reached @ reached), 1.0, 2.0))


def _without_related(table: NDArray[np.float64], related: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The table with related pairs at their query's median, where they decide nothing."""
    kept = table[~related.all(axis=1)]
    hidden = related[~related.all(axis=1)]
    medians = np.nanmedian(np.where(hidden, np.nan, kept), axis=1, keepdims=True) if len(kept) else kept[:, :1]
    return np.asarray(np.where(hidden, medians, kept))


def _best_above_hubness(table: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(m,) best scores above the hubness of each background query, itself left out of it; (n,) hubness."""
    m, n = table.shape
    k = min(HUBNESS_QUERIES, m - 1)
    highest = -np.partition(-table, k, axis=0)[: k + 1]  # (k + 1, n): one more, for the query that is left out
    threshold, total = highest.min(axis=0), highest.sum(axis=0)
    hubness = (total - threshold) / k
    nearest = min(BASELINE_ITEMS, n)
    items = np.argpartition(-table, nearest - 1, axis=1)[:, :nearest]  # (m, 3)
    own = np.take_along_axis(table, items, axis=1)
    without = np.where(own > threshold[items], (total[items] - own) / k, hubness[items])
    return own.max(axis=1) - without.mean(axis=1), hubness


def _slope(typical: NDArray[np.float64], best: NDArray[np.float64]) -> float:
    """The median slope of `best` over `typical` between pairs of queries, from 0 to 1."""
    left, right = np.triu_indices(len(typical), 1)
    run = typical[right] - typical[left]
    apart = np.abs(run) > _ROUNDING * float(np.ptp(typical))
    if not apart.any():
        return 0.0
    return float(np.clip(np.median((best[right] - best[left])[apart] / run[apart]), 0.0, 1.0))


def _gumbel_cdf(above: NDArray[np.float64], location: float, scale: float) -> NDArray[np.float64]:
    with np.errstate(over="ignore"):
        probability: NDArray[np.float64] = np.exp(-np.exp(-(above - location) / scale))
    return probability


def _gumbel(best: NDArray[np.float64]) -> tuple[float, float]:
    """Location and scale by least squares on the quantiles of the lower half."""
    standard = -np.log(-np.log(_FITTED))
    scale, location = np.polyfit(standard, np.quantile(best, _FITTED), 1)
    return float(location), float(scale)


def _tail(table: NDArray[np.float64]) -> float:
    """Mean excess over the threshold that 5% of a query's scores exceed; the median over the queries."""
    k = max(1, int(_TAIL * table.shape[1]))
    if k >= table.shape[1]:
        return 0.0
    highest = -np.partition(-table, k, axis=1)[:, : k + 1]
    threshold = highest.min(axis=1)
    return float(np.median((highest.sum(axis=1) - threshold) / k - threshold))
