"""A price as feeds write it -> a number and its currency."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dataset.catalogue.models import PostRow
from dataset.catalogue.queries import in_batches
from dataset.catalogue.session import open_catalogue
from dataset.errors import BadInput, Failure
from dataset.images.io import PHOTO_SUFFIXES
from dataset.images.store import open_store
from dataset.images.url_cache import UrlImageCache
from dataset.selection.candidates import Candidate
from dataset.selection.crops import PoseOptions, find_crops
from dataset.selection.labeling import matching_labels
from dataset.vocabulary import Vocabulary
from model.data.loading import SPLITS
from model.feeds.product_feed import FORMATS, open_feed
from model.feeds.remote_images import Fetcher, fetched
from model.feeds.sources import ADDRESS, FeedSource, read_below, stored_photo, usable_photos
from model.feeds.sources import Item as FeedItem
from model.inference.preprocessing import Wanted
from model.similar.items import Item

NUMBER = re.compile(r"\d[\d\s.,'’]*")
# Thousands parted by commas, by points, or not at all.
COMMAS = re.compile(r"[1-9]\d{0,2}(,\d{3})+(\.\d+)?")
POINTS = re.compile(r"[1-9]\d{0,2}(\.\d{3})+,\d+|[1-9]\d{0,2}(\.\d{3}){2,}")
PLAIN = re.compile(r"\d+([.,]\d+)?")
# What says that a number is below 0.
MINUS = ("-", "−", "–")
# A currency's name or sign is no longer.
LONGEST = 8


def price_of(text: str, currency: str = "") -> tuple[float | None, str]:
    """The price that TEXT says, and its currency where CURRENCY doesn't: `1 299,50 EUR`, `$1,299`.

    None where it is no number from 0 on. One comma before three digits parts thousands; a point
    alone is always decimal.
    """
    number = NUMBER.search(text)
    if number is None:
        return None, currency
    before, after = text[: number.start()].strip(), text[number.end() :].strip()
    word = (before + after).strip()
    if before.endswith(MINUS) or len(word) > LONGEST or any(sign.isdigit() for sign in after):
        return None, currency
    return _number(re.sub(r"[\s'’]", "", number.group()).strip(".,")), currency or word


def _number(text: str) -> float | None:
    """TEXT, of digits, commas and points, as a number; None where they make none."""
    if COMMAS.fullmatch(text):
        return float(text.replace(",", ""))
    if POINTS.fullmatch(text):
        return float(text.replace(".", "").replace(",", "."))
    return float(text.replace(",", ".")) if PLAIN.fullmatch(text) else None


# What columns of a feed are called that may be there, the first that is.
OPTIONAL = {
    "price": ("price", "sale_price"),
    "currency": ("currency",),
    "site": ("site", "shop", "store"),
    "title": ("title", "name"),
    "url": ("url", "link"),
    "product": ("item_group_id", "group_id", "product"),
}


# How the image of an item begins that is a file by itself, and not one of the source.
FILE = "file:"


@dataclass(frozen=True)
class Offer:
    """An item and its photo; without one `problem` says why. Its SHA-256 may be unknown yet."""

    item: Item
    wanted: Wanted | None = None
    problem: str = ""


class Offers(Protocol):
    """What an index is made of, the same items in the same order each time."""

    @property
    def facts(self) -> dict[str, str]:
        """What an index has to know to find the photos again."""

    def offers(self, crop: PoseOptions) -> Iterator[Offer]:
        """The items, whose photos are cropped as CROP says."""


@dataclass(frozen=True)
class CatalogueOffers:
    """All photos of a catalogue of any use, one a cluster, also those of two labels or none."""

    catalogue: str
    images: str
    vocabulary: Vocabulary

    @property
    def facts(self) -> dict[str, str]:
        """Without the catalogue's address, which may hold a password."""
        place = self.images if "://" in self.images else str(Path(self.images).absolute())
        return {"kind": "catalogue", "photos": place}

    def offers(self, crop: PoseOptions) -> Iterator[Offer]:
        """As Offers; key points that are found are kept in the catalogue."""
        sessions, store = open_catalogue(self.catalogue, must_exist=True), open_store(self.images)
        photos = [one for one in usable_photos(sessions, store) if not _left_out(one)]
        with sessions() as session:
            posts = _posts(session, photos)
        if not photos:
            raise Failure("the catalogue has no photo of use; crawl first")
        labels = [self._label(photo) for photo in photos]
        zones = [self.vocabulary.zone_of(label) for label in labels]
        posed = find_crops(photos, zones, sessions, store, crop)
        for photo, label in zip(photos, labels, strict=True):
            wanted = stored_photo(photo, posed.get(photo.image_id), store)
            yield Offer(_catalogue_item(photo, label, posts), wanted)

    def _label(self, photo: Candidate) -> str:
        """What PHOTO is of: a person's word, else the one label of its hashtags, else nothing."""
        if photo.decisions:
            return photo.decisions[-1][1] or ""
        labels = matching_labels(photo, self.vocabulary)
        return labels[0] if len(labels) == 1 else ""


def _left_out(photo: Candidate) -> bool:
    return bool(photo.decisions) and photo.decisions[-1][1] is None


