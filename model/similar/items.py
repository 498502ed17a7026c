"""What an index knows of an item beside its vector, and which of a search's results are one."""

from dataclasses import dataclass, fields

# From this likeness on two photos are told as one: `benchmarks/similar.py copies` has the table.
COPY = 0.97


@dataclass(frozen=True, slots=True)
class Item:
    """A photo with what its shop says of it. Empty text: not known.

    `id`: what results call it; `image`: what its source calls the photo. `product`: equal for
    photos of one product, `cluster`: for copies of one photo.
    """

    id: str
    sha256: str
    image: str
    site: str = ""
    label: str = ""
    price: float | None = None
    currency: str = ""
    product: str = ""
    cluster: str = ""
    title: str = ""
    url: str = ""


FIELDS = tuple(field.name for field in fields(Item))


@dataclass(frozen=True)
class Filters:
    """Which items may be results: of `sites`, `labels` (empty: any) and prices from, to."""

    sites: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    price_from: float | None = None
    price_to: float | None = None

    def __bool__(self) -> bool:
        return bool(self.sites or self.labels) or (self.price_from, self.price_to) != (None, None)


@dataclass(frozen=True)
class Found:
    """A result: an item and its likeness, at most 1. `folded`: ids of what is one with it."""

    item: Item
    likeness: float
    folded: tuple[str, ...] = ()


def ties(item: Item) -> tuple[tuple[str, str], ...]:
    """What ITEM has in common with copies of its photo, and with photos of its product."""
    known = {"sha256": item.sha256, "cluster": item.cluster, "product": item.product}
    return tuple((name, value) for name, value in known.items() if value)


def is_one(one: Item, other: Item) -> bool:
    """Whether ONE and OTHER are copies of a photo, or of one product."""
    return not set(ties(one)).isdisjoint(ties(other))
