"""Sources of photos without a tag: files, folders, feeds, URLs, and a catalogue."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import click

from dataset.catalogue.session import open_catalogue
from dataset.errors import BadInput, Failure
from dataset.feeds.cells import URL_SCHEME, cell_text
from dataset.feeds.product_feed import ProductFeed, open_feed
from dataset.images.io import HEIC, find_photos
from dataset.images.store import open_store
from dataset.selection.candidates import Exclusions
from dataset.selection.crops import PoseOptions, find_crops
from dataset.selection.labeling import assign_labels
from dataset.vocabulary import Vocabulary
from model.feeds.sources import ImageFetcher, find_photo, stored_photo, usable_photos
from model.inference.preprocessing import PhotoInput


@dataclass(frozen=True)
class PhotoItem:
    """A photo to tag.

    Attributes:
        name: Path or URL of the photo.
        id: Id of the item in a feed, or SHA-256 of a photo of the catalogue; else empty.
        open: Returns the photo, or why there is none; starts the download of a URL.
        image_id: Id of the image in the catalogue.
    """

    name: str
    id: str
    open: Callable[[], PhotoInput | str]
    image_id: int | None = None


class PhotoSource(Protocol):
    """A source of photos, which are the same in the same order each time."""

    def items(self, crop: PoseOptions) -> Iterator[PhotoItem]:
        """Yield the photos; those of a catalogue are cropped by given options."""


@dataclass(frozen=True)
class FileSource:
    """Photos that are files.

    Attributes:
        paths: The files.
    """

    paths: Sequence[Path]

    def items(self, crop: PoseOptions) -> Iterator[PhotoItem]:  # noqa: ARG002
        """Yield the photos in their order."""
        for path in self.paths:
            yield PhotoItem(str(path), "", partial(PhotoInput, path.read_bytes))


@dataclass(frozen=True)
class UrlSource:
    """A photo at a URL.

    Attributes:
        url: The URL.
        fetcher: Downloads it.
    """

    url: str
    fetcher: ImageFetcher

    def items(self, crop: PoseOptions) -> Iterator[PhotoItem]:  # noqa: ARG002
        """Yield the photo."""
        yield PhotoItem(self.url, "", partial(find_photo, self.url, Path(), self.fetcher))


@dataclass(frozen=True)
class FeedPhotoSource:
    """The main photos of the items of a feed, whatever their tags.

    Attributes:
        feed: The feed.
        root: Folder of the photos that are paths.
        fetcher: Downloads the photos that are URLs.
    """

    feed: ProductFeed
    root: Path
    fetcher: ImageFetcher

    def items(self, crop: PoseOptions) -> Iterator[PhotoItem]:  # noqa: ARG002
        """Yield the photos in the order of the feed; rows without one have a problem."""
        # A row without an id or a tag has a photo to tag.
        column = self.feed.columns.id
        columns = replace(self.feed.columns, id="", tag="")
        for row in replace(self.feed, columns=columns).rows():
            ids = (cell_text(values.get(column)) for values in row.rows)
            opened = (
                partial(_same, row.problem)
                if row.problem
                else partial(find_photo, row.image, self.root, self.fetcher)
            )
            name = row.image or f"row {row.number}"
            yield PhotoItem(name, next(filter(None, ids), "") if column else "", opened)


@dataclass(frozen=True)
class UnlabeledSource:
    """The best copies of the photos of a catalogue that have no usable label.

    Photos that a reviewer excluded are left out.

    Attributes:
        catalogue: The catalogue's path or URL.
        images: The image store's path or URL.
        vocabulary: Defines labels.
    """

    catalogue: str
    images: str
    vocabulary: Vocabulary

    def items(self, crop: PoseOptions) -> Iterator[PhotoItem]:
        """Yield the photos by their SHA-256; new key points are saved in the catalogue."""
        sessions, store = open_catalogue(self.catalogue, must_exist=True), open_store(self.images)
        photos = usable_photos(sessions, store)
        labeled = assign_labels(photos, self.vocabulary, (), Exclusions())
        has_label = {labeled_photo.photo.image_id for labeled_photo in labeled}
        unlabeled = [p for p in photos if p.image_id not in has_label and not p.decisions]
        if not unlabeled:
            raise Failure("all usable photos of the catalogue have a label; there are none to tag")
        crops = find_crops(unlabeled, sessions, store, crop)
        for photo in unlabeled:
            opened = stored_photo(photo, crops.get(photo.image_id), store)
            opens = partial(_same, opened)
            yield PhotoItem(photo.store_key, photo.sha256, opens, photo.image_id)


def _same(photo: PhotoInput | str) -> PhotoInput | str:
    return photo


@dataclass(frozen=True)
class SourceOptions:
    """Options of `tag-photos` about its photos; `tag-photos --help` describes each."""

    names: tuple[str, ...]
    image_root: Path | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    encoding: str | None = None
    catalogue: str = "catalogue.sqlite"
    images: str = "images"


def open_sources(
    options: SourceOptions, vocabulary: Vocabulary, fetcher: ImageFetcher
) -> list[PhotoSource]:
    """Open files, folders, feeds and URLs or, without names, the catalogue.

    Raises:
        BadInput: A name is none of them, or a folder has no photos.
    """
    if not options.names:
        # Report a missing catalogue before Keras is imported.
        open_catalogue(options.catalogue, must_exist=True)
        return [UnlabeledSource(options.catalogue, options.images, vocabulary)]
    return [_open_source(name, options, fetcher) for name in options.names]


def _open_source(name: str, options: SourceOptions, fetcher: ImageFetcher) -> PhotoSource:
    if URL_SCHEME.match(name):
        return UrlSource(name, fetcher)
    path = Path(name)
    if path.is_dir():
        found = find_photos(path.rglob("*"))
        if found.skipped:
            click.echo(f"{path}: {found.describe_skipped()}", err=True)
        if not found.paths:
            raise BadInput(f"{path} has no photos; choose another folder")
        return FileSource(found.paths)
    if not path.exists():
        raise BadInput(f"{name}: no such file; name a photo, a folder of photos, or a feed")
    feed = open_photo_feed(path, options.columns, options.encoding)
    if feed is None:
        return FileSource([path])
    for note in feed.notes:
        click.echo(note, err=True)
    root = options.image_root or path.parent
    if not root.is_dir():
        raise BadInput(f"--image-root {root}: no such folder")
    return FeedPhotoSource(feed, root, fetcher)


def open_photo_feed(
    path: Path, columns: Mapping[str, str], encoding: str | None
) -> ProductFeed | None:
    """Open a file as a feed of photos, whose ids and tags may be missing; None if it is a photo.

    Raises:
        BadInput: It is neither.
    """
    found = find_photos([path])
    if found.paths or HEIC in found.skipped:
        return None
    return open_feed(path, columns, None, encoding, required=("image",))
