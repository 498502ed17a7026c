"""Helpers of queries: batches of parameters, conditions on images, images by name."""

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

# Parameters of one query: older versions of SQLite allow 999.
QUERY_ROWS = 500
# Digits of a SHA-256 that are needed to name an image.
MIN_DIGITS = 8
T = TypeVar("T")


def in_batches(values: Iterable[T]) -> Iterator[list[T]]:
    """Split values into lists of at most QUERY_ROWS, the parameters of one query."""
    rest = iter(values)
    while batch := list(islice(rest, QUERY_ROWS)):
        yield batch


def table_of(mapped: type[Base]) -> sa.Table:
    """Return the table of a mapped class, for statements that must not pay for the mapper."""
    return cast(sa.Table, mapped.__table__)


def is_stored(image: Any) -> Any:
    """Return the condition that an image's file is stored.

    The expression keeps SQLite from using the index on `state`, which selects nearly all rows, and
    lets it use the index of another condition.
    """
    return image.state + "" == "stored"


def copies_of(images: Sequence[int]) -> Any:
    """Return the condition that an image is one of `images` or in a cluster with one."""
    clusters = sa.select(ImageRow.cluster_id).where(ImageRow.id.in_(images))
    return sa.or_(ImageRow.id.in_(images), ImageRow.cluster_id.in_(clusters))


def find_image(session: Session, name: str) -> ImageRow:
    """Find a stored image.

    Args:
        session: The session.
        name: The first digits of its SHA-256, a file in the store or a build, or any file with the
            same content.

    Raises:
        BadInput: No image matches, or several do.
    """
    stem = Path(name).stem
    digits = stem if re.fullmatch(r"[0-9a-f]*", stem) else ""
    if len(digits) < MIN_DIGITS and Path(name).is_file():
        digits = sha256_of(Path(name).read_bytes())
    if len(digits) < MIN_DIGITS:
        raise BadInput(
            f"{name} does not name an image: give a photo's file, or {MIN_DIGITS} digits or more of"
            " its SHA-256 (see excluded.parquet, manifest.parquet and file names)"
        )
    rows = session.scalars(
        sa.select(ImageRow)
        .where(ImageRow.sha256.startswith(digits), ImageRow.state == "stored")
        .limit(2)
    ).all()
    if len(rows) != 1:
        matches = "several images" if rows else "no image"
        raise BadInput(f"the catalogue has {matches} of {name}; give more digits of its SHA-256")
    return rows[0]
