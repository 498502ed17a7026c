"""What questions to the catalogue have in common: how much one holds, which images are meant."""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar, cast

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dataset.catalogue.models import Base, ImageRow
from dataset.errors import BadInput
from dataset.images.io import sha256_of

# SQLite takes at most 999 values in a query in its older builds.
QUERY_ROWS = 500
# Fewer digits of a SHA-256 name too many images.
MIN_DIGITS = 8
T = TypeVar("T")


def in_batches(values: Iterable[T]) -> Iterator[list[T]]:
    """VALUES in lists that one query takes."""
    rest = iter(values)
    while part := list(islice(rest, QUERY_ROWS)):
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


def find_image(session: Session, name: str) -> ImageRow:
    """The stored image NAME: the first digits of its SHA-256, its file, or its file in a build.

    Raises:
        BadInput: there is none, or more than one.
    """
    digits = re.match(r"[0-9a-f]*", Path(name).stem)
    wanted = digits[0] if digits and digits[0] == Path(name).stem else ""
    if len(wanted) < MIN_DIGITS and Path(name).is_file():
        wanted = sha256_of(Path(name).read_bytes())
    if len(wanted) < MIN_DIGITS:
        raise BadInput(
            f"{name} is no image: name a photo's file, or {MIN_DIGITS} digits or more of its"
            " SHA-256 (as in left_out.parquet, manifest.parquet and file names)"
        )
    found = session.scalars(
        sa.select(ImageRow)
        .where(ImageRow.sha256.startswith(wanted), ImageRow.state == "stored")
        .limit(2)
    ).all()
    if len(found) != 1:
        said = "several images" if found else "no image"
        raise BadInput(f"the catalogue has {said} of {name}; name more digits of its SHA-256")
    return found[0]
