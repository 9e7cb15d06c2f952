"""From ImageNet predictions and sentences to one space: the closed-form part of `compact`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class SpaceSettings:
    """Constants of the space; part of the fingerprint."""

    temperature: float = 1.5
    ridge_weight: float = 0.5
    ridge_penalty: float = 1.0
    expansion_weight: float = 0.2
    expansion_sharpness: float = 10.0
    spectrum_rank: int = 100
    spectrum_power: float = 0.25
    spectrum_tail: float = 0.3


class Space:
    """Maps text vectors, and class logits with the features behind them, to unit vectors in one space."""

    def __init__(self, classes: Floats, settings: SpaceSettings | None = None) -> None:
        self._settings = settings or SpaceSettings()
        self._mean: Floats = classes.mean(axis=0)
        self._classes: Floats = classes - self._mean  # (1000, 384)
        self._directions = _unit(self._classes)
        self._filter = _spectral_filter(self._classes, self._settings)

    def place_texts(self, vectors: Floats) -> Floats:
        """(n, 384) unit rows for (n, 384) sentence vectors."""
        settings = self._settings
        centred = _unit(vectors - self._mean)
        nearness = softmax(settings.expansion_sharpness * centred @ self._directions.T)
        expansion = _unit(nearness @ self._classes)
        mixed = (1 - settings.expansion_weight) * centred + settings.expansion_weight * expansion
        return _unit(mixed @ self._filter)

    def place_image(self, logits: Floats, features: Floats, ridge: Floats) -> Floats:
        """(384,) unit vector for the (v, 1000) logits and (v, 1280) features of an image's views."""
        settings = self._settings
        probabilities = softmax(logits / settings.temperature).mean(axis=0)
        named = _unit(probabilities @ self._classes)
        mapped = _unit(_unit(features @ ridge).mean(axis=0))
        return _unit((named + settings.ridge_weight * mapped) @ self._filter)

    def fit_ridge(self, prototypes: Floats) -> Floats:
        """(1280, 384) map from features to text space, fitted on the classifier's own weight rows.

        Each row of the classifier's (1000, 1280) weights is the direction in which its class's features
        lie; ridge regression onto the class vectors carries over what softmax, which keeps the few
        likely classes, throws away.
        """
        rows = (prototypes - prototypes.mean(axis=0)).astype(np.float64)
        gram = rows.T @ rows
        penalty = self._settings.ridge_penalty * np.trace(gram) / len(gram)
        solution = np.linalg.solve(gram + penalty * np.eye(len(gram)), rows.T @ self._classes)
        return solution.astype(np.float32)


def softmax(logits: Floats) -> Floats:
    """Softmax over the last axis."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares: Floats = powers / powers.sum(axis=-1, keepdims=True)
    return shares


def _unit(vectors: Floats) -> Floats:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.maximum(lengths, 1e-12)


def _spectral_filter(classes: Floats, settings: SpaceSettings) -> Floats:
    """(384, 384) matrix that evens out the directions classes differ in and damps the others.

    It goes back to the original axes, because the signs of singular vectors differ between machines.
    """
    _, values, axes = np.linalg.svd(classes.astype(np.float64), full_matrices=False)
    gains = (values / values[0]) ** -settings.spectrum_power
    rank = settings.spectrum_rank
    gains[rank:] = gains[rank - 1] * settings.spectrum_tail
    return ((axes.T * gains) @ axes).astype(np.float32)
