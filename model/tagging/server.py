"""Serve a run's model over HTTP: tags of photos, checks of tags, and similar items.

Requests that wait are predicted together: one task collects them, and one thread has the model.
Photos at addresses are downloaded by `fetch-photos`, under the rules of a crawl.
"""

import asyncio
import contextlib
import json
import math
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

import click
import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dataset.errors import DownloadFailed, Failure, shorten_for_display
from dataset.review.security import (
    HEADERS,
    LOOPBACK,
    AccessPolicy,
    create_access_policy,
    is_equal,
    is_same_origin,
)
from dataset.review.server import listen, server_url
from dataset.utils.html import render
from dataset.vocabulary import Vocabulary
from model.feeds.sources import MAX_FILE_BYTES, FetchOptions, ImageFetcher, ListedTag, match_label
from model.inference.embedding import Embedding
from model.inference.predictor import NetworkOutputs, Predictor, SavedRun, load_run
from model.inference.preprocessing import PhotoInput, PreparedPhoto
from model.similar.build import EMBEDDING, Embedder, require_same_model
from model.similar.index_file import Filters, IndexItem, open_index
from model.similar.search import Query, Searcher
from model.tag_check.noise_model import (
    NO_GARMENT,
    NOT_CHECKED,
    TARGET_PRECISION,
    NoiseModel,
    Thresholds,
    decide_verdicts,
    uniform_confusion,
)
from model.tag_check.pipeline import LabelScheme, compare_with_training, find_class_index
from model.tag_check.store import PhotoPrediction, normalize_rows
from model.tag_check.training_reference import TrainingReference, build_reference
from model.tagging.pipeline import Tagger, describe_threshold, tags_as_json

# With a lower rate, a tag would agree with a photo that says nothing about it.
DEFAULT_WRONG_RATE = 0.1
TEMPLATES = Path(__file__).with_name("templates")
# Requests that arrive within this time of the first one are predicted together.
BATCH_SECONDS = 0.005
# Limits of a request: its body with the parts around the photo, other fields, and their number.
MAX_BODY_BYTES, MAX_FIELD_BYTES, MAX_FIELDS = MAX_FILE_BYTES + 64 * 1024, 16 * 1024, 120
MAX_TAGS, MAX_TOP, MAX_URL_CHARACTERS = 100, 100, 8_000
# Time for the body of a request, for the download of a photo, and for a prediction.
BODY_SECONDS, FETCH_SECONDS, PREDICT_SECONDS = 30, 60, 60
# Requests in progress may take so long when the server is stopped.
SHUTDOWN_SECONDS = 30
MAX_DOWNLOADS = 16
CONTENT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'"
)


