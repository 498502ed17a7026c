"""Splits of groups: small cases computed by hand, and properties of a large one."""

import random
from collections import Counter

from dataset.selection.splits import assign_splits, describe_deviations


def test_each_label_gets_its_shares() -> None:
    labels = ["polo"] * 500 + ["dress"] * 120
    count = Counter(zip(labels, assign_splits(range(620), labels, (80, 10, 10), 3), strict=True))
    assert [count["polo", s] for s in ("train", "validation", "test")] == [400, 50, 50]
    assert [count["dress", s] for s in ("train", "validation", "test")] == [96, 12, 12]


def test_a_group_stays_whole() -> None:
    groups = [number // 7 for number in range(700)]
    names = assign_splits(groups, ["polo", "dress"] * 350, (80, 10, 10), 0)
    assert all(len({names[i] for i in range(g * 7, g * 7 + 7)}) == 1 for g in range(100))
    assert Counter(names) == {"train": 560, "validation": 70, "test": 70}


def test_the_seed_decides_which_and_nothing_else_does() -> None:
    labels = ["polo"] * 100
    first = assign_splits(range(100), labels, (80, 10, 10), 1)
    assert first == assign_splits(range(100), labels, (80, 10, 10), 1)
    assert first != assign_splits(range(100), labels, (80, 10, 10), 2)


def test_three_photos_reach_all_three_splits() -> None:
    assert sorted(assign_splits(range(3), ["hat"] * 3, (80, 10, 10), 0)) == [
        "test",
        "train",
        "validation",
    ]


def test_a_split_without_a_share_gets_nothing() -> None:
    assert set(assign_splits(range(50), ["hat"] * 50, (80, 0, 20), 0)) == {"train", "test"}


def test_one_giant_group_goes_to_train() -> None:
    assert set(assign_splits([0] * 50, ["hat"] * 50, (80, 10, 10), 0)) == {"train"}


def test_odd_numbers_come_as_near_as_they_can() -> None:
    for size in range(30, 70):
        count = Counter(assign_splits(range(size), ["hat"] * size, (80, 10, 10), size))
        assert abs(count["train"] - 0.8 * size) < 1
        assert abs(count["test"] - 0.1 * size) < 1


def test_shares_of_many_labels_and_groups_are_within_one_in_a_hundred() -> None:
    draw = random.Random(1)
    labels = [f"label {draw.randrange(8)}" for _ in range(20_000)]
    groups = [draw.randrange(6_000) for _ in labels]
    names = assign_splits(groups, labels, (70, 20, 10), 0)
    assert describe_deviations(groups, labels, names, (70, 20, 10)) == []


def test_fixed_groups_stay_and_the_others_make_up_for_them() -> None:
    names = assign_splits(
        range(100), ["hat"] * 100, (80, 10, 10), 0, dict.fromkeys(range(8), "test")
    )
    assert names[:8] == ["test"] * 8
    assert Counter(names) == {"train": 80, "validation": 10, "test": 10}


def test_what_can_not_be_met_is_said() -> None:
    labels, groups = ["hat"] * 100, [0] * 60 + list(range(1, 41))
    names = assign_splits(groups, labels, (50, 25, 25), 0)
    (said,) = [
        line for line in describe_deviations(groups, labels, names, (50, 25, 25)) if "train" in line
    ]
    assert said == (
        "hat: train has 60.0% rather than 50.0% of 100; groups that stay together hold up to 60 of"
        " them"
    )
