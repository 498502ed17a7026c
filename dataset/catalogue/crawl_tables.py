"""More of the catalogue's tables: what crawls know of each other and of the limits of sites."""

from datetime import datetime

from sqlalchemy import LargeBinary, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from dataset.catalogue.tables import Base, now


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
