"""What people write under the photos that they post."""

import re
from collections.abc import Sequence

from scraper.sample_shop.stock import Item, Stock


def caption(item: Item, stock: Stock) -> str:
    """What people write: words, hashtags in two scripts, an address whose # is none."""
    tags = " ".join(f"#{tag(word)}" for word in _words(item.labels, stock))
    return (
        f"{item.name} {item.brand}\n{tags} #{tag(item.colour)} https://example.com/{item.sku}#top"
    )


def _words(labels: Sequence[str], stock: Stock) -> list[str]:
    found = []
    for label in labels:
        words = stock.vocabulary.words_of(label)
        found += [label, *words[-1:]]
    return list(dict.fromkeys(found))


def tag(word: str) -> str:
    """WORD as people write it behind the sign."""
    return re.sub(r"[\W_]+", "_", word).strip("_")
