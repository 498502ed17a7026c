"""Sources of items to check: product feeds, and the labeled photos of the catalogue.

Photos at URLs are downloaded with `fetch-photos`, in a process of its own that starts with the
first URL, downloads several photos at once under the rules of a crawl, and saves them in a folder,
where later runs find them.
"""

import contextlib
import json
import re
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy.orm import Session, sessionmaker

from dataset.catalogue.session import open_catalogue
from dataset.duplicates.pipeline import dedup
from dataset.errors import DownloadFailed, Failure
from dataset.feeds.cells import (
    URL_SCHEME,
    TagLists,
    category_levels,
    category_name,
    cell_text,
    find_inside,
    normalize_name,
)
from dataset.feeds.product_feed import GOOGLE_COLUMNS, NO_TAG, FeedRow, ProductFeed
from dataset.images.store import ImageStore, UrlImageCache, open_store
from dataset.pose.crop import WHOLE, Crop, full_box
from dataset.selection.candidates import (
    Candidate,
    Exclusions,
    apply_quality_gates,
    load_candidates,
    load_quality_gates,
    select_best_copies,
)
from dataset.selection.crops import PersonCrop, PoseOptions, find_crops
from dataset.selection.labeling import assign_label_sets, assign_labels
from dataset.utils.engines import LOCAL_ENGINE, Engine
from dataset.vocabulary import Vocabulary
from model.inference.preprocessing import PhotoInput

# The program of the process. It has this process's import path, whatever the working directory.
PROGRAM = (
    "import sys; count = int(sys.argv[1]); sys.path[:] = sys.argv[2 : 2 + count];"
    " del sys.argv[1 : 2 + count]; from scraper.cli import fetch_photos;"
    " fetch_photos(prog_name='fetch-photos')"
)
# URLs whose results are remembered, so that a dead URL in many rows is requested once.
MAX_KNOWN_URLS = 10_000


@dataclass(frozen=True)
class FetchOptions:
    """Options of `fetch-photos`.

    Attributes:
        fetched: Folder of downloaded photos.
        contact: Contact address in the user agent.
        timeout: Seconds for a response.
        allow_private: Also request hosts of private networks.
    """

    fetched: Path = Path("fetched")
    contact: str | None = None
    timeout: float = 60
    allow_private: bool = False

    @property
    def arguments(self) -> list[str]:
        """Arguments of the command line."""
        contact = ["--contact", self.contact] if self.contact else []
        private = ["--allow-private-hosts"] if self.allow_private else []
        return [
            *("--fetched", str(self.fetched), "--timeout", str(self.timeout)),
            *contact,
            *private,
        ]


def read_fetched(photos: UrlImageCache, url: str, problem: str = "") -> bytes:
    """Read a downloaded photo.

    Args:
        photos: The folder of downloaded photos.
        url: The photo's URL.
        problem: Why it was not downloaded, for the error.

    Raises:
        DownloadFailed: It was not downloaded.
        OSError: It can't be read.
    """
    path = photos.find(url)
    if path is None:
        raise DownloadFailed(problem or "the downloaded file was removed")
    return path.read_bytes()


