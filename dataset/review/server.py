"""The review server: its routes, and the command that serves them.

A decision is answered with a redirect to the next row, whose URL names the decision
(post/redirect/get): pages can be reloaded, and a restarted server continues at the same row.
"""

import contextlib
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import click
import uvicorn
from sqlalchemy.orm import Session
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from dataset.catalogue.models import ImageRow
from dataset.catalogue.session import open_catalogue
from dataset.errors import BadInput, Failure, first_line
from dataset.images.io import Unreadable, sha256_of, thumbnail
from dataset.images.store import ImageStore, open_store
from dataset.review import decisions
from dataset.review.decisions import MAX_NAME_CHARS
from dataset.review.pages import (
    HERE,
    ReviewContext,
    html_page,
    item_page,
    known_labels,
    known_sites,
    load_item,
    parse_filters,
    requested_key,
    requested_queue,
    reviewer_name,
    status_message,
)
from dataset.review.pagination import QueueFilters, list_keys
from dataset.review.queues import QUEUES, ReviewQueue, find_conflicts, format_key, parse_key
from dataset.review.security import LOOPBACK, SecurityMiddleware, create_access_policy
from dataset.utils.html import TEMPLATES
from dataset.vocabulary import load_vocabulary

STATIC = HERE / "static"
FILES = {
    "page.css": (TEMPLATES, "text/css"),
    "review.css": (STATIC, "text/css"),
    "review.js": (STATIC, "text/javascript"),
    "icon.svg": (STATIC, "image/svg+xml"),
}
LIST_ROWS = 48
# Labels of one photo that a form may select.
MAX_CHOICES = 50
# Largest integer of PostgreSQL.
MAX_IMAGE_ID = 2**31 - 1


def create_app(review: ReviewContext) -> Starlette:
    """Create the ASGI application of a review server."""
    endpoints = (
        ("/", overview, "GET"),
        ("/queue/{queue}", show_item, "GET"),
        ("/queue/{queue}/list", show_list, "GET"),
        ("/queue/{queue}/decide", decide, "POST"),
        ("/queue/{queue}/decide-batch", decide_batch, "POST"),
        ("/queue/{queue}/undo", undo, "POST"),
        ("/queue/{queue}/undo-batch", undo_batch, "POST"),
        ("/who", name_person, "POST"),
        ("/photo/{number:int}", photo, "GET"),
        ("/thumb/{number:int}", thumb, "GET"),
        ("/static/{name}", static, "GET"),
    )
    return Starlette(
        # Synchronous functions, which Starlette runs in threads: they wait for the database.
        routes=[Route(path, partial(call, review), methods=[m]) for path, call, m in endpoints],
        middleware=[Middleware(SecurityMiddleware, policy=review.policy)],
        exception_handlers={HTTPException: _http_error, click.ClickException: _catalogue_error},
    )


def overview(review: ReviewContext, request: Request) -> Response:
    """Show all queues and their progress."""
    with review.sessions() as session:
        counts = {
            name: review.progress.of(session, queue, QueueFilters(), review.vocabulary)
            for name, queue in QUEUES.items()
        }
    return html_page(review, request, "overview.html", counts=counts)


def show_item(review: ReviewContext, request: Request) -> Response:
    """Show the row of the parameter `item`, or the next one after `after` or before `before`."""
    queue, filters = requested_queue(request), parse_filters(request.query_params)
    return item_page(review, request, queue, filters, status_message(review, request, queue))


def show_list(review: ReviewContext, request: Request) -> Response:
    """Show many rows with thumbnails."""
    queue, filters = requested_queue(request), parse_filters(request.query_params)
    after = request.query_params.get("after", "")
    with review.sessions() as session:
        message = _batch_message(session, queue, request.query_params)
    return _list_page(review, request, queue, filters, after, message)


