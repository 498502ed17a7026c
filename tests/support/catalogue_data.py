"""Fill a catalogue row by row."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import imagehash
import numpy as np
import sqlalchemy as sa
from PIL import Image, ImageDraw

from dataset.catalogue.models import (
    Cluster,
    Hashtag,
    ImageRow,
    PostHashtag,
    PostRow,
    Search,
    Sighting,
)
from dataset.catalogue.session import Sessions, open_catalogue
from dataset.images.io import open_photo, sha256_of
from dataset.images.store import ImageStore
from tests.support.catalogues import catalogue_of


def photo_bytes(seed: int, size: tuple[int, int] = (120, 160), quality: int = 90) -> bytes:
    """Return a JPEG of coloured patches and ellipses, different for each seed."""
    rng = np.random.default_rng(seed)
    cells = rng.integers(0, 256, (8, 6, 3), dtype=np.uint8)
    return jpeg_of(_paint(cells, size, rng), quality)


def patches_of(rng: np.random.Generator, colour: tuple[int, int, int]) -> Image.Image:
    """Draw random patches and ellipses in shades of a colour."""
    light = rng.integers(40, 256, (8, 6, 1)) / 255
    cells = np.clip(np.array(colour) * light + rng.integers(0, 40, (8, 6, 3)), 0, 255)
    return _paint(cells.astype(np.uint8), (120, 160), rng)


def _paint(cells: np.ndarray, size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """Enlarge cells smoothly, and draw two ellipses in the colours of cells.

    The ellipses make the photo sharp. Sharp cells would have the same corners in all photos, and
    the search for duplicates would compare each pair of them.
    """
    image = Image.fromarray(cells).resize(size, Image.Resampling.BICUBIC)
    for cell in cells.reshape(-1, 3)[:2].tolist():
        left, top = rng.uniform(0, 0.7, 2) * size
        width, height = rng.uniform(0.15, 0.45, 2) * size
        ImageDraw.Draw(image).ellipse((left, top, left + width, top + height), tuple(cell))
    return image


def jpeg_of(image: Image.Image, quality: int = 90) -> bytes:
    """Encode an image as JPEG."""
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return out.getvalue()


@dataclass
class CatalogueBuilder:
    """A catalogue and an image store in the folder of a test."""

    folder: Path
    sessions: Sessions = field(init=False)
    store: ImageStore = field(init=False)

    def __post_init__(self) -> None:
        self.sessions = open_catalogue(self.catalogue)
        self.store = ImageStore(self.folder / "images")

    @property
    def catalogue(self) -> str:
        """Return the URL of the catalogue for commands."""
        return catalogue_of(self.folder, "catalogue.sqlite")

    def post(
        self,
        site_id: str,
        *hashtags: str,
        author: str | None = None,
        caption: Sequence[str] = (),
        attributes: Sequence[str] = (),
    ) -> int:
        """Add a post found under hashtags, with more in its caption and a shop's words.

        Returns:
            Its id.
        """
        with self.sessions.begin() as session:
            post = PostRow(
                site="lamoda",
                site_id=site_id,
                url=f"https://x.test/p/{site_id}/",
                author=author,
                record=b"",
            )
            session.add(post)
            session.flush()
            sources = [(text, "search") for text in hashtags]
            sources += [(text, "caption") for text in caption]
            sources += [(text, "attribute") for text in attributes]
            for text, source in sources:
                tag = session.scalar(sa.select(Hashtag).filter_by(text=text)) or Hashtag(text=text)
                session.add(tag)
                session.flush()
                session.add(PostHashtag(post_id=post.id, hashtag_id=tag.id, source=source))
                if source == "search" and not session.scalar(
                    sa.select(Search).filter_by(hashtag=text)
                ):
                    session.add(Search(site="lamoda", hashtag=text, state="finished"))
            return post.id

    def image(self, data: bytes, *posts: int, cluster: int | None = None) -> int:
        """Add a stored image of posts to a cluster or a new one; return the cluster."""
        photo, sha256 = open_photo(data), sha256_of(data)
        key = ImageStore.key(sha256, "jpg")
        self.store.put(data, key)
        with self.sessions.begin() as session:
            if cluster is None:
                created = Cluster()
                session.add(created)
                session.flush()
                cluster = created.id
            row = ImageRow(
                sha256=sha256,
                phash=str(imagehash.phash(photo)),
                width=photo.width,
                height=photo.height,
                format="JPEG",
                bytes=len(data),
                store_key=key,
                state="stored",
                cluster_id=cluster,
            )
            session.add(row)
            session.flush()
            for post in posts:
                count = session.scalar(sa.select(sa.func.count()).where(Sighting.post_id == post))
                session.add(
                    Sighting(
                        post_id=post,
                        position=count or 0,
                        url=f"https://x.test/{sha256}/{post}.jpg",
                        state="stored",
                        image_id=row.id,
                    )
                )
        return cluster

    def products(self, label: str, count: int, first_seed: int) -> None:
        """Add posts under the hashtag of a label with an image each."""
        for seed in range(first_seed, first_seed + count):
            self.image(photo_bytes(seed), self.post(f"{label}-{seed}", label))
