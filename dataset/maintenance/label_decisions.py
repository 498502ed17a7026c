"""People's decisions on the labels of images, which override hashtags."""

import getpass
from collections.abc import Callable, Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

from dataset.catalogue.models import LabelDecision, now
from dataset.catalogue.queries import find_image
from dataset.errors import BadInput
from dataset.selection.candidates import ExcludedImage
from dataset.selection.labeling import LABEL_CONFLICT, LABEL_SEPARATOR
from dataset.selection.planning import SelectionOptions, plan_build
from dataset.vocabulary import Vocabulary


def user_name() -> str:
    """Return the name of the user who runs the process."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "somebody"


def decide(
    sessions: sessionmaker[Session],
    name: str,
    label: str | None,
    who: str,
    vocabulary: Vocabulary,
) -> str | None:
    """Save a decision on the label of an image.

    Args:
        sessions: The catalogue.
        name: The image, see `find_image`.
        label: The label or a word of the vocabulary; None excludes the image.
        who: Name of the reviewer.
        vocabulary: Maps words to labels.

    Returns:
        The label.

    Raises:
        BadInput: There is no such image, or the label is empty.
    """
    label = vocabulary.label_or_hashtag(label) if label is not None else None
    if label == "":
        raise BadInput("a label can't be empty; exclude the image with --exclude")
    with sessions.begin() as session:
        image = find_image(session, name)
        session.add(LabelDecision(image_id=image.id, label=label, who=who))
    return label


def undo(sessions: sessionmaker[Session], name: str) -> str | None:
    """Undo the latest decision on an image.

    Returns:
        The label of that decision; None if it excluded the image.

    Raises:
        BadInput: There is no such image, or no decision on it.
    """
    with sessions.begin() as session:
        image = find_image(session, name)
        latest = session.scalar(
            sa.select(LabelDecision)
            .where(LabelDecision.image_id == image.id, LabelDecision.undone.is_(None))
            .order_by(LabelDecision.id.desc())
            .limit(1)
        )
        if latest is None:
            raise BadInput(f"there is no decision on {name}: nothing to undo")
        latest.undone = now()
        return latest.label


def ask_conflicts(
    sessions: sessionmaker[Session],
    choice: SelectionOptions,
    ask: Callable[[str, Sequence[str]], str | None],
) -> int:
    """Ask for the label of each photo with several labels, and save each answer at once.

    Args:
        sessions: The catalogue.
        choice: Selects the photos.
        ask: Called with the key of a photo and its labels, returns the label; None excludes it.

    Returns:
        How many photos were decided.
    """
    decided: set[int] = set()
    # A photo can have conflicts in several facets, one after the other.
    while conflicts := _label_conflicts(sessions, choice):
        for conflict in sorted(conflicts, key=lambda conflict: conflict.photo.sha256):
            label = ask(conflict.photo.store_key, conflict.detail.split(LABEL_SEPARATOR))
            image_id = conflict.photo.image_id
            decided.add(image_id)
            with sessions.begin() as session:
                session.add(LabelDecision(image_id=image_id, label=label, who=user_name()))
    return len(decided)


def _label_conflicts(
    sessions: sessionmaker[Session], choice: SelectionOptions
) -> list[ExcludedImage]:
    with sessions() as session:
        images = plan_build(session, choice).exclusions.images
    return [image for image in images if image.reason == LABEL_CONFLICT]
