"""Groups that stay in one split, and links between existing splits."""

import numpy as np

from dataset.selection.candidates import Candidate, SourcePost
from dataset.selection.groups import ImageLinks, add_links, assign_groups, link_images


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
