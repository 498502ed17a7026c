"""Groups and splits, on small cases worked out by hand and a big one by its properties."""

from collections import Counter

from dataset.splits import split


def test_each_label_gets_its_shares() -> None:
    labels = ["polo"] * 500 + ["dress"] * 120
    count = Counter(zip(labels, split(range(620), labels, (80, 10, 10), 3), strict=True))
    assert [count["polo", s] for s in ("train", "validation", "test")] == [400, 50, 50]
    assert [count["dress", s] for s in ("train", "validation", "test")] == [96, 12, 12]


def test_a_group_stays_whole() -> None:
    groups = [number // 7 for number in range(700)]
    names = split(groups, ["polo", "dress"] * 350, (80, 10, 10), 0)
    assert all(len({names[i] for i in range(g * 7, g * 7 + 7)}) == 1 for g in range(100))
    assert Counter(names) == {"train": 560, "validation": 70, "test": 70}


def test_the_seed_decides_which_and_nothing_else_does() -> None:
    labels = ["polo"] * 100
    first = split(range(100), labels, (80, 10, 10), 1)
    assert first == split(range(100), labels, (80, 10, 10), 1)
    assert first != split(range(100), labels, (80, 10, 10), 2)


def test_three_photos_reach_all_three_splits() -> None:
    assert sorted(split(range(3), ["hat"] * 3, (80, 10, 10), 0)) == ["test", "train", "validation"]


def test_a_split_without_a_share_gets_nothing() -> None:
    assert set(split(range(50), ["hat"] * 50, (80, 0, 20), 0)) == {"train", "test"}


def test_one_giant_group_goes_to_train() -> None:
    assert set(split([0] * 50, ["hat"] * 50, (80, 10, 10), 0)) == {"train"}
