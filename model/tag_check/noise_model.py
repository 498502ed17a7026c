"""How far a tag is to be believed, by what a model sees and by how tags go wrong here. Pure.

A tag and a photo speak together: P(class | photo, tag) is proportional to the model's share of the
class times P(tag | class). How often tags are wrong, and what is taken for what, is estimated from
all items at once (Dawid and Skene, 1979; Northcutt et al., "Confident Learning", 2021).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

from model.evaluation.calibration import logits_of, softmax, temperature
from model.network.inception import LEAST_SPREAD
from model.training.label_noise import folds_of
from model.training.linear_probe import ridge_scores

ROUNDS, TURNS = 30, 5
# Before anything is seen: one tag in twenty is wrong, as if BELIEVED items had shown it.
USUAL_RATE, BELIEVED = 0.05, 20.0
MOST_WRONG = 0.6
# A share of what is wrong that goes from a class to one other, above which it is a habit of those
# who tag and not chance: flips at random leave 0.25 of ten classes, those to one class 0.9.
CHANCE, HABIT = 0.45, 0.8
# Shares were calibrated on tags, in part wrong ones, and are less sure than they could be: what
# their logits are to be divided by, and how far it is from 1, on the logarithm's scale, before
# anything is seen.
COOLEST, HOTTEST, USUAL_CHANGE = 0.2, 2.0, 0.5
TINY = 1e-12


@dataclass(frozen=True)
class Tagging:
    """How items are tagged, and how sure the model could be.

    `rate`: the share of wrong tags. `confusion`: where these go, (classes, classes), P(tag | class,
    wrong): rows sum to 1, 0 on the diagonal. `even_rate`: the share if they went anywhere alike.
    `temperature`: what the logits of shares are divided by, for probabilities that hold.
    """

    rate: float
    confusion: np.ndarray
    even_rate: float
    temperature: float = 1.0

    def posterior(self, shares: np.ndarray, tags: np.ndarray) -> np.ndarray:
        """(n, classes) that sum to 1: P(class | photo, tag) by SHARES, (n, classes), and TAGS.

        For the order of doubts: a model's own confusions look like habits of those who tag, so that
        where the two agree it doubts too much. Sharper shares would make the order worse.
        """
        return _posterior(shares, tags, self.rate, self.confusion)

    def cautious(self, shares: np.ndarray, tags: np.ndarray) -> np.ndarray:
        """As `posterior`, as if wrong tags went anywhere alike: its probabilities hold."""
        sharp = softmax(logits_of(shares), self.temperature)
        return _posterior(sharp, tags, self.even_rate, evenly(shares.shape[1]))


def _likelihood(tags: np.ndarray, rate: float, confusion: np.ndarray) -> np.ndarray:
    """(n, classes): P(tag | class) of TAGS, (n,) int."""
    chances = confusion * rate
    np.fill_diagonal(chances, 1 - rate)
    return chances[:, tags].T


def _posterior(
    shares: np.ndarray, tags: np.ndarray, rate: float, confusion: np.ndarray
) -> np.ndarray:
    both = np.maximum(shares, TINY) * _likelihood(tags, rate, confusion)
    found: np.ndarray = both / both.sum(axis=1, keepdims=True)
    return found


def evenly(classes: int) -> np.ndarray:
    """(classes, classes): a wrong tag may be any other, each as likely."""
    return (1 - np.eye(classes)) / max(1, classes - 1)


def tagging_of(shares: np.ndarray, tags: np.ndarray) -> Tagging:
    """How TAGS, (n,) int, go wrong, by SHARES, (n, classes), of models that never saw them.

    Expectation maximisation: first of the rate and the temperature together, as if wrong tags went
    anywhere alike; then of where they go. The other way round the shares would grow sure of the
    model's own confusions.
    """
    confusion = evenly(shares.shape[1])
    rate, heat = USUAL_RATE, 1.0
    logits = logits_of(shares)
    for _ in range(TURNS):
        heat = _temperature(logits, tags, rate, confusion)
        sharp = softmax(logits, heat)
        for _ in range(ROUNDS):
            rate = _rate(_wrong(sharp, tags, rate, confusion))
    even_rate = rate
    for _ in range(ROUNDS):
        wrong = _wrong(sharp, tags, rate, confusion)
        rate, confusion = _rate(wrong), _confusion(_counts(wrong, tags))
    return Tagging(rate, confusion, even_rate, heat)


def _wrong(shares: np.ndarray, tags: np.ndarray, rate: float, confusion: np.ndarray) -> np.ndarray:
    """(n, classes): the chance that an item is of a class and its tag is another."""
    known = _posterior(shares, tags, rate, confusion)
    known[np.arange(len(tags)), tags] = 0.0
    return known


def _rate(wrong: np.ndarray) -> float:
    rate = (wrong.sum() + USUAL_RATE * BELIEVED) / (len(wrong) + BELIEVED)
    return float(min(rate, MOST_WRONG))


def _counts(wrong: np.ndarray, tags: np.ndarray) -> np.ndarray:
    """(classes, classes): how many items of a class, in a row, have which wrong tag."""
    classes = wrong.shape[1]
    return np.stack([np.bincount(tags, column, minlength=classes) for column in wrong.T])


def _temperature(logits: np.ndarray, tags: np.ndarray, rate: float, confusion: np.ndarray) -> float:
    """What LOGITS are to be divided by so that TAGS are likeliest, RATE of them being wrong."""
    chances = _likelihood(tags, rate, confusion)

    def loss(power: float) -> float:
        told = (softmax(logits, float(np.exp(power))) * chances).sum(axis=1)
        return float(-np.log(told + TINY).sum() + power**2 / (2 * USUAL_CHANGE**2))

    bounds = (np.log(COOLEST), np.log(HOTTEST))
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-3})
    return float(np.exp(found.x))


def _confusion(counts: np.ndarray) -> np.ndarray:
    """P(tag | class, wrong) by COUNTS, (classes, classes), as far as they show a habit."""
    classes = len(counts)
    total = counts.sum()
    if classes < 3 or not total:
        return evenly(classes)
    habit = (counts.max(axis=1).sum() / total - CHANCE) / (HABIT - CHANCE)
    weight = float(np.clip(habit, 0.0, 0.9))
    rows = counts.sum(axis=1, keepdims=True)
    # A class with a few wrong tags says little of where its wrong tags go.
    own = (counts + evenly(classes)) / (rows + 1)
    return weight * own + (1 - weight) * evenly(classes)


def reaching_mean(chances: np.ndarray, wanted: float, least: float) -> float:
    """The lowest of CHANCES, (n,), down to which their mean is at least WANTED and each LEAST.

    Infinite where none is.
    """
    ordered = np.sort(chances)[::-1]
    means = np.cumsum(ordered) / np.arange(1, len(ordered) + 1)
    good = np.flatnonzero((means >= wanted) & (ordered >= least))
    return float(ordered[good[-1]]) if len(good) else float("inf")


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
