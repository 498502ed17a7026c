"""Verdicts, and cases without any."""

import numpy as np

from model.tag_check.noise_model import (
    AGREES,
    MISTAKE,
    UNSURE,
    NoiseModel,
    Thresholds,
    choose_thresholds,
    decide_verdicts,
    uniform_confusion,
)

TAGGING = NoiseModel(0.1, uniform_confusion(3), 0.1)


def test_verdicts_and_their_probabilities() -> None:
    probabilities = np.array([[0.98, 0.01, 0.01], [0.001, 0.998, 0.001], [0.3, 0.65, 0.05]])
    said = decide_verdicts(TAGGING, Thresholds(mistake=0.9), probabilities, np.zeros(3, int))
    assert said.verdict == [AGREES, MISTAKE, UNSURE]
    assert said.best.tolist() == [0, 1, 0]
    # P(1 | photo, tag 0) by hand: 0.998 * 0.05 against 0.001 * 0.9 and 0.001 * 0.05.
    by_hand = 0.998 * 0.05 / (0.998 * 0.05 + 0.001 * 0.9 + 0.001 * 0.05)
    assert np.isclose(said.probability[1], by_hand)
    # Here wrong tags go anywhere alike, so that both ways of counting are one.
    assert np.isclose(said.wrong_probability[1], 1 - said.tag_probability[1])
    assert np.isclose(said.margin[1], said.probability[1] - said.tag_probability[1])


def test_uncertain_tags_have_no_verdict() -> None:
    probabilities, tags = np.full((50, 3), 1 / 3), np.zeros(50, int)
    thresholds = choose_thresholds(TAGGING, probabilities, tags)
    assert thresholds.mistake == float("inf")
    assert set(decide_verdicts(TAGGING, thresholds, probabilities, tags).verdict) == {UNSURE}
