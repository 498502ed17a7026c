"""The tables of the catalogue as mapped classes. migrations/versions has their history.

The scraper writes searches, posts, hashtags, images and sightings; the dataset package clusters,
fingerprints, decisions, splits and runs; the model package tag verdicts.
"""

from dataclasses import dataclass
from datetime import datetime, timezone

from sqlalchemy import Float, ForeignKey, Index, LargeBinary, MetaData, UniqueConstraint, false
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

# Stands between the hashtags of a search for several ones.
HASHTAG_SEPARATOR = " or "


def now() -> datetime:
    """Return the current time in UTC without a time zone, as all times of the catalogue are."""
    return precise_now().replace(microsecond=0)


def precise_now() -> datetime:
    """Return the current time as `now` does, with microseconds.

    Decisions of people have it, so that those made together can be told from others.
    """
    return datetime.now(timezone.utc).replace(tzinfo=None)


# License of an image for which no site says one.
UNKNOWN_LICENSE = "unknown"
# Licenses under which an image and crops of it may be published, the least demanding first.
FREE_LICENSES = ("cc0", "pdm", "by", "by-sa")


@dataclass(frozen=True)
class Credit:
    """The license of an image and what its publication has to name; None: the site does not say.

    Attributes:
        license: Code of the license: a Creative Commons code such as `by-sa`, `cc0` or `pdm`
            (public domain), or the site's own name of another license.
        license_url: URL of the license.
        author: Name of the author.
        attribution: The text with which the author asks to be credited.
        source_page: URL of the page that describes the image.
    """

    license: str | None = None
    license_url: str | None = None
    author: str | None = None
    attribution: str | None = None
    source_page: str | None = None

    @property
    def code(self) -> str:
        """Code of the license, or `unknown`."""
        return self.license or UNKNOWN_LICENSE


NO_CREDIT = Credit()


