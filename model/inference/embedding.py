"""What is alike in photos, as unit vectors: a trunk's outputs and what the model makes of them.

Outputs are levelled, turned to their principal axes and evened out half way (each axis divided by
the fourth root of its variance), and of unit length. The labels count by the square roots of their
calibrated shares, whose product is the Bhattacharyya coefficient of two photos' shares: it does not
forget the labels that come second, which is what tells photos of unknown kinds apart. The likeness
of two photos is a weighed mean of both. What each step brings is in CONTRIBUTING.md
(benchmarks/similar.py quality).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from model.evaluation.calibration import softmax

# Dimensions of an embedding at most, and those of them that the labels may have.
DIMENSIONS, OF_LABELS = 256, 64
# What the labels count in the likeness of two photos; the rest is what the trunk saw.
WEIGHT_OF_LABELS = 0.6
# Photos that the axes are learned from at most.
SAMPLE = 6000


@dataclass(frozen=True)
class Axes:
    """(n, width) values -> (n, d): less MEAN, (width,), times TURN, (width, d), of unit length."""

    mean: np.ndarray
    turn: np.ndarray

    def of(self, values: np.ndarray) -> np.ndarray:
        """VALUES along the axes, (n, d) float32; a row that is all mean stays 0."""
        turned = (values.astype(np.float32) - self.mean) @ self.turn
        length = np.linalg.norm(turned, axis=1, keepdims=True)
        return turned / np.maximum(length, np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Embedding:
    """The axes of a model's outputs and of the square roots of its labels' shares."""

    outputs: Axes
    labels: Axes

    @property
    def dimensions(self) -> int:
        """Of its vectors."""
        return self.outputs.turn.shape[1] + self.labels.turn.shape[1]

    def vectors(self, outputs: np.ndarray, logits: np.ndarray) -> np.ndarray:
        """Return unit embeddings; the dot product of two is their similarity in [-1, 1].

        Args:
            outputs: Backbone outputs, float array of shape (n, width).
            logits: Calibrated logits, float array of shape (n, classes).

        Returns:
            Float32 array of shape (n, dimensions).
        """
        looks, labels = self.outputs.of(outputs), self.labels.of(rooted(logits))
        weight = np.float32(WEIGHT_OF_LABELS)
        joined = np.hstack([labels * np.sqrt(weight), looks * np.sqrt(1 - weight)])
        length = np.linalg.norm(joined, axis=1, keepdims=True)
        return joined / np.maximum(length, np.finfo(np.float32).tiny)

    def arrays(self) -> dict[str, np.ndarray]:
        """All that it is made of, by name."""
        return {
            "outputs_mean": self.outputs.mean,
            "outputs_turn": self.outputs.turn,
            "labels_mean": self.labels.mean,
            "labels_turn": self.labels.turn,
        }

    @staticmethod
    def from_arrays(arrays: Mapping[str, np.ndarray]) -> "Embedding":
        """What `arrays` gave.

        Raises:
            KeyError: one is missing.
        """
        outputs = Axes(arrays["outputs_mean"], arrays["outputs_turn"])
        return Embedding(outputs, Axes(arrays["labels_mean"], arrays["labels_turn"]))


def learn_embedding(outputs: np.ndarray, logits: np.ndarray) -> Embedding:
    """The embedding of photos like those of OUTPUTS, (n, width), and LOGITS, (n, classes)."""
    labels = _label_axes(rooted(logits))
    return Embedding(axes_of(outputs, DIMENSIONS - labels.turn.shape[1], True, 0.5), labels)


def rooted(logits: np.ndarray) -> np.ndarray:
    """The square roots of the shares of LOGITS, (n, classes): rows of unit length, float32."""
    return np.sqrt(softmax(logits)).astype(np.float32)


def _label_axes(roots: np.ndarray) -> Axes:
    """ROOTS, (n, classes), as they are; of too many classes what keeps their products best."""
    classes = roots.shape[1]
    turn = np.eye(classes, dtype=np.float32)
    if classes > OF_LABELS:
        turn = np.ascontiguousarray(np.linalg.svd(roots, full_matrices=False)[2][:OF_LABELS].T)
    return Axes(np.zeros(classes, np.float32), turn)


def axes_of(values: np.ndarray, most: int, level: bool, even: float) -> Axes:
    """The principal axes of VALUES, MOST at most, each divided by its deviation to the power EVEN.

    LEVEL: each value counts in its own spread.
    """
    # Heavy, and of no use to who only searches.
    from sklearn.decomposition import PCA

    from model.network.inception import LEAST_SPREAD

    values = values.astype(np.float32)
    mean = values.mean(axis=0)
    spread = values.std(axis=0) + LEAST_SPREAD if level else np.ones_like(mean)
    if len(values) < 2:
        # A photo alone has no axes of its own.
        return Axes(mean, np.eye(values.shape[1], most, dtype=np.float32))
    count = min(most, len(values) - 1, values.shape[1])
    # Few of many axes are found by random projections (Halko et al. 2011) in a hundredth of the
    # time; the seed makes two builds equal.
    solver = "full" if count > min(values.shape) // 2 else "randomized"
    found = PCA(count, svd_solver=solver, random_state=0).fit((values - mean) / spread)
    scale = np.maximum(found.explained_variance_, np.finfo(np.float32).tiny) ** (-even / 2)
    turn = found.components_.T / spread[:, None] * scale
    return Axes(mean, np.ascontiguousarray(turn, np.float32))