class ImageFetcher:
    """Downloads photos in a process that ends with the context.

    Args:
        options: Options of `fetch-photos`.
    """

    def __init__(self, options: FetchOptions) -> None:
        self._options, self._photos = options, UrlImageCache(options.fetched)
        self._lock = threading.Lock()
        self._known: OrderedDict[str, Future[str]] = OrderedDict()
        self._process: subprocess.Popen[str] | None = None

    @property
    def folder(self) -> Path:
        """Folder of downloaded photos."""
        return self._options.fetched

    def __enter__(self) -> "ImageFetcher":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process; pending downloads fail."""
        if self._process is None:
            return
        # Pending downloads are no longer needed.
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def prefetch(self, url: str) -> None:
        """Start to download a photo, unless it is known already.

        Raises:
            Failure: The process has ended.
        """
        # The process reads one URL per line.
        if not url.isprintable():
            return
        with self._lock:
            if url in self._known or self._photos.find(url):
                return
            while len(self._known) >= MAX_KNOWN_URLS:
                self._known.popitem(last=False)
            self._known[url] = Future()
            process = self._start_process()
        try:
            assert process.stdin is not None
            process.stdin.write(f"{url}\n")
            process.stdin.flush()
        except OSError as error:
            raise _process_ended(process.wait()) from error

    def read(self, url: str) -> bytes:
        """Return the bytes of a photo, when it is downloaded.

        Raises:
            DownloadFailed: The download failed.
            OSError: The downloaded file can't be read.
            Failure: The process has ended.
        """
        path = self._photos.find(url)
        if path is None:
            self.prefetch(url)
            with self._lock:
                future = self._known.get(url)
            problem = future.result() if future else "the URL has unprintable characters"
            return read_fetched(self._photos, url, problem)
        return path.read_bytes()

    def forget(self, url: str) -> None:
        """Remove the result for a URL, so that the next call requests it again."""
        with self._lock:
            self._known.pop(url, None)
        path = self._photos.find(url)
        if path is not None:
            path.unlink(missing_ok=True)

    def _start_process(self) -> "subprocess.Popen[str]":
        if self._process is None:
            import_path = [str(len(sys.path)), *sys.path]
            arguments = [*import_path, "-", *self._options.arguments]
            self._process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
                # Ctrl-C is handled by this process, which ends the other one.
                start_new_session=True,
            )
            threading.Thread(target=self._listen, args=(self._process,), daemon=True).start()
        return self._process

    def _listen(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        for line in process.stdout:
            result = json.loads(line)
            with self._lock:
                future = self._known.get(result["url"])
            if future is not None and not future.done():
                future.set_result(result["problem"])
        status = process.wait()
        with self._lock:
            pending = [future for future in self._known.values() if not future.done()]
        for future in pending:
            future.set_exception(_process_ended(status))


def _process_ended(status: int) -> Failure:
    return Failure(
        f"fetch-photos ended with status {status}, see above; repeat the command to continue"
    )


# The limit of a crawl.
MAX_FILE_BYTES = 20_000_000
# Endings of plurals in English and Russian and those of singulars: categories are plurals.
PLURALS = (
    *((r"ies\b", "y"), (r"ves\b", "f"), (r"es\b", ""), (r"s\b", "")),
    *((r"ки\b", "ка"), (r"ы\b", "а"), (r"ы\b", ""), (r"и\b", "ь"), (r"и\b", "а")),
)


@dataclass(frozen=True)
class ListedTag:
    """One of the tags of an item.

    Attributes:
        tag: The tag.
        label: The label that it means, whether the model has it or not.
        column: Column of the feed, empty for the whole tag of an item.
        facet: The facet of the column; empty if the column has tags of all facets.
    """

    tag: str
    label: str
    column: str = ""
    facet: str = ""


@dataclass(frozen=True)
class TaggedItem:
    """An item with a photo and a tag.

    Attributes:
        number: Number of the item, from 1.
        id: Its id.
        image: What the source calls its photo.
        tag: Its tag.
        label: The label that the tag means, whether the model has it or not.
        cost: Cost of a wrong tag; None if it can't be read.
        rows: Column of the feed -> value, for each row of the item.
        image_id: Id of the image in the catalogue.
        photo: The photo; None if there is a problem.
        problem: Why there is no photo, or empty.
        note: What was repaired or can't be read, although the item is used.
        views: Further photos of the item.
        tags: The single tags of a list or of several columns; may be empty.
    """

    number: int
    id: str
    image: str
    tag: str
    label: str
    cost: float | None = 1.0
    rows: Sequence[Mapping[str, Any]] = ()
    image_id: int | None = None
    photo: PhotoInput | None = None
    problem: str = ""
    note: str = ""
    views: tuple[str, ...] = ()
    tags: tuple[ListedTag, ...] = ()


class ItemSource(Protocol):
    """A source of items, which are the same in the same order each time."""

    @property
    def name(self) -> str:
        """Name of the source for users."""

    def items(self, after: int) -> Iterator[TaggedItem]:
        """Yield the items whose numbers are above a number."""

    def read(self, image: str) -> bytes:
        """Return the bytes of the photo of an item; see `read_inside` for errors."""


@dataclass(frozen=True)
class FeedSource:
    """The items of a feed.

    Attributes:
        feed: The feed.
        root: Folder of the photos that are paths.
        vocabulary: Defines labels.
        fetcher: Downloads the photos that are URLs.
        tag_lists: Finds the single tags of an item; None: an item has one tag.
        needs_tag: Whether an item without a tag has a problem, and no photo.
    """

    feed: ProductFeed
    root: Path
    vocabulary: Vocabulary
    fetcher: ImageFetcher
    tag_lists: TagLists | None = None
    needs_tag: bool = True

    @property
    def name(self) -> str:
        """Path of the feed."""
        return str(self.feed.path)

    def items(self, after: int) -> Iterator[TaggedItem]:
        """Yield the items whose numbers are above a number."""
        for row in self.feed.rows():
            if row.number > after:
                yield self._item(row)

    def _item(self, row: FeedRow) -> TaggedItem:
        label = match_label(row.tag, self.vocabulary)
        item = TaggedItem(
            row.number,
            row.id,
            row.image,
            row.tag,
            label,
            row.cost,
            row.rows,
            problem=row.problem,
            note=row.note,
            views=row.images[1:],
            tags=tuple(self._listed_tags(row)),
        )
        if row.problem == NO_TAG and item.tags:
            # An object by facet.
            names = ", ".join(tag.tag for tag in item.tags)
            item = replace(item, tag=names, label=match_label(names, self.vocabulary), problem="")
        if item.problem and (self.needs_tag or item.problem != NO_TAG):
            return item
        photo = self.find_photo(row.image)
        if isinstance(photo, str):
            return replace(item, problem=photo)
        return replace(item, photo=photo)

    def _listed_tags(self, row: FeedRow) -> Iterator[ListedTag]:
        if self.tag_lists is None:
            return
        for facet, column in self.feed.columns.tags:
            values = (values.get(column) for values in row.rows)
            value = next((value for value in values if cell_text(value) or value), None)
            is_google = normalize_name(column) in GOOGLE_COLUMNS
            for tag in self.tag_lists.split(value):
                name = category_name(tag) if is_google else tag
                yield ListedTag(tag, match_label(name, self.vocabulary), column, facet)

    def find_photo(self, image: str) -> PhotoInput | str:
        """Return a photo of an item by its path or URL, or why there is none."""
        return find_photo(image, self.root, self.fetcher)

    def read(self, image: str) -> bytes:
        """Return the bytes of the photo of an item."""
        if URL_SCHEME.match(image):
            return self.fetcher.read(image)
        return read_inside(self.root, image)


def find_photo(image: str, root: Path, fetcher: ImageFetcher) -> PhotoInput | str:
    """Return a photo by its path or URL, or why there is none.

    Args:
        image: The path or URL.
        root: Folder of the photos that are paths.
        fetcher: Downloads the photos that are URLs.
    """
    scheme = URL_SCHEME.match(image)
    if scheme is None:
        return PhotoInput(partial(read_inside, root, image))
    if scheme[0].lower() not in ("http://", "https://"):
        return f"URL with {scheme[0]}: only http and https are supported"
    fetcher.prefetch(image)
    return PhotoInput(partial(fetcher.read, image))


def known_tags(vocabulary: Vocabulary, labels: Collection[str]) -> Callable[[str], bool]:
    """Return a function that tells whether a text is a tag of the vocabulary or a model's label."""

    def is_known(tag: str) -> bool:
        return any(
            word in labels or word.casefold() in labels or vocabulary.label_of(word) is not None
            for word in _singulars(tag.strip())
        )

    return is_known


