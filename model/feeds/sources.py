"""Sources of items to check: product feeds, and the labeled photos of the catalogue."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy.orm import Session, sessionmaker

from dataset.catalogue.session import open_catalogue
from dataset.duplicates.pipeline import dedup
from dataset.errors import Failure
from dataset.feeds.cells import URL_SCHEME, category_levels, find_inside
from dataset.feeds.product_feed import FeedRow, ProductFeed
from dataset.images.store import ImageStore, open_store
from dataset.pose.crop import full_box
from dataset.selection.candidates import Candidate, Exclusions, load_candidates, select_best_copies
from dataset.selection.crops import PersonCrop, PoseOptions, find_crops
from dataset.selection.labeling import assign_labels
from dataset.selection.quality_gates import apply_quality_gates, load_quality_gates
from dataset.vocabulary import Vocabulary
from model.feeds.remote_images import ImageFetcher
from model.inference.preprocessing import PhotoInput

# The limit of a crawl.
MAX_FILE_BYTES = 20_000_000
# Endings of plurals in English and Russian and those of singulars: categories are plurals.
PLURALS = (
    *((r"ies\b", "y"), (r"ves\b", "f"), (r"es\b", ""), (r"s\b", "")),
    *((r"ки\b", "ка"), (r"ы\b", "а"), (r"ы\b", ""), (r"и\b", "ь"), (r"и\b", "а")),
)


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
        vocabulary: Defines labels and zones.
        fetcher: Downloads the photos that are URLs.
        uses_zones: Whether the crop of a photo depends on the zone of its tag.
    """

    feed: ProductFeed
    root: Path
    vocabulary: Vocabulary
    fetcher: ImageFetcher
    uses_zones: bool = True

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
        )
        if row.problem:
            return item
        photo = self.find_photo(row.image, label)
        if isinstance(photo, str):
            return replace(item, problem=photo)
        return replace(item, photo=photo)

    def find_photo(self, image: str, label: str) -> PhotoInput | str:
        """Return a photo of an item, or why there is none.

        Args:
            image: Its path or URL.
            label: Label of the item.
        """
        zone = self.vocabulary.zone_of(label) if self.uses_zones else None
        scheme = URL_SCHEME.match(image)
        if scheme is None:
            return PhotoInput(partial(read_inside, self.root, image), zone)
        if scheme[0].lower() not in ("http://", "https://"):
            return f"URL with {scheme[0]}: only http and https are supported"
        self.fetcher.prefetch(image)
        return PhotoInput(partial(self.fetcher.read, image), zone)

    def read(self, image: str) -> bytes:
        """Return the bytes of the photo of an item."""
        if URL_SCHEME.match(image):
            return self.fetcher.read(image)
        return read_inside(self.root, image)


def match_label(tag: str, vocabulary: Vocabulary) -> str:
    """Return the label of a tag, or of the last of its levels that has one."""
    levels = category_levels(tag)
    labels = (vocabulary.label_of(word) for level in levels for word in _singulars(level))
    return next(filter(None, labels), vocabulary.label_or_own(tag) if tag else "")


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
    """The photos of a catalogue that a build would use: best copies with one label.

    Attributes:
        catalogue: The catalogue's path or URL.
        images: The image store's path or URL.
        vocabulary: Defines labels and zones.
        crop: How photos are cropped.
    """

    catalogue: str
    images: Path | str
    vocabulary: Vocabulary
    crop: PoseOptions

    @property
    def name(self) -> str:
        """A name without the catalogue's URL, which may contain a password."""
        return "the catalogue"

    def items(self, after: int) -> Iterator[TaggedItem]:
        """Yield the items whose numbers are above a number.

        Raises:
            Failure: No photo has exactly one label.
        """
        sessions, store = open_catalogue(self.catalogue, must_exist=True), open_store(self.images)
        labeled = assign_labels(usable_photos(sessions, store), self.vocabulary, (), Exclusions())
        if not labeled:
            raise Failure("the catalogue has no photos with exactly one label; crawl first")
        photos = [labeled_photo.photo for labeled_photo in labeled]
        zones = [self.vocabulary.zone_of(labeled_photo.label) for labeled_photo in labeled]
        crops = find_crops(photos, zones, sessions, store, self.crop)
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
            )

    def read(self, image: str) -> bytes:
        """Return the bytes of a photo in the image store."""
        return open_store(self.images).read(image)


def usable_photos(sessions: sessionmaker[Session], store: ImageStore) -> list[Candidate]:
    """Return the photos of a catalogue that pass the quality gates, the best copy of each."""
    dedup(sessions, store)
    with sessions() as session:
        photos = select_best_copies(load_candidates(session), Exclusions())
    return apply_quality_gates(photos, load_quality_gates(), Exclusions())


def stored_photo(photo: Candidate, crop: PersonCrop | None, store: ImageStore) -> PhotoInput:
    """Return the input for a stored photo with its crop; without one, the whole photo."""
    box = crop.crop.box if crop else full_box((photo.width, photo.height))
    return PhotoInput(partial(store.read, photo.store_key), None, box)