class ApiError(HTTPException):
    """An error that a client gets as JSON.

    Args:
        status: HTTP status.
        code: A name of the error for programs.
        message: The problem and the remedy.
        headers: Headers of the response.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, headers)
        self.code = code


def overloaded(seconds: float) -> ApiError:
    """Return the error of a server with too many requests."""
    headers = {"retry-after": str(max(1, math.ceil(seconds)))}
    return ApiError(503, "overloaded", "too many requests wait; try again later", headers)


@dataclass(frozen=True)
class Prediction:
    """A photo with its network outputs.

    Attributes:
        photo: The preprocessed photo.
        features: Backbone features of shape (width,); None if the photo can't be read.
        logits: Calibrated logits of shape (classes,).
    """

    photo: PreparedPhoto
    features: np.ndarray | None = None
    logits: np.ndarray | None = None


@dataclass(frozen=True)
class SimilarIndex:
    """An index of `find-similar` in memory; it is used by the thread that opened it."""

    searcher: Searcher
    embedding: Embedding


@dataclass(frozen=True)
class ModelService:
    """What the server does with photos. All methods are called in one thread.

    Attributes:
        tagger: The run's model.
        vocabulary: Defines the labels of tags.
        index: The index of similar items, if there is one.
        wrong_rate: Fraction of the tags to check that are wrong.
        reference: The training photos, with which photos are compared when tags are checked; None:
            they are not.
    """

    tagger: Tagger
    vocabulary: Vocabulary
    index: SimilarIndex | None = None
    wrong_rate: float = DEFAULT_WRONG_RATE
    reference: TrainingReference | None = None

    @cached_property
    def scheme(self) -> LabelScheme:
        """The labels of the model, and which of them exclude each other."""
        return LabelScheme.of_run(self.tagger.run, self.vocabulary)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of the model."""
        return self.tagger.predictor.labels

    def predict(self, files: Sequence[bytes]) -> list[Prediction]:
        """Predict photos, given as the bytes of files."""
        inputs = [PhotoInput(partial(bytes, data)) for data in files]
        photos = [p for chunk in self.tagger.preprocessor.prepare(inputs) for p in chunk]
        pixels = [photo.pixels for photo in photos if photo.pixels is not None]
        if not pixels:
            return [Prediction(photo) for photo in photos]
        outputs = self.tagger.predictor.predict(np.stack(pixels))
        rows = zip(outputs.features, outputs.logits, strict=True)
        return [Prediction(p) if p.pixels is None else Prediction(p, *next(rows)) for p in photos]

    def warm_up(self, batch_size: int) -> None:
        """Predict batches of all sizes, so that no request waits for the compiler."""
        predictor = self.tagger.predictor
        shape = predictor.feature_network.input.shape[1:]
        while batch_size:
            predictor.predict(np.zeros((batch_size, *shape), np.uint8))
            batch_size //= 2

    def tag(self, prediction: Prediction, top: int | None) -> dict[str, Any]:
        """Return the tags of a photo for JSON."""
        tags = self.tagger.decide(prediction.photo, self._probabilities(prediction), top)
        return tags_as_json(tags)

    def check(self, prediction: Prediction, tags: Sequence[str]) -> dict[str, Any]:
        """Return the verdict on each tag of a photo, and its missing tags, for JSON."""
        photo = self._compare_with_training(prediction)
        listed = [ListedTag(tag, match_label(tag, self.vocabulary)) for tag in tags]
        missing: dict[str, tuple[str, float]] = {}
        if self.scheme.is_multi_label and not photo.no_garment_reason:
            assert photo.probabilities is not None
            missing = self.scheme.find_missing(listed, photo.probabilities)
        return {
            "checks": [self._check(photo, tag) for tag in listed],
            "missing": [
                {"label": label, "facet": facet, "probability": round(probability, 6)}
                for facet, (label, probability) in missing.items()
            ],
            "nearest": [
                {name: photo[name] for name in ("label", "similarity", "path")}
                for photo in photo.nearest
            ],
        }

    def _compare_with_training(self, prediction: Prediction) -> PhotoPrediction:
        """Compare a photo with those of the training."""
        assert prediction.features is not None, "photos without a prediction are errors before"
        assert prediction.logits is not None
        if self.reference is None:
            reason = prediction.photo.no_garment_reason
            return PhotoPrediction("", reason, self._probabilities(prediction))
        outputs = NetworkOutputs(prediction.features[None], prediction.logits[None])
        return compare_with_training([prediction.photo], outputs, self.reference)[0]

    def _check(self, photo: PhotoPrediction, tag: ListedTag) -> dict[str, Any]:
        class_index = find_class_index(tag, self.labels)
        verdict: dict[str, Any] = {"tag": tag.tag, "label": tag.label, "verdict": NOT_CHECKED}
        if class_index is None:
            return {**verdict, "reason": f"the model has no label {tag.label!r}"}
        verdict["label"] = self.labels[class_index]
        if photo.no_garment_reason:
            return {**verdict, "verdict": NO_GARMENT, "reason": photo.no_garment_reason}
        # The labels that exclude the tag's: those of its facet.
        members = list(self.scheme.members[self.scheme.find_facet(class_index, "")])
        assert photo.probabilities is not None, "photos without a prediction are errors before"
        # Without a feed, confusions can't be estimated: all are equally probable.
        noise = NoiseModel(self.wrong_rate, uniform_confusion(len(members)), self.wrong_rate)
        thresholds = Thresholds(TARGET_PRECISION, TARGET_PRECISION)
        verdicts = decide_verdicts(
            noise,
            thresholds,
            normalize_rows(photo.probabilities[None, members].astype(np.float64)),
            np.array([members.index(class_index)]),
        )
        return {
            **verdict,
            "verdict": verdicts.verdict[0],
            "suggested": self.labels[members[int(verdicts.best[0])]],
            "probability": round(float(verdicts.probability[0]), 6),
            "tag_probability": round(float(verdicts.tag_probability[0]), 6),
            "reason": "",
        }

    def _probabilities(self, prediction: Prediction) -> np.ndarray:
        assert prediction.logits is not None, "photos without a prediction are errors before"
        return self.tagger.probabilities(prediction.logits[None])[0]

    def similar(
        self, prediction: Prediction, top: int, labels: tuple[str, ...]
    ) -> list[dict[str, Any]]:
        """Return the items of the index that are most similar to a photo, for JSON."""
        assert self.index is not None and prediction.features is not None
        assert prediction.logits is not None
        vector = self.index.embedding.vectors(prediction.features[None], prediction.logits[None])
        sha256 = prediction.photo.sha256
        query = Query(vector[0], IndexItem(sha256, sha256, ""), is_label_predicted=True)
        results = self.index.searcher.search(query, top, Filters(labels=labels))
        return [
            {
                "similarity": round(result.similarity, 4),
                **asdict(result.item),
                "duplicates": list(result.duplicates),
            }
            for result in results
        ]