def match_label(tag: str, vocabulary: Vocabulary) -> str:
    """Return the label of a tag, or of the last of its levels that has one."""
    levels = category_levels(tag)
    labels = (vocabulary.label_of(word) for level in levels for word in _singulars(level))
    return next(filter(None, labels), vocabulary.label_or_hashtag(tag) if tag else "")


def _singulars(word: str) -> Iterator[str]:
    """Yield a word, and what it may be the plural of."""
    yield word
    for ending, singular in PLURALS:
        if (changed := re.sub(ending, singular, word.lower())) != word.lower():
            yield changed


def read_inside(root: Path, name: str) -> bytes:
    """Read a file inside a folder.

    Args:
        root: The folder.
        name: Path of the file relative to it.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: It is outside the folder, not a file, or too large for a photo.
        OSError: It can't be read.
    """
    path = find_inside(root, name)
    size = path.stat().st_size
    if not path.is_file():
        raise ValueError("it is not a file")
    if size > MAX_FILE_BYTES:
        raise ValueError(f"{size:,} bytes, more than {MAX_FILE_BYTES:,}")
    return path.read_bytes()


@dataclass(frozen=True)
class CatalogueSource:
    """The photos of a catalogue that a build would use: labeled best copies.

    Attributes:
        catalogue: The catalogue's path or URL.
        images: The image store's path or URL.
        vocabulary: Defines labels.
        crop: How photos are cropped.
        is_multi_label: Whether photos can have several labels.
    """

    catalogue: str
    images: Path | str
    vocabulary: Vocabulary
    crop: PoseOptions
    is_multi_label: bool = False

    @property
    def name(self) -> str:
        """A name without the catalogue's URL, which may contain a password."""
        return "the catalogue"

    def items(self, after: int) -> Iterator[TaggedItem]:
        """Yield the items whose numbers are above a number.

        Raises:
            Failure: No photo has exactly one label, or none without conflict.
        """
        sessions, store = open_catalogue(self.catalogue, must_exist=True), open_store(self.images)
        assign = assign_label_sets if self.is_multi_label else assign_labels
        labeled = assign(usable_photos(sessions, store), self.vocabulary, (), Exclusions())
        if not labeled:
            needed = "labels" if self.is_multi_label else "exactly one label"
            raise Failure(f"the catalogue has no photos with {needed}; crawl first")
        photos = [labeled_photo.photo for labeled_photo in labeled]
        crops = find_crops(photos, sessions, store, self.crop)
        for number, labeled_photo in enumerate(labeled, 1):
            if number <= after:
                continue
            photo, label = labeled_photo.photo, labeled_photo.label
            fields = {
                "id": photo.sha256,
                "image": photo.store_key,
                "tag": label,
                "site": next(iter(photo.sites), ""),
                "post_url": next(iter(photo.post_urls), ""),
            }
            yield TaggedItem(
                number,
                photo.sha256,
                photo.store_key,
                label,
                label,
                1.0,
                (fields,),
                photo.image_id,
                stored_photo(photo, crops.get(photo.image_id), store),
                tags=tuple(ListedTag(name, name, "tag") for name in labeled_photo.labels),
            )

    def read(self, image: str) -> bytes:
        """Return the bytes of a photo in the image store."""
        return open_store(self.images).read(image)


def usable_photos(
    sessions: sessionmaker[Session], store: ImageStore, engine: Engine = LOCAL_ENGINE
) -> list[Candidate]:
    """Return the photos of a catalogue that pass the quality gates, the best copy of each.

    Args:
        sessions: The catalogue.
        store: The image store.
        engine: Runs what is done photo by photo.
    """
    dedup(sessions, store, engine=engine)
    with sessions() as session:
        photos = select_best_copies(load_candidates(session), Exclusions())
    return apply_quality_gates(photos, load_quality_gates(), Exclusions())


def stored_photo(photo: Candidate, crop: PersonCrop | None, store: ImageStore) -> PhotoInput:
    """Return the input for a stored photo with its crop; without one, the whole photo."""
    whole = Crop(WHOLE, full_box((photo.width, photo.height)), 0.0)
    return PhotoInput(partial(store.read, photo.store_key), crop.crop if crop else whole)
