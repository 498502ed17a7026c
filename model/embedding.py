"""What is alike in photos, as unit vectors: a trunk's outputs and what the model makes of them.

Outputs are levelled, turned to their principal axes and evened out half way (each axis divided by
the fourth root of its variance); the logits are turned to theirs. Each part has unit length before
the two are joined, so that their product is a weighed mean of two cosines. README has the recall.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

# Dimensions of an embedding at most, and those of them that the logits may have.
DIMENSIONS, OF_LOGITS = 256, 64
# What the logits count in the likeness of two photos; the rest is what the trunk saw.
SHARE_OF_LOGITS = 0.5
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
    """The axes of a model's outputs and of its logits."""

    outputs: Axes
    logits: Axes

    @property
    def dimensions(self) -> int:
        """Of its vectors."""
        return self.outputs.turn.shape[1] + self.logits.turn.shape[1]

    def vectors(self, outputs: np.ndarray, logits: np.ndarray) -> np.ndarray:
        """(n, dimensions) float32 of unit length, of OUTPUTS, (n, width), and LOGITS, (n, classes).

        The product of two is their likeness, in [-1, 1].
        """
        looks, labels = self.outputs.of(outputs), self.logits.of(_levelled(logits))
        share = np.float32(SHARE_OF_LOGITS)
        joined = np.hstack([labels * np.sqrt(share), looks * np.sqrt(1 - share)])
        length = np.linalg.norm(joined, axis=1, keepdims=True)
        return joined / np.maximum(length, np.finfo(np.float32).tiny)

    def arrays(self) -> dict[str, np.ndarray]:
        """All that it is made of, by name."""
        return {
            "outputs_mean": self.outputs.mean,
            "outputs_turn": self.outputs.turn,
            "logits_mean": self.logits.mean,
            "logits_turn": self.logits.turn,
        }

    @staticmethod
    def from_arrays(arrays: Mapping[str, np.ndarray]) -> "Embedding":
        """What `arrays` gave.

        Raises:
            KeyError: one is missing.
        """
        outputs = Axes(arrays["outputs_mean"], arrays["outputs_turn"])
        return Embedding(outputs, Axes(arrays["logits_mean"], arrays["logits_turn"]))


def learn_embedding(outputs: np.ndarray, logits: np.ndarray) -> Embedding:
    """The embedding of photos like those of OUTPUTS, (n, width), and LOGITS, (n, classes)."""
    of_logits = axes_of(_levelled(logits), OF_LOGITS, level=False, even=0.0)
    room = DIMENSIONS - of_logits.turn.shape[1]
    return Embedding(axes_of(outputs, room, level=True, even=0.5), of_logits)


def _levelled(logits: np.ndarray) -> np.ndarray:
    """LOGITS without what all of a row have in common, which means nothing."""
    return logits - logits.mean(axis=1, keepdims=True)


def axes_of(values: np.ndarray, most: int, level: bool, even: float) -> Axes:
    """The principal axes of VALUES, MOST at most, each divided by its deviation to the power EVEN.

    LEVEL: each value counts in its own spread.
    """
    # Heavy, and of no use to who only searches.
    from sklearn.decomposition import PCA

    from model.classifier import LEAST_SPREAD

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
