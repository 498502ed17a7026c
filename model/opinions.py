"""What models that never saw a photo say of it, for the photos that a run learned from. Pure."""

from collections.abc import Sequence

import numpy as np

from model.calibration import softmax, temperature
from model.doubts import tagging_of
from model.heads import ridge_logits
from model.noise import folds_of

FOLDS, ROUNDS = 5, 3
# Of ridge scores, about 0 and 1, where no wrong answer shows their own: of those of garment photos.
USUAL_HEAT = 0.12


def opinions(
    values: np.ndarray, targets: np.ndarray, groups: Sequence[str] | None, classes: int, seed: int
) -> np.ndarray:
    """(n, classes) calibrated shares of VALUES, (n, width) float32, tagged TARGETS, (n,) int.

    Each photo is judged by quick heads that saw neither it nor its group, in ROUNDS with other
    folds each. The first learn what the tags say, the later ones what the earlier made of them: a
    tag that all others contradict teaches little (as in Raykar et al., "Learning from Crowds",
    2010). The mean over the rounds is calibrated on the tags.
    """
    learned = np.eye(classes, dtype=np.float32)[targets]
    total = np.zeros((len(targets), classes))
    ones = np.ones(len(targets), np.float32)
    shares = learned
    for done in range(1, ROUNDS + 1):
        folds = folds_of(targets, groups, FOLDS, seed + done)
        for fold in np.unique(folds):
            rest, held = folds != fold, folds == fold
            total[held] += ridge_logits(values[rest], learned[rest], ones[rest], values[held])
        logits = total / done
        shares = softmax(logits, _heat(logits, targets))
        found = tagging_of(shares, targets)
        learned = found.cautious(shares, targets).astype(np.float32)
    return shares


def _heat(logits: np.ndarray, targets: np.ndarray) -> float:
    """What LOGITS, (n, classes), are to be divided by, so that their softmax fits TARGETS best."""
    if (logits.argmax(axis=1) == targets).all():
        return USUAL_HEAT
    return temperature(logits, targets)
