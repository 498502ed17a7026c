"""`serve-model`: responses, limits, hostile requests, and requests that are predicted together."""

import asyncio
import json
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from openapi_spec_validator import validate
from starlette.testclient import TestClient

from dataset.review.security import AccessPolicy
from dataset.utils.files import write_json
from dataset.vocabulary import load_vocabulary
from model.feeds.sources import FetchOptions
from model.tagging import server
from model.tagging.server import (
    ApiError,
    Batcher,
    ModelService,
    PhotoDownloads,
    Prediction,
    ServeOptions,
    create_app,
    load_service,
)
from tests.support.catalogue_data import photo_bytes
from tests.support.drawn_splits import run_words
from tests.support.photo_site import PhotoSite, serving
from tests.support.saved_runs import write_run

LABELS = ["dress", "hat", "polo"]
PHOTO = photo_bytes(3, (90, 120))
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, photos, and an index of them."""
    folder = tmp_path_factory.mktemp("work")
    run = write_run(folder / "run", LABELS)
    write_json({"coverage": {"chosen_on_validation": {"threshold": 0.0}}}, run / "metrics.json")
    for number in range(12):
        path = folder / "photos" / LABELS[number % 3] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photo_bytes(number, (90, 120)))
    words = ("--build", "--model", "run", "--from", "photos", "--cache", "cache")
    done = run_words(folder, "find-similar", *words)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def model(work: Path) -> Iterator[tuple[ModelService, ThreadPoolExecutor]]:
    with ThreadPoolExecutor(1) as thread:
        options = ServeOptions(work / "run", index=work / "similar.index", batch_size=4)
        yield thread.submit(load_service, options, load_vocabulary()).result(), thread


Model = tuple[ModelService, ThreadPoolExecutor]


@contextmanager
def client_of(
    model: Model,
    folder: Path,
    policy: AccessPolicy | None = None,
    allow_private: bool = False,
    max_queue: int = 8,
) -> Iterator[TestClient]:
    service, thread = model
    fetch = FetchOptions(folder / "fetched", timeout=20, allow_private=allow_private)
    app = create_app(
        Batcher(service, thread, 4, max_queue),
        PhotoDownloads(fetch),
        policy or AccessPolicy(),
        "http://127.0.0.1:8000/",
    )
    with TestClient(app, "http://127.0.0.1:8000", raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module")
def client(model: Model, work: Path) -> Iterator[TestClient]:
    with client_of(model, work) as client:
        yield client


def upload(data: bytes = PHOTO) -> dict[str, Any]:
    return {"photo": ("photo.jpg", data)}


def error_of(response: Any, status: int) -> str:
    """Return the code of an error."""
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"code", "message"} and error["message"]
    return str(error["code"])


def test_tags_are_those_of_tag_photos(client: TestClient, work: Path) -> None:
    (work / "photo.jpg").write_bytes(PHOTO)
    words = ("tag-photos", "photo.jpg", "--model", "run", "--top", "2", "--out", "tags.jsonl")
    assert run_words(work, *words).returncode == 0
    row = json.loads((work / "tags.jsonl").read_text())
    content = client.post("/v1/tags", files=upload(), data={"top": "2"}).json()
    assert content["model"] == "run" and len(content["sha256"]) == 64
    assert (content["status"], content["reason"]) == ("tagged", "")
    for name in ("labels", "top"):
        assert [score["label"] for score in content[name]] == [s["label"] for s in row[name]]
        assert content[name][0]["probability"] == pytest.approx(
            row[name][0]["probability"], abs=1e-3
        )
    assert len(client.post("/v1/tags", files=upload()).json()["top"]) == 3


def test_each_tag_gets_a_verdict(client: TestClient) -> None:
    best = client.post("/v1/tags", files=upload()).json()["labels"][0]["label"]
    data = {"tag": [best, "Sofas"], "tags": [f"Apparel > {best}"]}
    checks = client.post("/v1/check", files=upload(), data=data).json()["checks"]
    assert [(c["tag"], c["label"]) for c in checks] == [
        (best, best),
        ("Sofas", "sofas"),
        (f"Apparel > {best}", best),
    ]
    assert checks[0]["verdict"] in ("agrees", "unsure") and checks[0]["suggested"] == best
    assert checks[0]["probability"] == checks[0]["tag_probability"] > 1 / 3
    assert checks[1]["verdict"] == "not checked"
    assert checks[1]["reason"] == "the model has no label 'sofas'"


def test_verdicts_follow_the_probabilities(model: Model) -> None:
    service, prediction = model[0], model[0].predict([PHOTO])[0]
    for logits, verdicts in (
        ([9.0, 0.0, 0.0], ["agrees", "mistake", "mistake"]),
        ([0.3, 0.2, 0.1], ["unsure", "unsure", "unsure"]),
    ):
        assert prediction.logits is not None
        certain = replace(prediction, logits=prediction.logits * 0 + logits)
        assert [check["verdict"] for check in service.check(certain, LABELS)["checks"]] == verdicts
    blank = replace(prediction, photo=replace(prediction.photo, no_garment_reason="blank"))
    assert service.check(blank, ["hat"])["checks"][0]["verdict"] == "no garment seen"


def test_similar_items_are_those_of_the_index(client: TestClient) -> None:
    results = client.post("/v1/similar", files=upload(), data={"top": "4"}).json()["results"]
    assert len(results) == 4 and results[0]["id"] == "dress/3.jpg"
    assert results[0]["similarity"] == pytest.approx(1, abs=0.01)
    data = {"labels": ["hat"]}
    hats = client.post("/v1/similar", files=upload(), data=data).json()["results"]
    assert {item["label"] for item in hats} == {"hat"}


def test_without_an_index_there_are_no_similar_items(model: Model, tmp_path: Path) -> None:
    with client_of((replace(model[0], index=None), model[1]), tmp_path) as client:
        assert error_of(client.post("/v1/similar", files=upload()), 404) == "no_index"
        assert "always 404" in client.get("/openapi.json").text


def bomb() -> bytes:
    """Return a PNG that claims 60,000 x 60,000 pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    pixels = b"IDAT" + zlib.compress(bytes(1_000_000))
    chunks = (header, pixels, b"IEND")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks
    )


