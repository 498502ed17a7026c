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

NOISE_MODEL = NoiseModel(0.1, uniform_confusion(3), 0.1)


def test_verdicts_and_their_probabilities() -> None:
    probabilities = np.array([[0.98, 0.01, 0.01], [0.001, 0.998, 0.001], [0.3, 0.65, 0.05]])
    verdicts = decide_verdicts(
        NOISE_MODEL, Thresholds(mistake=0.9), probabilities, np.zeros(3, int)
    )
    assert verdicts.verdict == [AGREES, MISTAKE, UNSURE]
    assert verdicts.best.tolist() == [0, 1, 0]
    # P(1 | photo, tag 0) computed by hand: 0.998 * 0.05 against 0.001 * 0.9 and 0.001 * 0.05.
    by_hand = 0.998 * 0.05 / (0.998 * 0.05 + 0.001 * 0.9 + 0.001 * 0.05)
    assert np.isclose(verdicts.probability[1], by_hand)
    # With uniform confusions, both posteriors are equal.
    assert np.isclose(verdicts.wrong_probability[1], 1 - verdicts.tag_probability[1])
    assert np.isclose(verdicts.margin[1], verdicts.probability[1] - verdicts.tag_probability[1])


def test_uncertain_tags_have_no_verdict() -> None:
    probabilities, tags = np.full((50, 3), 1 / 3), np.zeros(50, int)
    thresholds = choose_thresholds(NOISE_MODEL, probabilities, tags)
    assert thresholds.mistake == float("inf")
    assert set(decide_verdicts(NOISE_MODEL, thresholds, probabilities, tags).verdict) == {UNSURE}
