"""The choice of feature layers, and a classifier in closed form."""

from dataclasses import replace

import numpy as np
import pytest

from dataset.errors import Failure
from model.data.features import SplitFeatures
from model.data.loading import Example
from model.network.inception import BLOCK_CHANNELS, CACHED_BLOCKS, build_head
from model.training.linear_probe import (
    MIN_VALIDATION,
    choose_feature_layers,
    head_logits,
    ridge_logits,
    solve_head,
)

WIDTH = sum(BLOCK_CHANNELS[block] for block in CACHED_BLOCKS)


def outputs(count: int, knowing: str, seed: int) -> SplitFeatures:
    """Return random features; one block separates two classes."""
    rng = np.random.default_rng(seed)
    targets = np.arange(count) % 2
    values = rng.normal(size=(count, 1, WIDTH))
    examples = [Example(str(place), "a", "train") for place in range(count)]
    features = SplitFeatures(examples, values.astype(np.float16), targets, {})
    features.values[:, 0, features.columns([knowing])[:40]] += targets[:, None] * 1.5
    return features


def with_width(width: int) -> SplitFeatures:
    return SplitFeatures([], np.zeros((0, 1, width)), np.zeros(0, np.int64), {})


def test_columns_are_in_the_order_of_blocks() -> None:
    features = with_width(WIDTH)
    every = np.concatenate([features.columns([block]) for block in CACHED_BLOCKS])
    assert (every == np.arange(len(every))).all()
    assert len(features.columns(["mixed8", "mixed10"])) == 1280 + 2048


def test_each_part_of_a_photo_has_its_own_columns() -> None:
    one, three = (with_width(n * WIDTH).columns(["mixed7", "mixed9"]) for n in (1, 3))
    assert (three == np.concatenate([one, one + WIDTH, one + 2 * WIDTH])).all()


def test_a_block_above_the_top_of_the_backbone_is_named() -> None:
    features = replace(with_width(768), blocks=("mixed4",))
    with pytest.raises(Failure, match=r"--feature-layers mixed10: the backbone ends at mixed4"):
        features.columns(["mixed10"])


@pytest.mark.parametrize("knowing", ["mixed4", "mixed8", "mixed10"])
def test_the_block_that_separates_the_classes_is_chosen(knowing: str) -> None:
    chosen = choose_feature_layers(outputs(60, knowing, 0), outputs(40, knowing, 1), 2, 0)
    assert knowing in chosen.layers
    assert chosen.accuracy is not None
    assert chosen.accuracy > 0.9


def test_slack_prefers_higher_blocks_of_similar_accuracy() -> None:
    train, validation = outputs(60, "mixed6", 0), outputs(40, "mixed6", 1)
    best = choose_feature_layers(train, validation, 2, 0)
    near = choose_feature_layers(train, validation, 2, 0, slack=0.03)
    assert CACHED_BLOCKS.index(near.layers[-1]) >= CACHED_BLOCKS.index(best.layers[-1])
    assert (near.accuracy or 0) >= (best.accuracy or 0) - 0.03


def test_without_validation_photos_the_top_block_is_chosen() -> None:
    assert choose_feature_layers(
        outputs(60, "mixed4", 0), outputs(0, "mixed4", 1), 2, 0
    ).layers == ("mixed10",)


def test_primal_and_dual_solutions_equal_scikit_learns() -> None:
    """With more examples than values or fewer, the solution is scikit-learn's."""
    from sklearn.linear_model import Ridge

    rng = np.random.default_rng(0)
    for count, width in ((30, 50), (50, 30)):
        values = rng.normal(size=(count, width)).astype(np.float32)
        targets, weights = rng.integers(0, 3, count), rng.uniform(0.1, 1, count)
        other = rng.normal(size=(7, width)).astype(np.float32)
        mean, spread = values.mean(0), values.std(0) + 1e-3
        share = weights / weights.mean()
        wanted = np.eye(3)[targets]
        centre = (wanted * share[:, None]).sum(0) / share.sum()
        ridge = Ridge(alpha=0.3 * width, fit_intercept=False)
        ridge.fit((values - mean) / spread, wanted - centre, share)
        expected = ridge.predict((other - mean) / spread) + centre
        found = ridge_logits(values, targets, weights, other, 3)
        assert found == pytest.approx(expected, abs=1e-3)


def test_logits_are_means_over_the_views() -> None:
    seen = outputs(4, "mixed10", 0)
    two = replace(seen, values=np.concatenate([seen.values, seen.values[::-1]], axis=1))
    head = build_head(BLOCK_CHANNELS["mixed10"], 3)
    found = head_logits(head, two, ["mixed10"])
    # The head is linear, so that the mean of the features gives the mean of the logits.
    mean = two.values.astype(np.float32).mean(axis=1)[:, two.columns(["mixed10"])]
    assert found == pytest.approx(np.asarray(head(mean)), abs=1e-3)


def test_layers_are_chosen_the_same_with_many_validation_photos() -> None:
    train, validation = outputs(60, "mixed6", 0), outputs(MIN_VALIDATION, "mixed6", 1)
    assert "mixed6" in choose_feature_layers(train, validation, 2, 0).layers


def test_few_validation_photos_do_not_decide_alone() -> None:
    """Four validation photos are right by chance in another block."""
    train, validation = outputs(80, "mixed6", 0), outputs(4, "mixed6", 1)
    columns = validation.columns(["mixed4"])
    validation.values[:, 0, columns] += 3 * validation.targets[:, None]
    groups = [str(number // 2) for number in range(84)]
    assert "mixed6" in choose_feature_layers(train, validation, 2, 0, groups=groups).layers


def test_a_solved_head_is_calibrated_and_survives_wrong_labels() -> None:
    train, other = outputs(120, "mixed6", 0), outputs(60, "mixed6", 1)
    truth = train.targets.copy()
    train.targets[::10] = 1 - train.targets[::10]
    groups = [str(number) for number in range(120)]
    head, progress = solve_head(train, other, np.ones(120), ["mixed6"], 2, groups, 0)
    assert progress.done == progress.best_epoch == 1
    assert progress.history["val_accuracy"][0] > 0.9
    logits = head_logits(head, train, ["mixed6"])
    assert (logits.argmax(axis=1) == truth).mean() > 0.85
    # Its scores are those of the ridge classifier.
    values = [
        split.values[:, 0, train.columns(["mixed6"])].astype(np.float32) for split in (train, other)
    ]
    expected = ridge_logits(values[0], train.targets, np.ones(120), values[1], 2)
    found = head_logits(head, other, ["mixed6"])
    margins = found[:, 0] - found[:, 1], expected[:, 0] - expected[:, 1]
    assert np.corrcoef(*margins)[0, 1] > 0.999


@pytest.mark.parametrize("count", [0, 3])
def test_a_head_of_very_few_photos_is_solved(count: int) -> None:
    train, validation = outputs(4, "mixed6", 0), outputs(count, "mixed6", 1)
    head, _ = solve_head(train, validation, np.ones(4), ["mixed6"], 2, None, 0)
    assert np.isfinite(head_logits(head, train, ["mixed6"])).all()