@dataclass(frozen=True)
class _Job:
    data: bytes
    result: "asyncio.Future[Prediction]"


class Batcher:
    """Predicts photos of concurrent requests together.

    Args:
        service: The model.
        thread: The thread of the model.
        batch_size: Number of photos that are predicted together, at most.
        max_queue: Number of photos that wait, at most.
    """

    def __init__(
        self, service: ModelService, thread: ThreadPoolExecutor, batch_size: int, max_queue: int
    ) -> None:
        self.service, self.thread = service, thread
        self._batch_size = batch_size
        self._jobs: asyncio.Queue[_Job] = asyncio.Queue(max_queue)
        self._seconds_per_photo = 0.1

    @property
    def waiting(self) -> int:
        """Number of photos that wait."""
        return self._jobs.qsize()

    def require_space(self) -> None:
        """Raise ApiError if the queue is full."""
        if self._jobs.full():
            raise overloaded(self.waiting * self._seconds_per_photo)

    async def predict(self, data: bytes) -> Prediction:
        """Predict a photo, given as the bytes of a file.

        Raises:
            ApiError: The queue is full, the prediction takes too long, or the photo can't be read.
        """
        job = _Job(data, asyncio.get_running_loop().create_future())
        self.require_space()
        self._jobs.put_nowait(job)
        try:
            prediction = await asyncio.wait_for(job.result, PREDICT_SECONDS)
        except asyncio.TimeoutError as error:
            raise overloaded(self.waiting * self._seconds_per_photo) from error
        if prediction.photo.problem:
            problem = shorten_for_display(prediction.photo.problem)
            raise ApiError(422, "unreadable_photo", f"the photo can't be read: {problem}")
        return prediction

    async def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function in the thread of the model."""
        return await asyncio.get_running_loop().run_in_executor(self.thread, function, *arguments)

    async def run(self) -> None:
        """Predict batch after batch, until the task is cancelled."""
        while True:
            jobs = await self._next_batch()
            start = time.monotonic()
            call = asyncio.ensure_future(
                self.call(self.service.predict, [job.data for job in jobs])
            )
            # Unlike `await`, this does not raise what the call raises.
            await asyncio.wait([call])
            self._seconds_per_photo += (
                (time.monotonic() - start) / len(jobs) - self._seconds_per_photo
            ) / 8
            error = call.exception()
            for number, job in enumerate(jobs):
                if job.result.done():
                    continue
                if error is not None:
                    job.result.set_exception(error)
                else:
                    job.result.set_result(call.result()[number])

    async def _next_batch(self) -> list[_Job]:
        """Wait for jobs, and return some that still have a client."""
        while True:
            jobs = [await self._jobs.get()]
            if self.waiting + 1 < self._batch_size:
                await asyncio.sleep(BATCH_SECONDS)
            # The network computes batches of a power of two.
            count = 1 << (min(self._batch_size, self.waiting + 1).bit_length() - 1)
            jobs += [self._jobs.get_nowait() for _ in range(count - 1)]
            if jobs := [job for job in jobs if not job.result.done()]:
                return jobs


class PhotoDownloads:
    """Downloads photos for requests; nothing is kept.

    Args:
        options: Options of `fetch-photos`.
    """

    def __init__(self, options: FetchOptions) -> None:
        self._options, self._fetcher = options, ImageFetcher(options)
        self._active: dict[str, asyncio.Task[bytes]] = {}
        self._threads = ThreadPoolExecutor(MAX_DOWNLOADS)

    async def read(self, url: str) -> bytes:
        """Return the photo of a URL; concurrent calls with one URL share a request.

        Raises:
            ApiError: It can't be downloaded.
        """
        if len(self._active) >= 2 * MAX_DOWNLOADS and url not in self._active:
            raise overloaded(FETCH_SECONDS / 4)
        task = self._active.get(url)
        if task is None:
            task = self._active[url] = asyncio.ensure_future(self._download(url))
            task.add_done_callback(partial(self._forget_task, url))
        try:
            # Another request may wait for the same photo.
            return await asyncio.wait_for(asyncio.shield(task), FETCH_SECONDS)
        except asyncio.TimeoutError as error:
            message = f"the photo was not downloaded within {FETCH_SECONDS} s"
            raise ApiError(504, "download_timeout", message) from error
        except DownloadFailed as error:
            problem = shorten_for_display(str(error))
            raise ApiError(422, "not_downloaded", f"the photo is not downloaded: {problem}") from (
                error
            )
        except Failure as error:
            message = "the process that downloads photos has ended; send the request again"
            headers = {"retry-after": "1"}
            raise ApiError(503, "downloads_unavailable", message, headers) from error

    def _forget_task(self, url: str, task: "asyncio.Task[bytes]") -> None:
        del self._active[url]
        # Otherwise a failure for which no request waits any more would be logged.
        if not task.cancelled():
            task.exception()

    async def _download(self, url: str) -> bytes:
        loop, fetcher = asyncio.get_running_loop(), self._fetcher
        try:
            return await loop.run_in_executor(self._threads, fetcher.read, url)
        except Failure:
            # Its process has ended; the next request starts another one.
            if self._fetcher is fetcher:
                self._fetcher = ImageFetcher(self._options)
            fetcher.close()
            raise
        finally:
            # A photo may change, and a failure may be temporary.
            fetcher.forget(url)

    def close(self) -> None:
        """End the process that downloads, and remove its folder."""
        self._fetcher.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
        # Uvicorn ends this process by the signal that has stopped it.
        shutil.rmtree(self._options.fetched, ignore_errors=True)


@dataclass(frozen=True)
class ApiRequest:
    """The content of a request.

    Attributes:
        photo: The uploaded file; None: it is at `url`.
        url: Address of the photo, or empty.
        tags: The tags to check.
        labels: Labels that results must have.
        top: Number of results; None: the default.
    """

    photo: bytes | None = None
    url: str = ""
    tags: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    top: int | None = None


# Names of fields that may be repeated, and of the attribute that has their values.
LIST_FIELDS = {"tag": "tags", "tags": "tags", "label": "labels", "labels": "labels"}


async def read_request(request: Request, allowed: Sequence[str]) -> ApiRequest:
    """Read the body of a request.

    Args:
        request: The request.
        allowed: Names of the fields that it may have beside photo and url.

    Raises:
        ApiError: The body is of another type, or a field is missing, unknown or invalid.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type == "multipart/form-data":
        options = {"max_files": 1, "max_fields": MAX_FIELDS, "max_part_size": MAX_FIELD_BYTES}
        async with request.form(**options) as form:
            values, photo = _form_values(form), await _uploaded_photo(form)
    elif content_type == "application/json":
        values, photo = _json_values(await request.body()), None
    else:
        raise ApiError(
            415,
            "unsupported_type",
            "send multipart/form-data with a file `photo`, or application/json with a `url`",
        )
    parsed = _parse_values(values, {"url", *allowed})
    if (photo is None) == (not parsed.url):
        raise ApiError(400, "missing_photo", "send either a file `photo` or the `url` of a photo")
    return replace(parsed, photo=photo)