@pytest.mark.parametrize(
    "data", [b"", b"no photo", PHOTO[:500], bomb(), b"\xff\xd8\xff" + bytes(9000)]
)
def test_photos_that_cannot_be_read_are_named(client: TestClient, data: bytes) -> None:
    assert error_of(client.post("/v1/tags", files=upload(data)), 422) == "unreadable_photo"
    assert client.post("/v1/tags", files=upload()).status_code == 200


@pytest.mark.parametrize(
    ("path", "options", "status", "code"),
    [
        ("tags", {}, 415, "unsupported_type"),
        ("tags", {"content": b"x", "headers": {"content-type": "text/plain"}}, 415, None),
        ("tags", {"content": PHOTO, "headers": {"content-type": "image/jpeg"}}, 415, None),
        ("tags", {"content": b"{", "headers": JSON}, 400, "invalid_json"),
        ("tags", {"content": b"[" * 10_000, "headers": JSON}, 400, "invalid_json"),
        ("tags", {"json": ["http://a.example/"]}, 400, "invalid_json"),
        ("tags", {"json": {}}, 400, "missing_photo"),
        ("tags", {"json": {"url": 5}}, 400, "invalid_field"),
        ("tags", {"json": {"url": "file:///etc/passwd"}}, 400, "invalid_field"),
        ("tags", {"json": {"url": "http://a.example/\n"}}, 422, "not_downloaded"),
        ("tags", {"json": {"url": "http://127.0.0.1/a.jpg"}}, 422, "not_downloaded"),
        ("tags", {"json": {"url": "http://[::1]:8000/a.jpg"}}, 422, "not_downloaded"),
        ("tags", {"json": {"url": "http://169.254.169.254/latest"}}, 422, "not_downloaded"),
        ("tags", {"files": upload(), "data": {"url": "http://a.example/"}}, 400, "missing_photo"),
        ("tags", {"files": upload(), "data": {"top": "0"}}, 400, "invalid_field"),
        ("tags", {"files": upload(), "data": {"top": "٣"}}, 400, "invalid_field"),
        ("tags", {"files": upload(), "data": {"tag": "hat"}}, 400, "unknown_field"),
        ("tags", {"files": {"file": ("a.jpg", PHOTO)}}, 400, "invalid_field"),
        ("tags", {"files": [("photo", ("a", b"a")), ("photo", ("b", b"b"))]}, 400, None),
        ("tags", {"files": {"photo": (None, "text")}}, 400, "invalid_field"),
        ("tags", {"files": upload(), "data": {"url": "x" * 20_000}}, 400, None),
        ("check", {"files": upload()}, 400, "missing_field"),
        ("check", {"files": upload(), "data": {"tag": " "}}, 400, "invalid_field"),
        ("check", {"files": upload(), "data": {"tag": ["hat"] * 101}}, 400, "invalid_field"),
        ("nothing", {}, 404, "not_found"),
        ("tags", {"files": upload(), "headers": {"host": "evil.example"}}, 400, "unknown_host"),
        (
            "tags",
            {"files": upload(), "headers": {"origin": "https://evil.example"}},
            403,
            "other_origin",
        ),
    ],
)
def test_invalid_requests_are_named(
    client: TestClient, path: str, options: dict[str, Any], status: int, code: str | None
) -> None:
    found = error_of(client.post(f"/v1/{path}", **options), status)
    assert code in (None, found)


