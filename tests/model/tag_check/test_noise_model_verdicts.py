"""What is asserted, and where nothing is."""

import numpy as np

from model.tag_check.noise_model import (
    AGREES,
    MISTAKE,
    UNSURE,
    Bar,
    Tagging,
    bar_of,
    evenly,
    verdicts,
)

TAGGING = Tagging(0.1, evenly(3), 0.1)


def test_verdicts_and_their_numbers() -> None:
    shares = np.array([[0.98, 0.01, 0.01], [0.001, 0.998, 0.001], [0.3, 0.65, 0.05]])
    said = verdicts(TAGGING, Bar(mistake=0.9), shares, np.zeros(3, int))
    assert said.verdict == [AGREES, MISTAKE, UNSURE]
    assert said.best.tolist() == [0, 1, 0]
    # P(1 | photo, tag 0) by hand: 0.998 * 0.05 against 0.001 * 0.9 and 0.001 * 0.05.
    by_hand = 0.998 * 0.05 / (0.998 * 0.05 + 0.001 * 0.9 + 0.001 * 0.05)
    assert np.isclose(said.probability[1], by_hand)
    # Here wrong tags go anywhere alike, so that both ways of counting are one.
    assert np.isclose(said.wrong[1], 1 - said.given[1])
    assert np.isclose(said.margin[1], said.probability[1] - said.given[1])


def test_nothing_is_asserted_where_nobody_could_be_sure() -> None:
    shares, tags = np.full((50, 3), 1 / 3), np.zeros(50, int)
    bar = bar_of(TAGGING, shares, tags)
    assert bar.mistake == float("inf")
    assert set(verdicts(TAGGING, bar, shares, tags).verdict) == {UNSURE}
