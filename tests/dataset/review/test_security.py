"""Hosts, tokens, forged forms, and how photos are served."""

from urllib.parse import urlsplit

import fsspec
import pytest
import sqlalchemy as sa
from click.testing import CliRunner
from starlette.testclient import TestClient

from dataset.catalogue.models import Hashtag, PostRow
from dataset.cli import review
from dataset.images.store import ImageStore, open_store
from dataset.review.security import MAX_FORM_BYTES, create_access_policy
from tests.support.catalogue_data import CatalogueBuilder, photo_bytes
from tests.support.review_server import BASE, PORT, ReviewClient, labels, sha256


@pytest.mark.parametrize("host", ["evil.test", "evil.test:8000", "127.0.0.1.evil.test", "", "["])
def test_other_host_names_are_rejected(page: ReviewClient, host: str) -> None:
    assert page.client.get("/", headers={"host": host}).status_code == 400


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:9999", "[::1]:8000"])
def test_names_of_this_machine_are_accepted_with_any_port(page: ReviewClient, host: str) -> None:
    assert page.client.get("/", headers={"host": host}).status_code == 200


FORM = {"item": "3/polo", "state": "open", "answer": "exclude"}


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.test"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_a_form_of_another_site_is_rejected(page: ReviewClient, headers: dict[str, str]) -> None:
    page.client.headers.update(headers)
    response = page.post("/queue/mistakes/decide", page.get("/queue/mistakes"), **FORM)
    assert response.status_code == 403
    assert labels(page.builder) == []


def test_a_form_of_the_same_origin_is_accepted(page: ReviewClient) -> None:
    page.client.headers.update({"origin": BASE, "sec-fetch-site": "same-origin"})
    page.post("/queue/mistakes/decide", page.get("/queue/mistakes"), **FORM)
    assert len(labels(page.builder)) == 1


@pytest.mark.parametrize("path", ["/queue/mistakes/decide", "/queue/mistakes/undo", "/who"])
@pytest.mark.parametrize("token", [None, "", "0" * 64, "é"])
def test_a_form_without_its_token_is_rejected(
    page: ReviewClient, path: str, token: str | None
) -> None:
    page.get("/")
    fields = FORM | ({} if token is None else {"csrf": token})
    assert page.client.post(path, data=fields).status_code == 403
    other = ReviewClient(page.builder)
    assert other.post(path, page.get("/"), **FORM).status_code == 403
    assert labels(page.builder) == []


def test_large_and_invalid_forms_are_rejected(page: ReviewClient) -> None:
    page.get("/")
    path = "/queue/mistakes/decide"
    for data in ({"json": {"csrf": "x"}}, {"data": {"label": "x" * MAX_FORM_BYTES}}):
        assert page.client.post(path, **data).status_code == 400  # type: ignore[arg-type]
    response = page.post(path, page.get("/"), **(FORM | {"label": "\0"}))
    assert response.status_code == 400
    assert page.client.put(path).status_code == 405
    assert page.client.get("/queue/mistakes?title=%00").status_code == 400


def test_a_form_loaded_before_a_restart_is_accepted(page: ReviewClient) -> None:
    html = page.get("/queue/mistakes")
    after = ReviewClient(page.builder)
    after.client.cookies = page.client.cookies
    after.decide(html, "exclude")
    assert len(labels(page.builder)) == 1


def test_every_response_has_security_headers(page: ReviewClient) -> None:
    for path in ("/", "/queue/mistakes", "/photo/1", "/static/review.js", "/nothing"):
        headers = page.client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        # With `no-referrer`, browsers send `Origin: null` with our own forms too.
        assert headers["referrer-policy"] == "same-origin"
    html = page.get("/queue/mistakes")
    assert " style=" not in html and "<script>" not in html and " onclick" not in html


