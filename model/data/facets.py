"""Facets of labels as groups of a network's outputs, for photos of several labels.

A network has one output per label. The labels of a facet exclude each other: their outputs are the
logits of one softmax. A label that fills two facets, as a dress does, is in both groups. A facet
that is unlabelled on a photo has no target there: unknown is not absent.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dataset.errors import Failure

# The target of an unlabelled facet.
UNLABELLED = -1


@dataclass(frozen=True)
class FacetGroups:
    """The facets of labels.

    Attributes:
        names: Names of the facets.
        members: The class indices of each facet's labels, at least two.
    """

    names: tuple[str, ...]
    members: tuple[tuple[int, ...], ...]

    def named_labels(self, labels: Sequence[str]) -> dict[str, list[str]]:
        """Return facet -> names of its labels."""
        return {
            name: [labels[index] for index in members]
            for name, members in zip(self.names, self.members, strict=True)
        }

    def targets(self, label_sets: Iterable[tuple[str, Sequence[int]]]) -> np.ndarray:
        """Return the target of each facet of each photo.

        Args:
            label_sets: Path and class indices of the labels of each photo.

        Returns:
            Int array of shape (n, facets): the index of the label within its facet, or
            `UNLABELLED`.

        Raises:
            Failure: A photo has two labels of a facet.
        """
        positions = [
            {label: position for position, label in enumerate(members)} for members in self.members
        ]
        rows = []
        for path, indices in label_sets:
            row = []
            for name, position in zip(self.names, positions, strict=True):
                own = [position[index] for index in indices if index in position]
                if len(own) > 1:
                    raise Failure(
                        f"{path} has {len(own)} labels of the facet {name}, which exclude each"
                        " other; build the data set again with build-dataset --multi-label"
                    )
                row.append(own[0] if own else UNLABELLED)
            rows.append(row)
        return np.array(rows, np.int64).reshape(len(rows), len(self.names))

    def encode(self, targets: np.ndarray, has_class_weights: bool) -> np.ndarray:
        """Return the targets of the loss.

        Args:
            targets: Result of `targets`, shape (n, facets).
            has_class_weights: Whether the labels of a facet get the same total weight.

        Returns:
            Float32 array of shape (n, sum of the facets' sizes): a one-hot row per facet, times the
            weight of the example; zeros for an unlabelled facet. The mean weight of a photo is 1.
        """
        encoded = []
        for number, members in enumerate(self.members):
            own, size = targets[:, number], len(members)
            is_known = own != UNLABELLED
            rows = np.eye(size, dtype=np.float32)[np.where(is_known, own, 0)] * is_known[:, None]
            if has_class_weights:
                counts = np.maximum(1, rows.sum(axis=0))
                rows *= (is_known.sum() / (size * counts)).astype(np.float32)
            encoded.append(rows)
        joined = np.concatenate(encoded, axis=1)
        return joined * np.float32(len(joined) / max(1.0, joined.sum()))

    def parts(
        self, logits: np.ndarray, targets: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield logits and targets of the labelled photos of each facet.

        Args:
            logits: Array of shape (n, labels).
            targets: Array of shape (n, facets).

        Yields:
            For each facet, arrays of shape (m, size) and (m,).
        """
        for number, members in enumerate(self.members):
            is_known = targets[:, number] != UNLABELLED
            yield logits[is_known][:, list(members)], targets[is_known, number]

    def is_known(self, targets: np.ndarray, labels: int) -> np.ndarray:
        """Return whether it is known that a photo has or lacks a label, bool array (n, labels).

        It is known if one of the label's facets is labelled.
        """
        known = np.zeros((len(targets), labels), bool)
        for number, members in enumerate(self.members):
            known[:, list(members)] |= (targets[:, number] != UNLABELLED)[:, None]
        return known

    def has_label(self, targets: np.ndarray, labels: int) -> np.ndarray:
        """Return which labels each photo has, bool array of shape (n, labels)."""
        has = np.zeros((len(targets), labels), bool)
        for number, members in enumerate(self.members):
            rows = np.flatnonzero(targets[:, number] != UNLABELLED)
            has[rows, np.array(members)[targets[rows, number]]] = True
        return has

    def facets_of(self, labels: int) -> np.ndarray:
        """Return the number of facets of each label, int array of shape (labels,)."""
        return np.bincount(np.concatenate(self.members), minlength=labels)


def group_labels(
    labels: Sequence[str], facets: Mapping[str, Sequence[str]]
) -> tuple[FacetGroups | None, tuple[str, ...]]:
    """Group labels by facet.

    Args:
        labels: The labels; a label outside all groups is left out of the result.
        facets: Facet -> its labels.

    Returns:
        The facets with at least two of the labels, and the labels of these facets. None if there is
        no such facet.
    """
    own = {name: [label for label in facets[name] if label in labels] for name in facets}
    kept = {name: members for name, members in own.items() if len(members) > 1}
    if not kept:
        return None, ()
    remaining = tuple(
        label for label in labels if any(label in members for members in kept.values())
    )
    indices = {label: index for index, label in enumerate(remaining)}
    members = tuple(tuple(sorted(indices[label] for label in own)) for own in kept.values())
    return FacetGroups(tuple(kept), members), remaining
