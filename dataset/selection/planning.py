"""What a build will take and where it goes, decided from the catalogue alone: no pixel is read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session

from dataset.catalogue.models import ResemblanceRow
from dataset.duplicates.alignment import POSSIBLE
from dataset.selection import splits
from dataset.selection.candidates import Drops, fold, load
from dataset.selection.groups import TORN, Settled, Ties, settle, tied_too, ties_of
from dataset.selection.labeling import Labelled, give_labels, limit_classes
from dataset.selection.quality_gates import Gates, pass_gates
from dataset.selection.splits import split, unmet
from dataset.vocabulary import Vocabulary


@dataclass(frozen=True)
class Choice:
    """Which photos a build may take (see `build-dataset --help`)."""

    vocabulary: Vocabulary
    gates: Gates
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
class Plan:
    """Photos with their splits and groups. `left_out`: label -> photos, too few.

    `places`: of the photos among those that `ties` tie; `kept`: place -> split of earlier builds.
    `unmet`: where shares are not as wished.
    """

    labelled: Sequence[Labelled]
    splits: Sequence[str]
    groups: Sequence[int]
    drops: Drops
    left_out: Mapping[str, int]
    places: Sequence[int]
    ties: Ties
    kept: Mapping[int, str]
    unmet: Sequence[str]


def make_plan(session: Session, choice: Choice) -> Plan:
    """The build that CHOICE asks for; an empty one where no class has enough photos."""
    drops = Drops()
    photos = fold(load(session, choice.tells if choice.captions else None), drops)
    scheme = splits.scheme_of(choice.shares, choice.seed)
    before = {} if choice.new_splits else splits.load(session, scheme)
    ties = ties_of(photos, _alike(session))
    kept = {
        place: _of_copies(photo.copies, before)
        for place, photo in enumerate(photos)
        if not before.keys().isdisjoint(photo.copies)
    }
    good = pass_gates(photos, choice.gates, drops)
    labelled = give_labels(good, choice.vocabulary, choice.labels, drops, choice.conflicts)
    place_of = {photo.image_id: place for place, photo in enumerate(photos)}
    settled = settle(ties, kept)
    whole = [one for one in labelled if place_of[one.photo.image_id] not in settled.torn]
    _drop_torn(labelled, settled, place_of, drops)
    taken, left_out = limit_classes(
        whole, choice.min_per_class, choice.max_per_class, drops, frozenset(before)
    )
    places = [place_of[one.photo.image_id] for one in taken]
    plan = Plan(taken, (), (), drops, left_out, places, ties, kept, ())
    return _with_splits(plan, settled, choice)


def _of_copies(copies: Sequence[int], before: Mapping[int, str]) -> str:
    """The split of a cluster: that of its oldest image which has one."""
    return next(before[image] for image in copies if image in before)


def _alike(session: Session) -> np.ndarray:
    """Pairs of ids of images that are or may be one photo, (n, 2)."""
    rows = session.execute(
        sa.select(ResemblanceRow.one_id, ResemblanceRow.other_id).where(
            ResemblanceRow.likeness >= POSSIBLE
        )
    )
    return np.array([tuple(row) for row in rows], np.int64).reshape(-1, 2)


def _drop_torn(
    labelled: Sequence[Labelled], settled: Settled, place_of: Mapping[int, int], drops: Drops
) -> None:
    for one in labelled:
        if place_of[one.photo.image_id] in settled.torn:
            drops.add(one.photo, TORN, one.label)


def _with_splits(plan: Plan, settled: Settled, choice: Choice) -> Plan:
    labels = [one.label for one in plan.labelled]
    groups = settled.groups[list(plan.places)].tolist()
    names = split(groups, labels, choice.shares, choice.seed, settled.fixed)
    off = unmet(groups, labels, names, choice.shares)
    return replace(plan, splits=names, groups=groups, unmet=off)


@dataclass(frozen=True)
class Again:
    """A plan for those photos of another one that `numbers` names; `torn`: those it had to drop."""

    plan: Plan
    numbers: Sequence[int]
    torn: Sequence[int]


def split_again(
    plan: Plan, choice: Choice, written: Sequence[int], alike: Sequence[tuple[int, int]]
) -> Again:
    """PLAN for the photos WRITTEN, by their numbers in it, where those ALIKE are tied too."""
    ties = tied_too(plan.ties, [(plan.places[one], plan.places[other]) for one, other in alike])
    settled = settle(ties, plan.kept)
    torn = [number for number in written if plan.places[number] in settled.torn]
    left = [number for number in written if plan.places[number] not in settled.torn]
    smaller = replace(
        plan,
        labelled=[plan.labelled[number] for number in left],
        places=[plan.places[number] for number in left],
    )
    return Again(_with_splits(smaller, settled, choice), left, torn)