def test_other_methods_are_named(client: TestClient) -> None:
    assert error_of(client.get("/v1/tags"), 405) == "method_not_allowed"


def test_a_token_is_needed_for_all_but_the_health(model: Model, tmp_path: Path) -> None:
    policy = AccessPolicy("secret-token", hosts=frozenset({"shop"}))
    with client_of(model, tmp_path, policy) as client:
        assert client.get("/healthz").json() == {"status": "ok", "waiting": 0}
        for headers in ({}, {"authorization": "Bearer other"}, {"authorization": "secret-token"}):
            response = client.post("/v1/tags", files=upload(), headers=headers)
            assert error_of(response, 401) == "unauthorized"
            assert response.headers["www-authenticate"] == "Bearer"
        assert error_of(client.post("/v1/tags?token=secret-token", files=upload()), 401)
        headers = {"authorization": "Bearer secret-token", "host": "tagger.shop.example"}
        assert client.post("/v1/tags", files=upload(), headers=headers).status_code == 200
        assert client.get("/").status_code == client.get("/openapi.json").status_code == 401
        page = client.get("/?token=secret-token").text
        assert "v1/tags \\\n    -H &#39;Authorization: Bearer TOKEN&#39; \\\n    -F photo" in page
        assert 'href="openapi.json?token=secret-token"' in page


def test_the_document_and_its_page_describe_all_requests(client: TestClient) -> None:
    document, page = client.get("/openapi.json").json(), client.get("/")
    validate(document)
    assert document["openapi"].startswith("3.") and "security" not in document
    assert document["info"]["x-labels"] == LABELS
    for path, methods in document["paths"].items():
        assert f"{path}</h2>" in page.text and f"{path}<" in page.text
        for operation in methods.values():
            for response in operation["responses"].values():
                name = response.get("$ref", "").rpartition("/")[2]
                assert not name or name in document["components"]["responses"]
    assert (
        "src=" not in page.text and "default-src 'none'" in page.headers["content-security-policy"]
    )
    assert page.headers["x-content-type-options"] == "nosniff"


@pytest.mark.slow
def test_photos_at_addresses_are_downloaded_each_time(model: Model, tmp_path: Path) -> None:
    with (
        serving({"/a.jpg": PHOTO, "/secret/a.jpg": PHOTO, "/page": b"<html>"}) as site,
        client_of(model, tmp_path, allow_private=True) as client,
    ):
        _check_downloads(client, site)
        assert not list((tmp_path / "fetched").rglob("*.jpg"))
    assert not (tmp_path / "fetched").exists()


def _check_downloads(client: TestClient, site: PhotoSite) -> None:
    uploaded = client.post("/v1/tags", files=upload()).json()
    site.redirects["/moved.jpg"] = "/a.jpg"
    site.redirects["/file.jpg"] = "file:///etc/passwd"
    for _ in range(2):
        for path in ("/a.jpg", "/moved.jpg"):
            response = client.post("/v1/tags", json={"url": f"{site.url}{path}"})
            assert response.json()["sha256"] == uploaded["sha256"]
    assert site.requests["/a.jpg"] >= 4
    for path, problem in (
        ("/secret/a.jpg", "robots.txt"),
        ("/gone.jpg", "HTTP 404"),
        ("/page", "broken or no image"),
        ("/file.jpg", ""),
    ):
        response = client.post("/v1/tags", json={"url": f"{site.url}{path}"})
        assert error_of(response, 422) == "not_downloaded" and problem in response.text
    site.bodies["/gone.jpg"] = PHOTO
    assert client.post("/v1/tags", json={"url": f"{site.url}/gone.jpg"}).status_code == 200