def _list_page(
    review: ReviewContext,
    request: Request,
    queue: ReviewQueue,
    filters: QueueFilters,
    after: str,
    message: str = "",
    status: int = HTTPStatus.OK,
) -> Response:
    """Render a page of the grid.

    Args:
        review: The server.
        request: The request.
        queue: The queue.
        filters: Its filters.
        after: Key of the row before the first one, empty for the start of the queue.
        message: Message about the previous request.
        status: HTTP status.
    """
    with review.sessions() as session:
        beyond = parse_key(queue, after)
        keys = list_keys(session, queue, filters, review.vocabulary, LIST_ROWS + 1, beyond)
        items = [load_item(session, queue, key, review.vocabulary) for key in keys[:LIST_ROWS]]
        latest = decisions.latest_decision_by(session, reviewer_name(review, request))
        context: dict[str, Any] = {
            "items": [item for item in items if item is not None],
            "last": keys[LIST_ROWS - 1] if len(keys) > LIST_ROWS else None,
            "progress": review.progress.of(session, queue, filters, review.vocabulary),
            "labels": known_labels(session, review.vocabulary),
            "sites": known_sites(session),
            "after": after if beyond else "",
            "message": message,
            "latest": latest,
            "latest_count": decisions.batch_size(session, latest.ref) if latest else 0,
        }
        return html_page(
            review, request, "list.html", status, queue=queue, filters=filters, **context
        )


def _batch_message(session: Session, queue: ReviewQueue, query: Mapping[str, str]) -> str:
    """Return the message about the previous request, which the URL identifies."""
    sentences = []
    if decision := decisions.find_decision(session, query.get("done", "")):
        count = decisions.batch_size(session, decision.ref)
        sentences.append(f"Saved: {count} decision{'' if count == 1 else 's'}.")
    if (undone := query.get("undone", "")).isdecimal():
        sentences.append(f"Undone: {int(undone)} decision{'' if int(undone) == 1 else 's'}.")
    if key := requested_key(queue, query, "meanwhile"):
        current = decisions.current_decision(session, queue, key)
        count = int(query["missed"]) if query.get("missed", "").isdecimal() else 1
        more = f", and {count - 1} more" if count > 1 else ""
        sentences.append(f"Not saved: {decisions.DecisionConflict(current)}{more}.")
    return " ".join(sentences)


def decide_batch(review: ReviewContext, request: Request) -> Response:
    """Save one answer on the selected rows of a list, and show the list again."""
    queue, form = requested_queue(request), request.state.form
    filters, after = parse_filters(form), form.get("after", "")
    states = {
        key: form.get(f"state-{number}", "")
        for number in range(LIST_ROWS)
        if (key := requested_key(queue, form, f"item-{number}")) is not None
    }
    answer = _parse_answer(form)
    with review.sessions.begin() as session:
        result = decisions.decide_batch(
            *(session, queue, states, answer),
            *(reviewer_name(review, request), review.vocabulary),
        )
    review.progress.clear()
    conflicts = [
        key for key, error in result.rejected if isinstance(error, decisions.DecisionConflict)
    ]
    if len(conflicts) < len(result.rejected) or not states:
        others = [error for key, error in result.rejected if key not in conflicts]
        text = f"Saved: {len(result.saved)} decisions. " if result.saved else ""
        text += f"Not saved: {others[0] if others else 'no item is selected'}"
        text += f" ({len(others)} of {len(states)} items)." if states else "."
        status = HTTPStatus.UNPROCESSABLE_ENTITY
        return _list_page(review, request, queue, filters, after, text, status)
    about = {"done": result.saved[0].ref} if result.saved else {}
    if conflicts:
        about |= {"meanwhile": format_key(conflicts[0]), "missed": str(len(conflicts))}
    return _redirect_to_list(queue, filters, after, **about)


def undo_batch(review: ReviewContext, request: Request) -> Response:
    """Undo the decisions that were made together with one, and show the list again."""
    queue, form = requested_queue(request), request.state.form
    filters, after = parse_filters(form), form.get("after", "")
    try:
        with review.sessions.begin() as session:
            count = len(decisions.undo_batch(session, form.get("ref", "")))
    except decisions.DecisionRejected as error:
        text, status = f"Not undone: {error}.", HTTPStatus.CONFLICT
        return _list_page(review, request, queue, filters, after, text, status)
    review.progress.clear()
    return _redirect_to_list(queue, filters, after, undone=str(count))


