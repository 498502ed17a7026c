"""`review --static`: the queues as one page on disk, which saves decisions as a file."""

import hashlib
import json
import secrets
import shutil
from base64 import b64encode
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from dataset.catalogue.session import open_catalogue
from dataset.errors import BadInput, Failure, first_line
from dataset.images import PART
from dataset.labels import Vocabulary, load_vocabulary
from dataset.review.conflicts import find_conflicts
from dataset.review.decisions import state_of
from dataset.review.decisions_file import FORMAT, identity
from dataset.review.items import Item, load_item
from dataset.review.paging import Filters, page
from dataset.review.photos import LARGE, THUMB, small
from dataset.review.queues import QUEUES, Queue, key_text
from dataset.review.views import HERE, environment, known_labels
from dataset.states import refuse_taken
from dataset.stores import ImageStore, open_store

PAGE, PHOTOS = "review.html", "photos"
# The large photos of a page on disk, in pixels a side.
SIDE = LARGE // 2


@dataclass(frozen=True)
class StaticOptions:
    """What `review --static` was asked for (see `review --help`)."""

    out: Path
    catalogue: str
    images: str
    who: str
    vocabulary: Path | None = None
    queues: tuple[str, ...] = ()
    limit: int = 500


def write_static(options: StaticOptions) -> dict[str, int]:
    """Write the page and its photos; returns how many items of each queue it has.

    Raises:
        BadInput: no catalogue, no such queue, or the folder is somebody's.
        Failure: it can't be written.
    """
    chosen = _chosen(options.queues)
    refuse_taken(options.out, "name another folder", "--static")
    sessions = open_catalogue(options.catalogue, must_exist=True)
    vocabulary, store = load_vocabulary(options.vocabulary), open_store(options.images)
    find_conflicts(sessions, vocabulary)
    aside = options.out.with_name(f"{PART}{options.out.name}")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        (aside / PHOTOS).mkdir(parents=True)
        with sessions() as session:
            items = {
                queue.name: _items(session, queue, vocabulary, options.limit) for queue in chosen
            }
            _write_photos(session, store, [one for rows in items.values() for one in rows], aside)
            told = {
                name: [_told(session, QUEUES[name], item) for item in rows]
                for name, rows in items.items()
            }
            html = _page(told, options.who, known_labels(session, vocabulary))
        (aside / PAGE).write_text(html, encoding="utf-8")
        if options.out.exists():
            options.out.rmdir()
        aside.rename(options.out)
    except OSError as error:
        raise Failure(
            f"--static {options.out} can't be written: {first_line(error)}; make room, or name"
            " another folder"
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return {name: len(rows) for name, rows in items.items()}


def _chosen(names: tuple[str, ...]) -> list[Queue]:
    for name in names:
        if name not in QUEUES:
            raise BadInput(f"--queue {name}: choose from {', '.join(QUEUES)}")
    return [QUEUES[name] for name in names or QUEUES]


def _items(session: Session, queue: Queue, vocabulary: Vocabulary, limit: int) -> list[Item]:
    """What is left of QUEUE, at most LIMIT items."""
    keys = page(session, queue, Filters(), vocabulary, limit)
    found = [load_item(session, queue, key, vocabulary) for key in keys]
    return [item for item in found if item is not None]


def _write_photos(session: Session, store: ImageStore, items: list[Item], folder: Path) -> None:
    """Every photo that ITEMS show, as a JPEG of ours, named by its number."""
    large = {photo.id for item in items for photo in item.photos}
    near = {one.id for item in items for one in item.nearest if one.id is not None}
    for numbers, side, kind in ((large, SIDE, "large"), (near, THUMB, "small")):
        for number in sorted(numbers):
            made = small(session, store, number, side)
            if made is not None:
                (folder / PHOTOS / f"{number}-{kind}.jpg").write_bytes(made[0])


def _told(session: Session, queue: Queue, item: Item) -> dict[str, Any]:
    """ITEM for the page's program: what is shown, and by what it is known to `--import`."""
    judged = item.judgement
    return {
        "key": key_text(item.key),
        "identity": identity(session, queue, item.key),
        "state": state_of(item.said),
        "photos": [asdict(photo) for photo in item.photos],
        "tagged": item.tagged,
        "choices": item.choices,
        "verdict": judged.verdict if judged else "",
        "suggested": (judged.suggested or "") if judged else "",
        "probability": judged.probability if judged else None,
        "given": judged.given if judged else None,
        "nearest": [asdict(one) for one in item.nearest],
        "likeness": item.likeness,
    }


def _page(told: dict[str, list[dict[str, Any]]], who: str, labels: list[str]) -> str:
    script = (HERE / "static" / "static.js").read_text(encoding="utf-8")
    style = (HERE / "static" / "review.css").read_text(encoding="utf-8")
    data = {
        "format": FORMAT,
        "page": secrets.token_hex(8),
        "who": who,
        "queues": [
            {"name": name, "title": QUEUES[name].title, "about": QUEUES[name].about, "items": rows}
            for name, rows in told.items()
        ],
    }
    return (
        environment()
        .get_template("static.html")
        .render(
            script=script,
            style=style,
            script_hash=_hash(script),
            style_hash=_hash(style),
            data=_quoted(data),
            labels=labels,
            who=who,
        )
    )


def _hash(text: str) -> str:
    """What a policy calls TEXT."""
    return f"sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _quoted(data: Any) -> str:
    """DATA as JSON that no browser takes for a tag, whatever strangers wrote."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text
