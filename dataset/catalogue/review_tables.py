"""More of the catalogue's tables: what people say of pairs and crops, and what they are asked."""

from datetime import datetime

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from dataset.catalogue.tables import Base, now


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
