"""Items of a feed, or photos of the catalogue with their labels, and where their photos are."""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy.orm import Session, sessionmaker

from dataset.catalogue.session import open_catalogue
from dataset.duplicates.pipeline import dedup
from dataset.errors import Failure
from dataset.images.store import ImageStore, open_store
from dataset.pose.crop import full_box
from dataset.selection.candidates import Candidate, Exclusions, load_candidates, select_best_copies
from dataset.selection.crops import PersonCrop, PoseOptions, find_crops
from dataset.selection.labeling import assign_labels
from dataset.selection.quality_gates import apply_quality_gates, load_quality_gates
from dataset.vocabulary import Vocabulary
from model.feeds.product_feed import Feed, Row, levels
from model.feeds.remote_images import Fetcher
from model.inference.preprocessing import Wanted

# As a crawl takes them.
LARGEST = 20_000_000
ADDRESS = re.compile(r"([a-z][a-z0-9+.-]*)://|(data):", re.IGNORECASE)


@dataclass(frozen=True)
class Item:
    """Something with a photo and a tag. `label`: the tag's, the model's or another one.

    `fields`: what the feed says of it; `image_id`: in the catalogue. `wanted` is its photo, None
    where `problem` says why there is none.
    """

    number: int
    id: str
    image: str
    tag: str
    label: str
    cost: float = 1.0
    fields: Mapping[str, Any] = field(default_factory=dict)
    image_id: int | None = None
    wanted: Wanted | None = None
    problem: str = ""


class Source(Protocol):
    """Where items come from, the same ones in the same order each time."""

    @property
    def name(self) -> str:
        """What it is, for people."""

    def items(self, after: int) -> Iterator[Item]:
        """Those whose numbers, from 1, are above AFTER."""

    def read(self, image: str) -> bytes:
        """The photo that an item calls IMAGE; see `read_below` for what goes wrong."""


@dataclass(frozen=True)
class FeedSource:
    """The items of FEED, whose photos are files below ROOT, or addresses for FETCHER.

    BY_ZONE: a crop depends on its tag, so that it is told for garments of which zone a photo is.
    """

    feed: Feed
    root: Path
    vocabulary: Vocabulary
    fetcher: Fetcher
    uses_zones: bool = True

    @property
    def name(self) -> str:
        """The feed's file."""
        return str(self.feed.path)

    def items(self, after: int) -> Iterator[Item]:
        """As Source."""
        for row in self.feed.rows():
            if row.number > after:
                yield self._item(row)

    def _item(self, row: Row) -> Item:
        label = label_in(row.tag, self.vocabulary)
        known = (row.number, row.id, row.image, row.tag, label, row.cost, row.values)
        zone = self.vocabulary.zone_of(label) if self.uses_zones else None
        wanted = photo_of(row, self.root, zone, self.fetcher)
        if isinstance(wanted, str):
            return Item(*known, problem=wanted)
        return Item(*known, wanted=wanted)

    def read(self, image: str) -> bytes:
        """As Source."""
        if ADDRESS.match(image):
            return self.fetcher.read(image)
        return read_below(self.root, image)


def label_in(tag: str, vocabulary: Vocabulary) -> str:
    """The label that TAG of a feed means: its own, or that of its last level that has one."""
    found = (vocabulary.label_of(level) for level in levels(tag))
    return next(filter(None, found), vocabulary.label_or_own(tag) if tag else "")


def photo_of(row: Row, root: Path, zone: str | None, fetcher: Fetcher) -> Wanted | str:
    """The photo of ROW, a file below ROOT or an address for FETCHER, for a garment of ZONE.

    Or why it has none.
    """
    if row.problem:
        return row.problem
    address = ADDRESS.match(row.image)
    if address is None:
        return Wanted(partial(read_below, root, row.image), zone)
    if address[0].lower() not in ("http://", "https://"):
        return f"an address with {address[0]}: only http and https are fetched"
    fetcher.announce(row.image)
    return Wanted(partial(fetcher.read, row.image), zone)


def read_below(root: Path, name: str) -> bytes:
    """The file NAME below ROOT.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it lies outside ROOT, is no file, or is too large for a photo.
        OSError: it can't be read.
    """
    if "\0" in name:
        raise ValueError("no name of a file")
    # Links below ROOT are its owner's, and may lead anywhere; what the feed says may not.
    base = Path(os.path.normpath(root.absolute()))
    path = Path(os.path.normpath(base / name))
    if not path.is_relative_to(base):
        raise ValueError(f"it lies outside --image-root {root}")
    size = path.stat().st_size
    if not path.is_file():
        raise ValueError("it is no file")
    if size > LARGEST:
        raise ValueError(f"{size:,} bytes, more than {LARGEST:,}")
    return path.read_bytes()


@dataclass(frozen=True)
class CatalogueSource:
    """The photos of a catalogue that a build would take: one a cluster, those with one label."""

    catalogue: str
    images: Path | str
    vocabulary: Vocabulary
    crop: PoseOptions

    @property
    def name(self) -> str:
        """Without its address, which may hold a password."""
        return "the catalogue"

    def items(self, after: int) -> Iterator[Item]:
        """As Source."""
        sessions, store = open_catalogue(self.catalogue, must_exist=True), open_store(self.images)
        labeled = assign_labels(usable_photos(sessions, store), self.vocabulary, (), Exclusions())
        if not labeled:
            raise Failure("the catalogue has no photo with one label; crawl first")
        zones = [self.vocabulary.zone_of(one.label) for one in labeled]
        posed = find_crops([one.photo for one in labeled], zones, sessions, store, self.crop)
        for number, one in enumerate(labeled, 1):
            if number <= after:
                continue
            photo = one.photo
            fields = {
                "id": photo.sha256,
                "image": photo.store_key,
                "tag": one.label,
                "site": next(iter(photo.sites), ""),
                "post_url": next(iter(photo.post_urls), ""),
            }
            yield Item(
                number,
                photo.sha256,
                photo.store_key,
                one.label,
                one.label,
                1.0,
                fields,
                photo.image_id,
                stored_photo(photo, posed.get(photo.image_id), store),
            )

    def read(self, image: str) -> bytes:
        """As Source."""
        return open_store(self.images).read(image)


def usable_photos(sessions: sessionmaker[Session], store: ImageStore) -> list[Candidate]:
    """The photos of a catalogue and its STORE that a build could use, one a cluster."""
    dedup(sessions, store)
    with sessions() as session:
        photos = select_best_copies(load_candidates(session), Exclusions())
    return apply_quality_gates(photos, load_quality_gates(), Exclusions())


def stored_photo(photo: Candidate, posed: PersonCrop | None, store: ImageStore) -> Wanted:
    """PHOTO of a catalogue, in STORE, cropped as POSED says; all of it where nobody looked."""
    box = posed.crop.box if posed else full_box((photo.width, photo.height))
    return Wanted(partial(store.read, photo.store_key), None, box)
