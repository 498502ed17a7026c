"""More of the catalogue's tables: what models say of tags."""

from datetime import datetime

from sqlalchemy import Float, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from dataset.catalogue.tables import Base, now


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
