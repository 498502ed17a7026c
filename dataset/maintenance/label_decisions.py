"""People's words on images, kept with who and when; they win over hashtags."""

import getpass
from collections.abc import Callable, Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

from dataset.catalogue.models import LabelDecision, now
from dataset.catalogue.queries import find_image
from dataset.errors import BadInput
from dataset.selection.labeling import LABEL_CONFLICT
from dataset.selection.planning import SelectionOptions, plan_build
from dataset.vocabulary import Vocabulary


def user_name() -> str:
    """Who is at the keyboard, as far as the system knows."""
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
    """Keep WHO's word that the image NAME shows LABEL, or nothing of use; returns the label.

    Raises:
        BadInput: there is no such image.
    """
    label = vocabulary.label_or_own(label) if label is not None else None
    if label == "":
        raise BadInput("a label can't be empty; use --leave-out to leave the image out")
    with sessions.begin() as session:
        image = find_image(session, name)
        session.add(LabelDecision(image_id=image.id, label=label, who=who))
    return label


def undo(sessions: sessionmaker[Session], name: str) -> str | None:
    """Take back the latest word on the image NAME; returns the label that it gave.

    Raises:
        BadInput: there is no such image, or no word on it.
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
            raise BadInput(f"nobody has decided on {name}: there is nothing to undo")
        latest.undone = now()
        return latest.label


def ask_conflicts(
    sessions: sessionmaker[Session],
    choice: SelectionOptions,
    ask: Callable[[str, Sequence[str]], str | None],
) -> int:
    """ASK for the label of each photo of two, by key and labels; keep every answer at once."""
    with sessions() as session:
        found = [
            one
            for one in plan_build(session, choice).exclusions.images
            if one.reason == LABEL_CONFLICT
        ]
    for one in sorted(found, key=lambda one: one.photo.sha256):
        label = ask(one.photo.store_key, one.detail.split(", "))
        with sessions.begin() as session:
            session.add(LabelDecision(image_id=one.photo.image_id, label=label, who=user_name()))
    return len(found)
