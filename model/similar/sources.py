"""Sources of the items of an index: the catalogue, a folder, a product feed, or single files."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import click
import sqlalchemy as sa
from sqlalchemy.orm import Session

from dataset.catalogue.models import PostRow
from dataset.catalogue.queries import in_batches
from dataset.catalogue.session import open_catalogue
from dataset.errors import BadInput, Failure, shorten_for_display
from dataset.feeds.cells import URL_SCHEME, cell_text, normalize_name
from dataset.feeds.product_feed import open_feed
from dataset.images.io import find_photos
from dataset.images.store import UrlImageCache, open_store
from dataset.selection.candidates import Candidate
from dataset.selection.crops import PoseOptions, find_crops
from dataset.selection.labeling import matching_labels
from dataset.utils.engines import Engine
from dataset.vocabulary import Vocabulary
from model.data.loading import SPLITS
from model.feeds.sources import (
    FeedSource,
    ImageFetcher,
    TaggedItem,
    read_fetched,
    read_inside,
    stored_photo,
    usable_photos,
)
from model.inference.preprocessing import PhotoInput
from model.similar.index_file import IndexItem

# Normalized names of optional columns of a feed; the first one with a value is used.
OPTIONAL_COLUMNS = {
    "price": ("price", "sale_price", "regular_price", "variant_price", "цена"),
    "currency": ("currency", "currency_id", "валюта"),
    "site": ("site", "shop", "store"),
    "title": ("title", "name", "название", "наименование"),
    "url": ("url", "link", "ссылка"),
    "product": ("item_group_id", "group_id", "product"),
}
# Notes on rows that are shown at most.
MAX_SHOWN_NOTES = 10
# Prefix of the image of an item that is a file outside the index's source.
FILE_PREFIX = "file:"


@dataclass(frozen=True)
class IndexEntry:
    """An item with its photo.

    Attributes:
        item: The item; its SHA-256 may be unknown yet.
        photo: The photo; None if there is a problem.
        problem: Why there is no photo, or empty.
    """

    item: IndexItem
    photo: PhotoInput | None = None
    problem: str = ""


class IndexSource(Protocol):
    """A source of items, which are the same in the same order each time."""

    @property
    def facts(self) -> dict[str, str]:
        """Facts that an index needs to find the photos again."""

    def entries(self, crop: PoseOptions, engine: Engine) -> Iterator[IndexEntry]:
        """Return the items with their photos.

        Args:
            crop: How photos are cropped.
            engine: Processes the photos, before the first item is returned.
        """


@dataclass(frozen=True)
class CatalogueIndexSource:
    """The best copies of all usable photos of a catalogue, whatever their labels.

    Attributes:
        catalogue: The catalogue's path or URL.
        images: The image store's path or URL.
        vocabulary: Defines labels.
    """

    catalogue: str
    images: str
    vocabulary: Vocabulary

    @property
    def facts(self) -> dict[str, str]:
        """Facts to find the photos, without the catalogue's URL, which may have a password."""
        path = self.images if "://" in self.images else str(Path(self.images).absolute())
        return {"kind": "catalogue", "photos": path}

    def entries(self, crop: PoseOptions, engine: Engine) -> Iterator[IndexEntry]:
        """Return the items with their photos; new key points are saved in the catalogue."""
        sessions, store = open_catalogue(self.catalogue, must_exist=True), open_store(self.images)
        photos = [
            photo for photo in usable_photos(sessions, store, engine) if not _is_excluded(photo)
        ]
        with sessions() as session:
            posts = _load_posts(session, photos)
        if not photos:
            raise Failure("the catalogue has no usable photos; crawl first")
        labels = [self._label(photo) for photo in photos]
        crops = find_crops(photos, sessions, store, crop, engine)
        return (
            IndexEntry(
                _catalogue_item(photo, label, posts),
                stored_photo(photo, crops.get(photo.image_id), store),
            )
            for photo, label in zip(photos, labels, strict=True)
        )

    def _label(self, photo: Candidate) -> str:
        """Return the reviewed label, else the only label of the hashtags, else an empty text."""
        if photo.decisions:
            return photo.decisions[-1][1] or ""
        labels = matching_labels(photo, self.vocabulary)
        return labels[0] if len(labels) == 1 else ""


