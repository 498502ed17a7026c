"""The label of each photo: a person's word, else its hashtags'; conflicts and small classes."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from dataset.selection.candidates import Candidate, Exclusions
from dataset.vocabulary import Vocabulary

LABEL_CONFLICT = "conflict of labels"


@dataclass(frozen=True, slots=True)
class LabeledImage:
    """A photo to be written: the best of its cluster, and the posts of the whole cluster."""

    photo: Candidate
    label: str


def matching_labels(
    photo: Candidate, vocabulary: Vocabulary, wished: Collection[str] = ()
) -> list[str]:
    """The labels that PHOTO's hashtags give, the oldest first, without those that hold another.

    Where the one that is left is not WISHED, a wider one of the photo's that is takes its place.
    """
    found = dict.fromkeys(
        vocabulary.label_or_own(tag) for post in photo.posts for tag in post.hashtags
    )
    labels = vocabulary.narrowest(found)
    if len(labels) == 1 and labels[0] not in wished:
        return vocabulary.narrowest([name for name in found if name in wished]) or labels
    return labels


def assign_labels(
    photos: Iterable[Candidate],
    vocabulary: Vocabulary,
    wished: Collection[str],
    drops: Exclusions,
    conflicts: str = "drop",
) -> list[LabeledImage]:
    """Photos with one label, of WISHED labels where some are named.

    A person's latest decision is above all hashtags; None in it leaves the photo out. CONFLICTS
    says what becomes of a photo of two labels: drop, or first.
    """
    labelled = []
    for photo in photos:
        if photo.decisions:
            decided = photo.decisions[-1][1]
            if decided is None:
                drops.add(photo, "left out by a person")
                continue
            labels = [decided]
        else:
            labels = matching_labels(photo, vocabulary, wished)
        if not labels:
            drops.add(photo, "no label")
        elif len(labels) > 1 and conflicts != "first":
            drops.add(photo, LABEL_CONFLICT, ", ".join(labels))
        elif wished and labels[0] not in wished:
            drops.add(photo, "label not asked for", labels[0])
        else:
            labelled.append(LabeledImage(photo, labels[0]))
    return labelled


def limit_classes(
    labelled: Sequence[LabeledImage],
    minimum: int,
    maximum: int | None,
    drops: Exclusions,
    first: frozenset[int] = frozenset(),
) -> tuple[list[LabeledImage], dict[str, int]]:
    """Classes of at least MINIMUM photos, cut to MAXIMUM; and the classes left out with counts.

    Where classes are cut, the images FIRST, by id, come before others.
    """
    sizes = Counter(item.label for item in labelled)
    short = {label: n for label, n in sorted(sizes.items()) if n < minimum}
    order = labelled
    if maximum is not None:
        order = sorted(labelled, key=lambda item: first.isdisjoint(item.photo.copies))
    kept, seen = [], Counter[str]()
    for item in order:
        if item.label in short:
            drops.add(item.photo, "class too small", item.label)
            continue
        seen[item.label] += 1
        if maximum is not None and seen[item.label] > maximum:
            drops.add(item.photo, "over --max-per-class", item.label)
        else:
            kept.append(item)
    return sorted(kept, key=lambda item: item.photo.sha256), short