def _posts(session: Session, photos: Sequence[Candidate]) -> dict[int, Any]:
    """What is sold in the first post of each of PHOTOS, by the post's id."""
    first = {photo.posts[0].id for photo in photos if photo.posts}
    columns = (PostRow.id, PostRow.site, PostRow.site_id, PostRow.title, PostRow.price)
    found = {}
    for some in in_batches(first):
        query = sa.select(*columns, PostRow.currency, PostRow.url).where(PostRow.id.in_(some))
        found.update({row.id: row for row in session.execute(query)})
    return found


def _catalogue_item(photo: Candidate, label: str, posts: dict[int, Any]) -> Item:
    post = posts.get(photo.posts[0].id) if photo.posts else None
    known: dict[str, Any] = {}
    if post is not None:
        known = {
            "site": post.site,
            "price": post.price,
            "currency": post.currency or "",
            "product": f"{post.site}:{post.site_id}",
            "title": post.title or "",
            "url": post.url,
        }
    cluster = "" if photo.cluster is None else str(photo.cluster)
    return Item(photo.sha256, photo.sha256, photo.store_key, label=label, cluster=cluster, **known)


@dataclass(frozen=True)
class FolderOffers:
    """The photos below ROOT, each of the label that its folder is called; a split is no label."""

    root: Path
    vocabulary: Vocabulary

    @property
    def facts(self) -> dict[str, str]:
        """As Offers."""
        return {"kind": "folder", "photos": str(self.root.absolute())}

    def offers(self, crop: PoseOptions) -> Iterator[Offer]:
        """As Offers."""
        found = sorted(self.root.rglob("*"))
        photos = [path for path in found if path.suffix.lower() in PHOTO_SUFFIXES]
        if not photos:
            raise BadInput(f"--from {self.root} has no photo below it; name another folder")
        for path in photos:
            name = path.relative_to(self.root).as_posix()
            above = path.parent.name if path.parent != self.root else ""
            label = "" if above in SPLITS else above
            zone = self.vocabulary.zone_of(label) if crop.uses_zones else None
            yield Offer(Item(name, "", name, label=label), Wanted(path.read_bytes, zone))


@dataclass(frozen=True)
class FeedOffers:
    """The items of a shop's feed; those of its photos that were fetched are in FETCHED."""

    feed: FeedSource
    fetched: Path

    @property
    def facts(self) -> dict[str, str]:
        """As Offers."""
        folders = {"photos": self.feed.root, "fetched": self.fetched}
        return {"kind": "feed", **{name: str(path.absolute()) for name, path in folders.items()}}

    def offers(self, crop: PoseOptions) -> Iterator[Offer]:
        """As Offers; rows that can't be used say why."""
        return map(_feed_offer, replace(self.feed, uses_zones=crop.uses_zones).items(0))


def _feed_offer(row: FeedItem) -> Offer:
    lower = {str(name).strip().lower(): value for name, value in row.fields.items()}
    said = {name: _value(lower, columns) for name, columns in OPTIONAL.items()}
    price, currency = price_of(said.pop("price"), said.pop("currency"))
    name = row.id or f"row {row.number}"
    item = Item(name, "", row.image, label=row.label, price=price, currency=currency, **said)
    return Offer(item, row.wanted, row.problem)


def _value(fields: Mapping[str, Any], columns: Sequence[str]) -> str:
    found = next((fields[name] for name in columns if fields.get(name) not in (None, "")), "")
    return str(found).strip()


def open_offers(
    place: Path, image_root: Path | None, vocabulary: Vocabulary, fetcher: Fetcher
) -> Offers:
    """The folder or feed PLACE, whose addresses FETCHER asks for.

    Raises:
        BadInput: PLACE is neither, or IMAGE_ROOT no folder.
    """
    if place.is_dir():
        return FolderOffers(place, vocabulary)
    if place.suffix.lower() not in FORMATS or not place.is_file():
        raise BadInput(
            f"--from {place}: name a folder of photos, or a feed that ends in {', '.join(FORMATS)}"
        )
    root = image_root or place.parent
    if not root.is_dir():
        raise BadInput(f"--image-root {root}: no such folder")
    feed = FeedSource(open_feed(place, {}), root, vocabulary, fetcher)
    return FeedOffers(feed, fetcher.folder)


def files(names: Sequence[str], facts: dict[str, str]) -> Iterator[Offer]:
    """The photos NAMES, files, as items of an index whose source has FACTS.

    Below the folder that an index is of they are called as its own photos are.
    """
    root = Path(facts["photos"]) if facts["kind"] == "folder" else None
    for name in names:
        path = Path(name).absolute()
        if root and path.is_relative_to(root):
            below = path.relative_to(root)
            label = below.parent.name if below.parent.name not in ("", *SPLITS) else ""
            item = Item(below.as_posix(), "", below.as_posix(), label=label)
        else:
            item = Item(name, "", f"{FILE}{path}")
        yield Offer(item, Wanted(path.read_bytes))


def read_photo(facts: Mapping[str, str], image: str) -> bytes:
    """The photo that the source of FACTS calls IMAGE.

    Raises:
        OSError, ValueError: it can't be had.
    """
    if image.startswith(FILE):
        return Path(image.removeprefix(FILE)).read_bytes()
    if facts["kind"] == "catalogue":
        return open_store(facts["photos"]).read(image)
    if ADDRESS.match(image):
        return fetched(UrlImageCache(Path(facts["fetched"])), image)
    return read_below(Path(facts["photos"]), image)
