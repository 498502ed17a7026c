"""How tags go wrong is learned, and how far one is believed."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from model.tag_check.noise_model import evenly, reaching_mean, tagging_of

CLASSES = 4


def drawn(rate: float, goes_to: int | None, count: int = 6000) -> tuple[np.ndarray, ...]:
    """Shares of a calibrated judge, tags of which RATE are wrong, and the truth."""
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.full(CLASSES, 0.1), count)
    truth = (shares.cumsum(axis=1) > rng.random(count)[:, None]).argmax(axis=1)
    flipped = rng.random(count) < rate
    step = rng.integers(1, CLASSES, count) if goes_to is None else goes_to
    return shares, np.where(flipped, (truth + step) % CLASSES, truth), truth


@pytest.mark.parametrize("rate", [0.03, 0.1, 0.3])
@pytest.mark.parametrize("goes_to", [None, 1])
def test_the_rate_of_wrong_tags_is_found(rate: float, goes_to: int | None) -> None:
    shares, tags, truth = drawn(rate, goes_to)
    found = tagging_of(shares, tags)
    assert found.rate == pytest.approx((tags != truth).mean(), rel=0.15)


def test_a_habit_is_told_from_chance() -> None:
    habit = tagging_of(*drawn(0.2, 1)[:2]).confusion
    chance = tagging_of(*drawn(0.2, None)[:2]).confusion
    # Each class is taken for the next one: nine in ten of its wrong tags.
    assert all(habit[one, (one + 1) % CLASSES] > 0.7 for one in range(CLASSES))
    assert np.allclose(chance, evenly(CLASSES), atol=0.12)
    for confusion in (habit, chance):
        assert np.allclose(confusion.sum(axis=1), 1)
        assert not confusion.diagonal().any()


def test_what_is_often_taken_for_what_orders_doubts_better() -> None:
    shares, tags, truth = drawn(0.15, 1)
    found, rows = tagging_of(shares, tags), np.arange(len(tags))
    order, even = (
        average_precision_score(tags != truth, 1 - known[rows, tags])
        for known in (found.posterior(shares, tags), found.cautious(shares, tags))
    )
    assert order > even + 0.02


def test_blunt_shares_are_made_sure() -> None:
    shares, tags, _ = drawn(0.15, None)
    blunt = np.sqrt(shares) / np.sqrt(shares).sum(axis=1, keepdims=True)
    assert tagging_of(blunt, tags).temperature == pytest.approx(0.5, abs=0.1)
    assert tagging_of(shares, tags).temperature == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize("goes_to", [None, 1])
def test_its_probabilities_hold(goes_to: int | None) -> None:
    shares, tags, truth = drawn(0.15, goes_to)
    known = tagging_of(shares, tags).cautious(shares, tags)
    wrong = 1 - known[np.arange(len(tags)), tags]
    for low, high in ((0.0, 0.2), (0.2, 0.5), (0.5, 0.8), (0.8, 1.0)):
        some = (wrong >= low) & (wrong < high)
        assert (tags != truth)[some].mean() == pytest.approx(wrong[some].mean(), abs=0.08)


def test_two_labels_and_shares_of_nothing() -> None:
    shares = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    found = tagging_of(shares, np.array([0, 1, 1])).posterior(shares, np.array([0, 1, 1]))
    assert np.isfinite(found).all()
    assert found.argmax(axis=1).tolist() == [0, 1, 0]


def test_the_bar_of_a_mean() -> None:
    chances = np.array([0.99, 0.97, 0.9, 0.5, 0.85])
    # 0.99, 0.97 and 0.9 have a mean of 0.953; with 0.85 it is 0.9275.
    assert reaching_mean(chances, 0.95, 0.8) == 0.9
    assert reaching_mean(chances, 0.95, 0.95) == 0.97
    assert reaching_mean(chances, 0.999, 0.8) == float("inf")
    assert reaching_mean(np.zeros(0), 0.95, 0.8) == float("inf")