def _form_values(form: FormData) -> dict[str, list[Any]]:
    values: dict[str, list[Any]] = {}
    for name, value in form.multi_items():
        if not isinstance(value, UploadFile):
            values.setdefault(name, []).append(value)
        elif name != "photo":
            raise ApiError(400, "invalid_field", f"{_shown(name)} is a file; send it as `photo`")
    return values


async def _uploaded_photo(form: FormData) -> bytes | None:
    photo = form.get("photo")
    if isinstance(photo, str):
        raise ApiError(400, "invalid_field", "`photo` is text; send it as a file with a file name")
    return None if photo is None else await photo.read()


def _json_values(body: bytes) -> dict[str, list[Any]]:
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, "invalid_json", "the body is not JSON") from error
    if not isinstance(parsed, dict):
        raise ApiError(400, "invalid_json", 'the body is not a JSON object, such as {"url": "…"}')
    return {name: value if isinstance(value, list) else [value] for name, value in parsed.items()}


def _parse_values(values: Mapping[str, list[Any]], allowed: set[str]) -> ApiRequest:
    parsed = ApiRequest()
    for name, items in values.items():
        attribute = LIST_FIELDS.get(name, name)
        if attribute not in allowed:
            known = ", ".join(sorted({"photo", *allowed}))
            raise ApiError(400, "unknown_field", f"no field {_shown(name)}; there are {known}")
        if attribute == "top":
            parsed = replace(parsed, top=_parse_top(items))
            continue
        texts = [item.strip() for item in items if isinstance(item, str)]
        if len(texts) < len(items) or not all(texts) or len(texts) > MAX_TAGS:
            message = f"`{name}` must be text, at most {MAX_TAGS} of them"
            raise ApiError(400, "invalid_field", message)
        if attribute == "url":
            parsed = replace(parsed, url=_parse_url(texts))
        elif attribute == "tags":
            parsed = replace(parsed, tags=(*parsed.tags, *texts))
        else:
            parsed = replace(parsed, labels=(*parsed.labels, *texts))
    return parsed


