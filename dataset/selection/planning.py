"""What a build will take and where it goes, decided from the catalogue alone: no pixel is read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session

from dataset.catalogue.models import NearDuplicateRow
from dataset.duplicates.alignment import POSSIBLE_SIMILARITY
from dataset.selection import splits
from dataset.selection.candidates import Exclusions, load_candidates, select_best_copies
from dataset.selection.groups import (
    LINKS_TWO_SPLITS,
    GroupAssignment,
    ImageLinks,
    add_links,
    assign_groups,
    link_images,
)
from dataset.selection.labeling import LabeledImage, assign_labels, limit_classes
from dataset.selection.quality_gates import QualityGates, apply_quality_gates
from dataset.selection.splits import assign_splits, describe_deviations
from dataset.vocabulary import Vocabulary


@dataclass(frozen=True)
class SelectionOptions:
    """Which photos a build may take (see `build-dataset --help`)."""

    vocabulary: Vocabulary
    gates: QualityGates
    min_per_class: int
    max_per_class: int | None
    labels: Sequence[str]
    conflicts: str
    shares: tuple[float, float, float]
    seed: int
    new_splits: bool = False
    captions: bool = False

    def tells(self, hashtag: str) -> bool:
        """Whether HASHTAG is a label's: one of the vocabulary, or one that was asked for."""
        known = self.vocabulary.label_of(hashtag) is not None
        return known or self.vocabulary.label_or_own(hashtag) in self.labels


@dataclass(frozen=True)
class BuildPlan:
    """Photos with their splits and groups. `left_out`: label -> photos, too few.

    `places`: of the photos among those that `ties` tie; `kept`: place -> split of earlier builds.
    `unmet`: where shares are not as wished.
    """

    labelled: Sequence[LabeledImage]
    splits: Sequence[str]
    groups: Sequence[int]
    drops: Exclusions
    left_out: Mapping[str, int]
    places: Sequence[int]
    ties: ImageLinks
    kept: Mapping[int, str]
    unmet: Sequence[str]


def plan_build(session: Session, choice: SelectionOptions) -> BuildPlan:
    """The build that CHOICE asks for; an empty one where no class has enough photos."""
    drops = Exclusions()
    photos = select_best_copies(
        load_candidates(session, choice.tells if choice.captions else None), drops
    )
    scheme = splits.split_scheme(choice.shares, choice.seed)
    before = {} if choice.new_splits else splits.load_kept_splits(session, scheme)
    ties = link_images(photos, _near_duplicate_pairs(session))
    kept = {
        place: _split_of_cluster(photo.copies, before)
        for place, photo in enumerate(photos)
        if not before.keys().isdisjoint(photo.copies)
    }
    good = apply_quality_gates(photos, choice.gates, drops)
    labelled = assign_labels(good, choice.vocabulary, choice.labels, drops, choice.conflicts)
    place_of = {photo.image_id: place for place, photo in enumerate(photos)}
    settled = assign_groups(ties, kept)
    whole = [one for one in labelled if place_of[one.photo.image_id] not in settled.torn]
    _exclude_conflicting_links(labelled, settled, place_of, drops)
    taken, left_out = limit_classes(
        whole, choice.min_per_class, choice.max_per_class, drops, frozenset(before)
    )
    places = [place_of[one.photo.image_id] for one in taken]
    plan = BuildPlan(taken, (), (), drops, left_out, places, ties, kept, ())
    return _with_splits(plan, settled, choice)


def _split_of_cluster(copies: Sequence[int], before: Mapping[int, str]) -> str:
    """The split of a cluster: that of its oldest image which has one."""
    return next(before[image] for image in copies if image in before)


def _near_duplicate_pairs(session: Session) -> np.ndarray:
    """Pairs of ids of images that are or may be one photo, (n, 2)."""
    rows = session.execute(
        sa.select(NearDuplicateRow.one_id, NearDuplicateRow.other_id).where(
            NearDuplicateRow.similarity >= POSSIBLE_SIMILARITY
        )
    )
    return np.array([tuple(row) for row in rows], np.int64).reshape(-1, 2)


def _exclude_conflicting_links(
    labelled: Sequence[LabeledImage],
    settled: GroupAssignment,
    place_of: Mapping[int, int],
    drops: Exclusions,
) -> None:
    for one in labelled:
        if place_of[one.photo.image_id] in settled.torn:
            drops.add(one.photo, LINKS_TWO_SPLITS, one.label)


def _with_splits(plan: BuildPlan, settled: GroupAssignment, choice: SelectionOptions) -> BuildPlan:
    labels = [one.label for one in plan.labelled]
    groups = settled.groups[list(plan.places)].tolist()
    names = assign_splits(groups, labels, choice.shares, choice.seed, settled.fixed)
    off = describe_deviations(groups, labels, names, choice.shares)
    return replace(plan, splits=names, groups=groups, unmet=off)


@dataclass(frozen=True)
class Replan:
    """A plan for those photos of another one that `numbers` names; `torn`: those it had to drop."""

    plan: BuildPlan
    numbers: Sequence[int]
    torn: Sequence[int]


def replan_splits(
    plan: BuildPlan,
    choice: SelectionOptions,
    written: Sequence[int],
    alike: Sequence[tuple[int, int]],
) -> Replan:
    """PLAN for the photos WRITTEN, by their numbers in it, where those ALIKE are tied too."""
    ties = add_links(plan.ties, [(plan.places[one], plan.places[other]) for one, other in alike])
    settled = assign_groups(ties, plan.kept)
    torn = [number for number in written if plan.places[number] in settled.torn]
    left = [number for number in written if plan.places[number] not in settled.torn]
    smaller = replace(
        plan,
        labelled=[plan.labelled[number] for number in left],
        places=[plan.places[number] for number in left],
    )
    return Replan(_with_splits(smaller, settled, choice), left, torn)
