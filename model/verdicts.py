"""What is said of a tag: right, wrong, or nothing where nobody could be sure. Pure."""

from dataclasses import dataclass

import numpy as np

from model.doubts import Tagging, reaching_mean

AGREES, MISTAKE, UNSURE = "agrees", "mistake", "unsure"
NOTHING, UNCHECKED = "no garment seen", "not checked"
# What is asserted is right so often: on average where a mistake is asserted, each time where a tag
# is said to be right, for those are many and near certain: their mean says little of the last ones.
WANTED, LEAST = 0.95, 0.8


@dataclass(frozen=True)
class Bar:
    """From which cautious probability on something is asserted.

    `right`: the share of asserted mistakes that are expected to be mistakes; None: none are.
    """

    agrees: float = WANTED
    mistake: float = float("inf")
    right: float | None = None


@dataclass(frozen=True)
class Verdicts:
    """Of n tags. `probability`: of the class `best`, (n,) int, and `given`, of the tag's own class.

    `margin`: the first over the second. `wrong`: the chance that the tag is, by which doubts are
    ordered: it heeds what is often taken for what.
    """

    verdict: list[str]
    best: np.ndarray
    probability: np.ndarray
    given: np.ndarray
    margin: np.ndarray
    wrong: np.ndarray


def bar_of(tagging: Tagging, shares: np.ndarray, tags: np.ndarray) -> Bar:
    """The bar that keeps what is asserted of TAGS, (n,) int, right WANTED of the time."""
    sure = tagging.cautious(shares, tags)
    chances = sure.max(axis=1)[sure.argmax(axis=1) != tags]
    least = reaching_mean(chances, WANTED, LEAST)
    asserted = chances[chances >= least]
    return Bar(mistake=least, right=float(asserted.mean()) if len(asserted) else None)


def verdicts(tagging: Tagging, bar: Bar, shares: np.ndarray, tags: np.ndarray) -> Verdicts:
    """What is said of TAGS, (n,) int, by SHARES, (n, classes)."""
    sure, rows = tagging.cautious(shares, tags), np.arange(len(tags))
    best, given = sure.argmax(axis=1), sure[rows, tags]
    probability = sure[rows, best]
    wrong = 1 - tagging.posterior(shares, tags)[rows, tags]
    mistake = (best != tags) & (probability >= bar.mistake)
    agrees = (given >= bar.agrees) & (1 - wrong >= bar.agrees)
    said = np.where(mistake, MISTAKE, np.where(agrees, AGREES, UNSURE)).tolist()
    return Verdicts(said, best, probability, given, probability - given, wrong)
