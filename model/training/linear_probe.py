"""The first stage: which blocks of a frozen trunk a head reads, and the head."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from scipy.linalg import cho_factor, cho_solve

from model.data.batches import OutputsFeed
from model.data.features import Outputs
from model.network.inception import BLOCKS, LEAST_SPREAD, build_head
from model.training.config import Recipe
from model.training.fit import Check, Progress, fit, predict

# Blocks whose outputs are kept; those below mixed4 know edges and colours, not garments.
KEPT = tuple(BLOCKS)[4:]
WINDOWS = (1, 2, 4)
# Ridge penalties on levelled outputs, and the photos that the choice of blocks is made on.
PENALTIES = (0.03, 0.3, 3.0)
MIDDLE = 0.3
SAMPLE = 3000


@dataclass(frozen=True)
class Tapped:
    """The blocks TAPS that a head reads, and how right a quick one was on validation."""

    taps: tuple[str, ...]
    accuracy: float | None


def columns(taps: Sequence[str]) -> np.ndarray:
    """Places of the outputs of TAPS among those of KEPT."""
    starts = dict(zip(KEPT, np.cumsum([0, *(BLOCKS[tap] for tap in KEPT)]), strict=False))
    return np.concatenate([np.arange(starts[tap], starts[tap] + BLOCKS[tap]) for tap in taps])


def choose_taps(
    train: Outputs, validation: Outputs, classes: int, seed: int, slack: float = 0.0
) -> Tapped:
    """The blocks, one or neighbours, whose outputs tell the validation photos apart best.

    Each candidate gets a ridge classifier in closed form, on SAMPLE train photos at most. Of those
    at most SLACK below the best accuracy the ones nearest the top are taken: where the trunk learns
    too, more of it is worth more. Without validation photos: the top block.
    """
    if not len(validation.targets):
        return Tapped(KEPT[-1:], None)
    some = np.random.default_rng(seed).permutation(len(train.targets))[:SAMPLE]
    wanted = np.eye(classes, dtype=np.float32)[train.targets[some]]
    grams = {tap: _grams(train.values[some, 0], validation.values[:, 0], tap) for tap in KEPT}
    found: dict[tuple[str, ...], float] = {}
    for length in WINDOWS:
        for top in range(length, len(KEPT) + 1):
            taps = KEPT[top - length : top]
            own, across = (np.mean([grams[tap][i] for tap in taps], axis=0) for i in (0, 1))
            found[taps] = _ridge_accuracy(own, across, wanted, validation.targets)
    least = max(found.values()) - slack
    near = [taps for taps in found if found[taps] >= least]
    best = max(near, key=lambda taps: (KEPT.index(taps[-1]) * (slack > 0), found[taps]))
    return Tapped(best, found[best])


def _grams(train: np.ndarray, validation: np.ndarray, tap: str) -> tuple[np.ndarray, np.ndarray]:
    """Inner products of levelled outputs of TAP: train by train, and validation by train."""
    places = columns([tap])
    one, other = train[:, places].astype(np.float32), validation[:, places].astype(np.float32)
    one, other = _levelled(one, other)
    return one @ one.T / len(places), other @ one.T / len(places)


def _levelled(values: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """VALUES and OTHER, (…, width), by the means and the spreads of VALUES."""
    mean, spread = values.mean(axis=0), values.std(axis=0) + LEAST_SPREAD
    return (values - mean) / spread, (other - mean) / spread


def quick_logits(
    values: np.ndarray,
    targets: np.ndarray,
    weights: np.ndarray,
    other: np.ndarray,
    classes: int,
) -> np.ndarray:
    """`ridge_scores` of examples that are each of one class: TARGETS, (n,) int.

    VALUES and OTHER are levelled by the means and spreads of VALUES.
    """
    one, two = _levelled(values, other)
    return ridge_scores(one, np.eye(classes, dtype=np.float32)[targets], weights, two)


def ridge_scores(
    values: np.ndarray, wanted: np.ndarray, weights: np.ndarray, other: np.ndarray
) -> np.ndarray:
    """(m, classes) scores of OTHER, (m, width), by ridge regression of VALUES, (n, width).

    Onto WANTED, (n, classes) shares; in closed form, each of the n examples counting as WEIGHTS,
    (n,), say; seconds for thousands.
    """
    root = np.sqrt(weights / weights.mean())[:, None]
    centre = (wanted * root**2).sum(axis=0) / (root**2).sum()
    rows, goal = values * root, (wanted - centre) * root
    penalty, width = np.float32(MIDDLE), values.shape[1]
    if len(rows) <= width:
        ridge = rows @ rows.T / width + penalty * np.eye(len(rows), dtype=np.float32)
        scores = other @ (rows.T @ _solved(ridge, goal)) / width
    else:
        ridge = rows.T @ rows / width + penalty * np.eye(width, dtype=np.float32)
        scores = other @ _solved(ridge, rows.T @ goal) / width
    return scores + centre


def _solved(ridge: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """X of RIDGE x = GOAL. RIDGE, positive definite, is overwritten.

    SciPy's `solve` also estimates how good the answer is, in as much time again.
    """
    factor = cho_factor(ridge, lower=True, overwrite_a=True, check_finite=False)
    found: np.ndarray = cho_solve(factor, goal, check_finite=False)
    return found


def _ridge_accuracy(
    own: np.ndarray, across: np.ndarray, wanted: np.ndarray, targets: np.ndarray
) -> float:
    """The best accuracy over PENALTIES of kernel ridge regression onto WANTED, one-hot."""
    centre = wanted.mean(axis=0)
    found = []
    for penalty in PENALTIES:
        ridge = own + penalty * np.eye(len(own), dtype=own.dtype)
        weights = _solved(ridge, wanted - centre)
        found.append(((across @ weights + centre).argmax(axis=1) == targets).mean())
    return float(max(found))


def fit_head(
    train: Outputs,
    validation: Outputs,
    weights: np.ndarray,
    taps: Sequence[str],
    classes: int,
    recipe: Recipe,
    state: Path,
    show: Callable[[Progress], None],
) -> tuple[keras.Model, Progress]:
    """A head on TAPS of TRAIN, whose examples count as WEIGHTS say, and how it learned."""
    places = columns(taps)
    values = train.values[:, :, places]
    plain = values[:, 0].astype(np.float32)
    head = build_head(len(places), classes, plain.mean(axis=0), plain.std(axis=0))
    feed = OutputsFeed(values, np.eye(classes, dtype=np.float32)[train.targets], weights)
    seen = validation.values[:, 0, places].astype(np.float32)
    check = Check(lambda network: predict(network, seen), validation.targets)
    return head, fit(head, feed, check, recipe, state, show)


def head_logits(head: keras.Model, outputs: Outputs, taps: Sequence[str]) -> np.ndarray:
    """What HEAD, which reads TAPS, says of OUTPUTS: (n, classes), the mean over the views."""
    seen = outputs.values[:, :, columns(taps)].astype(np.float32)
    return np.mean([predict(head, seen[:, view]) for view in range(seen.shape[1])], axis=0)
