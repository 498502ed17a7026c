"""Groups that stay in one split, and their splits: small cases by hand, and a large one."""

import random
from collections import Counter

import numpy as np

from dataset.selection.candidates import Candidate, SourcePost
from dataset.selection.splits import (
    SPLITS,
    ImageLinks,
    add_links,
    assign_groups,
    assign_multi_label_splits,
    assign_splits,
    describe_deviations,
    link_images,
)


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
    (message,) = [
        line for line in describe_deviations(groups, labels, names, (50, 25, 25)) if "train" in line
    ]
    assert message == (
        "hat: train has 60.0% rather than 50.0% of 100; groups that stay together hold up to 60 of"
        " them"
    )


def test_kept_splits_are_named_as_the_cause() -> None:
    labels, names = ["hat"] * 20, ["train"] * 16 + ["test"] * 4
    messages = describe_deviations(range(20), labels, names, (80, 10, 10), fixed=range(18))
    assert messages[0] == (
        "hat: validation has 0.0% rather than 10.0% of 20; 18 of them stay in the splits of earlier"
        " builds, which --new-splits ignores"
    )
    messages = describe_deviations([0] * 20, labels, ["train"] * 20, (80, 10, 10), fixed=[0])
    assert messages[0].endswith("ignores, and groups that stay together hold up to 20 of them")


def label_sets(count: int, seed: int) -> list[tuple[str, ...]]:
    """Draw up to five labels per item, of 5 % to 60 % of the items."""
    draw = random.Random(seed)
    rates = {"a": 0.6, "b": 0.4, "c": 0.2, "d": 0.1, "e": 0.05}
    drawn = (tuple(n for n, rate in rates.items() if draw.random() < rate) for _ in range(count))
    return [names or ("a",) for names in drawn]


def label_distribution(labels: list[tuple[str, ...]], names: list[str]) -> float:
    """Return the label distribution of Sechidis et al.: the mean deviation of labels' odds."""
    sets, splits = np.array([[n in one for n in "abcde"] for one in labels]), np.array(names)
    parts = [sets[splits == split] for split in SPLITS]
    overall = sets.sum(0) / (~sets).sum(0)
    return float(np.mean([abs(part.sum(0) / (~part).sum(0) - overall) for part in parts]))


def test_each_of_several_labels_gets_its_share() -> None:
    labels = label_sets(600, 0)
    names = assign_multi_label_splits(range(600), labels, (80, 10, 10), 0)
    for label in "abcde":
        having = [split for one, split in zip(labels, names, strict=True) if label in one]
        for split, share in zip(SPLITS, (0.8, 0.1, 0.1), strict=True):
            assert abs(having.count(split) - share * len(having)) <= 1.5
    assert abs(names.count("test") - 60) <= 6


def test_labels_are_distributed_better_than_at_random() -> None:
    labels = label_sets(300, 1)
    names = assign_multi_label_splits(range(300), labels, (70, 15, 15), 0)
    assert Counter(names) == {"train": 210, "validation": 45, "test": 45}
    for seed in range(10):
        drawn = random.Random(seed).choices(SPLITS, (70, 15, 15), k=300)
        assert label_distribution(labels, names) < 0.5 * label_distribution(labels, drawn)


def test_groups_of_several_labels_stay_whole_and_keep_their_split() -> None:
    draw, labels = random.Random(2), label_sets(2000, 2)
    groups = [draw.randrange(700) for _ in labels]
    fixed = {0: "test", 1: "validation"}
    names = assign_multi_label_splits(groups, labels, (80, 10, 10), 5, fixed)
    split_of = dict(zip(groups, names, strict=True))
    assert names == [split_of[group] for group in groups]
    assert (split_of[0], split_of[1]) == ("test", "validation")
    flat = [(g, n, s) for g, one, s in zip(groups, labels, names, strict=True) for n in one]
    columns = [[row[column] for row in flat] for column in range(3)]
    assert describe_deviations(columns[0], columns[1], columns[2], (80, 10, 10)) == []  # type: ignore[arg-type]
    assert names == assign_multi_label_splits(groups, labels, (80, 10, 10), 5, fixed)
    assert names != assign_multi_label_splits(groups, labels, (80, 10, 10), 6, fixed)


