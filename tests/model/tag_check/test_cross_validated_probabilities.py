"""Photos are predicted by classifiers that were not trained on them or their group."""

import numpy as np

from model.tag_check.noise_model import cross_validated_probabilities, normalize_features

CLASSES, EACH, WIDTH = 3, 60, 20


def drawn() -> tuple[np.ndarray, np.ndarray]:
    """Return features of three classes that overlap a little, and the classes."""
    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(CLASSES), EACH)
    centres = rng.normal(size=(CLASSES, WIDTH))
    values = centres[truth] + rng.normal(size=(len(truth), WIDTH)) * 0.9
    return values.astype(np.float32), truth


def test_wrong_tags_are_contradicted() -> None:
    values, truth = drawn()
    tags = truth.copy()
    tags[::10] = (tags[::10] + 1) % CLASSES
    probabilities = cross_validated_probabilities(values, tags, None, CLASSES, seed=0)
    assert np.allclose(probabilities.sum(axis=1), 1)
    wrong = tags != truth
    assert (probabilities.argmax(axis=1) == truth)[wrong].mean() > 0.8
    assert (probabilities.argmax(axis=1) == truth)[~wrong].mean() > 0.85


def test_a_group_does_not_confirm_its_own_wrong_tag() -> None:
    values, truth = drawn()
    tags = truth.copy()
    # One photo five times over, always tagged wrongly.
    values[:5], tags[:5] = values[0], 1
    groups = ["same"] * 5 + [str(number) for number in range(5, len(tags))]
    together = cross_validated_probabilities(values, tags, groups, CLASSES, seed=0)[:5]
    alone = cross_validated_probabilities(values, tags, None, CLASSES, seed=0)[:5]
    assert together.argmax(axis=1).tolist() == [0] * 5
    assert together[:, 1].mean() < alone[:, 1].mean() / 2


def test_no_filter_and_no_photo_outweighs_the_others() -> None:
    values, _ = drawn()
    # One filter speaks a thousand times as loud, and one photo excites all of them.
    loud = np.abs(values)
    loud[:, 0] *= 1000
    loud[7] *= 50
    before = loud.copy()
    found = normalize_features(loud)
    assert np.array_equal(loud, before) and found.dtype == np.float32
    assert np.allclose((found**2).mean(axis=1), 1, atol=0.01)
    assert (found**2).mean(axis=0).max() < 2
    # What fell below nothing stays there; a filter that says the same of all says nothing.
    assert np.allclose(normalize_features(np.ones((4, 3), np.float32)), 0)


def test_large_activations_do_not_change_the_prediction() -> None:
    values, truth = drawn()
    tags = truth.copy()
    tags[::10] = (tags[::10] + 1) % CLASSES
    loud = values * np.exp(np.random.default_rng(1).normal(size=(len(truth), 1)) * 1.5)
    found = cross_validated_probabilities(loud.astype(np.float32), tags, None, CLASSES, seed=0)
    assert (found.argmax(axis=1) == truth).mean() > 0.95


def test_a_filter_that_one_photo_activates_does_not_dominate() -> None:
    values, truth = drawn()
    quiet = np.random.default_rng(2).uniform(0, 1e-4, (len(truth), 3)).astype(np.float32)
    quiet[7] = 5
    found = cross_validated_probabilities(np.hstack([values, quiet]), truth, None, CLASSES, seed=0)
    assert found[7].argmax() == truth[7] and found[7].max() < 0.99