class SlowService:
    """A model that waits before each batch, and records the sizes of the batches."""

    def __init__(self, seconds: float, error: Exception | None = None) -> None:
        self.seconds, self.error, self.sizes = seconds, error, list[int]()

    def predict(self, files: Sequence[bytes]) -> list[Prediction]:
        time.sleep(self.seconds)
        self.sizes.append(len(files))
        if self.error is not None:
            raise self.error
        return [Prediction(replace(server.PreparedPhoto(), sha256=str(data))) for data in files]


def predict_all(service: Any, count: int, max_queue: int) -> list[Any]:
    """Predict photos at once; return predictions and errors."""

    async def predict() -> list[Any]:
        with ThreadPoolExecutor(1) as thread:
            batcher = Batcher(service, thread, 8, max_queue)
            task = asyncio.create_task(batcher.run())
            calls = [batcher.predict(str(number).encode()) for number in range(count)]
            results = await asyncio.gather(*calls, return_exceptions=True)
            task.cancel()
            return results

    return asyncio.run(predict())


def test_requests_that_arrive_together_are_predicted_together() -> None:
    service = SlowService(0.02)
    results = predict_all(service, 21, 64)
    assert [result.photo.sha256 for result in results] == [
        str(str(number).encode()) for number in range(21)
    ]
    # Powers of two, because the network pads other batches.
    assert service.sizes == [8, 8, 4, 1]


def test_a_full_queue_is_an_error_with_the_time_to_wait() -> None:
    results = predict_all(SlowService(0.02), 10, 4)
    errors = [result for result in results if isinstance(result, ApiError)]
    assert len(errors) == 6 and {error.status_code for error in errors} == {503}
    assert int((errors[0].headers or {})["retry-after"]) >= 1


def test_an_error_of_the_model_reaches_each_request_and_the_next_one_works() -> None:
    service = SlowService(0, ValueError("broken"))
    assert all(isinstance(result, ValueError) for result in predict_all(service, 3, 8))
    assert service.sizes == [2, 1]


def test_errors_of_the_server_are_json(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ModelService, "predict", SlowService(0, ValueError("broken")).predict)
    with client_of(model, tmp_path) as client:
        response = client.post("/v1/tags", files=upload())
        assert error_of(response, 500) == "internal_error" and "broken" not in response.text


@contextmanager
def running(model: Model, folder: Path) -> Iterator[int]:
    """Run a server and yield its port."""
    fetch = FetchOptions(folder / "fetched")
    app = create_app(
        Batcher(*model, 4, 8), PhotoDownloads(fetch), AccessPolicy(), "http://127.0.0.1/"
    )
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        uvicorn_server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        thread = threading.Thread(target=uvicorn_server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            uvicorn_server.should_exit = True
            thread.join()


HEAD = (
    "POST /v1/tags HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=b\r\n"
)


def test_large_and_slow_bodies_end_early(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "BODY_SECONDS", 0.3)
    monkeypatch.setattr(server, "MAX_BODY_BYTES", 100_000)
    part = b'--b\r\nContent-Disposition: form-data; name="photo"; filename="a"\r\n\r\n'
    chunk = b"10000\r\n" + bytes(0x10000) + b"\r\n"
    requests = {
        # Announced, and not announced.
        "Content-Length: 5000000000\r\n\r\n": (part, b" 413 ", "too_large"),
        "Transfer-Encoding: chunked\r\n\r\n": (chunk * 3, b" 413 ", "too_large"),
        "Content-Length: 90000\r\n\r\n": (part, b" 408 ", "too_slow"),
    }
    with running(model, tmp_path) as port:
        for head, (body, status, code) in requests.items():
            with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
                connection.sendall(f"{HEAD}{head}".encode() + body)
                response = b""
                while b"}}" not in response and (data := connection.recv(65536)):
                    response += data
                assert status in response.splitlines()[0] and code.encode() in response
