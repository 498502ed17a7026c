"""Embed photos as unit vectors that combine backbone features with label probabilities.

Features are standardized, projected on their principal axes, partly whitened (each axis is divided
by the fourth root of its variance) and normalized. Labels contribute the square roots of their
calibrated probabilities, whose dot product is the Bhattacharyya coefficient of the probabilities of
two photos; unlike the most probable label alone, it tells photos of unknown kinds apart. The
similarity of two photos is a weighted mean of both; `benchmarks/similar.py quality` measures the
effect of each step.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from model.evaluation.calibration import softmax

# Dimensions of an embedding, and of its part for the labels, at most.
MAX_DIMENSIONS, MAX_LABEL_DIMENSIONS = 256, 64
# Weight of the labels in the similarity of two photos; the rest is for the features.
LABEL_WEIGHT = 0.6
# Photos that an embedding is fitted on, at most.
MAX_SAMPLE = 6000


@dataclass(frozen=True)
class Projection:
    """A linear projection with normalization.

    Attributes:
        mean: Subtracted from the values, shape (width,).
        matrix: Array of shape (width, d).
    """

    mean: np.ndarray
    matrix: np.ndarray

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Return unit vectors.

        Args:
            values: Array of shape (n, width).

        Returns:
            Float32 array of shape (n, d); a row that equals the mean stays 0.
        """
        projected = (values.astype(np.float32) - self.mean) @ self.matrix
        return _normalize(projected)


@dataclass(frozen=True)
class Embedding:
    """The projections of a model's features and of the square roots of its probabilities."""

    features: Projection
    labels: Projection

    @property
    def dimensions(self) -> int:
        """Number of dimensions."""
        return self.features.matrix.shape[1] + self.labels.matrix.shape[1]

    def vectors(self, features: np.ndarray, logits: np.ndarray) -> np.ndarray:
        """Return unit embeddings; the dot product of two is their similarity in [-1, 1].

        Args:
            features: Backbone features, float array of shape (n, width).
            logits: Calibrated logits, float array of shape (n, classes).

        Returns:
            Float32 array of shape (n, dimensions).
        """
        visual, labels = self.features.apply(features), self.labels.apply(sqrt_softmax(logits))
        weight = np.float32(LABEL_WEIGHT)
        return _normalize(np.hstack([labels * np.sqrt(weight), visual * np.sqrt(1 - weight)]))

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays of the projections by name, as they are saved in an index."""
        return {
            "outputs_mean": self.features.mean,
            "outputs_turn": self.features.matrix,
            "labels_mean": self.labels.mean,
            "labels_turn": self.labels.matrix,
        }

    @staticmethod
    def from_arrays(arrays: Mapping[str, np.ndarray]) -> "Embedding":
        """Build an embedding from the arrays of `to_arrays`.

        Raises:
            KeyError: An array is missing.
        """
        features = Projection(arrays["outputs_mean"], arrays["outputs_turn"])
        return Embedding(features, Projection(arrays["labels_mean"], arrays["labels_turn"]))


def _normalize(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: np.ndarray = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
    return unit


def fit_embedding(features: np.ndarray, logits: np.ndarray) -> Embedding:
    """Fit an embedding.

    Args:
        features: Backbone features of shape (n, width).
        logits: Calibrated logits of shape (n, classes).
    """
    labels = _fit_label_projection(sqrt_softmax(logits))
    dimensions = MAX_DIMENSIONS - labels.matrix.shape[1]
    return Embedding(fit_projection(features, dimensions, True, 0.5), labels)


def sqrt_softmax(logits: np.ndarray) -> np.ndarray:
    """Return the square roots of probabilities, float32 unit vectors of shape (n, classes)."""
    return np.sqrt(softmax(logits)).astype(np.float32)


def _fit_label_projection(roots: np.ndarray) -> Projection:
    """Return the identity or, for many classes, the projection that keeps dot products best."""
    classes = roots.shape[1]
    matrix = np.eye(classes, dtype=np.float32)
    if classes > MAX_LABEL_DIMENSIONS:
        components = np.linalg.svd(roots, full_matrices=False)[2]
        matrix = np.ascontiguousarray(components[:MAX_LABEL_DIMENSIONS].T)
    return Projection(np.zeros(classes, np.float32), matrix)


def fit_projection(
    values: np.ndarray, max_dimensions: int, standardize: bool, whitening: float
) -> Projection:
    """Fit a projection on principal axes.

    Args:
        values: Array of shape (n, width).
        max_dimensions: Number of axes, at most.
        standardize: Divide the values by their standard deviations first.
        whitening: Each axis is divided by its standard deviation to this power; 1: full whitening.
    """
    # A slow import that a search does not need.
    from sklearn.decomposition import PCA

    from model.network.inception import MIN_STD

    values = values.astype(np.float32)
    mean = values.mean(axis=0)
    deviation = values.std(axis=0) + MIN_STD if standardize else np.ones_like(mean)
    if len(values) < 2:
        # A single photo has no principal axes.
        return Projection(mean, np.eye(values.shape[1], max_dimensions, dtype=np.float32))
    count = min(max_dimensions, len(values) - 1, values.shape[1])
    # Randomized PCA (Halko et al. 2011) takes 1 % of the time for a few components; the
    # seed makes builds reproducible.
    solver = "full" if count > min(values.shape) // 2 else "randomized"
    pca = PCA(count, svd_solver=solver, random_state=0).fit((values - mean) / deviation)
    variance = np.maximum(pca.explained_variance_, np.finfo(np.float32).tiny)
    matrix = pca.components_.T / deviation[:, None] * variance ** (-whitening / 2)
    return Projection(mean, np.ascontiguousarray(matrix, np.float32))