def _parse_top(items: list[Any]) -> int:
    text = str(items[0]) if len(items) == 1 else ""
    if not (text.isascii() and text.isdecimal() and 1 <= int(text[:9]) <= MAX_TOP):
        raise ApiError(400, "invalid_field", f"`top` must be a number from 1 to {MAX_TOP}")
    return int(text)


def _parse_url(texts: list[str]) -> str:
    url = texts[0] if len(texts) == 1 else ""
    if not url.lower().startswith(("http://", "https://")) or not url.isprintable():
        raise ApiError(400, "invalid_field", "`url` must be one http or https address")
    if len(url) > MAX_URL_CHARACTERS:
        raise ApiError(400, "invalid_field", f"`url` has more than {MAX_URL_CHARACTERS} characters")
    return url


def _shown(name: str) -> str:
    return f"`{shorten_for_display(name)[:50]}`"


@dataclass(frozen=True)
class Api:
    """The endpoints.

    Attributes:
        batcher: Predicts photos.
        downloads: Downloads photos.
        document: The OpenAPI document.
    """

    batcher: Batcher
    downloads: PhotoDownloads
    document: Mapping[str, Any]

    @property
    def service(self) -> ModelService:
        """The model."""
        return self.batcher.service

    async def tags(self, request: Request) -> Response:
        """Tag a photo."""
        query, prediction = await self._predict(request, ["top"])
        return self._response(prediction, self.service.tag(prediction, query.top))

    async def check(self, request: Request) -> Response:
        """Check the tags of a photo."""
        query, prediction = await self._predict(request, ["tags"], required="tags")
        # Photos of the training are read for comparison.
        verdicts = await self.batcher.call(self.service.check, prediction, query.tags)
        return self._response(prediction, verdicts)

    async def similar(self, request: Request) -> Response:
        """Find the items that look similar to a photo."""
        if self.service.index is None:
            message = "the server has no index; start it with serve-model RUN --index similar.index"
            raise ApiError(404, "no_index", message)
        query, prediction = await self._predict(request, ["top", "labels"])
        results = await self.batcher.call(
            self.service.similar, prediction, query.top or 12, query.labels
        )
        return self._response(prediction, {"results": results})

    async def _predict(
        self, request: Request, allowed: Sequence[str], required: str = ""
    ) -> tuple[ApiRequest, Prediction]:
        self.batcher.require_space()
        query = await read_request(request, allowed)
        if required and not getattr(query, required):
            raise ApiError(400, "missing_field", f"send one or several `{required}` to check")
        data = query.photo
        if data is None:
            data = await self.downloads.read(query.url)
        return query, await self.batcher.predict(data)

    def _response(self, prediction: Prediction, content: Mapping[str, Any]) -> Response:
        facts = {"model": self.service.tagger.run.folder.name, "sha256": prediction.photo.sha256}
        return JSONResponse({**facts, **content})

    async def health(self, request: Request) -> Response:  # noqa: ARG002
        """Report that the server is running."""
        return JSONResponse({"status": "ok", "waiting": self.batcher.waiting})

    async def openapi(self, request: Request) -> Response:  # noqa: ARG002
        """Return the OpenAPI document."""
        return JSONResponse(self.document)

    async def page(self, request: Request) -> Response:
        """Show the OpenAPI document for people."""
        context = {
            "title": "serve-model",
            "document": self.document,
            "to_json": partial(json.dumps, ensure_ascii=False, indent=2),
            # It has the token, if there is one.
            "query": f"?{request.url.query}" if request.url.query else "",
        }
        return HTMLResponse(render(TEMPLATES, "api.html", **context))


