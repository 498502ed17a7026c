"""Plan a build from the catalogue alone: which images it takes and their splits.

No image file is read here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session

from dataset.catalogue.models import NearDuplicateRow, SplitAssignment
from dataset.duplicates.verification import Relation
from dataset.selection.candidates import (
    Exclusions,
    QualityGates,
    apply_quality_gates,
    load_candidates,
    select_best_copies,
    select_licensed,
)
from dataset.selection.labeling import (
    LabeledImage,
    assign_label_sets,
    assign_labels,
    limit_classes,
)
from dataset.selection.splits import (
    LINKS_TWO_SPLITS,
    GroupAssignment,
    ImageLinks,
    add_links,
    assign_groups,
    assign_multi_label_splits,
    assign_splits,
    describe_deviations,
    link_images,
    load_kept_splits,
    split_scheme,
)
from dataset.vocabulary import Vocabulary


@dataclass(frozen=True)
class SelectionOptions:
    """Which images a build may use; see `build-dataset --help`.

    Attributes:
        vocabulary: Labels and their words.
        gates: Quality thresholds.
        min_per_class: Labels with fewer images are excluded.
        max_per_class: Largest number of images per label, if limited.
        labels: If not empty, only these labels are used.
        conflicts: How images with several labels are treated; see `BuildOptions.conflicts`.
        proportions: Relative sizes of train, validation and test.
        seed: Random seed of the splits.
        new_splits: Whether the splits of earlier builds are ignored.
        use_captions: Whether hashtags in captions and titles count for labels.
        licenses: If not empty, only images with these licenses are used.
        multi_label: Whether an image keeps all its labels, one per facet.
    """

    vocabulary: Vocabulary
    gates: QualityGates
    min_per_class: int
    max_per_class: int | None
    labels: Sequence[str]
    conflicts: str
    proportions: tuple[float, float, float]
    seed: int
    new_splits: bool = False
    use_captions: bool = False
    licenses: tuple[str, ...] = ()
    multi_label: bool = False

    def is_label(self, hashtag: str) -> bool:
        """Return whether a hashtag belongs to the vocabulary or to a requested label."""
        known = self.vocabulary.label_of(hashtag) is not None
        return known or self.vocabulary.label_or_hashtag(hashtag) in self.labels


@dataclass(frozen=True)
class BuildPlan:
    """The images of a build with their splits and groups.

    Attributes:
        images: Images with their labels, ordered by SHA-256.
        splits: Split of each image.
        groups: Group number of each image.
        exclusions: Images that are not used.
        small_classes: Label -> number of images, for labels with too few.
        candidate_indices: Index of each image among the candidates, to which `links` and
            `kept_splits` refer.
        links: Links between all candidates.
        kept_splits: Candidate index -> split in earlier builds.
        deviations: A sentence for each label and split whose proportion deviates.
    """

    images: Sequence[LabeledImage]
    splits: Sequence[str]
    groups: Sequence[int]
    exclusions: Exclusions
    small_classes: Mapping[str, int]
    candidate_indices: Sequence[int]
    links: ImageLinks
    kept_splits: Mapping[int, str]
    deviations: Sequence[str]


def plan_build(session: Session, options: SelectionOptions) -> BuildPlan:
    """Plan a build; the plan is empty if no class has enough images."""
    exclusions = Exclusions()
    is_label = options.is_label if options.use_captions else None
    loaded = load_candidates(session, is_label, attributes=options.multi_label)
    candidates = select_licensed(loaded, options.licenses, exclusions)
    photos = select_best_copies(candidates, exclusions)
    scheme = split_scheme(options.proportions, options.seed)
    before = {} if options.new_splits else load_kept_splits(session, scheme)
    links = link_images(photos, _near_duplicate_pairs(session))
    kept = {
        index: _split_of_cluster(photo.copies, before)
        for index, photo in enumerate(photos)
        if not before.keys().isdisjoint(photo.copies)
    }
    passed = apply_quality_gates(photos, options.gates, exclusions)
    assign = assign_label_sets if options.multi_label else assign_labels
    labeled = assign(
        passed,
        options.vocabulary,
        options.labels,
        exclusions,
        options.conflicts,
        {} if options.new_splits else _latest_labels(session),
    )
    index_of = {photo.image_id: index for index, photo in enumerate(photos)}
    assignment = assign_groups(links, kept)
    usable = []
    for image in labeled:
        if index_of[image.photo.image_id] in assignment.conflicting:
            exclusions.add(image.photo, LINKS_TWO_SPLITS, image.label)
        else:
            usable.append(image)
    images, small_classes = limit_classes(
        usable, options.min_per_class, options.max_per_class, exclusions, frozenset(before)
    )
    indices = [index_of[image.photo.image_id] for image in images]
    plan = BuildPlan(images, (), (), exclusions, small_classes, indices, links, kept, ())
    return _with_splits(plan, assignment, options)


def _latest_labels(session: Session) -> dict[int, str]:
    """Return image id -> label in the latest build, or its labels as one text."""
    latest = sa.select(sa.func.max(SplitAssignment.run_id)).scalar_subquery()
    query = sa.select(SplitAssignment.image_id, SplitAssignment.label)
    rows = session.execute(query.where(SplitAssignment.run_id == latest))
    return {image: label for image, label in rows}  # noqa: C416


def _split_of_cluster(copies: Sequence[int], before: Mapping[int, str]) -> str:
    """Return the split of the oldest image of a cluster that has one."""
    return next(before[image] for image in copies if image in before)


def _near_duplicate_pairs(session: Session) -> np.ndarray:
    """Return the ids of near duplicates and of possible ones, an array of shape (n, 2)."""
    rows = session.execute(
        sa.select(NearDuplicateRow.one_id, NearDuplicateRow.other_id).where(
            NearDuplicateRow.relation != Relation.UNRELATED
        )
    )
    return np.array([tuple(row) for row in rows], np.int64).reshape(-1, 2)


def _with_splits(
    plan: BuildPlan, assignment: GroupAssignment, options: SelectionOptions
) -> BuildPlan:
    groups = assignment.groups[list(plan.candidate_indices)].tolist()
    settings = options.proportions, options.seed, assignment.fixed
    if options.multi_label:
        label_sets = [image.labels for image in plan.images]
        splits = assign_multi_label_splits(groups, label_sets, *settings)
    else:
        splits = assign_splits(groups, [image.label for image in plan.images], *settings)
    indices = [index for index, image in enumerate(plan.images) for _ in image.labels]
    deviations = describe_deviations(
        [groups[index] for index in indices],
        [label for image in plan.images for label in image.labels],
        [splits[index] for index in indices],
        options.proportions,
        assignment.fixed,
    )
    return replace(plan, splits=splits, groups=groups, deviations=deviations)


@dataclass(frozen=True)
class Replan:
    """A plan for some images of an earlier plan.

    Attributes:
        plan: The new plan.
        indices: Indices of its images in the earlier plan.
        conflicting: Indices of the images that were excluded because they link two splits.
    """

    plan: BuildPlan
    indices: Sequence[int]
    conflicting: Sequence[int]


def replan_splits(
    plan: BuildPlan,
    options: SelectionOptions,
    indices: Sequence[int],
    near_duplicates: Sequence[tuple[int, int]],
) -> Replan:
    """Assign splits again with more links.

    Args:
        plan: The earlier plan.
        options: Its options.
        indices: Indices in `plan` of the images to use.
        near_duplicates: Pairs of such indices that must be in one split.
    """
    pairs = [
        (plan.candidate_indices[first], plan.candidate_indices[second])
        for first, second in near_duplicates
    ]
    assignment = assign_groups(add_links(plan.links, pairs), plan.kept_splits)
    conflicting = [i for i in indices if plan.candidate_indices[i] in assignment.conflicting]
    remaining = [i for i in indices if plan.candidate_indices[i] not in assignment.conflicting]
    smaller = replace(
        plan,
        images=[plan.images[i] for i in remaining],
        candidate_indices=[plan.candidate_indices[i] for i in remaining],
    )
    return Replan(_with_splits(smaller, assignment, options), remaining, conflicting)
