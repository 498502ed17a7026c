"""What a page of the review shows, looked up when it is asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import jinja2
import sqlalchemy as sa
from sqlalchemy.orm import Session
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from dataset.catalogue.session import Sessions
from dataset.catalogue.tables import Decision, Search
from dataset.labels import Vocabulary
from dataset.pages import percent
from dataset.review import decisions
from dataset.review.counts import Counts
from dataset.review.decisions import LONGEST_NAME
from dataset.review.guard import Door, form_token
from dataset.review.items import load_item
from dataset.review.paging import ALL, DECIDED, OPEN, Filters, page
from dataset.review.queues import QUEUES, Key, Queue, key_text, parse_key
from dataset.stores import ImageStore

HERE = Path(__file__).parent
LONGEST_FILTER = 200
MOST_LABELS = 2000
# Signs of a title or tag that are shown at once.
SHORT = 160
EMPTY = {
    "mistakes": "No tag was found doubtful: check-tags --catalogue asks a model about all.",
    "conflicts": "No photo has two labels, neither of which holds the other.",
    "duplicates": "No two photos may be one: catalogue dedup compares all.",
    "crops": "No crop is doubtful: build-dataset finds people and crops.",
}
FIRST = "This is the first one."
GONE = "This item is no longer in the catalogue."


def environment() -> jinja2.Environment:
    """How pages are made: everything is escaped, and a name that is missing is an error."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["key"] = key_text
    made.filters["percent"] = percent
    made.globals["SHORT"] = SHORT
    return made


@dataclass(frozen=True)
class Review:
    """What a server works on, and whose words those are that nobody else says."""

    sessions: Sessions
    store: ImageStore
    vocabulary: Vocabulary
    who: str
    door: Door
    counts: Counts = field(default_factory=Counts)

    @cached_property
    def pages(self) -> jinja2.Environment:
        """The templates."""
        return environment()

    @property
    def who_cookie(self) -> str:
        """The cookie of who decides in this browser."""
        return f"{self.door.name}-who"


def item_page(
    review: Review,
    request: Request,
    queue: Queue,
    filters: Filters,
    message: str,
    status: int = HTTPStatus.OK,
    key: Key | None = None,
) -> Response:
    asked = request.query_params
    with review.sessions() as session:
        key = key or _wanted(session, review, request, queue, filters)
        item = load_item(session, queue, key, review.vocabulary) if key else None
        if key and item is None:
            message = message or GONE
        following = page(session, queue, filters, review.vocabulary, 1, beyond=key) if key else []
        if key and key == key_of(queue, asked, "before"):
            message = FIRST
        last = None if key else key_of(queue, asked, "after")
        context = {
            "item": item,
            "key": key,
            "before": _neighbour(session, queue, filters, review, last),
            "following": _first_image(following),
            "progress": review.counts.of(session, queue, filters, review.vocabulary),
            "labels": known_labels(session, review.vocabulary),
            "sites": known_sites(session),
            "empty_because": EMPTY[queue.name],
            "latest": _to_undo(session, review, request, item.said if item else None),
        }
    return html_page(
        review,
        request,
        "item.html",
        status,
        queue=queue,
        filters=filters,
        message=message,
        **context,
    )


def _wanted(
    session: Session, review: Review, request: Request, queue: Queue, filters: Filters
) -> Key | None:
    asked = request.query_params
    if key := key_of(queue, asked, "item"):
        return key
    if before := key_of(queue, asked, "before"):
        return _neighbour(session, queue, filters, review, before) or before
    beyond = key_of(queue, asked, "after")
    found = page(session, queue, filters, review.vocabulary, 1, beyond)
    return found[0] if found else None


def _neighbour(
    session: Session, queue: Queue, filters: Filters, review: Review, key: Key | None
) -> Key | None:
    """The row before KEY."""
    if key is None:
        return None
    found = page(session, queue, filters, review.vocabulary, 1, beyond=key, backwards=True)
    return found[0] if found else None


def _first_image(keys: Sequence[Key]) -> int | None:
    return keys[0][0] if keys else None


def _to_undo(
    session: Session, review: Review, request: Request, here: decisions.Said | None
) -> decisions.Said | None:
    """The word that `u` takes back: of the row that is shown, or what was just said, or before."""
    if here and here.ref:
        return here
    ref = request.query_params.get("done", "")
    row = decisions.find(session, ref)
    if row is not None and row.undone is None:
        return decisions.said_by(session, ref)
    return decisions.latest_of(session, who_is(review, request))


def what_happened(review: Review, request: Request, queue: Queue) -> str:
    """What happened just now, as the address tells."""
    asked = request.query_params
    with review.sessions() as session:
        if said := decisions.said_by(session, asked.get("done", "")):
            return f"Saved: {said.what}."
        if said := decisions.said_by(session, asked.get("undone", "")):
            return f"Taken back: {said.what}."
        if key := key_of(queue, asked, "meanwhile"):
            holds = decisions.current(session, queue, key)
            return f"Not saved: {decisions.Meanwhile(holds)}."
    return ""


def known_labels(session: Session, vocabulary: Vocabulary) -> list[str]:
    """Labels to complete what is typed."""
    said = session.scalars(
        sa.select(Decision.label).where(Decision.label.is_not(None)).distinct().limit(MOST_LABELS)
    )
    return sorted({*vocabulary.labels, *(label for label in said if label)})


def known_sites(session: Session) -> list[str]:
    return list(session.scalars(sa.select(Search.site).distinct().order_by(Search.site)))


def filters_of(given: Mapping[str, str]) -> Filters:
    """What GIVEN, an address's or a form's fields, narrow a queue to."""
    chosen = {
        f.name: given[f.name].strip()[:LONGEST_FILTER] for f in fields(Filters) if f.name in given
    }
    if chosen.get("show") not in (OPEN, DECIDED, ALL):
        chosen.pop("show", None)
    return Filters(**chosen)


def queue_of(request: Request) -> Queue:
    queue = QUEUES.get(request.path_params["queue"])
    if queue is None:
        raise HTTPException(HTTPStatus.NOT_FOUND, "there is no such queue")
    return queue


def key_of(queue: Queue, given: Mapping[str, str], name: str) -> Key | None:
    return parse_key(queue, given[name]) if name in given else None


def who_is(review: Review, request: Request) -> str:
    name = unquote(request.cookies.get(review.who_cookie, ""))[:LONGEST_NAME]
    return name if name.strip() and name.isprintable() else review.who


def html_page(
    review: Review, request: Request, template: str, status: int = HTTPStatus.OK, **context: Any
) -> Response:
    html = review.pages.get_template(template).render(
        csrf=form_token(request),
        who=who_is(review, request),
        **{"queues": QUEUES, "queue": None, **context},
    )
    return HTMLResponse(html, status)
