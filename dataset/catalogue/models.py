"""The catalogue's tables as mapped classes; their history is in migrations/versions.

Who writes which: the scraper searches, posts, hashtags, images and sightings; the dataset package
clusters, fingerprints, decisions, splits and build runs; the model package training runs and
judgements.
"""

from datetime import datetime, timezone

from sqlalchemy import Float, ForeignKey, Index, LargeBinary, MetaData, UniqueConstraint, false
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

# Between the words that one search asks for together.
OR = " or "


def now() -> datetime:
    """The present moment in UTC, without a zone, as the catalogue keeps all times."""
    return datetime.now(timezone.utc).replace(tzinfo=None, microsecond=0)


class Base(DeclarativeBase):
    """Every constraint has a name, so that a migration can change it on SQLite too."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class Search(Base):
    """One word asked of one site, and how far it has come.

    `state`: open, finished (its natural end), failed (`reason` says why; a later run goes on).
    `hashtag`: the word, or several with " or " between. `cursor`: what the spider needs to ask for
    the next page; None before the first. `later`: where a later run of the finished search begins.
    `worker_id`: who is turning its pages. `again`: it was finished before, and ends where a page
    holds nothing new.
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
    """A product or post of a site. `record`: the site's own record as JSON, zlib-compressed."""

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
    """A hashtag or search word, normalised."""

    __tablename__ = "hashtags"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(unique=True)


class PostHashtag(Base):
    """A hashtag of a post. `source`: search (found under it), caption or attribute."""

    __tablename__ = "post_hashtags"
    __table_args__ = (Index(None, "hashtag_id", "source"),)

    post_id: Mapped[int] = mapped_column(ForeignKey("posts.id"), primary_key=True)
    hashtag_id: Mapped[int] = mapped_column(ForeignKey("hashtags.id"), primary_key=True)
    source: Mapped[str] = mapped_column(primary_key=True)


class Cluster(Base):
    """Images that are the same photo to the eye."""

    __tablename__ = "clusters"

    id: Mapped[int] = mapped_column(primary_key=True)
    made: Mapped[datetime] = mapped_column(default=now)


class ImageRow(Base):
    """Unique bytes. `state`: stored, or refused for `reason` (then there is no file)."""

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
    """An image in a post, at a position from 0.

    `state`: wanted (still to fetch), stored, or refused for `reason`.
    `fallbacks`: addresses to ask when `url` is not there, one a line. `key`: what the site calls
    the photo, where its address changes. `worker_id`: who is fetching it.
    """

    __tablename__ = "sightings"
    __table_args__ = (UniqueConstraint("post_id", "position"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    post_id: Mapped[int] = mapped_column(ForeignKey("posts.id"))
    position: Mapped[int]
    url: Mapped[str] = mapped_column(index=True)
    fallbacks: Mapped[str] = mapped_column(default="")
    key: Mapped[str | None]
    state: Mapped[str] = mapped_column(default="wanted", index=True)
    reason: Mapped[str | None]
    image_id: Mapped[int | None] = mapped_column(ForeignKey("images.id"), index=True)
    worker_id: Mapped[int | None] = mapped_column(index=True)

    post: Mapped[PostRow] = relationship(back_populates="sightings")
    image: Mapped[ImageRow | None] = relationship(back_populates="sightings")


class Decision(Base):
    """A person's word on an image: its label, or None when it should be left out."""

    __tablename__ = "decisions"

    id: Mapped[int] = mapped_column(primary_key=True)
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), index=True)
    label: Mapped[str | None]
    who: Mapped[str]
    made: Mapped[datetime] = mapped_column(default=now)
    undone: Mapped[datetime | None]


class FingerprintRow(Base):
    """What an image is recognised and judged by.

    `contrast`, `blur` and `text` are None until a step needs them. `compared`: with the whole
    catalogue, and not only with whole photos while crawling.
    """

    __tablename__ = "fingerprints"
    # A million rows of pictures are not read for their hashes.
    __table_args__ = (Index(None, "image_id", "compared", "views"),)

    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), primary_key=True)
    views: Mapped[bytes] = mapped_column(LargeBinary)
    looks: Mapped[bytes] = mapped_column(LargeBinary)
    contrast: Mapped[float | None] = mapped_column(Float)
    blur: Mapped[float | None] = mapped_column(Float)
    text: Mapped[float | None] = mapped_column(Float)
    compared: Mapped[bool] = mapped_column(default=False)


class ResemblanceRow(Base):
    """Two images, `one_id` < `other_id`, that are or may be one photo; `likeness` at most 1."""

    __tablename__ = "resemblances"

    one_id: Mapped[int] = mapped_column(ForeignKey("images.id"), primary_key=True)
    other_id: Mapped[int] = mapped_column(ForeignKey("images.id"), primary_key=True)
    mirrored: Mapped[bool]
    likeness: Mapped[float] = mapped_column(Float, index=True)


class Separation(Base):
    """A person undid the cluster that held the image; its images are never one cluster again."""

    __tablename__ = "separations"

    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), primary_key=True)
    cluster_id: Mapped[int] = mapped_column(primary_key=True)
    who: Mapped[str]
    made: Mapped[datetime] = mapped_column(default=now)