class ApiGuard:
    """Rejects requests that the policy does not allow, and bodies that are too large or slow.

    Args:
        app: The application.
        policy: Who may use the server.
    """

    def __init__(self, app: ASGIApp, policy: AccessPolicy) -> None:
        self.app, self.policy = app, policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name for name, _ in message["headers"]}
                headers = {**HEADERS, "content-security-policy": CONTENT_POLICY}
                message["headers"] += [
                    (name.encode(), value.encode())
                    for name, value in headers.items()
                    if name.encode() not in present
                ]
            await send(message)

        error = self._rejection(Request(scope))
        if error is not None:
            await error_response(error)(scope, receive, send_with_headers)
            return
        await self.app(scope, _limited(receive), send_with_headers)

    def _rejection(self, request: Request) -> ApiError | None:
        """Return why a request is rejected, None if it is accepted."""
        token, headers = self.policy.token, request.headers
        if token is None and not self.policy.is_trusted_host(headers.get("host", "")):
            return ApiError(400, "unknown_host", "the host name is not one of this server")
        if token is not None and request.url.path != "/healthz":
            scheme, _, sent = headers.get("authorization", "").partition(" ")
            is_known = scheme.lower() == "bearer" and is_equal(sent.strip(), token)
            # For people, who open the page in a browser.
            in_query = request.query_params.get("token", "")
            if not is_known and not (request.method == "GET" and is_equal(in_query, token)):
                message = "send the header `Authorization: Bearer TOKEN` with the server's token"
                return ApiError(401, "unauthorized", message, {"www-authenticate": "Bearer"})
        if request.method == "POST" and not is_same_origin(headers):
            return ApiError(403, "other_origin", "the request was sent by a page of another site")
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length[:18]) > MAX_BODY_BYTES:
            return _too_large()
        return None


