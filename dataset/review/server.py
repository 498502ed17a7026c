"""The page: what each address shows and does. All that is shown is looked up when it is asked for.

A decision ends in a redirect to the next row, whose address names the decision: pages can be
reloaded, and a new server goes on where a killed one was.
"""

import contextlib
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import click
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from dataset.catalogue.session import open_catalogue
from dataset.errors import BadInput, Failure, first_line
from dataset.images.store import open_store
from dataset.review import decisions, photos
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
from dataset.review.queues import QUEUES, ReviewQueue, find_conflicts, format_key
from dataset.review.security import LOOPBACK, SecurityMiddleware, create_access_policy
from dataset.vocabulary import load_vocabulary

FILES = {"review.css": "text/css", "review.js": "text/javascript", "icon.svg": "image/svg+xml"}
ROWS = 48
# What a database can count.
LARGEST_NUMBER = 2**31 - 1


def create_app(review: ReviewContext) -> Starlette:
    """The application that serves REVIEW."""
    answers = (
        ("/", overview, "GET"),
        ("/queue/{queue}", show_item, "GET"),
        ("/queue/{queue}/list", show_list, "GET"),
        ("/queue/{queue}/decide", decide, "POST"),
        ("/queue/{queue}/undo", undo, "POST"),
        ("/who", name_person, "POST"),
        ("/photo/{number:int}", photo, "GET"),
        ("/thumb/{number:int}", thumb, "GET"),
        ("/static/{name}", static, "GET"),
    )
    return Starlette(
        # Not async: they wait for the catalogue and the store, so each gets a thread.
        routes=[Route(path, partial(answer, review), methods=[m]) for path, answer, m in answers],
        middleware=[Middleware(SecurityMiddleware, policy=review.policy)],
        exception_handlers={HTTPException: _refused, click.ClickException: _failed},
    )


def overview(review: ReviewContext, request: Request) -> Response:
    """All queues, and how far each is."""
    with review.sessions() as session:
        counts = {
            name: review.counts.of(session, queue, QueueFilters(), review.vocabulary)
            for name, queue in QUEUES.items()
        }
    return html_page(review, request, "overview.html", counts=counts)


def show_item(review: ReviewContext, request: Request) -> Response:
    """The row that `item` names, or the first one after `after`, or before `before`."""
    queue, filters = requested_queue(request), parse_filters(request.query_params)
    return item_page(review, request, queue, filters, status_message(review, request, queue))


def show_list(review: ReviewContext, request: Request) -> Response:
    """Many rows at once, small."""
    queue, filters = requested_queue(request), parse_filters(request.query_params)
    with review.sessions() as session:
        beyond = requested_key(queue, request.query_params, "after")
        keys = list_keys(session, queue, filters, review.vocabulary, ROWS + 1, beyond)
        items = [load_item(session, queue, key, review.vocabulary) for key in keys[:ROWS]]
        context: dict[str, Any] = {
            "items": [item for item in items if item is not None],
            "last": keys[ROWS - 1] if len(keys) > ROWS else None,
            "progress": review.counts.of(session, queue, filters, review.vocabulary),
            "labels": known_labels(session, review.vocabulary),
            "sites": known_sites(session),
        }
    return html_page(review, request, "list.html", queue=queue, filters=filters, **context)


def decide(review: ReviewContext, request: Request) -> Response:
    """Keep a decision, and go on; where something else was decided meanwhile, say so."""
    queue, form = requested_queue(request), request.state.form
    filters, key = parse_filters(form), requested_key(queue, form, "item")
    if key is None:
        raise HTTPException(HTTPStatus.BAD_REQUEST, "the form names no item of this queue")
    answer = decisions.ReviewAnswer(form.get("answer", ""), form.get("chosen", ""))
    try:
        with review.sessions.begin() as session:
            said = decisions.decide(
                *(session, queue, key, answer, form.get("state", "")),
                *(reviewer_name(review, request), review.vocabulary),
            )
    except decisions.DecisionConflict as error:
        # Where it was taken back the row is open again, and is shown.
        way = "after" if error.said else "item"
        return _go(queue, filters, **{way: format_key(key)}, meanwhile=format_key(key))
    except decisions.DecisionRejected as error:
        status = HTTPStatus.UNPROCESSABLE_ENTITY
        return item_page(review, request, queue, filters, f"Not saved: {error}.", status, key)
    review.counts.decided(queue, filters, form.get("state", ""))
    return _go(queue, filters, after=format_key(key), done=said.ref)


