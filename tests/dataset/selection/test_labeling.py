"""Labels by hashtags and decisions, wider and narrower labels, conflicts."""

from datetime import datetime

from dataset.selection.candidates import Candidate, Exclusions, SourcePost
from dataset.selection.labeling import LABEL_CONFLICT, LabeledImage, assign_labels, limit_classes
from dataset.vocabulary import load_vocabulary


def photo(number: int, *tags: str, decisions: tuple[tuple[int, str | None], ...] = ()) -> Candidate:
    posts = tuple(SourcePost(n, "u", "lamoda", None, (tag,)) for n, tag in enumerate(tags))
    sha256 = f"{number:064x}"
    return Candidate(
        number, sha256, "k", number, 9, 9, 9, posts=posts, decisions=decisions, copies=(number,)
    )


def labels(*photos: Candidate, conflicts: str = "drop") -> tuple[list[str], Exclusions]:
    exclusions = Exclusions()
    given = assign_labels(photos, load_vocabulary(), (), exclusions, conflicts)
    return [one.label for one in given], exclusions


def test_of_a_label_and_one_that_it_holds_the_narrower_counts() -> None:
    assert labels(photo(1, "обувь", "кроссовки"))[0] == ["sneakers"]
    assert labels(photo(1, "бомбер", "куртка", "верхняя одежда"))[0] == ["bomber"]
    assert labels(photo(1, "юбка", "мини-юбка"))[0] == ["mini-skirt"]


def test_two_labels_neither_of_which_holds_the_other_are_a_conflict() -> None:
    given, exclusions = labels(photo(1, "поло", "джинсы"), photo(2, "обувь", "туфли", "кеды"))
    assert given == []
    assert exclusions.counts == {LABEL_CONFLICT: 2}
    assert [one.detail for one in exclusions.images] == ["polo, jeans", "heels, sneakers"]


def test_the_first_label_is_taken_where_that_is_asked() -> None:
    assert labels(photo(1, "джинсы", "поло"), conflicts="first")[0] == ["jeans"]


def test_a_wider_label_is_taken_where_only_that_is_wished() -> None:
    some = [photo(1, "обувь", "кроссовки"), photo(2, "кроссовки"), photo(3, "обувь", "поло")]
    exclusions = Exclusions()
    given = assign_labels(some, load_vocabulary(), ["shoes"], exclusions)
    assert [(one.photo.image_id, one.label) for one in given] == [(1, "shoes")]
    assert exclusions.counts == {"label not requested": 1, LABEL_CONFLICT: 1}


def test_own_tags_are_labels_in_any_script() -> None:
    assert labels(photo(1, "🔥"), photo(2, "Кимоно"))[0] == ["🔥", "кимоно"]


def test_the_latest_word_of_a_person_wins() -> None:
    assert labels(photo(1, "поло", "джинсы", decisions=((1, "hat"), (2, "cap"))))[0] == ["cap"]
    given, exclusions = labels(photo(1, "поло", decisions=((1, "hat"), (2, None))))
    assert (given, exclusions.counts) == ([], {"excluded by a reviewer": 1})


def test_a_class_is_cut_to_those_that_earlier_builds_have() -> None:
    some = [LabeledImage(photo(number, "поло"), "polo") for number in range(10)]
    kept, _ = limit_classes(some, 1, 3, Exclusions(), frozenset({7, 9}))
    assert [one.photo.image_id for one in kept] == [0, 7, 9]


def post(number: int, tag: str, day: int | None = None) -> SourcePost:
    posted = None if day is None else datetime(2026, 5, day)
    return SourcePost(number, f"u{number}", "instagram", None, (tag,), posted)


def copied(*posts: SourcePost, own: int) -> Candidate:
    return Candidate(
        1, "0" * 64, "k", 1, 9, 9, 9, posts=posts, own_posts=frozenset({own}), copies=(1, 2)
    )


def test_a_repost_under_another_hashtag_does_not_change_the_label() -> None:
    dated = copied(post(1, "поло", 20), post(2, "джинсы", 3), own=1)
    assert labels(dated)[0] == ["jeans"]
    # Without dates the post of the best copy counts: a repost has another copy.
    assert labels(copied(post(1, "поло"), post(2, "джинсы", 3), own=1))[0] == ["polo"]
    same_day = copied(post(1, "поло", 3), post(2, "джинсы", 3), own=1)
    assert labels(same_day)[1].counts == {LABEL_CONFLICT: 1}


def test_the_label_of_the_latest_build_decides_a_conflict() -> None:
    photos = [photo(1, "поло", "джинсы"), photo(2, "поло", "джинсы")]
    given = assign_labels(
        photos, load_vocabulary(), (), Exclusions(), "exclude", {1: "jeans", 2: "dress"}
    )
    assert [one.label for one in given] == ["jeans"]