def _too_large() -> ApiError:
    # The connection stays open, and Uvicorn discards the rest: if it were closed before a client
    # has sent all, the client would get an error of the connection and no response.
    return ApiError(413, "too_large", f"the body is larger than {MAX_BODY_BYTES:,} bytes")


def _limited(receive: Receive) -> Receive:
    """Return a function that raises ApiError if a body is too large or too slow."""
    size, end = 0, time.monotonic() + BODY_SECONDS

    async def limited() -> Message:
        nonlocal size
        try:
            message = await asyncio.wait_for(receive(), max(0.0, end - time.monotonic()))
        except asyncio.TimeoutError as error:
            text = f"the body did not arrive within {BODY_SECONDS} s"
            raise ApiError(408, "too_slow", text, {"connection": "close"}) from error
        size += len(message.get("body", b""))
        if size > MAX_BODY_BYTES:
            raise _too_large()
        return message

    return limited


def error_response(error: HTTPException) -> Response:
    """Return an error as JSON."""
    status = HTTPStatus(error.status_code)
    code = error.code if isinstance(error, ApiError) else status.name.lower()
    content = {"error": {"code": code, "message": error.detail}}
    return JSONResponse(content, error.status_code, headers=dict(error.headers or {}))


def _handle_http_error(request: Request, error: Exception) -> Response:  # noqa: ARG001
    assert isinstance(error, HTTPException)
    return error_response(error)


def _handle_failure(request: Request, error: Exception) -> Response:  # noqa: ARG001
    """Report that the model or the index can't be used."""
    assert isinstance(error, click.ClickException)
    return error_response(ApiError(500, "failure", error.message))


def _handle_unexpected(request: Request, error: Exception) -> Response:  # noqa: ARG001
    return error_response(ApiError(500, "internal_error", "an error of the server; see its log"))


def create_app(
    batcher: Batcher, downloads: PhotoDownloads, policy: AccessPolicy, url: str
) -> Starlette:
    """Create the ASGI application.

    Args:
        batcher: Predicts photos.
        downloads: Downloads photos.
        policy: Who may use the server.
        url: The server's URL, for examples.
    """
    api = Api(batcher, downloads, openapi_document(batcher.service, policy, url))

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:  # noqa: ARG001
        task = asyncio.create_task(batcher.run())
        yield
        task.cancel()
        downloads.close()

    return Starlette(
        routes=[
            Route("/v1/tags", api.tags, methods=["POST"]),
            Route("/v1/check", api.check, methods=["POST"]),
            Route("/v1/similar", api.similar, methods=["POST"]),
            Route("/healthz", api.health),
            Route("/openapi.json", api.openapi),
            Route("/", api.page),
        ],
        middleware=[Middleware(ApiGuard, policy=policy)],
        exception_handlers={
            HTTPException: _handle_http_error,
            click.ClickException: _handle_failure,
            Exception: _handle_unexpected,
        },
        lifespan=lifespan,
    )


def openapi_document(service: ModelService, policy: AccessPolicy, url: str) -> dict[str, Any]:
    """Return the OpenAPI document of a server.

    Args:
        service: The model.
        policy: Who may use the server.
        url: The server's URL.
    """
    text = (TEMPLATES / "openapi.json").read_text(encoding="utf-8")
    document: dict[str, Any] = json.loads(text.replace("http://127.0.0.1:8000/", url))
    document["servers"] = [{"url": url.rstrip("/")}]
    document["info"]["x-model"] = service.tagger.run.folder.name
    document["info"]["x-labels"] = list(service.labels)
    if policy.token is None:
        del document["security"], document["components"]["securitySchemes"]
    else:
        header = " \\\n    -H 'Authorization: Bearer TOKEN' \\\n"
        for methods in document["paths"].values():
            for sample in methods.get("post", {}).get("x-codeSamples", ()):
                sample["source"] = sample["source"].replace(" \\\n", header, 1)
    if service.index is None:
        document["paths"]["/v1/similar"]["post"]["description"] += (
            " This server was started without an index, so the response is always 404."
        )
    return document