def decide(review: ReviewContext, request: Request) -> Response:
    """Save a decision and redirect to the next row; report a conflict with another one."""
    queue, form = requested_queue(request), request.state.form
    filters, key = parse_filters(form), requested_key(queue, form, "item")
    if key is None:
        raise HTTPException(HTTPStatus.BAD_REQUEST, "the form does not name an item of this queue")
    answer = _parse_answer(form)
    try:
        with review.sessions.begin() as session:
            decision = decisions.decide(
                *(session, queue, key, answer, form.get("state", "")),
                *(reviewer_name(review, request), review.vocabulary),
            )
    except decisions.DecisionConflict as error:
        # If the decision was undone the row is open, and is shown again.
        target = "after" if error.current else "item"
        shown = format_key(key)
        return _redirect(queue, filters, **{target: shown}, meanwhile=shown)
    except decisions.DecisionRejected as error:
        status = HTTPStatus.UNPROCESSABLE_ENTITY
        return item_page(review, request, queue, filters, f"Not saved: {error}.", status, key)
    review.progress.add_decision(queue, filters, form.get("state", ""))
    return _redirect(queue, filters, after=format_key(key), done=decision.ref)


def _parse_answer(form: Mapping[str, str]) -> decisions.ReviewAnswer:
    labels = [form[name] for n in range(MAX_CHOICES) if (name := f"label-{n}") in form]
    return decisions.ReviewAnswer(form.get("answer", ""), form.get("chosen", ""), labels)


def undo(review: ReviewContext, request: Request) -> Response:
    """Undo a decision and show its row."""
    queue, form = requested_queue(request), request.state.form
    filters, ref = parse_filters(form), form.get("ref", "")
    try:
        with review.sessions.begin() as session:
            decisions.undo(session, ref)
            key = decisions.key_of_decision(session, queue, ref)
    except decisions.DecisionRejected as error:
        key = requested_key(queue, form, "item")
        status = HTTPStatus.CONFLICT
        return item_page(review, request, queue, filters, f"Not undone: {error}.", status, key)
    review.progress.clear()
    return _redirect(queue, filters, **({"item": format_key(key)} if key else {}), undone=ref)


def name_person(review: ReviewContext, request: Request) -> Response:
    """Save the reviewer's name in a cookie."""
    name = " ".join(request.state.form.get("who", "").split())[:MAX_NAME_CHARS]
    if not name.isprintable():
        raise HTTPException(
            HTTPStatus.UNPROCESSABLE_ENTITY, "a name consists of printable characters"
        )
    response = RedirectResponse("/", HTTPStatus.SEE_OTHER)
    response.set_cookie(review.who_cookie, quote(name), httponly=True, samesite="strict")
    return response


def photo(review: ReviewContext, request: Request) -> Response:
    """Return a photo in full size."""
    return _picture(review, request, full_size)


def thumb(review: ReviewContext, request: Request) -> Response:
    """Return a thumbnail of a photo."""
    return _picture(review, request, small)


def _picture(review: ReviewContext, request: Request, load: Callable[..., Any]) -> Response:
    image_id = request.path_params["number"]
    with review.sessions() as session:
        loaded = load(session, review.store, image_id) if image_id <= MAX_IMAGE_ID else None
    if loaded is None:
        raise HTTPException(HTTPStatus.NOT_FOUND, "there is no such photo, or it can't be read")
    data, content_type = loaded
    headers = {"cache-control": "private, max-age=600", "content-disposition": "inline"}
    return Response(data, headers=headers, media_type=content_type)


def static(review: ReviewContext, request: Request) -> Response:
    """Return a static file."""
    name = request.path_params["name"]
    if name not in FILES:
        raise HTTPException(HTTPStatus.NOT_FOUND, "there is no such file")
    folder, content_type = FILES[name]
    return Response((folder / name).read_bytes(), media_type=content_type)


def _redirect(queue: ReviewQueue, filters: QueueFilters, **parameters: str) -> Response:
    """Redirect to a queue with its filters and further parameters."""
    query = urlencode({**filters.chosen, **parameters})
    return RedirectResponse(f"/queue/{queue.name}?{query}", HTTPStatus.SEE_OTHER)


def _redirect_to_list(
    queue: ReviewQueue, filters: QueueFilters, after: str, **parameters: str
) -> Response:
    """Redirect to the same rows of a list, less those that are decided now."""
    place = {"after": after} if after else {}
    query = urlencode({**filters.chosen, **place, **parameters})
    return RedirectResponse(f"/queue/{queue.name}/list?{query}", HTTPStatus.SEE_OTHER)


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return PlainTextResponse(f"{error.detail}\n", error.status_code)