def _is_excluded(photo: Candidate) -> bool:
    return bool(photo.decisions) and photo.decisions[-1][1] is None


def _load_posts(session: Session, photos: Sequence[Candidate]) -> dict[int, Any]:
    """Return post id -> product data of the first post of each photo."""
    ids = {photo.posts[0].id for photo in photos if photo.posts}
    columns = (PostRow.id, PostRow.site, PostRow.site_id, PostRow.title, PostRow.price)
    posts = {}
    for batch in in_batches(ids):
        query = sa.select(*columns, PostRow.currency, PostRow.url).where(PostRow.id.in_(batch))
        posts.update({row.id: row for row in session.execute(query)})
    return posts


def _catalogue_item(photo: Candidate, label: str, posts: dict[int, Any]) -> IndexItem:
    post = posts.get(photo.posts[0].id) if photo.posts else None
    fields: dict[str, Any] = {}
    if post is not None:
        fields = {
            "site": post.site,
            "price": post.price,
            "currency": post.currency or "",
            "product": f"{post.site}:{post.site_id}",
            "title": post.title or "",
            "url": post.url,
        }
    return IndexItem(
        photo.sha256,
        photo.sha256,
        photo.store_key,
        label=label,
        cluster="" if photo.cluster is None else str(photo.cluster),
        **fields,
    )


@dataclass(frozen=True)
class FolderIndexSource:
    """The photos below a folder; the name of a photo's folder is its label, unless it is a split.

    Attributes:
        root: The folder.
    """

    root: Path

    @property
    def facts(self) -> dict[str, str]:
        """Facts to find the photos."""
        return {"kind": "folder", "photos": str(self.root.absolute())}

    def entries(self, crop: PoseOptions, engine: Engine) -> Iterator[IndexEntry]:  # noqa: ARG002
        """Yield the items with their photos, which are cropped when they are read."""
        found = find_photos(self.root.rglob("*"))
        if found.skipped:
            click.echo(f"--from {self.root}: {found.describe_skipped()}", err=True)
        if not found.paths:
            raise BadInput(f"--from {self.root} has no photos; choose another folder")
        for path in found.paths:
            name = path.relative_to(self.root).as_posix()
            folder = path.parent.name if path.parent != self.root else ""
            label = "" if folder in SPLITS else folder
            item = IndexItem(name, "", name, label=label)
            yield IndexEntry(item, PhotoInput(path.read_bytes))


@dataclass(frozen=True)
class FeedIndexSource:
    """The items of a product feed.

    Attributes:
        feed: The feed.
        fetched: Folder of downloaded photos.
    """

    feed: FeedSource
    fetched: Path

    @property
    def facts(self) -> dict[str, str]:
        """Facts to find the photos."""
        folders = {"photos": self.feed.root, "fetched": self.fetched}
        return {"kind": "feed", **{name: str(path.absolute()) for name, path in folders.items()}}

    def entries(self, crop: PoseOptions, engine: Engine) -> Iterator[IndexEntry]:  # noqa: ARG002
        """Yield the items with their photos; rows that can't be used have a problem."""
        notes = 0
        for row in self.feed.items(0):
            if row.note and notes < MAX_SHOWN_NOTES:
                click.echo(shorten_for_display(row.note), err=True)
                notes += 1
            yield from _feed_entries(row, self.feed)