@dataclass(frozen=True)
class ServeOptions:
    """Options of `serve-model`; `serve-model --help` describes each."""

    run: Path
    host: str = LOOPBACK
    port: int = 8000
    token: str | None = None
    index: Path | None = None
    threshold: float | None = None
    top: int = 3
    batch_size: int = 8
    max_queue: int = 32
    wrong_rate: float = DEFAULT_WRONG_RATE
    data: Path | None = None
    cache: Path | None = None
    compares_training: bool = True
    fetch: FetchOptions = field(default_factory=FetchOptions)


def load_service(options: ServeOptions, vocabulary: Vocabulary) -> ModelService:
    """Load the model and the index.

    Raises:
        BadInput: There is no such run or index.
        Failure: The model or the index can't be used, or do not belong together.
    """
    run = load_run(options.run)
    embedder = Embedder(run)
    tagger = Tagger(run, embedder.predictor, options.threshold, options.top)
    index = None
    if options.index is not None:
        file = open_index(options.index)
        require_same_model(options.index, file.facts(), embedder)
        index = SimilarIndex(Searcher(file), Embedding.from_arrays(file.read_arrays(EMBEDDING)))
    reference = _load_reference(run, embedder.predictor, options)
    service = ModelService(tagger, vocabulary, index, options.wrong_rate, reference)
    service.warm_up(options.batch_size)
    return service


def _load_reference(
    run: SavedRun, predictor: Predictor, options: ServeOptions
) -> TrainingReference | None:
    """Return the training photos of a run, None if they are not there or not wanted."""
    if not options.compares_training:
        return None
    if options.data is None and (run.data is None or not run.data.is_dir()):
        click.echo(
            f"photos of /v1/check are not compared with those of the training, which are not in"
            f" {run.data}; name their folder with --data"
        )
        return None
    reference = build_reference(run, predictor, options.cache, options.data)
    for note in reference.notes:
        click.echo(note)
    return reference


def serve(options: ServeOptions, vocabulary: Vocabulary) -> None:
    """Serve a model until Ctrl-C or SIGTERM, after printing the URL.

    Raises:
        BadInput: There is no such run, index or host.
        Failure: The port is in use, or the model can't be used.
    """
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(contextlib.closing(listen(options.host, options.port)))
        port = listening.getsockname()[1]
        policy = create_access_policy(options.host, port)
        if options.token:
            policy = replace(policy, token=options.token)
        # The index is used by the thread that opens it.
        thread = stack.enter_context(ThreadPoolExecutor(1))
        service = thread.submit(load_service, options, vocabulary).result()
        fetched = stack.enter_context(tempfile.TemporaryDirectory(prefix="fashion-tagger-"))
        downloads = PhotoDownloads(replace(options.fetch, fetched=Path(fetched)))
        batcher = Batcher(service, thread, options.batch_size, options.max_queue)
        url = server_url(options.host, port)
        config = uvicorn.Config(
            create_app(batcher, downloads, policy, url),
            log_level="warning",
            access_log=False,
            server_header=False,
            limit_concurrency=2 * options.max_queue + 64,
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        )
        click.echo(describe_threshold(service.tagger.run, options.threshold))
        click.echo(f"Serving {options.run} at {url} until Ctrl-C")
        if policy.token is not None and not options.token:
            click.echo(f"token: {policy.token}")
        stack.enter_context(contextlib.suppress(KeyboardInterrupt))
        uvicorn.Server(config).run(sockets=[listening])
