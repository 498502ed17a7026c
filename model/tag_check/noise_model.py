"""Fit a label-noise model to the tags, and decide a verdict for each tag.

The posterior of a class given photo and tag is proportional to the model's probability of the class
times P(tag | class). The rate of wrong tags and their confusions are estimated from all items by
expectation maximization (Dawid and Skene, "Maximum Likelihood Estimation of Observer Error-Rates
Using the EM Algorithm", 1979; Northcutt et al., "Confident Learning", JAIR 2021).

Uncertain items are ordered by active learning, so that reviewing the first ones improves a model
most: Ash et al., "Deep Batch Active Learning by Diverse, Uncertain Gradient Lower Bounds" (BADGE),
ICLR 2020, https://arxiv.org/abs/1906.03671: k-means++ on the gradients of the loss by the head's
weights, whose lengths say how uncertain a prediction is and whose directions how items differ.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq, minimize_scalar
from scipy.stats import chi2

from model.evaluation.bootstrap import CONFIDENCE_LEVEL
from model.evaluation.calibration import log_probabilities, softmax
from model.network.inception import MIN_STD
from model.training.label_noise import assign_folds
from model.training.linear_probe import fit_ridge_temperature, ridge_scores

# Steps of expectation maximization, and how often the temperature is fitted.
EM_STEPS, TEMPERATURE_STEPS = 30, 5
# Prior: a rate of wrong tags of 0.05, as if PRIOR_ITEMS items had shown it.
PRIOR_RATE, PRIOR_ITEMS = 0.05, 20.0
MAX_RATE = 0.6
# Fraction of a class's wrong tags that have its most frequent wrong label: up to the first value
# the confusions are taken as random, from the second one on as systematic. With ten classes, random
# tags give 0.25, tags that always go to one label 0.9.
RANDOM_CONCENTRATION, SYSTEMATIC_CONCENTRATION = 0.45, 0.8
# The probabilities were calibrated on partly wrong tags and are underconfident. Range of the
# temperature that corrects this, and the standard deviation of its logarithm a priori.
MIN_TEMPERATURE, MAX_TEMPERATURE, LOG_TEMPERATURE_STD = 0.2, 2.0, 0.5
EPSILON = 1e-12
# Rate of confident errors of the model, too rare to show up in its calibration.
LAPSE_RATE = 0.001


@dataclass(frozen=True)
class NoiseModel:
    """Label noise of the tags, and the temperature of the model's probabilities.

    Attributes:
        rate: Fraction of wrong tags.
        confusion: P(tag | class, tag is wrong) of shape (classes, classes); rows sum to 1, the
            diagonal is 0.
        uniform_rate: Fraction of wrong tags if all confusions were equally probable.
        temperature: The logits of the probabilities are divided by it.
        rate_interval: 95 % interval of `rate`; (0, 0) if the rate is known.
    """

    rate: float
    confusion: np.ndarray
    uniform_rate: float
    temperature: float = 1.0
    rate_interval: tuple[float, float] = (0.0, 0.0)

    def posterior(self, probabilities: np.ndarray, tags: np.ndarray) -> np.ndarray:
        """Return P(class | photo, tag), for ranking.

        The model's own confusions look like those of the tags, so that where both agree the
        posterior is underconfident. The temperature is not applied, because it worsens the ranking.

        Args:
            probabilities: The model's probabilities of shape (n, classes).
            tags: Class indices of the tags, shape (n,).

        Returns:
            Array of shape (n, classes) whose rows sum to 1.
        """
        return _posterior(probabilities, tags, self.rate, self.confusion)

    def calibrated_posterior(self, probabilities: np.ndarray, tags: np.ndarray) -> np.ndarray:
        """Return P(class | photo, tag) as if all confusions were equally probable.

        Its probabilities are calibrated, and allow for one photo in a thousand that the model
        classifies wrongly with certainty. Arguments and result are those of `posterior`.
        """
        return self._uniform_posterior(probabilities, tags, self.uniform_rate)

    def cautious_posterior(self, probabilities: np.ndarray, tags: np.ndarray) -> np.ndarray:
        """Return `calibrated_posterior` at the upper bound of the rate of wrong tags.

        If the photos say little about the tags, the estimated rate is that of the prior, and any
        tag would seem right.
        """
        rate = max(self.uniform_rate, self.rate_interval[1])
        return self._uniform_posterior(probabilities, tags, rate)

    def _uniform_posterior(
        self, probabilities: np.ndarray, tags: np.ndarray, rate: float
    ) -> np.ndarray:
        classes = probabilities.shape[1]
        sharpened = softmax(log_probabilities(probabilities), self.temperature)
        cautious = (1 - LAPSE_RATE) * sharpened + LAPSE_RATE / classes
        return _posterior(cautious, tags, rate, uniform_confusion(classes))


def _likelihood(tags: np.ndarray, rate: float, confusion: np.ndarray) -> np.ndarray:
    """Return P(tag | class), array of shape (n, classes)."""
    likelihood = confusion * rate
    np.fill_diagonal(likelihood, 1 - rate)
    return likelihood[:, tags].T


def _posterior(
    probabilities: np.ndarray, tags: np.ndarray, rate: float, confusion: np.ndarray
) -> np.ndarray:
    joint = np.maximum(probabilities, EPSILON) * _likelihood(tags, rate, confusion)
    posterior: np.ndarray = joint / joint.sum(axis=1, keepdims=True)
    return posterior


def uniform_confusion(classes: int) -> np.ndarray:
    """Return equal probabilities of all wrong tags, array of shape (classes, classes)."""
    return (1 - np.eye(classes)) / max(1, classes - 1)


def fit_noise_model(probabilities: np.ndarray, tags: np.ndarray) -> NoiseModel:
    """Fit a noise model by expectation maximization.

    The rate and the temperature are fitted first, with equally probable confusions, and the
    confusions second. In the other order the temperature would adapt to the model's own confusions.

    Args:
        probabilities: Out-of-fold probabilities of shape (n, classes).
        tags: Class indices of the tags, shape (n,).
    """
    confusion = uniform_confusion(probabilities.shape[1])
    rate, temperature = PRIOR_RATE, 1.0
    logits = log_probabilities(probabilities)
    for _ in range(TEMPERATURE_STEPS):
        temperature = _fit_temperature(logits, tags, rate, confusion)
        sharpened = softmax(logits, temperature)
        for _ in range(EM_STEPS):
            rate = _update_rate(_wrong_tag_posterior(sharpened, tags, rate, confusion))
    uniform_rate = rate
    for _ in range(EM_STEPS):
        wrong = _wrong_tag_posterior(sharpened, tags, rate, confusion)
        rate = _update_rate(wrong)
        confusion = _update_confusion(_wrong_tag_counts(wrong, tags))
    interval = _rate_interval(sharpened, tags, rate, confusion)
    return NoiseModel(rate, confusion, uniform_rate, temperature, interval)


def _rate_interval(
    probabilities: np.ndarray, tags: np.ndarray, rate: float, confusion: np.ndarray
) -> tuple[float, float]:
    """Return the 95 % interval of the rate of wrong tags by the likelihood ratio.

    Wilks, "The Large-Sample Distribution of the Likelihood Ratio for Testing Composite Hypotheses",
    1938. The prior is not used, so that a feed without wrong tags has an interval from 0; the
    interval is extended to include the estimate `rate`, which uses it. It is valid if the model's
    probabilities are calibrated.
    """
    rows = np.arange(len(tags))
    right, wrong = probabilities[rows, tags], (probabilities @ confusion)[rows, tags]

    def loss(value: float) -> float:
        return -float(np.log((1 - value) * right + value * wrong + EPSILON).sum())

    # The loss is convex.
    best = float(minimize_scalar(loss, bounds=(0.0, 1.0), method="bounded").x)
    largest = min(loss(0.0), loss(best), loss(1.0)) + chi2.ppf(CONFIDENCE_LEVEL, df=1) / 2

    def excess(value: float) -> float:
        return loss(value) - largest

    low = float(brentq(excess, 0.0, best)) if excess(0.0) > 0 else 0.0
    high = float(brentq(excess, best, 1.0)) if excess(1.0) > 0 else 1.0
    return min(low, rate), max(high, rate)


def _wrong_tag_posterior(
    probabilities: np.ndarray, tags: np.ndarray, rate: float, confusion: np.ndarray
) -> np.ndarray:
    """Return the probability of each class other than the tag, array of shape (n, classes)."""
    posterior = _posterior(probabilities, tags, rate, confusion)
    posterior[np.arange(len(tags)), tags] = 0.0
    return posterior


def _update_rate(wrong: np.ndarray) -> float:
    rate = (wrong.sum() + PRIOR_RATE * PRIOR_ITEMS) / (len(wrong) + PRIOR_ITEMS)
    return float(min(rate, MAX_RATE))


def _wrong_tag_counts(wrong: np.ndarray, tags: np.ndarray) -> np.ndarray:
    """Return expected numbers of wrong tags by class (rows) and tag, (classes, classes)."""
    classes = wrong.shape[1]
    return np.stack([np.bincount(tags, column, minlength=classes) for column in wrong.T])


def _fit_temperature(
    logits: np.ndarray, tags: np.ndarray, rate: float, confusion: np.ndarray
) -> float:
    """Fit the temperature that maximizes the likelihood of the tags at a rate of wrong tags."""
    likelihood = _likelihood(tags, rate, confusion)

    def loss(log_temperature: float) -> float:
        evidence = (softmax(logits, float(np.exp(log_temperature))) * likelihood).sum(axis=1)
        prior = log_temperature**2 / (2 * LOG_TEMPERATURE_STD**2)
        return float(-np.log(evidence + EPSILON).sum() + prior)

    bounds = (np.log(MIN_TEMPERATURE), np.log(MAX_TEMPERATURE))
    result = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-3})
    return float(np.exp(result.x))


def _update_confusion(counts: np.ndarray) -> np.ndarray:
    """Return P(tag | class, tag is wrong), between uniform and observed confusions.

    Args:
        counts: Numbers of wrong tags by class (rows) and tag.
    """
    classes = len(counts)
    total = counts.sum()
    uniform = uniform_confusion(classes)
    if classes < 3 or not total:
        return uniform
    concentration = counts.max(axis=1).sum() / total
    weight = (concentration - RANDOM_CONCENTRATION) / (
        SYSTEMATIC_CONCENTRATION - RANDOM_CONCENTRATION
    )
    weight = float(np.clip(weight, 0.0, 0.9))
    rows = counts.sum(axis=1, keepdims=True)
    # Smooth the rows of classes with few wrong tags.
    observed = (counts + uniform) / (rows + 1)
    return weight * observed + (1 - weight) * uniform


def threshold_for_mean(probabilities: np.ndarray, mean: float, minimum: float) -> float:
    """Return the lowest threshold above which probabilities have at least a given mean.

    Args:
        probabilities: Array of shape (n,).
        mean: The mean to reach.
        minimum: The threshold is at least this.

    Returns:
        One of the probabilities; infinity if there is no threshold.
    """
    ordered = np.sort(probabilities)[::-1]
    means = np.cumsum(ordered) / np.arange(1, len(ordered) + 1)
    valid = np.flatnonzero((means >= mean) & (ordered >= minimum))
    return float(ordered[valid[-1]]) if len(valid) else float("inf")


FOLDS, ROUNDS = 5, 3
# Tags with a lower posterior are replaced by the posterior as training targets.
MIN_TAG_PROBABILITY = 0.5


def cross_validated_probabilities(
    values: np.ndarray, targets: np.ndarray, groups: Sequence[str] | None, classes: int, seed: int
) -> np.ndarray:
    """Predict each photo with ridge classifiers that were trained on other groups.

    There are ROUNDS with different folds. The first round is trained on the tags; later ones
    replace tags that are probably wrong by their posterior (as Raykar et al., "Learning from
    Crowds", JMLR 2010). The mean scores are calibrated on the tags.

    Args:
        values: Features of shape (n, width).
        targets: Class indices of the tags, shape (n,).
        groups: A name for each photo; photos of a group stay in one fold.
        classes: Number of classes.
        seed: Random seed.

    Returns:
        Calibrated probabilities of shape (n, classes).
    """
    values = normalize_features(values)
    one_hot = np.eye(classes, dtype=np.float32)[targets]
    scores = np.zeros((len(targets), classes))
    weights = np.ones(len(targets), np.float32)
    probabilities = one_hot
    for number in range(1, ROUNDS + 1):
        labels = one_hot if number == 1 else _correct_targets(probabilities, targets, one_hot)
        folds = assign_folds(targets, groups, FOLDS, seed + number)
        for fold in np.unique(folds):
            rest, held_out = folds != fold, folds == fold
            scores[held_out] += ridge_scores(
                values[rest], labels[rest], weights[rest], values[held_out]
            )
        logits = scores / number
        probabilities = softmax(logits, fit_ridge_temperature(logits, targets))
    return probabilities


def _correct_targets(
    probabilities: np.ndarray, targets: np.ndarray, one_hot: np.ndarray
) -> np.ndarray:
    """Return one-hot targets, but the posterior where it is below MIN_TAG_PROBABILITY."""
    noise_model = fit_noise_model(probabilities, targets)
    posterior = noise_model.calibrated_posterior(probabilities, targets)
    is_kept = posterior[np.arange(len(targets)), targets] >= MIN_TAG_PROBABILITY
    return np.where(is_kept[:, None], one_hot, posterior).astype(np.float32)


def normalize_features(values: np.ndarray) -> np.ndarray:
    """Take signed square roots, standardize the columns and normalize the rows of features.

    Average activations are mostly small with a few very large ones, and some photos activate all
    filters; both get less weight (Perronnin et al., "Improving the Fisher Kernel for Large-Scale
    Image Classification", ECCV 2010). The columns are standardized over all photos: by the others
    alone, a filter that only a held-out photo activates would be unbounded.

    Args:
        values: Array of shape (n, width).
    """
    count, width = values.shape
    normalized = np.sqrt(np.abs(values, dtype=np.float32))
    np.copysign(normalized, values, out=normalized)
    normalized -= normalized.mean(axis=0)
    # In place, to save the memory of a second array of this size.
    columns = np.sqrt(np.einsum("ij,ij->j", normalized, normalized) / count)
    normalized /= columns + MIN_STD
    rows = np.sqrt(np.einsum("ij,ij->i", normalized, normalized) / width)
    normalized /= rows[:, None] + MIN_STD
    return normalized


AGREES, MISTAKE, UNSURE = "agrees", "mistake", "unsure"
NO_GARMENT, NOT_CHECKED = "no garment seen", "not checked"
# The photo shows a label that no tag names.
MISSING = "missing"
# Expected precision of the verdicts. For `mistake` it is a mean, with a minimum for each item. For
# `agrees` it holds for each item: most tags are nearly certain, and a mean would hide the others.
TARGET_PRECISION, MIN_PROBABILITY = 0.95, 0.8


@dataclass(frozen=True)
class Thresholds:
    """Calibrated posteriors from which verdicts are given.

    Attributes:
        agrees: Threshold of `agrees`.
        mistake: Threshold of `mistake`.
        expected_precision: Expected fraction of correct `mistake` verdicts; None if there are none.
    """

    agrees: float = TARGET_PRECISION
    mistake: float = float("inf")
    expected_precision: float | None = None


@dataclass(frozen=True)
class Verdicts:
    """Verdicts on n tags.

    Attributes:
        verdict: The verdicts.
        best: Class index of the highest calibrated posterior, shape (n,).
        probability: That posterior.
        tag_probability: Calibrated posterior of the tag.
        margin: The difference of both.
        wrong_probability: Probability that the tag is wrong, for ranking; includes confusions.
    """

    verdict: list[str]
    best: np.ndarray
    probability: np.ndarray
    tag_probability: np.ndarray
    margin: np.ndarray
    wrong_probability: np.ndarray


def choose_thresholds(
    noise_model: NoiseModel, probabilities: np.ndarray, tags: np.ndarray
) -> Thresholds:
    """Choose thresholds for which TARGET_PRECISION of the verdicts are expected to be correct.

    Args:
        noise_model: The noise model.
        probabilities: The model's probabilities of shape (n, classes).
        tags: Class indices of the tags, shape (n,).
    """
    posterior = noise_model.calibrated_posterior(probabilities, tags)
    differing = posterior.max(axis=1)[posterior.argmax(axis=1) != tags]
    threshold = threshold_for_mean(differing, TARGET_PRECISION, MIN_PROBABILITY)
    mistakes = differing[differing >= threshold]
    precision = float(mistakes.mean()) if len(mistakes) else None
    return Thresholds(mistake=threshold, expected_precision=precision)


def decide_verdicts(
    noise_model: NoiseModel, thresholds: Thresholds, probabilities: np.ndarray, tags: np.ndarray
) -> Verdicts:
    """Decide the verdict on each tag.

    Args:
        noise_model: The noise model.
        thresholds: The thresholds.
        probabilities: The model's probabilities of shape (n, classes).
        tags: Class indices of the tags, shape (n,).
    """
    posterior, rows = noise_model.calibrated_posterior(probabilities, tags), np.arange(len(tags))
    best, tag_probability = posterior.argmax(axis=1), posterior[rows, tags]
    probability = posterior[rows, best]
    wrong_probability = 1 - noise_model.posterior(probabilities, tags)[rows, tags]
    is_mistake = (best != tags) & (probability >= thresholds.mistake)
    cautious = noise_model.cautious_posterior(probabilities, tags)[rows, tags]
    agrees = (cautious >= thresholds.agrees) & (1 - wrong_probability >= thresholds.agrees)
    verdicts = np.where(is_mistake, MISTAKE, np.where(agrees, AGREES, UNSURE)).tolist()
    margin = probability - tag_probability
    return Verdicts(verdicts, best, probability, tag_probability, margin, wrong_probability)


def squared_distances(errors: np.ndarray, features: np.ndarray, row: int) -> np.ndarray:
    """Return the squared distances of all gradients to one, shape (n,).

    A gradient is the outer product of an error and features, which need not be computed.

    Args:
        errors: Probabilities less the one-hot prediction, float64 array of shape (n, classes).
        features: Features, float64 array of shape (n, width).
        row: The item.
    """
    products = (errors @ errors[row]) * (features @ features[row])
    lengths = squared_lengths(errors, features)
    return np.maximum(lengths + lengths[row] - 2 * products, 0.0)


def squared_lengths(errors: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Return the squared lengths of the gradients, shape (n,)."""
    return (errors**2).sum(axis=1) * (features**2).sum(axis=1)


def active_learning_order(probabilities: np.ndarray, features: np.ndarray, seed: int) -> np.ndarray:
    """Return all rows in the order in which people should decide them.

    Args:
        probabilities: Probabilities of the classes, array of shape (n, classes).
        features: Features that the head reads, array of shape (n, width).
        seed: Random seed.

    Returns:
        Int64 array of shape (n,); the first row is that of the longest gradient.
    """
    errors = np.array(probabilities, np.float64)
    errors[np.arange(len(errors)), errors.argmax(axis=1)] -= 1
    features = np.asarray(features, np.float64)
    rng = np.random.default_rng(seed)
    lengths = squared_lengths(errors, features)
    chosen: list[int] = []
    nearest = lengths.copy()
    for _ in range(len(errors)):
        if not chosen:
            row = int(lengths.argmax())
        elif (total := float(nearest.sum())) > 0:
            row = int(rng.choice(len(nearest), p=nearest / total))
        else:
            break
        chosen.append(row)
        nearest = np.minimum(nearest, squared_distances(errors, features, row))
        nearest[chosen] = 0.0
    # Items equal to a chosen one teach nothing more: they come last, the most uncertain first.
    rest = np.setdiff1d(np.arange(len(errors)), chosen)
    rest = rest[np.argsort(-lengths[rest], kind="stable")]
    return np.concatenate([np.array(chosen, np.int64), rest])
