"""Assign one label to each image: a reviewer's decision, else the label of its hashtags."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dataset.catalogue.models import Hashtag, ImageRow, PostHashtag, Sighting
from dataset.catalogue.queries import in_batches, is_stored
from dataset.selection.candidates import (
    Candidate,
    Exclusions,
    SourcePost,
    load_candidates,
    select_best_copies,
)
from dataset.selection.quality_gates import apply_quality_gates, load_quality_gates
from dataset.vocabulary import Vocabulary

LABEL_CONFLICT = "conflict of labels"


@dataclass(frozen=True, slots=True)
class LabeledImage:
    """A candidate with its label."""

    photo: Candidate
    label: str


def matching_labels(
    photo: Candidate, vocabulary: Vocabulary, requested: Collection[str] = ()
) -> list[str]:
    """Return the labels of an image's hashtags, in the order of their discovery.

    A label that contains another one of the image is dropped: of shoes and sneakers, sneakers
    remains. If the remaining label is not among the requested ones, a requested wider label of the
    image replaces it. Where the posts of a photo and of its copies have different labels, those of
    the original post count (see `_original_posts`).
    """
    labels = _labels_of(photo.posts, vocabulary)
    narrowest = vocabulary.narrowest(labels)
    if len(narrowest) > 1:
        labels = _labels_of(_original_posts(photo, vocabulary), vocabulary)
        narrowest = vocabulary.narrowest(labels)
    if len(narrowest) == 1 and narrowest[0] not in requested:
        return vocabulary.narrowest([name for name in labels if name in requested]) or narrowest
    return narrowest


def _labels_of(posts: Iterable[SourcePost], vocabulary: Vocabulary) -> dict[str, None]:
    return dict.fromkeys(vocabulary.label_or_own(tag) for post in posts for tag in post.hashtags)


def _original_posts(photo: Candidate, vocabulary: Vocabulary) -> list[SourcePost]:
    """Return the posts that decide between the labels of a photo and its reposts.

    Those are the earliest posts if all are dated, otherwise the posts of the best copy: a repost
    has another copy.
    """
    posts = [post for post in photo.posts if _labels_of([post], vocabulary)]
    dates = [post.posted for post in posts if post.posted is not None]
    if len(dates) == len(posts):
        return [post for post in posts if post.posted == min(dates)]
    return [post for post in posts if post.id in photo.own_posts] or posts


def assign_labels(
    photos: Iterable[Candidate],
    vocabulary: Vocabulary,
    requested: Collection[str],
    exclusions: Exclusions,
    conflicts: str = "exclude",
    earlier: Mapping[int, str] | None = None,
) -> list[LabeledImage]:
    """Assign one label to each image and exclude images without one.

    Args:
        photos: Candidates. The latest decision of a reviewer overrides all hashtags.
        vocabulary: Labels and their words.
        requested: If not empty, images with other labels are excluded.
        exclusions: Receives images without exactly one requested label.
        conflicts: What happens to an image with several labels: `exclude`, or `first` for the
            label that was discovered first.
        earlier: Image id -> label in the latest build: it decides between several labels.
    """
    labeled, known = [], earlier or {}
    for photo in photos:
        if photo.decisions:
            decided = photo.decisions[-1][1]
            if decided is None:
                exclusions.add(photo, "excluded by a reviewer")
                continue
            labels = [decided]
        else:
            labels = matching_labels(photo, vocabulary, requested)
            if len(labels) > 1:
                kept = [known[copy] for copy in photo.copies if known.get(copy) in labels]
                labels = kept[:1] or labels
        if not labels:
            exclusions.add(photo, "no label")
        elif len(labels) > 1 and conflicts != "first":
            exclusions.add(photo, LABEL_CONFLICT, ", ".join(labels))
        elif requested and labels[0] not in requested:
            exclusions.add(photo, "label not requested", labels[0])
        else:
            labeled.append(LabeledImage(photo, labels[0]))
    return labeled


def label_photos(
    session: Session, vocabulary: Vocabulary, exclusions: Exclusions, words: Sequence[str] = ()
) -> list[LabeledImage]:
    """Label the photos of a catalogue as a build does: the best copy of each cluster.

    Args:
        session: Session on the catalogue.
        vocabulary: Labels and their words.
        exclusions: Receives the images that are not returned.
        words: If given, only photos whose posts were found under one of these hashtags.
    """
    gates = load_quality_gates()
    labeled = []
    batches = in_batches(_clusters_of(session, words)) if words else [None]
    for clusters in batches:
        candidates = load_candidates(session, clusters=clusters)
        photos = apply_quality_gates(select_best_copies(candidates, exclusions), gates, exclusions)
        labeled += assign_labels(photos, vocabulary, (), exclusions)
    return labeled


def _clusters_of(session: Session, words: Sequence[str]) -> Sequence[int]:
    """Return the clusters of the stored images of posts found under hashtags."""
    # Begins with the hashtags: with a subquery of posts, SQLite would read all stored images.
    query = (
        sa.select(ImageRow.cluster_id)
        .select_from(Hashtag)
        .join(PostHashtag, PostHashtag.hashtag_id == Hashtag.id)
        .join(Sighting, Sighting.post_id == PostHashtag.post_id)
        .join(ImageRow, ImageRow.id == Sighting.image_id)
        .where(PostHashtag.source == "search", Hashtag.text.in_(words), is_stored(ImageRow))
        .distinct()
    )
    return [cluster for cluster in session.scalars(query) if cluster is not None]


def limit_classes(
    labeled: Sequence[LabeledImage],
    minimum: int,
    maximum: int | None,
    exclusions: Exclusions,
    preferred: frozenset[int] = frozenset(),
) -> tuple[list[LabeledImage], dict[str, int]]:
    """Exclude small classes and cut large ones.

    Args:
        labeled: Images with labels.
        minimum: Classes with fewer images are excluded.
        maximum: Largest number of images per class, if limited.
        exclusions: Receives the images that are not returned.
        preferred: Ids of images that are kept first where a class is cut.

    Returns:
        The remaining images ordered by SHA-256, and the sizes of the excluded classes by label.
    """
    sizes = Counter(image.label for image in labeled)
    too_small = {label: size for label, size in sorted(sizes.items()) if size < minimum}
    order = labeled
    if maximum is not None:
        order = sorted(labeled, key=lambda image: preferred.isdisjoint(image.photo.copies))
    kept, kept_per_label = [], Counter[str]()
    for image in order:
        if image.label in too_small:
            exclusions.add(image.photo, "class too small", image.label)
            continue
        kept_per_label[image.label] += 1
        if maximum is not None and kept_per_label[image.label] > maximum:
            exclusions.add(image.photo, "over --max-per-class", image.label)
        else:
            kept.append(image)
    return sorted(kept, key=lambda image: image.photo.sha256), too_small