class Base(DeclarativeBase):
    """Base of the mapped classes. Constraints have names so that migrations can change them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class Search(Base):
    """A search for a hashtag on a site, and its progress.

    Attributes:
        hashtag: The hashtag, or several, joined by HASHTAG_SEPARATOR.
        cursor: What the spider needs to request the next page; None before the first page.
        later: Where a later run of the finished search starts.
        state: open, finished (at its natural end) or failed (for `reason`; a later run resumes it).
        again: Whether it was finished before, and ends at a page without new posts.
        worker_id: The worker that has claimed it.
    """

    __tablename__ = "searches"
    __table_args__ = (UniqueConstraint("site", "hashtag"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    site: Mapped[str]
    hashtag: Mapped[str]
    cursor: Mapped[str | None]
    later: Mapped[str | None]
    state: Mapped[str] = mapped_column(default="open")
    reason: Mapped[str | None]
    total: Mapped[int | None]
    pages: Mapped[int] = mapped_column(default=0)
    posts: Mapped[int] = mapped_column(default=0)
    started: Mapped[datetime] = mapped_column(default=now)
    changed: Mapped[datetime] = mapped_column(default=now, onupdate=now)
    again: Mapped[bool] = mapped_column(default=False, server_default=false())
    worker_id: Mapped[int | None]


class PostRow(Base):
    """A product or post of a site.

    Attributes:
        record: The site's own record: JSON, compressed with zlib.
    """

    __tablename__ = "posts"
    __table_args__ = (UniqueConstraint("site", "site_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    site: Mapped[str]
    site_id: Mapped[str]
    url: Mapped[str]
    title: Mapped[str | None]
    brand: Mapped[str | None]
    price: Mapped[float | None] = mapped_column(Float)
    currency: Mapped[str | None]
    author: Mapped[str | None]
    posted: Mapped[datetime | None]
    seen: Mapped[datetime] = mapped_column(default=now)
    record: Mapped[bytes] = mapped_column(LargeBinary)

    sightings: Mapped[list["Sighting"]] = relationship(back_populates="post")


class Hashtag(Base):
    """A normalised hashtag or search word."""

    __tablename__ = "hashtags"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(unique=True)


class PostHashtag(Base):
    """A hashtag of a post.

    Attributes:
        source: search (the post was found under it), caption or attribute.
    """

    __tablename__ = "post_hashtags"
    __table_args__ = (Index(None, "hashtag_id", "source"),)

    post_id: Mapped[int] = mapped_column(ForeignKey("posts.id"), primary_key=True)
    hashtag_id: Mapped[int] = mapped_column(ForeignKey("hashtags.id"), primary_key=True)
    source: Mapped[str] = mapped_column(primary_key=True)


class Cluster(Base):
    """A cluster of near duplicates: images of one photo."""

    __tablename__ = "clusters"

    id: Mapped[int] = mapped_column(primary_key=True)
    made: Mapped[datetime] = mapped_column(default=now)


class ImageRow(Base):
    """An image file, unique by its SHA-256.

    Attributes:
        phash: Perceptual hash of the whole image by imagehash, 16 hexadecimal digits.
        store_key: Key of the file in the image store.
        state: stored, or rejected for `reason` (then there is no file).
    """

    __tablename__ = "images"

    id: Mapped[int] = mapped_column(primary_key=True)
    sha256: Mapped[str] = mapped_column(unique=True)
    phash: Mapped[str | None]
    width: Mapped[int | None]
    height: Mapped[int | None]
    format: Mapped[str | None]
    bytes: Mapped[int]
    store_key: Mapped[str | None]
    state: Mapped[str] = mapped_column(index=True)
    reason: Mapped[str | None]
    cluster_id: Mapped[int | None] = mapped_column(ForeignKey("clusters.id"), index=True)
    fetched: Mapped[datetime] = mapped_column(default=now)

    sightings: Mapped[list["Sighting"]] = relationship(back_populates="image")


class Sighting(Base):
    """An image of a post.

    Attributes:
        position: Position in the post, from 0.
        fallbacks: URLs to try when there is no image at `url`, one per line.
        key: The site's own identifier of the image, for sites whose URLs expire.
        license: Code of the license, such as by-sa or cc0; None if the site does not say it, as
            license_url, author, attribution and source_page.
        attribution: The text with which the author asks to be credited.
        source_page: URL of the page that describes the image.
        state: pending (not downloaded yet), stored, or rejected for `reason`.
        worker_id: The worker that has claimed it.
    """

    __tablename__ = "sightings"
    __table_args__ = (UniqueConstraint("post_id", "position"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    post_id: Mapped[int] = mapped_column(ForeignKey("posts.id"))
    position: Mapped[int]
    url: Mapped[str] = mapped_column(index=True)
    fallbacks: Mapped[str] = mapped_column(default="")
    key: Mapped[str | None]
    state: Mapped[str] = mapped_column(default="pending", index=True)
    reason: Mapped[str | None]
    image_id: Mapped[int | None] = mapped_column(ForeignKey("images.id"), index=True)
    worker_id: Mapped[int | None] = mapped_column(index=True)
    license: Mapped[str | None]
    license_url: Mapped[str | None]
    author: Mapped[str | None]
    attribution: Mapped[str | None]
    source_page: Mapped[str | None]

    post: Mapped[PostRow] = relationship(back_populates="sightings")
    image: Mapped[ImageRow | None] = relationship(back_populates="sightings")


class LabelDecision(Base):
    """A person's decision on the label of an image; the latest one that is not undone holds.

    Attributes:
        label: The label; None excludes the image.
    """

    __tablename__ = "decisions"

    id: Mapped[int] = mapped_column(primary_key=True)
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), index=True)
    label: Mapped[str | None]
    who: Mapped[str]
    made: Mapped[datetime] = mapped_column(default=now)
    undone: Mapped[datetime | None]


class FingerprintRow(Base):
    """Hashes and quality measurements of an image.

    Attributes:
        views: Hashes of the image's views (see dataset/duplicates/hashing.py).
        pixels: A small greyscale picture and its colours.
        contrast: Quality, as `blur` and `text`: None until it is measured.
        features: Local features (see dataset/duplicates/features.py): None until `catalogue dedup`
            or a build extracts them, as `content` and `detail`.
        content: Fraction of the image inside its uniform border.
        detail: Number of its pixels, a quarter of them if it seems enlarged. Only of images in a
            cluster of several.
        compared: Whether views and features were compared with the whole catalogue. A crawl
            compares only whole images.
    """

    __tablename__ = "fingerprints"
    # A covering index: reading all hashes does not read the pictures.
    __table_args__ = (Index(None, "image_id", "compared", "views"),)

    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), primary_key=True)
    views: Mapped[bytes] = mapped_column(LargeBinary)
    pixels: Mapped[bytes] = mapped_column(LargeBinary)
    contrast: Mapped[float | None] = mapped_column(Float)
    blur: Mapped[float | None] = mapped_column(Float)
    text: Mapped[float | None] = mapped_column(Float)
    features: Mapped[bytes | None] = mapped_column(LargeBinary)
    content: Mapped[float | None] = mapped_column(Float)
    detail: Mapped[float | None] = mapped_column(Float)
    compared: Mapped[bool] = mapped_column(default=False)


class NearDuplicateRow(Base):
    """Two images, `one_id` < `other_id`, whose pixels were compared.

    Attributes:
        mirrored: Whether one is a mirror image of the other.
        similarity: At most 1.
        relation: "same" for copies of one photo, which share a cluster, "part" for images that show
            the same photo in part or changed, which share a split.
        one_decoration: Fraction of the image `one_id` that seems added: text, stickers, a frame.
        other_decoration: The same of `other_id`.
    """

    __tablename__ = "resemblances"

    one_id: Mapped[int] = mapped_column(ForeignKey("images.id"), primary_key=True)
    other_id: Mapped[int] = mapped_column(ForeignKey("images.id"), primary_key=True)
    mirrored: Mapped[bool]
    similarity: Mapped[float] = mapped_column(Float, index=True)
    relation: Mapped[str] = mapped_column(default="part", server_default="part")
    one_decoration: Mapped[float] = mapped_column(Float, default=0.0, server_default="0")
    other_decoration: Mapped[float] = mapped_column(Float, default=0.0, server_default="0")


class Separation(Base):
    """An image of a cluster that a person has undone; its images never share a cluster again."""

    __tablename__ = "separations"

    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), primary_key=True)
    cluster_id: Mapped[int] = mapped_column(primary_key=True)
    who: Mapped[str]
    made: Mapped[datetime] = mapped_column(default=now)


class PoseRow(Base):
    """The key points of a person in an image, and the person's mask.

    Attributes:
        model: Name of the pose network and digest of its weights.
        points: (joints, 7) float32, little-endian: x, y in pixels, score; left, top, right, bottom
            of the area that the joint may be in.
        mask: Bytes of a `dataset.pose.heatmaps.PersonMask`; None if the network has no mask head.
    """

    __tablename__ = "poses"

    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), primary_key=True)
    model: Mapped[str] = mapped_column(primary_key=True)
    points: Mapped[bytes] = mapped_column(LargeBinary)
    mask: Mapped[bytes | None] = mapped_column(LargeBinary)
    made: Mapped[datetime] = mapped_column(default=now)


class CropRow(Base):
    """The latest crop of an image, from what a pose network finds in it.

    Attributes:
        model: Name of the pose network and digest of its weights.
        zone: Empty; crops of older versions could depend on the label.
        outcome: What the crop shows: person or whole.
        reason: Why it is not what was requested.
        score: Mean score of the key points.
    """

    __tablename__ = "crops"
    __table_args__ = (Index(None, "score", "image_id"),)

    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), primary_key=True)
    model: Mapped[str] = mapped_column(primary_key=True)
    zone: Mapped[str] = mapped_column(primary_key=True, default="")
    outcome: Mapped[str]
    reason: Mapped[str]
    score: Mapped[float] = mapped_column(Float)
    left: Mapped[float] = mapped_column(Float)
    top: Mapped[float] = mapped_column(Float)
    right: Mapped[float] = mapped_column(Float)
    bottom: Mapped[float] = mapped_column(Float)


class RunRow(Base):
    """A build of a data set or a training run.

    Attributes:
        kind: build or training.
        options: JSON.
        outcome: JSON.
    """

    __tablename__ = "runs"

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    path: Mapped[str]
    options: Mapped[str]
    outcome: Mapped[str | None]
    started: Mapped[datetime] = mapped_column(default=now)
    finished: Mapped[datetime | None]


class SplitAssignment(Base):
    """The split and the label of an image in a build."""

    __tablename__ = "assignments"

    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), primary_key=True)
    label: Mapped[str]
    split: Mapped[str]


class KeptSplit(Base):
    """The split that an image keeps in later builds.

    Attributes:
        scheme: Identifies builds with equal seed and split ratios.
    """

    __tablename__ = "kept_splits"

    scheme: Mapped[str] = mapped_column(primary_key=True)
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), primary_key=True)
    split: Mapped[str]


class Worker(Base):
    """A process that crawls into the catalogue.

    Attributes:
        machine: The machine and process namespace.
        process: The process id on `machine`.
        process_started: When the process started, since process ids are reused.
        run_started: When the run started that the worker takes part in or resumes.
        heartbeat: When it was last alive.
    """

    __tablename__ = "workers"
    # SQLAlchemy expects a plain class attribute.
    __table_args__ = {"sqlite_autoincrement": True}  # noqa: RUF012

    id: Mapped[int] = mapped_column(primary_key=True)
    machine: Mapped[str]
    process: Mapped[int]
    process_started: Mapped[str]
    run_started: Mapped[datetime] = mapped_column(default=now)
    heartbeat: Mapped[datetime] = mapped_column(default=now)


class RequestedHashtag(Base):
    """A hashtag that an account has requested from a site with a weekly quota.

    Attributes:
        account: Digest of the account's credentials.
        allowed: Hashtags that the account may request in seven days.
    """

    __tablename__ = "asked_hashtags"

    id: Mapped[int] = mapped_column(primary_key=True)
    site: Mapped[str]
    account: Mapped[str]
    hashtag: Mapped[str]
    allowed: Mapped[int]
    requested: Mapped[datetime] = mapped_column(default=now, index=True)


class HostBackoff(Base):
    """A host with its port that must not be requested until a time (Retry-After)."""

    __tablename__ = "pauses"

    host: Mapped[str] = mapped_column(primary_key=True)
    until: Mapped[datetime]


class TakedownRow(Base):
    """An image, URL or author that was taken down; no crawl or import adds it again.

    Attributes:
        kind: image, url or author.
        digest: SHA-256 of the file, the URL or the author's name.
        view_hash: 64-bit hash of the whole image, which identifies copies of it.
    """

    __tablename__ = "forgotten"
    __table_args__ = (UniqueConstraint("kind", "digest"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    digest: Mapped[str]
    view_hash: Mapped[bytes | None] = mapped_column(LargeBinary)
    who: Mapped[str]
    made: Mapped[datetime] = mapped_column(default=now)


class TagVerdictRow(Base):
    """The verdict of a model on a tag of an image, or a label that it proposes for an image.

    Each check of tags replaces all verdicts, each tagging of the catalogue all proposals.

    Attributes:
        label: The label that the image is tagged with; empty for a proposal.
        model: Name and digest of the training run.
        verdict: agrees, mistake, unsure, no garment seen, missing, or proposed.
        suggested: The label of the highest calibrated probability.
        probability: The probability of `suggested`.
        tag_probability: The probability of `label`.
        margin: `probability` less `tag_probability`.
        cost: Expected cost of the mistake, by which mistakes are ranked.
        nearest: The most similar training photos: a JSON list of {sha256, label, similarity}.
        learning_rank: Position in the order of active learning, from 0; None for tags that need no
            decision.
    """

    __tablename__ = "judgements"
    # In the database `cost` is in descending order, see the migration.
    __table_args__ = (Index(None, "verdict", "cost", "image_id"),)

    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), primary_key=True)
    label: Mapped[str] = mapped_column(primary_key=True)
    model: Mapped[str]
    verdict: Mapped[str]
    suggested: Mapped[str | None]
    probability: Mapped[float] = mapped_column(Float)
    tag_probability: Mapped[float] = mapped_column(Float)
    margin: Mapped[float] = mapped_column(Float)
    cost: Mapped[float] = mapped_column(Float)
    nearest: Mapped[str] = mapped_column(default="[]")
    learning_rank: Mapped[int | None]
    made: Mapped[datetime] = mapped_column(default=now)


class PairDecision(Base):
    """A person's decision whether two images, `one_id` < `other_id`, are near duplicates.

    Attributes:
        same: Whether they are.
        moved: Ids of the images that it moved into another cluster, a JSON list.
    """

    __tablename__ = "pair_decisions"

    id: Mapped[int] = mapped_column(primary_key=True)
    one_id: Mapped[int] = mapped_column(ForeignKey("images.id"), index=True)
    other_id: Mapped[int] = mapped_column(ForeignKey("images.id"), index=True)
    same: Mapped[bool]
    moved: Mapped[str] = mapped_column(default="[]")
    who: Mapped[str]
    made: Mapped[datetime] = mapped_column(default=now)
    undone: Mapped[datetime | None]


class CropDecision(Base):
    """A person's decision on a crop of an image.

    Attributes:
        model: The pose network of the crop.
        zone: The garment zone of the crop.
        keep_whole: Whether the whole photo is used instead of any crop; otherwise the crop of
            `model` for `zone` is correct.
    """

    __tablename__ = "crop_decisions"

    id: Mapped[int] = mapped_column(primary_key=True)
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), index=True)
    model: Mapped[str]
    zone: Mapped[str]
    keep_whole: Mapped[bool]
    who: Mapped[str]
    made: Mapped[datetime] = mapped_column(default=now)
    undone: Mapped[datetime | None]


class LabelConflict(Base):
    """The best copy of a cluster whose hashtags give several labels, decided or not.

    `review` brings the table up to date when it starts.

    Attributes:
        labels: The labels, a JSON list.
    """

    __tablename__ = "conflicts"

    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), primary_key=True)
    labels: Mapped[str]
