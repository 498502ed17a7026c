"""Items of an index, filters, and which items are duplicates."""

from dataclasses import dataclass, fields

# Photos of at least this similarity are duplicates; `benchmarks/similar.py copies` measures it.
COPY_SIMILARITY = 0.97


@dataclass(frozen=True, slots=True)
class IndexItem:
    """A photo with the data of its product; unknown text is empty.

    Attributes:
        id: Identifies the item in results.
        sha256: SHA-256 of the photo.
        image: What the source calls the photo.
        product: Equal for photos of one product.
        cluster: Equal for near duplicates of one photo.
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


FIELDS = tuple(field.name for field in fields(IndexItem))


@dataclass(frozen=True)
class Filters:
    """Conditions on results; empty: no condition."""

    sites: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    price_from: float | None = None
    price_to: float | None = None

    def __bool__(self) -> bool:
        return bool(self.sites or self.labels) or (self.price_from, self.price_to) != (None, None)


@dataclass(frozen=True)
class SearchResult:
    """A result of a search.

    Attributes:
        item: The item.
        similarity: Its similarity to the query, at most 1.
        duplicates: Ids of less similar duplicates of the item.
    """

    item: IndexItem
    similarity: float
    duplicates: tuple[str, ...] = ()


def duplicate_keys(item: IndexItem) -> tuple[tuple[str, str], ...]:
    """Return pairs of field and value that an item shares with its duplicates."""
    values = {"sha256": item.sha256, "cluster": item.cluster, "product": item.product}
    return tuple((name, value) for name, value in values.items() if value)


def are_duplicates(first: IndexItem, second: IndexItem) -> bool:
    """Return whether two items show the same photo or product."""
    return not set(duplicate_keys(first)).isdisjoint(duplicate_keys(second))