class Pose(Base):
    """Where a person's joints are in an image, by MODEL: its name and its weights' digest.

    `points`: (joints, 7) float32, little-endian: x, y in pixels, score; left, top, right, bottom of
    where the joint may be.
    """

    __tablename__ = "poses"

    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), primary_key=True)
    model: Mapped[str] = mapped_column(primary_key=True)
    points: Mapped[bytes] = mapped_column(LargeBinary)
    made: Mapped[datetime] = mapped_column(default=now)


class CropRow(Base):
    """What was last kept of an image for garments of ZONE, or of none, by MODEL's key points."""

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


class Run(Base):
    """A build or a training. `kind`: build or training; `options` and `outcome` are JSON."""

    __tablename__ = "runs"

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    path: Mapped[str]
    options: Mapped[str]
    outcome: Mapped[str | None]
    started: Mapped[datetime] = mapped_column(default=now)
    finished: Mapped[datetime | None]


class Assignment(Base):
    """Which split and label an image had in a build."""

    __tablename__ = "assignments"

    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), primary_key=True)
    label: Mapped[str]
    split: Mapped[str]


class KeptSplit(Base):
    """The split that an image keeps in all builds of one scheme: the same seed and shares."""

    __tablename__ = "kept_splits"

    scheme: Mapped[str] = mapped_column(primary_key=True)
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), primary_key=True)
    split: Mapped[str]


class Worker(Base):
    """A process that crawls into the catalogue, and when it last gave a sign of life.

    `process`: its number on `machine`; `born`: when it began there, since numbers come back.
    `since`: when the work began that it goes on with, which an earlier process may have left.
    """

    __tablename__ = "workers"
    __table_args__ = {"sqlite_autoincrement": True}  # noqa: RUF012 - SQLAlchemy's own protocol

    id: Mapped[int] = mapped_column(primary_key=True)
    machine: Mapped[str]
    process: Mapped[int]
    born: Mapped[str]
    since: Mapped[datetime] = mapped_column(default=now)
    beat: Mapped[datetime] = mapped_column(default=now)


class AskedHashtag(Base):
    """A hashtag that an account asked a site for, where it may ask for ALLOWED in seven days.

    `account`: a digest of whose credentials these are.
    """

    __tablename__ = "asked_hashtags"

    id: Mapped[int] = mapped_column(primary_key=True)
    site: Mapped[str]
    account: Mapped[str]
    hashtag: Mapped[str]
    allowed: Mapped[int]
    asked: Mapped[datetime] = mapped_column(default=now, index=True)


class Pause(Base):
    """A host, with its port, that asked to be left alone until a moment."""

    __tablename__ = "pauses"

    host: Mapped[str] = mapped_column(primary_key=True)
    until: Mapped[datetime]


class ForgottenRow(Base):
    """Something that was taken down and never comes back: an image, a URL or an author.

    `digest`: the SHA-256 of its bytes, of its address or of its name; `whole`: an image's 64-bit
    hash, by which copies of it are known.
    """

    __tablename__ = "forgotten"
    __table_args__ = (UniqueConstraint("kind", "digest"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    digest: Mapped[str]
    whole: Mapped[bytes | None] = mapped_column(LargeBinary)
    who: Mapped[str]
    made: Mapped[datetime] = mapped_column(default=now)


class Judgement(Base):
    """What a model says of LABEL, which an image is tagged with: the last check counts.

    `model`: the run's name and digest. `verdict`: agrees, mistake, unsure or nothing seen.
    `suggested`: the label of the highest calibrated `probability`; `given`: the label's own;
    `margin`: the first over the second. `cost`: expected, that by which mistakes are ranked.
    `nearest`: training photos that look most like it, as JSON: a list of {sha256, label, likeness}.
    """

    __tablename__ = "judgements"
    # In the catalogue the highest cost comes first, see the migration.
    __table_args__ = (Index(None, "verdict", "cost", "image_id"),)

    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), primary_key=True)
    label: Mapped[str] = mapped_column(primary_key=True)
    model: Mapped[str]
    verdict: Mapped[str]
    suggested: Mapped[str | None]
    probability: Mapped[float] = mapped_column(Float)
    given: Mapped[float] = mapped_column(Float)
    margin: Mapped[float] = mapped_column(Float)
    cost: Mapped[float] = mapped_column(Float)
    nearest: Mapped[str] = mapped_column(default="[]")
    made: Mapped[datetime] = mapped_column(default=now)


class PairDecision(Base):
    """A person's word on two images, `one_id` < `other_id`: whether they are the SAME photo.

    `moved`: ids, a JSON list, of the images that it brought into another cluster.
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
    """A person's word on an image's crop by MODEL for ZONE: it is right, or the WHOLE is kept.

    The whole is kept whatever the model and the zone.
    """

    __tablename__ = "crop_decisions"

    id: Mapped[int] = mapped_column(primary_key=True)
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), index=True)
    model: Mapped[str]
    zone: Mapped[str]
    whole: Mapped[bool]
    who: Mapped[str]
    made: Mapped[datetime] = mapped_column(default=now)
    undone: Mapped[datetime | None]


class Conflict(Base):
    """An image whose hashtags give it several LABELS, a JSON list, whatever people say of it.

    It speaks for its cluster. `review` finds them anew when it starts.
    """

    __tablename__ = "conflicts"

    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), primary_key=True)
    labels: Mapped[str]
