"""Who may ask, and from where: hosts, the token, forged forms, and what browsers are told."""

import hashlib
import hmac
import ipaddress
import secrets
import socket
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import parse_qs, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = "127.0.0.1"
LOCAL_NAMES = ("127.0.0.1", "localhost", "::1")
LARGEST_FORM = 64 * 1024
MOST_FIELDS = 50
FORM = "application/x-www-form-urlencoded"
# Long enough that nobody guesses it.
SECRET_BYTES = 32
HEADERS = {
    "content-security-policy": "default-src 'none'; img-src 'self'; style-src 'self';"
    " script-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # With no referrer at all, browsers would not say from where a form comes.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


@dataclass(frozen=True)
class Door:
    """Where the page is served. `token`: what one has to know to come in, None for anybody.

    `name`: tells cookies of several servers on one machine apart.
    """

    host: str = LOOPBACK
    token: str | None = None
    name: str = "review"
    here: frozenset[str] = field(default_factory=frozenset)

    @property
    def key_cookie(self) -> str:
        """The cookie of those who know the token."""
        return f"{self.name}-key"

    @property
    def form_cookie(self) -> str:
        """The cookie that forms are tied to."""
        return f"{self.name}-forms"

    def knows(self, host: str) -> bool:
        """Whether HOST, of a request, names this machine and not a stranger's site.

        A stranger can point a name of theirs here, but no address.
        """
        name = _host_name(host)
        if self.token is None or name in LOCAL_NAMES:
            return name in LOCAL_NAMES
        return name in self.here or _is_address(name)


def door_to(host: str, port: int) -> Door:
    """The door of a server at HOST and PORT: with a token unless only this machine can reach it."""
    name = f"review-{port}"
    if host == LOOPBACK:
        return Door(host, None, name)
    here = {host.lower(), socket.gethostname().lower(), socket.getfqdn().lower()}
    return Door(host, secrets.token_urlsafe(SECRET_BYTES), name, frozenset(here))


def _host_name(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _digest(key: str, purpose: str) -> str:
    return hmac.new(key.encode(), purpose.encode(), hashlib.sha256).hexdigest()


def _equal(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())


def form_token(request: Request) -> str:
    """What a form on a page for REQUEST has to send back."""
    return _digest(request.state.form_secret, "form")


class Guard:
    """Lets in what may come in, reads forms, and adds headers to all that goes out."""

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self.app, self.door = app, door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request of the web; any other is handed on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request, new = Request(scope, receive), secrets.token_urlsafe(SECRET_BYTES)
        known = request.cookies.get(self.door.form_cookie)
        request.state.form_secret = known or new
        answer = await self._refusal(request)

        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store")
                if known is None and answer is None:
                    headers.append("set-cookie", _cookie(self.door.form_cookie, new))
            await send(message)

        await (answer or self.app)(scope, receive, tell)

    async def _refusal(self, request: Request) -> Response | None:
        """Why REQUEST is not let in; None where it is."""
        headers = request.headers
        if not self.door.knows(headers.get("host", "")):
            return _no(HTTPStatus.BAD_REQUEST, "this name is not this server's")
        if b"%00" in request.scope["query_string"] or "\0" in request.url.path:
            return _no(HTTPStatus.BAD_REQUEST, "that is no address of this page")
        if self.door.token is not None and (answer := self._at_the_door(request)):
            return answer
        if request.method in ("GET", "HEAD"):
            return None
        if request.method != "POST":
            return _no(HTTPStatus.METHOD_NOT_ALLOWED, "only GET and POST are understood")
        if not _same_origin(headers):
            return _no(HTTPStatus.FORBIDDEN, "the form is of another site")
        form = await _form(request)
        if form is None:
            return _no(HTTPStatus.BAD_REQUEST, "that is no form of this page")
        request.state.form = form
        if not _equal(form.get("csrf", ""), form_token(request)):
            return _no(
                HTTPStatus.FORBIDDEN,
                "the page is too old or of another server: nothing was decided; load it again",
            )
        return None

    def _at_the_door(self, request: Request) -> Response | None:
        token = self.door.token or ""
        key = _digest(token, "key")
        given = request.query_params.get("token")
        if given is not None and _equal(given, token) and request.method == "GET":
            rest = [(n, v) for n, v in request.query_params.multi_items() if n != "token"]
            query = f"?{urlencode(rest)}" if rest else ""
            # From the path alone two slashes could lead to another server.
            answer = RedirectResponse(
                f"/{request.url.path.lstrip('/')}{query}", HTTPStatus.SEE_OTHER
            )
            answer.headers.append("set-cookie", _cookie(self.door.key_cookie, key))
            return answer
        if _equal(request.cookies.get(self.door.key_cookie, ""), key):
            return None
        return _no(
            HTTPStatus.UNAUTHORIZED,
            "open the address that `review` printed when it began: it holds the token",
        )


def _cookie(name: str, value: str) -> str:
    return f"{name}={value}; Path=/; HttpOnly; SameSite=Strict"


def _no(status: HTTPStatus, why: str) -> Response:
    return PlainTextResponse(f"{why}\n", status)


def _same_origin(headers: Headers) -> bool:
    """Whether a form comes from a page of ours; browsers say so, and programs need not."""
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc == headers.get("host", "")


async def _form(request: Request) -> dict[str, str] | None:
    """The fields of REQUEST's form, the first of each name; None where it is none, or too large."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
        return None
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > LARGEST_FORM:
            return None
    try:
        fields = parse_qs(
            body.decode(), keep_blank_values=True, max_num_fields=MOST_FIELDS, errors="strict"
        )
    except ValueError:
        return None
    # PostgreSQL keeps no text with it.
    clean = all("\0" not in values[0] for values in fields.values())
    return {name: values[0] for name, values in fields.items()} if clean else None
