"""Protect the review server: host check, access token, CSRF tokens and security headers."""

import hashlib
import hmac
import ipaddress
import secrets
import socket
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp

LOOPBACK = "127.0.0.1"
LOCAL_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})
# A list of rows sends two fields for each.
MAX_FORM_BYTES, MAX_FORM_FIELDS = 64 * 1024, 150
FORM_TYPE = "application/x-www-form-urlencoded"
SECRET_BYTES = 32
HEADERS = {
    "content-security-policy": "default-src 'none'; img-src 'self'; style-src 'self';"
    " script-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # With `no-referrer`, browsers send `Origin: null` with our own forms too.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


@dataclass(frozen=True)
class AccessPolicy:
    """Who may use a server, and the names of its cookies.

    Attributes:
        token: What the address must contain at first use; None where only this machine can connect.
        name: Prefix of cookies, which browsers share among all servers of one host.
        hosts: Further names of this machine.
    """

    token: str | None = None
    name: str = "review"
    hosts: frozenset[str] = field(default_factory=frozenset)

    @property
    def access_cookie(self) -> str:
        """Name of the cookie of browsers that have sent the token."""
        return f"{self.name}-key"

    @property
    def csrf_cookie(self) -> str:
        """Name of the cookie with the secret of CSRF tokens."""
        return f"{self.name}-forms"

    def is_trusted_host(self, host: str) -> bool:
        """Return whether a Host header names this machine (protection against DNS rebinding).

        Another site can point a name of its own at this machine, but not an address. Starlette's
        TrustedHostMiddleware has no pattern for "any IP address".
        """
        name = _host_name(host)
        if self.token is None or name in LOCAL_HOSTS:
            return name in LOCAL_HOSTS
        return name in self.hosts or _is_address(name)


def create_access_policy(host: str, port: int) -> AccessPolicy:
    """Create the policy of a server: with a token unless only this machine can connect."""
    name = f"review-{port}"
    if host == LOOPBACK:
        return AccessPolicy(None, name)
    hosts = {host.lower(), socket.gethostname().lower(), socket.getfqdn().lower()}
    return AccessPolicy(secrets.token_urlsafe(SECRET_BYTES), name, frozenset(hosts))


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


def is_equal(first: str, second: str) -> bool:
    return hmac.compare_digest(first.encode(), second.encode())


def csrf_token(request: Request) -> str:
    """Return the token that forms on the page for a request must send back."""
    return _digest(request.state.csrf_secret, "form")


class SecurityMiddleware(BaseHTTPMiddleware):
    """Reject requests that the access policy does not allow, and add security headers.

    The fields of an accepted form are in `request.state.form`.
    """

    def __init__(self, app: ASGIApp, policy: AccessPolicy) -> None:
        """Protect an application with a policy."""
        super().__init__(app)
        self.policy = policy

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        """Handle one request."""
        cookie = self.policy.csrf_cookie
        known_secret = request.cookies.get(cookie)
        request.state.csrf_secret = known_secret or secrets.token_urlsafe(SECRET_BYTES)
        response = await self._rejection(request)
        if response is None:
            response = await call_next(request)
            if known_secret is None:
                _set_cookie(response, cookie, request.state.csrf_secret)
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    async def _rejection(self, request: Request) -> Response | None:
        """Return the response to a request that is rejected, None if it is accepted."""
        headers = request.headers
        if not self.policy.is_trusted_host(headers.get("host", "")):
            return _error(HTTPStatus.BAD_REQUEST, "the host name is not one of this server")
        if b"%00" in request.scope["query_string"] or "\0" in request.url.path:
            return _error(HTTPStatus.BAD_REQUEST, "the address contains a null character")
        if self.policy.token is not None and (response := self._check_token(request)):
            return response
        if request.method in ("GET", "HEAD"):
            return None
        if request.method != "POST":
            return _error(HTTPStatus.METHOD_NOT_ALLOWED, "only GET and POST are supported")
        if not is_same_origin(headers):
            return _error(HTTPStatus.FORBIDDEN, "the form was sent by another site")
        form = await _read_form(request)
        if form is None:
            return _error(HTTPStatus.BAD_REQUEST, "the form is not valid or too large")
        request.state.form = form
        if not is_equal(form.get("csrf", ""), csrf_token(request)):
            return _error(
                HTTPStatus.FORBIDDEN,
                "the page is out of date or of another server: nothing was saved; reload it",
            )
        return None

    def _check_token(self, request: Request) -> Response | None:
        token = self.policy.token or ""
        key = _digest(token, "key")
        sent = request.query_params.get("token")
        if sent is not None and is_equal(sent, token) and request.method == "GET":
            url = request.url.remove_query_params("token")
            query = f"?{url.query}" if url.query else ""
            # A location that starts with two slashes would lead to another server.
            response = RedirectResponse(f"/{url.path.lstrip('/')}{query}", HTTPStatus.SEE_OTHER)
            _set_cookie(response, self.policy.access_cookie, key)
            return response
        if is_equal(request.cookies.get(self.policy.access_cookie, ""), key):
            return None
        return _error(
            HTTPStatus.UNAUTHORIZED,
            "open the address that `review` printed at its start: it contains the token",
        )


def _set_cookie(response: Response, name: str, value: str) -> None:
    response.set_cookie(name, value, httponly=True, samesite="strict")


def _error(status: HTTPStatus, message: str) -> Response:
    return PlainTextResponse(f"{message}\n", status)


def is_same_origin(headers: Headers) -> bool:
    """Return whether a form was sent by one of our pages, as far as the browser says."""
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc == headers.get("host", "")


async def _read_form(request: Request) -> dict[str, str] | None:
    """Return the first value of each field of a form, None if it is not one or too large."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM_TYPE:
        return None
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM_BYTES:
            return None
    try:
        fields = parse_qs(
            body.decode(), keep_blank_values=True, max_num_fields=MAX_FORM_FIELDS, errors="strict"
        )
    except ValueError:
        return None
    # PostgreSQL stores no text with null characters.
    is_clean = all("\0" not in values[0] for values in fields.values())
    return {name: values[0] for name, values in fields.items()} if is_clean else None