def test_rare_labels_reach_each_split_and_splits_without_a_share_get_nothing() -> None:
    labels = [("common", "rare") if number < 3 else ("common",) for number in range(90)]
    names = assign_multi_label_splits(range(90), labels, (80, 10, 10), 0)
    assert set(names[:3]) == set(SPLITS)
    without = assign_multi_label_splits(range(90), labels, (80, 0, 20), 0)
    assert set(without) == {"train", "test"}


def photo(number: int, *posts: SourcePost, copies: tuple[int, ...] = ()) -> Candidate:
    return Candidate(
        number, f"{number:064x}", "k", number, 9, 9, 9, posts=posts, copies=(number, *copies)
    )


def ties(count: int, *pairs: tuple[int, int]) -> ImageLinks:
    nothing = np.zeros(0, np.int64)
    return add_links(ImageLinks(count, nothing, nothing), pairs)


def test_posts_authors_and_likeness_tie_and_chains_are_one_group() -> None:
    shared = SourcePost(1, "u", "lamoda", None, ())
    photos = [
        photo(0, shared),
        photo(1, shared, SourcePost(2, "u", "instagram", "anna", ())),
        photo(2, SourcePost(3, "u", "instagram", "anna", ())),
        photo(3, SourcePost(4, "u", "pinterest", "anna", ()), copies=(33,)),
        photo(4, SourcePost(5, "u", "lamoda", None, ())),
        photo(5),
    ]
    groups = link_images(photos, np.array([[33, 4], [5, 99]])).groups()
    assert groups[0] == groups[1] == groups[2]
    assert groups[3] == groups[4]
    assert len(set(groups.tolist())) == 3


def test_groups_go_where_their_photos_were() -> None:
    settled = assign_groups(ties(5, (0, 1), (2, 3)), {1: "test"})
    assert settled.fixed == {int(settled.groups[0]): "test"}
    assert settled.conflicting == frozenset()


def test_a_photo_that_ties_two_splits_is_torn_and_nothing_moves() -> None:
    # 0 train - 2 new - 1 test; 3 new hangs on 0, 4 new on 1.
    settled = assign_groups(ties(5, (0, 2), (2, 1), (0, 3), (1, 4)), {0: "train", 1: "test"})
    assert settled.conflicting == frozenset({2})
    split_of = {place: settled.fixed[int(settled.groups[place])] for place in (0, 1, 3, 4)}
    assert split_of == {0: "train", 3: "train", 1: "test", 4: "test"}


def test_of_two_kept_photos_that_are_tied_the_fewer_are_torn() -> None:
    tie = ImageLinks(3, np.array([0, 1, 2]), np.array([0, 0, 0]))
    settled = assign_groups(tie, {0: "train", 1: "train", 2: "test"})
    assert settled.conflicting == frozenset({2})
    even = assign_groups(ties(2, (0, 1)), {0: "train", 1: "test"})
    assert even.conflicting == frozenset({0})


def test_a_long_chain_between_two_splits_is_parted_once() -> None:
    count = 50
    settled = assign_groups(
        ties(count, *((n, n + 1) for n in range(count - 1))), {0: "train", count - 1: "test"}
    )
    assert len(settled.conflicting) <= 1
    whole = [
        settled.fixed[int(settled.groups[n])] for n in range(count) if n not in settled.conflicting
    ]
    assert whole == sorted(whole, reverse=True)


def test_nothing_is_tied() -> None:
    assert len(set(ties(3).groups().tolist())) == 3
    assert assign_groups(ties(0), {}).conflicting == frozenset()


def test_a_stranger_with_photos_in_two_splits_excludes_no_earlier_photo() -> None:
    # 0 and 1 are of one author, the first a repost of a photo of the test split; 2 is new.
    links = ImageLinks(3, np.array([0, 1, 2]), np.array([0, 0, 0]), 1)
    assignment = assign_groups(links, {0: "test", 1: "train"})
    assert assignment.conflicting == frozenset()
    split_of = {n: assignment.fixed[int(assignment.groups[n])] for n in range(3)}
    assert (split_of[0], split_of[1]) == ("test", "train")
