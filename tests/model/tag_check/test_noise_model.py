"""The noise model estimates how tags go wrong, and its probabilities are calibrated.

The order in which decisions teach a model most: uncertain items, each unlike the others.
"""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from model.evaluation.calibration import softmax
from model.tag_check.noise_model import (
    active_learning_order,
    fit_noise_model,
    squared_distances,
    threshold_for_mean,
    uniform_confusion,
)

CLASSES = 4


def drawn(rate: float, wrong_step: int | None, count: int = 6000) -> tuple[np.ndarray, ...]:
    """Return calibrated probabilities, tags of which a fraction is wrong, and the true classes."""
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.full(CLASSES, 0.1), count)
    truth = (probabilities.cumsum(axis=1) > rng.random(count)[:, None]).argmax(axis=1)
    flipped = rng.random(count) < rate
    step = rng.integers(1, CLASSES, count) if wrong_step is None else wrong_step
    return probabilities, np.where(flipped, (truth + step) % CLASSES, truth), truth


@pytest.mark.parametrize("rate", [0.03, 0.1, 0.3])
@pytest.mark.parametrize("wrong_step", [None, 1])
def test_the_rate_of_wrong_tags_is_found(rate: float, wrong_step: int | None) -> None:
    probabilities, tags, truth = drawn(rate, wrong_step)
    noise_model = fit_noise_model(probabilities, tags)
    assert noise_model.rate == pytest.approx((tags != truth).mean(), rel=0.15)


def test_systematic_confusions_are_told_from_random_ones() -> None:
    systematic = fit_noise_model(*drawn(0.2, 1)[:2]).confusion
    random = fit_noise_model(*drawn(0.2, None)[:2]).confusion
    # Nine in ten wrong tags of a class are the next class.
    assert all(systematic[index, (index + 1) % CLASSES] > 0.7 for index in range(CLASSES))
    assert np.allclose(random, uniform_confusion(CLASSES), atol=0.12)
    for confusion in (systematic, random):
        assert np.allclose(confusion.sum(axis=1), 1)
        assert not confusion.diagonal().any()


def test_confusions_improve_the_ranking() -> None:
    probabilities, tags, truth = drawn(0.15, 1)
    noise_model, rows = fit_noise_model(probabilities, tags), np.arange(len(tags))
    with_confusions, without = (
        average_precision_score(tags != truth, 1 - posterior[rows, tags])
        for posterior in (
            noise_model.posterior(probabilities, tags),
            noise_model.calibrated_posterior(probabilities, tags),
        )
    )
    assert with_confusions > without + 0.02


def test_underconfident_probabilities_are_sharpened() -> None:
    probabilities, tags, _ = drawn(0.15, None)
    blunt = np.sqrt(probabilities) / np.sqrt(probabilities).sum(axis=1, keepdims=True)
    assert fit_noise_model(blunt, tags).temperature == pytest.approx(0.5, abs=0.1)
    assert fit_noise_model(probabilities, tags).temperature == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize("wrong_step", [None, 1])
def test_the_posterior_is_calibrated(wrong_step: int | None) -> None:
    probabilities, tags, truth = drawn(0.15, wrong_step)
    posterior = fit_noise_model(probabilities, tags).calibrated_posterior(probabilities, tags)
    wrong = 1 - posterior[np.arange(len(tags)), tags]
    for low, high in ((0.0, 0.2), (0.2, 0.5), (0.5, 0.8), (0.8, 1.0)):
        in_range = (wrong >= low) & (wrong < high)
        assert (tags != truth)[in_range].mean() == pytest.approx(wrong[in_range].mean(), abs=0.08)


def test_two_labels_and_probabilities_of_zero() -> None:
    probabilities = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    noise_model = fit_noise_model(probabilities, np.array([0, 1, 1])).posterior(
        probabilities, np.array([0, 1, 1])
    )
    assert np.isfinite(noise_model).all()
    assert noise_model.argmax(axis=1).tolist() == [0, 1, 0]


def test_the_threshold_for_a_mean() -> None:
    chances = np.array([0.99, 0.97, 0.9, 0.5, 0.85])
    # 0.99, 0.97 and 0.9 have a mean of 0.953; with 0.85 it is 0.9275.
    assert threshold_for_mean(chances, 0.95, 0.8) == 0.9
    assert threshold_for_mean(chances, 0.95, 0.95) == 0.97
    assert threshold_for_mean(chances, 0.999, 0.8) == float("inf")
    assert threshold_for_mean(np.zeros(0), 0.95, 0.8) == float("inf")


@pytest.mark.parametrize("rate", [0.0, 0.05, 0.3])
def test_the_interval_of_the_rate_contains_it_and_has_a_width(rate: float) -> None:
    hits = 0
    for seed in range(20):
        random = np.random.default_rng(seed)
        classes = random.integers(0, 5, 300)
        logits = random.normal(0, 1, (300, 5)) + 3 * np.eye(5)[classes]
        # The probabilities of this generative model, which are calibrated.
        probabilities = softmax(3 * logits)
        is_wrong = random.random(300) < rate
        tags = np.where(is_wrong, (classes + random.integers(1, 5, 300)) % 5, classes)
        model = fit_noise_model(probabilities, tags)
        low, high = model.rate_interval
        assert 0 <= low <= model.rate <= high <= 1 and high - low > 0.001
        hits += low <= is_wrong.mean() <= high
    assert hits >= 18


def test_distances_are_those_of_the_gradients() -> None:
    rng = np.random.default_rng(0)
    errors, features = rng.normal(size=(5, 3)), rng.normal(size=(5, 4))
    gradients = np.einsum("nc,nf->ncf", errors, features).reshape(5, -1)
    expected = ((gradients - gradients[2]) ** 2).sum(axis=1)
    assert squared_distances(errors, features, 2) == pytest.approx(expected)


def test_copies_of_an_item_come_last() -> None:
    rng = np.random.default_rng(1)
    probabilities = np.tile([0.5, 0.5, 0.0], (30, 1))
    features = np.concatenate([np.tile(rng.normal(size=(1, 8)), (20, 1)), rng.normal(size=(10, 8))])
    order = active_learning_order(probabilities, features, 0)
    assert sorted(order) == list(range(30))
    assert sum(row < 20 for row in order[:11]) == 1


def test_uncertain_items_precede_certain_ones() -> None:
    rng = np.random.default_rng(2)
    certain = np.tile([0.98, 0.01, 0.01], (200, 1))
    uncertain = np.tile([0.4, 0.35, 0.25], (20, 1))
    features = rng.normal(size=(220, 16))
    order = active_learning_order(np.concatenate([certain, uncertain]), features, 0)
    # At random, 2 of the first 20 would be uncertain.
    assert sum(row >= 200 for row in order[:20]) >= 15
    assert order[0] >= 200


def test_equal_inputs_give_the_same_order_and_no_items_none() -> None:
    rng = np.random.default_rng(3)
    probabilities, features = rng.dirichlet(np.ones(4), 50), rng.normal(size=(50, 6))
    first = active_learning_order(probabilities, features, 7)
    assert np.array_equal(first, active_learning_order(probabilities, features, 7))
    certain = np.eye(4)[[0, 1, 1]]
    assert active_learning_order(certain, features[:3], 0).tolist() == [0, 1, 2]