def _catalogue_error(request: Request, error: Exception) -> Response:
    """Report that the catalogue is locked, full or missing."""
    assert isinstance(error, click.ClickException)
    text = f"Nothing was saved: {error.message}\n"
    return PlainTextResponse(text, HTTPStatus.SERVICE_UNAVAILABLE)


# Requests in progress may take so long when the server is stopped.
SHUTDOWN_SECONDS = 5


@dataclass(frozen=True)
class ReviewOptions:
    """Options of `review` (see `review --help`)."""

    catalogue: str
    images: str
    who: str
    vocabulary: Path | None = None
    host: str = LOOPBACK
    port: int = 0
    url_file: Path | None = None


def serve(options: ReviewOptions) -> None:
    """Serve the pages until Ctrl-C, after printing their URL.

    Raises:
        BadInput: There is no such catalogue or host.
        Failure: The port is in use, or the catalogue cannot be used.
    """
    sessions = open_catalogue(options.catalogue, must_exist=True)
    vocabulary, store = load_vocabulary(options.vocabulary), open_store(options.images)
    listening = listen(options.host, options.port)
    port = listening.getsockname()[1]
    policy = create_access_policy(options.host, port)
    find_conflicts(sessions, vocabulary)
    app = create_app(ReviewContext(sessions, store, vocabulary, options.who, policy))
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    _announce(options, port, policy.token)
    with contextlib.suppress(KeyboardInterrupt), contextlib.closing(listening):
        uvicorn.Server(config).run(sockets=[listening])


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens at a host and port.

    Raises:
        BadInput: The host is no address of this machine.
        Failure: The port is in use.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise BadInput(
            f"--host {host}: {first_line(error)}; name an address of this machine"
        ) from error
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen()
    except OSError as error:
        listening.close()
        raise Failure(
            f"can't listen at {host}, port {port}: {error.strerror}; name another port with --port"
            " (0 chooses a free one), or another address with --host"
        ) from error
    return listening


def server_url(host: str, port: int) -> str:
    """Return the URL of a server for users."""
    shown = socket.gethostname() if host in ("0.0.0.0", "::") else host
    shown = f"[{shown}]" if ":" in shown else shown
    return f"http://{shown}:{port}/"


def _announce(options: ReviewOptions, port: int, token: str | None) -> None:
    """Print the URL and write it to the file of --url-file."""
    url = server_url(options.host, port) + (f"?token={token}" if token else "")
    click.echo(f"Review at {url} until Ctrl-C")
    if options.url_file:
        try:
            options.url_file.write_text(url, encoding="utf-8")
        except OSError as error:
            raise Failure(f"{options.url_file} can't be written: {error.strerror}") from error


JPEG = "image/jpeg"
# Content types of formats that every browser shows; others are re-encoded.
CONTENT_TYPES = {
    "JPEG": JPEG,
    "MPO": JPEG,
    "PNG": "image/png",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "BMP": "image/bmp",
}
THUMBNAIL_PIXELS, MAX_REENCODED_PIXELS = 160, 1600


def full_size(session: Session, store: ImageStore, image_id: int) -> tuple[bytes, str] | None:
    """Return a photo and its content type, or None if it cannot be shown."""
    row = session.get(ImageRow, image_id)
    data = _verified(store, row)
    if row is None or data is None:
        return None
    content_type = CONTENT_TYPES.get(row.format or "")
    return (data, content_type) if content_type else _reencoded(data, MAX_REENCODED_PIXELS)


def small(session: Session, store: ImageStore, image_id: int) -> tuple[bytes, str] | None:
    """Return a JPEG thumbnail of a photo and its content type, or None if it cannot be shown."""
    data = _verified(store, session.get(ImageRow, image_id))
    return None if data is None else _reencoded(data, THUMBNAIL_PIXELS)


def _verified(store: ImageStore, row: ImageRow | None) -> bytes | None:
    """Return the photo if its file still has the SHA-256 of its row."""
    if row is None or row.state != "stored" or not row.store_key:
        return None
    with contextlib.suppress(OSError):
        data = store.read(row.store_key)
        return data if sha256_of(data) == row.sha256 else None
    return None


def _reencoded(data: bytes, side: int) -> tuple[bytes, str] | None:
    with contextlib.suppress(Unreadable):
        return thumbnail(data, side), JPEG
    return None
