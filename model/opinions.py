"""What models that never saw a photo say of it, for the photos that a run learned from. Pure."""

from collections.abc import Sequence

import numpy as np

from model.calibration import softmax, temperature
from model.classifier import LEAST_SPREAD
from model.doubts import tagging_of
from model.heads import ridge_scores
from model.noise import folds_of

FOLDS, ROUNDS = 5, 3
# Tags that are less likely right teach what others say of them; all others what they say.
DOUBTED = 0.5
# Of ridge scores, about 0 and 1, where no wrong answer shows their own: of those of garment photos.
USUAL_HEAT = 0.12


def opinions(
    values: np.ndarray, targets: np.ndarray, groups: Sequence[str] | None, classes: int, seed: int
) -> np.ndarray:
    """(n, classes) calibrated shares of VALUES, (n, width) float32, tagged TARGETS, (n,) int.

    Each photo is judged by quick heads that saw neither it nor its group, in ROUNDS with other
    folds each. The first learn what the tags say, the later ones, of tags that are wrong more
    likely than not, what the earlier made of them (as in Raykar et al., "Learning from Crowds",
    2010). The mean over the rounds is calibrated on the tags.
    """
    values = evened(values)
    tagged = np.eye(classes, dtype=np.float32)[targets]
    total = np.zeros((len(targets), classes))
    ones = np.ones(len(targets), np.float32)
    shares = tagged
    for done in range(1, ROUNDS + 1):
        learned = tagged if done == 1 else _taught(shares, targets, tagged)
        folds = folds_of(targets, groups, FOLDS, seed + done)
        for fold in np.unique(folds):
            rest, held = folds != fold, folds == fold
            total[held] += ridge_scores(values[rest], learned[rest], ones[rest], values[held])
        logits = total / done
        shares = softmax(logits, _heat(logits, targets))
    return shares


def _taught(shares: np.ndarray, targets: np.ndarray, tagged: np.ndarray) -> np.ndarray:
    """TAGGED, one-hot TARGETS, but of those that are DOUBTED what SHARES make of them."""
    judged = tagging_of(shares, targets).cautious(shares, targets)
    believed = judged[np.arange(len(targets)), targets] >= DOUBTED
    return np.where(believed[:, None], tagged, judged).astype(np.float32)


def evened(values: np.ndarray) -> np.ndarray:
    """VALUES, (n, width), as heads tell them apart best: roots, levelled, each row of one length.

    Means of what a trunk's filters saw are many small and a few huge, and some photos excite all
    filters: both weigh less then (Perronnin et al., "Improving the Fisher Kernel", 2010). Levelled
    over all photos, for a filter that only a photo to be judged excites is boundless by the others.
    """
    count, width = values.shape
    found = np.sqrt(np.abs(values, dtype=np.float32))
    np.copysign(found, values, out=found)
    found -= found.mean(axis=0)
    # Without another array of that size: a run may have learned from very many photos.
    found /= np.sqrt(np.einsum("ij,ij->j", found, found) / count) + LEAST_SPREAD
    found /= np.sqrt(np.einsum("ij,ij->i", found, found) / width)[:, None] + LEAST_SPREAD
    return found


def _heat(logits: np.ndarray, targets: np.ndarray) -> float:
    """What LOGITS, (n, classes), are to be divided by, so that their softmax fits TARGETS best."""
    if (logits.argmax(axis=1) == targets).all():
        return USUAL_HEAT
    return temperature(logits, targets)
