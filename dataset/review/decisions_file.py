"""Decisions that a page on disk saved: read back, checked one by one, kept in one transaction."""

import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dataset.catalogue.review_tables import CropDecision, PairDecision
from dataset.catalogue.session import open_catalogue
from dataset.catalogue.tables import Decision, ImageRow, now
from dataset.errors import BadInput, first_line, printable
from dataset.labels import Vocabulary, load_vocabulary
from dataset.review import decisions
from dataset.review.decisions import LONGEST_NAME, Answer, Refused
from dataset.review.queues import CROPS, DUPLICATES, MISTAKES, QUEUES, Key, Queue

# By what rows are known beside their images: queue -> names, and how long a value may be.
OTHERS = {MISTAKES.name: ("tagged",), CROPS.name: ("model", "zone")}
LONGEST = 10_000
# What a file says it is.
FORMAT = "fashion-tagger decisions 1"
LARGEST = 64 << 20
# Clocks differ.
AHEAD = timedelta(days=1)


@dataclass
class Imported:
    """What became of a file's decisions. `refused`: which one, and why."""

    kept: int = 0
    known: int = 0
    refused: list[str] = field(default_factory=list)


def identity(session: Session, queue: Queue, key: Key) -> dict[str, Any]:
    """What a row of QUEUE is known by in any catalogue."""
    count = len(queue.images)
    names = [session.get_one(ImageRow, image).sha256 for image in key[:count]]
    rest = dict(zip(OTHERS.get(queue.name, ()), key[count:], strict=True))
    return {"queue": queue.name, "images": names, **rest}


def import_decisions(file: Path, catalogue: str, vocabulary: Path | None) -> Imported:
    """Keep the decisions in FILE, those that can't be are named; all in one transaction.

    Raises:
        BadInput: FILE can't be read, or is none that a page saved.
    """
    rows = _read(file)
    words, done = load_vocabulary(vocabulary), Imported()
    with open_catalogue(catalogue, must_exist=True).begin() as session:
        for number, row in enumerate(rows, 1):
            try:
                if _keep(session, row, words):
                    done.kept += 1
                else:
                    done.known += 1
            except Refused as error:
                done.refused.append(f"decision {number}{_name(row)}: {printable(str(error))}")
    return done


def _read(file: Path) -> list[Any]:
    try:
        if file.stat().st_size > LARGEST:
            raise ValueError(f"more than {LARGEST >> 20} MB")
        told = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(told, dict) or told.get("format") != FORMAT:
            raise ValueError(f"it does not say that it is {FORMAT!r}")
        if not isinstance(told.get("decisions"), list):
            raise ValueError("it has no list of decisions")
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(
            f"--import {file}: {first_line(error)}; name a file that a page of review --static"
            " saved"
        ) from error
    who = told.get("who")
    return [{"who": who, **row} if isinstance(row, dict) else row for row in told["decisions"]]


def _name(row: Any) -> str:
    """Of which photo ROW is, as far as it says."""
    images = row.get("images") if isinstance(row, dict) else None
    names = [one[:12] for one in images if isinstance(one, str)] if isinstance(images, list) else []
    return f" ({printable(' and '.join(names[:2]))})" if names else ""


def _text(row: dict[str, Any], name: str, longest: int) -> str:
    value = row.get(name)
    if not isinstance(value, str) or len(value) > longest or "\0" in value:
        raise Refused(f"malformed: {name!r} is not a text of at most {longest} signs")
    return value


def _keep(session: Session, row: Any, vocabulary: Vocabulary) -> bool:
    """Keep the decision ROW; False where it is here already.

    Raises:
        Refused: it is malformed, of an unknown image, or something else was decided meanwhile.
    """
    if not isinstance(row, dict):
        raise Refused("malformed: it is no object")
    queue = QUEUES.get(_text(row, "queue", 20))
    if queue is None:
        raise Refused("malformed: there is no such queue")
    key = _key(session, queue, row)
    answer = Answer(_text(row, "answer", 20), _text(row, "label", 1000) if "label" in row else "")
    who = " ".join(_text(row, "who", LONGEST_NAME).split())
    if not who or not who.isprintable():
        raise Refused("malformed: it does not say who decided")
    made, state = _moment(row), _text(row, "state", 200)
    if _is_here(session, queue, key, answer.kind, who, made):
        return False
    decisions.decide(session, queue, key, answer, state, who, vocabulary, made)
    return True


def _key(session: Session, queue: Queue, row: dict[str, Any]) -> Key:
    names = row.get("images")
    wanted = len(queue.images)
    if (
        not isinstance(names, list)
        or len(names) != wanted
        or not all(isinstance(name, str) and len(name) <= 64 and "\0" not in name for name in names)
    ):
        raise Refused(f"malformed: 'images' is not a list of {wanted} SHA-256")
    numbers = []
    for name in names:
        number = session.scalar(sa.select(ImageRow.id).filter_by(sha256=name, state="stored"))
        if number is None:
            raise Refused("unknown image: the catalogue has none of this SHA-256")
        numbers.append(number)
    rest = [_text(row, name, LONGEST) for name in OTHERS.get(queue.name, ())]
    return (*sorted(numbers), *rest)


def _moment(row: dict[str, Any]) -> datetime:
    try:
        moment = datetime.fromisoformat(_text(row, "made", 40).replace("Z", "+00:00"))
        if moment.tzinfo is not None:
            moment = moment.astimezone(timezone.utc).replace(tzinfo=None)
    except (ValueError, OverflowError) as error:
        raise Refused(f"malformed: 'made' is no moment ({error})") from error
    if moment > now() + AHEAD:
        raise Refused("malformed: 'made' is in the future")
    return moment.replace(microsecond=0)


def _is_here(session: Session, queue: Queue, key: Key, kind: str, who: str, made: datetime) -> bool:
    """Whether the same decision was taken over before, whatever became of it then."""
    if queue is DUPLICATES:
        known = sa.select(PairDecision.id).filter_by(one_id=key[0], other_id=key[1])
    else:
        table: Any = CropDecision if kind in ("right", "whole") else Decision
        known = sa.select(table.id).filter_by(image_id=key[0])
    return session.scalar(known.filter_by(who=who, made=made).limit(1)) is not None