def undo(review: ReviewContext, request: Request) -> Response:
    """Take a word back, and show what it was said of."""
    queue, form = requested_queue(request), request.state.form
    filters, ref = parse_filters(form), form.get("ref", "")
    try:
        with review.sessions.begin() as session:
            decisions.undo(session, ref)
            key = decisions.key_of_decision(session, queue, ref)
    except decisions.DecisionRejected as error:
        key = requested_key(queue, form, "item")
        status = HTTPStatus.CONFLICT
        return item_page(review, request, queue, filters, f"Nothing done: {error}.", status, key)
    review.counts.forget()
    return _go(queue, filters, **({"item": format_key(key)} if key else {}), undone=ref)


def name_person(review: ReviewContext, request: Request) -> Response:
    """Remember in this browser who decides here."""
    name = " ".join(request.state.form.get("who", "").split())[:MAX_NAME_CHARS]
    if not name.isprintable():
        raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, "a name has signs that can be seen")
    answer = RedirectResponse("/", HTTPStatus.SEE_OTHER)
    answer.set_cookie(review.who_cookie, quote(name), httponly=True, samesite="strict")
    return answer


def photo(review: ReviewContext, request: Request) -> Response:
    """A photo as it was found."""
    return _picture(review, request, photos.full_size)


def thumb(review: ReviewContext, request: Request) -> Response:
    """A photo, small."""
    return _picture(review, request, photos.small)


def _picture(review: ReviewContext, request: Request, make: Callable[..., Any]) -> Response:
    number = request.path_params["number"]
    with review.sessions() as session:
        made = make(session, review.store, number) if number <= LARGEST_NUMBER else None
    if made is None:
        raise HTTPException(HTTPStatus.NOT_FOUND, "there is no such photo, or it can't be read")
    data, kind = made
    headers = {"cache-control": "private, max-age=600", "content-disposition": "inline"}
    return Response(data, headers=headers, media_type=kind)


def static(review: ReviewContext, request: Request) -> Response:
    """A file of the page's own, by its name."""
    kind = FILES.get(request.path_params["name"])
    if kind is None:
        raise HTTPException(HTTPStatus.NOT_FOUND, "there is no such file")
    return Response((HERE / "static" / request.path_params["name"]).read_bytes(), media_type=kind)


def _go(queue: ReviewQueue, filters: QueueFilters, **more: str) -> Response:
    """On to the row that MORE says."""
    query = urlencode({**filters.chosen, **more})
    return RedirectResponse(f"/queue/{queue.name}?{query}", HTTPStatus.SEE_OTHER)


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return PlainTextResponse(f"{error.detail}\n", error.status_code)


def _failed(request: Request, error: Exception) -> Response:
    """A catalogue that is locked, full or gone: nothing was decided."""
    assert isinstance(error, click.ClickException)
    text = f"Nothing was decided: {error.message}\n"
    return PlainTextResponse(text, HTTPStatus.SERVICE_UNAVAILABLE)


# Requests that are being answered get so long when the server is stopped.
GRACE_SECONDS = 5


@dataclass(frozen=True)
class ReviewOptions:
    """What `review` was asked for (see `review --help`)."""

    catalogue: str
    images: str
    who: str
    vocabulary: Path | None = None
    host: str = LOOPBACK
    port: int = 0
    url_file: Path | None = None


def serve(options: ReviewOptions) -> None:
    """Serve the page until Ctrl-C, having said where.

    Raises:
        BadInput: no catalogue, or no such host.
        Failure: the port is taken, or the catalogue can't be used.
    """
    sessions = open_catalogue(options.catalogue, must_exist=True)
    vocabulary, store = load_vocabulary(options.vocabulary), open_store(options.images)
    listening = _listen(options.host, options.port)
    port = listening.getsockname()[1]
    policy = create_access_policy(options.host, port)
    find_conflicts(sessions, vocabulary)
    app = create_app(ReviewContext(sessions, store, vocabulary, options.who, policy))
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    _announce(options, port, policy.token)
    # Ctrl-C is how this ends.
    with contextlib.suppress(KeyboardInterrupt), contextlib.closing(listening):
        uvicorn.Server(config).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise BadInput(
            f"--host {host}: {first_line(error)}; name an address of this machine"
        ) from error
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen()
    except OSError as error:
        made.close()
        raise Failure(
            f"nobody can listen at {host}, port {port}: {error.strerror}; name another one with"
            " --port (0 takes a free one), or another address with --host"
        ) from error
    return made


def _announce(options: ReviewOptions, port: int, token: str | None) -> None:
    """Say, once, where the page is."""
    shown = socket.gethostname() if options.host in ("0.0.0.0", "::") else options.host
    shown = f"[{shown}]" if ":" in shown else shown
    url = f"http://{shown}:{port}/" + (f"?token={token}" if token else "")
    click.echo(f"Review at {url} until Ctrl-C")
    if options.url_file:
        try:
            options.url_file.write_text(url, encoding="utf-8")
        except OSError as error:
            raise Failure(f"{options.url_file} can't be written: {error.strerror}") from error