def _feed_entries(row: TaggedItem, source: FeedSource) -> Iterator[IndexEntry]:
    """Yield the main photo of an item, and its further photos as views of the same product."""
    fields = row.rows[0] if row.rows else {}
    columns = {name: _first_column(fields, names) for name, names in OPTIONAL_COLUMNS.items()}
    texts = {name: cell_text(fields.get(column)) for name, column in columns.items()}
    texts.pop("price")
    price, currency = source.feed.parse_price(
        columns["price"], fields.get(columns["price"]), texts.pop("currency")
    )
    name = row.id or f"row {row.number}"
    if row.views:
        texts["product"] = texts["product"] or name
    item = IndexItem(name, "", row.image, label=row.label, price=price, currency=currency, **texts)
    yield IndexEntry(item, row.photo, row.problem)
    for number, image in enumerate(row.views if row.photo else (), 2):
        photo = source.find_photo(image)
        view = replace(item, id=f"{name}#{number}", image=image)
        if isinstance(photo, str):
            yield IndexEntry(view, problem=photo)
        else:
            yield IndexEntry(view, photo)


def _first_column(fields: Mapping[str, Any], names: Sequence[str]) -> str:
    """Return the first column with a value, or an empty text."""
    columns = {normalize_name(column): column for column in fields if cell_text(fields[column])}
    return next((columns[name] for name in names if name in columns), "")


def open_index_source(
    path: Path,
    image_root: Path | None,
    vocabulary: Vocabulary,
    fetcher: ImageFetcher,
    columns: Mapping[str, str] | None = None,
    encoding: str | None = None,
) -> IndexSource:
    """Open a folder or a feed as a source of items.

    Args:
        path: The folder or feed.
        image_root: Folder of the photos that are paths in the feed; None: the feed's folder.
        vocabulary: Defines labels.
        fetcher: Downloads the photos that are URLs in the feed.
        columns: Names of the feed's columns, see `open_feed`.
        encoding: Encoding of the feed.

    Raises:
        BadInput: The path is neither a folder nor a feed, or the image root is not a folder.
    """
    if path.is_dir():
        return FolderIndexSource(path)
    if not path.is_file():
        raise BadInput(f"--from {path}: no such file; name a folder of photos or a feed")
    product_feed = open_feed(path, columns or {}, None, encoding)
    root = image_root or path.parent
    if not root.is_dir():
        raise BadInput(f"--image-root {root}: no such folder")
    return FeedIndexSource(FeedSource(product_feed, root, vocabulary, fetcher), fetcher.folder)


def file_entries(names: Sequence[str], facts: dict[str, str]) -> Iterator[IndexEntry]:
    """Yield photo files as items for an index.

    Files below the folder that an index was built from get the ids that a build would give them.

    Args:
        names: Paths of the files.
        facts: Facts of the index's source.
    """
    root = Path(facts["photos"]) if facts["kind"] == "folder" else None
    for name in names:
        path = Path(name).absolute()
        if root and path.is_relative_to(root):
            relative = path.relative_to(root)
            label = relative.parent.name if relative.parent.name not in ("", *SPLITS) else ""
            item = IndexItem(relative.as_posix(), "", relative.as_posix(), label=label)
        else:
            item = IndexItem(name, "", f"{FILE_PREFIX}{path}")
        yield IndexEntry(item, PhotoInput(path.read_bytes))


def read_photo(facts: Mapping[str, str], image: str) -> bytes:
    """Return the bytes of the photo of an item.

    Args:
        facts: Facts of the index's source.
        image: What the source calls the photo.

    Raises:
        OSError: The photo can't be read.
        ValueError: The path is invalid.
    """
    if image.startswith(FILE_PREFIX):
        return Path(image.removeprefix(FILE_PREFIX)).read_bytes()
    if facts["kind"] == "catalogue":
        return open_store(facts["photos"]).read(image)
    if URL_SCHEME.match(image):
        return read_fetched(UrlImageCache(Path(facts["fetched"])), image)
    return read_inside(Path(facts["photos"]), image)