def test_other_machines_need_a_token_which_becomes_a_cookie(ready: CatalogueBuilder) -> None:
    policy = create_access_policy("0.0.0.0", PORT)
    page = ReviewClient(ready, policy=policy)
    paths = ("/", "/photo/1", "/static/review.css", "/?token=wrong", "/?token=%C3%A9")
    for path in paths:
        assert page.client.get(path).status_code == 401
    assert page.client.post("/who", data={"who": "x"}).status_code == 401
    response = page.client.get(
        f"/queue/mistakes?label=polo&token={policy.token}", follow_redirects=False
    )
    assert response.headers["location"] == "/queue/mistakes?label=polo"
    cookie = response.headers["set-cookie"]
    assert (
        "HttpOnly" in cookie
        and "samesite=strict" in cookie.lower()
        and str(policy.token) not in cookie
    )
    assert page.get("/queue/mistakes")
    page.decide(page.get("/queue/mistakes"), "exclude")
    assert len(labels(page.builder)) == 1
    fresh = TestClient(page.client.app, base_url=BASE)
    away = fresh.get(f"//evil.test/?token={policy.token}", follow_redirects=False)
    assert urlsplit(away.headers.get("location", "")).netloc == ""


def test_each_server_has_its_own_token_and_rejects_other_host_names() -> None:
    policy = create_access_policy("192.0.2.7", PORT)
    assert policy.token and policy.token != create_access_policy("192.0.2.7", PORT).token
    assert policy.is_trusted_host("192.0.2.7:8000") and policy.is_trusted_host("[2001:db8::1]")
    assert not policy.is_trusted_host("evil.test")
    assert create_access_policy("127.0.0.1", PORT).token is None


def test_only_verified_photos_are_served(page: ReviewClient) -> None:
    whole = page.client.get("/photo/1")
    assert (whole.content, whole.headers["content-type"]) == (photo_bytes(0), "image/jpeg")
    assert page.client.get("/thumb/1").content[:3] == b"\xff\xd8\xff"
    key = ImageStore.key(sha256(page.builder, 2), "jpg")
    (page.builder.store.root / key).write_bytes(b"<html><script>alert(1)</script>")
    for path in (
        *("/photo/2", "/thumb/2", "/photo/999", "/photo/999999999999999999999", "/photo/-1"),
        *("/photo/../catalogue.sqlite", "/photo/..%2f..%2fetc%2fpasswd", "/photo/1.jpg"),
        *("/static/../app.py", "/static/..%2fapp.py", "/static/app.py", "/static//etc/passwd"),
    ):
        assert page.client.get(path).status_code == 404, path


def test_photos_of_a_remote_store_are_served(ready: CatalogueBuilder) -> None:
    builder = ready
    place = fsspec.filesystem("memory")
    key = ImageStore.key(sha256(builder, 1), "jpg")
    place.pipe_file(f"/shop/{key}", photo_bytes(0))
    builder.store = open_store("memory://shop")
    page = ReviewClient(builder)
    assert page.client.get("/photo/1").content == photo_bytes(0)
    assert page.client.get("/photo/2").status_code == 404


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--port", "70000"], "70000"), (["--host", "no such host"], "--host no such host: ")],
)
def test_unusable_addresses_are_usage_errors(
    ready: CatalogueBuilder, arguments: list[str], message: str
) -> None:
    done = CliRunner().invoke(review, [*arguments, "--catalogue", ready.catalogue])
    assert (done.exit_code, "Traceback" in done.output) == (2, False)
    assert message in done.output


HOSTILE = [
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>",
    "{{ 7 * 7 }} {% raw %}",
    "\u202eשלום\u202c \u2066",
    "👗" * 50,
    "x" * 10_000,
    "</script><!--",
]


def test_text_of_sites_is_escaped(page: ReviewClient) -> None:
    for text in HOSTILE:
        with page.builder.sessions.begin() as session:
            session.execute(
                sa.update(PostRow).values(
                    title=text, brand=text, author=text, url="javascript:alert(1)"
                )
            )
            session.get_one(Hashtag, 1).text = text
        for queue in ("mistakes", "conflicts", "duplicates", "crops"):
            for path in (f"/queue/{queue}", f"/queue/{queue}/list"):
                html = page.get(path)
                for bad in ("<script>alert", "<img src=x", "javascript:", " 49 "):
                    assert bad not in html, (path, text)
