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
    right, wrong, other = 0.001 * 0.9, 0.998 * 0.05, 0.001 * 0.05
    assert np.isclose(verdicts.wrong_probability[1], (wrong + other) / (right + wrong + other))
    # The same with 999/1000 of each probability, and 1/1000 divided among the three classes.
    right, wrong, other = (
        (0.999 * probability + 0.001 / 3) * likelihood
        for probability, likelihood in ((0.001, 0.9), (0.998, 0.05), (0.001, 0.05))
    )
    assert np.isclose(verdicts.probability[1], wrong / (right + wrong + other))
    assert np.isclose(verdicts.tag_probability[1], right / (right + wrong + other))
    assert np.isclose(verdicts.margin[1], verdicts.probability[1] - verdicts.tag_probability[1])


def test_uncertain_tags_have_no_verdict() -> None:
    probabilities, tags = np.full((50, 3), 1 / 3), np.zeros(50, int)
    thresholds = choose_thresholds(NOISE_MODEL, probabilities, tags)
    assert thresholds.mistake == float("inf")
    assert set(decide_verdicts(NOISE_MODEL, thresholds, probabilities, tags).verdict) == {UNSURE}


def test_where_wrong_tags_are_rare_a_certain_model_is_not_enough() -> None:
    probabilities, tags = np.array([[1e-9, 1.0, 1e-9]]), np.zeros(1, int)
    for rate, verdict in ((0.01, UNSURE), (0.1, MISTAKE)):
        noise_model = NoiseModel(rate, uniform_confusion(3), rate)
        thresholds = choose_thresholds(noise_model, probabilities, tags)
        assert decide_verdicts(noise_model, thresholds, probabilities, tags).verdict == [verdict]
