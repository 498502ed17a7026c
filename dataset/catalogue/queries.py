"""What questions to the catalogue have in common: how much one holds, which images are meant."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar, cast

import sqlalchemy as sa

from dataset.catalogue.tables import Base, ImageRow

# SQLite takes at most 999 values in a query in its older builds.
AT_ONCE = 500
T = TypeVar("T")


def in_parts(values: Iterable[T]) -> Iterator[list[T]]:
    """VALUES in lists that one query takes."""
    rest = iter(values)
    while part := list(islice(rest, AT_ONCE)):
        yield part


def table_of(mapped: type[Base]) -> sa.Table:
    """The table of MAPPED, for statements without the mapper, which takes most of a short one."""
    return cast(sa.Table, mapped.__table__)


def is_stored(image: Any) -> Any:
    """Whether the photo of an image's row is here.

    Not by the index of states, which names nearly all: an index of what else is asked is of use.
    """
    return image.state + "" == "stored"


def copies_of(images: Sequence[int]) -> Any:
    """Whether an image's row is one of IMAGES or of what was folded with them."""
    clusters = sa.select(ImageRow.cluster_id).where(ImageRow.id.in_(images))
    return sa.or_(ImageRow.id.in_(images), ImageRow.cluster_id.in_(clusters))
