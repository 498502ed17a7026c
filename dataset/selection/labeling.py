"""Assign labels to each image: a reviewer's decisions, else the labels of its hashtags."""

import itertools
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dataset.catalogue.models import Hashtag, ImageRow, PostHashtag, Sighting
from dataset.catalogue.queries import in_batches, is_stored
from dataset.selection.candidates import (
    Candidate,
    Exclusions,
    SourcePost,
    apply_quality_gates,
    load_candidates,
    load_quality_gates,
    select_best_copies,
)
from dataset.vocabulary import Vocabulary, join_facets, split_facets

LABEL_CONFLICT = "conflict of labels"
# Stands between the labels of a photo where they are one text.
LABEL_SEPARATOR = ", "


@dataclass(frozen=True, slots=True)
class LabeledImage:
    """A candidate with its labels.

    Attributes:
        photo: The candidate.
        labels: Its labels: one, or several in a multi-label build.
        label_facets: In a multi-label build, the facets of each label as the vocabulary writes
            them, such as upper+lower.
    """

    photo: Candidate
    labels: tuple[str, ...]
    label_facets: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Return the label, or all labels as one text."""
        return LABEL_SEPARATOR.join(self.labels)

    @property
    def facets(self) -> tuple[str, ...]:
        """Return the facets that the labels fill; other facets are unlabelled."""
        filled = (facet for facets in self.label_facets for facet in split_facets(facets))
        return tuple(dict.fromkeys(filled))

    def with_labels(self, kept: Collection[str]) -> "LabeledImage":
        """Return the image with some of its labels."""
        if len(kept) == len(self.labels):
            return self
        pairs = zip(self.labels, self.label_facets, strict=True)
        labels, facets = zip(*(pair for pair in pairs if pair[0] in kept), strict=True)
        return LabeledImage(self.photo, labels, facets)


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
        posts = _original_posts(photo, lambda post: bool(_labels_of([post], vocabulary)))
        labels = _labels_of(posts, vocabulary)
        narrowest = vocabulary.narrowest(labels)
    if len(narrowest) == 1 and narrowest[0] not in requested:
        return vocabulary.narrowest([name for name in labels if name in requested]) or narrowest
    return narrowest


def _labels_of(posts: Iterable[SourcePost], vocabulary: Vocabulary) -> dict[str, None]:
    return dict.fromkeys(
        vocabulary.label_or_hashtag(tag) for post in posts for tag in post.hashtags
    )


def _original_posts(photo: Candidate, has_label: Callable[[SourcePost], bool]) -> list[SourcePost]:
    """Return the posts that decide between the labels of a photo and its reposts.

    Those are the earliest posts if all are dated, otherwise the posts of the best copy: a repost
    has another copy.

    Args:
        photo: The photo.
        has_label: Returns whether a post has a label that counts.
    """
    posts = [post for post in photo.posts if has_label(post)]
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
            labeled.append(LabeledImage(photo, (labels[0],)))
    return labeled


def assign_label_sets(
    photos: Iterable[Candidate],
    vocabulary: Vocabulary,
    requested: Collection[str],
    exclusions: Exclusions,
    conflicts: str = "exclude",
    earlier: Mapping[int, str] | None = None,
) -> list[LabeledImage]:
    """Assign all its labels to each image, at most one per facet.

    The arguments are those of `assign_labels`. Reviewers' decisions override the hashtags in the
    facets of the decided labels. Facets without a hashtag get the label of the product's
    attributes if it is unambiguous. With `conflicts` as `unlabel`, facets with several labels stay
    unlabelled.
    """
    labeled, known = [], earlier or {}
    for photo in photos:
        if photo.decisions and photo.decisions[-1][1] is None:
            exclusions.add(photo, "excluded by a reviewer")
            continue
        before = {
            name for copy in photo.copies for name in known.get(copy, "").split(LABEL_SEPARATOR)
        }
        resolved = _LabelSet(photo, vocabulary, requested, before).resolve(conflicts)
        if isinstance(resolved, list):
            exclusions.add(photo, LABEL_CONFLICT, LABEL_SEPARATOR.join(resolved))
        elif not resolved:
            exclusions.add(photo, "no label")
        else:
            chosen = resolved & set(requested) if requested else resolved
            if chosen:
                ordered = vocabulary.ordered(chosen)
                facets = tuple(join_facets(vocabulary.facets_of(name)) for name in ordered)
                labeled.append(LabeledImage(photo, ordered, facets))
            else:
                detail = LABEL_SEPARATOR.join(vocabulary.ordered(resolved))
                exclusions.add(photo, "label not requested", detail)
    return labeled


@dataclass(frozen=True)
class _LabelSet:
    """Finds the labels of an image.

    Attributes:
        photo: The image.
        vocabulary: Labels and their words.
        requested: If not empty, the labels of the build.
        before: The labels that the image had in the latest build.
    """

    photo: Candidate
    vocabulary: Vocabulary
    requested: Collection[str]
    before: Collection[str]

    def resolve(self, conflicts: str) -> set[str] | list[str]:
        """Return the labels, or a list of labels that are in conflict."""
        decided = self._decided()
        names = _labels_of(self.photo.posts, self.vocabulary)
        narrowest = self._without_facets_of(decided, self.vocabulary.narrowest(names))
        labels = {*decided, *narrowest}
        for rivals in self.vocabulary.conflicts(narrowest):
            kept = self._resolve_conflict(rivals, conflicts, has_others=len(labels) > len(rivals))
            if kept is None:
                return rivals
            labels -= set(rivals)
            labels |= set(kept)
        labels = {self._requested_form(name, names) for name in labels}
        return labels | self._labels_from_attributes(labels)

    def _decided(self) -> list[str]:
        """Return the labels that reviewers decided; a later decision overrides its facets."""
        decided: list[str] = []
        for _, label in self.photo.decisions:
            if label is not None:
                name = self.vocabulary.label_or_hashtag(label)
                decided = [*self._without_facets_of([name], decided), name]
        return decided

    def _without_facets_of(self, taken: Iterable[str], names: Iterable[str]) -> list[str]:
        facets = {facet for name in taken for facet in self.vocabulary.facets_of(name)}
        return [name for name in names if facets.isdisjoint(self.vocabulary.facets_of(name))]

    def _resolve_conflict(
        self, rivals: list[str], conflicts: str, has_others: bool
    ) -> Sequence[str] | None:
        """Return which of some labels that exclude each other an image has; None: a conflict."""
        if self.requested and not set(rivals) & set(self.requested):
            return ()
        original = self._original_labels(rivals)
        remaining = original or rivals
        # Hashtags outside the vocabulary, such as those of places, say nothing against the others.
        meant = [n for n in remaining if n in self.vocabulary.labels or n in self.requested]
        remaining = meant or remaining
        if self.vocabulary.conflicts(remaining):
            before = [name for name in remaining if name in self.before]
            remaining = before or remaining
        if not self.vocabulary.conflicts(remaining):
            return remaining
        if conflicts == "first":
            kept: list[str] = []
            for name in remaining:
                kept += self._without_facets_of(kept, [name])
            return kept
        if conflicts == "unlabel" or (has_others and not meant):
            return ()
        return None

    def _original_labels(self, rivals: list[str]) -> list[str]:
        """Return the labels of the original post in the facets of some labels."""
        facets = {facet for name in rivals for facet in self.vocabulary.facets_of(name)}

        def labels_in_facets(posts: Iterable[SourcePost]) -> list[str]:
            return [
                name
                for name in _labels_of(posts, self.vocabulary)
                if not facets.isdisjoint(self.vocabulary.facets_of(name))
            ]

        posts = _original_posts(self.photo, lambda post: bool(labels_in_facets([post])))
        return self.vocabulary.narrowest(labels_in_facets(posts))

    def _requested_form(self, name: str, names: Iterable[str]) -> str:
        """Return a label, or a wider label of the image that is requested in its place."""
        if not self.requested or name in self.requested:
            return name
        wider = self.vocabulary.wider(name)
        forms = [other for other in names if other in wider and other in self.requested]
        return next(iter(self.vocabulary.narrowest(forms)), name)

    def _labels_from_attributes(self, labels: Iterable[str]) -> set[str]:
        """Return labels of the product's attributes in facets that the other labels do not fill."""
        words = (word for post in self.photo.posts for word in post.attributes)
        names = dict.fromkeys(
            name
            for name in map(self.vocabulary.label_or_hashtag, words)
            if name in self.vocabulary.labels or name in self.requested
        )
        remaining = self._without_facets_of(labels, names)
        narrowest = self.vocabulary.narrowest(remaining)
        ambiguous = {name for rivals in self.vocabulary.conflicts(narrowest) for name in rivals}
        return {
            self._requested_form(name, remaining) for name in narrowest if name not in ambiguous
        }


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

    An image with several labels loses only those that are excluded or cut, as long as one is left.

    Args:
        labeled: Images with labels.
        minimum: Classes with fewer images are excluded.
        maximum: Largest number of images per class, if limited.
        exclusions: Receives the images that are not returned.
        preferred: Ids of images that are kept first where a class is cut.

    Returns:
        The remaining images ordered by SHA-256, and the sizes of the excluded classes by label.
    """
    sizes = Counter(label for image in labeled for label in image.labels)
    too_small = {label: size for label, size in sorted(sizes.items()) if size < minimum}
    order = labeled
    if maximum is not None:
        order = sorted(labeled, key=lambda image: preferred.isdisjoint(image.photo.copies))
    kept, kept_per_label = [], Counter[str]()
    for image in order:
        large = [label for label in image.labels if label not in too_small]
        is_open = [maximum is None or kept_per_label[label] < maximum for label in large]
        open_labels = list(itertools.compress(large, is_open))
        if not large:
            exclusions.add(image.photo, "class too small", image.label)
        elif not open_labels:
            exclusions.add(image.photo, "over --max-per-class", LABEL_SEPARATOR.join(large))
        else:
            kept_per_label.update(open_labels)
            kept.append(image.with_labels(open_labels))
    return sorted(kept, key=lambda image: image.photo.sha256), too_small
