"""A stock of polo shirts with two images each, for tests of formats."""

from typing import Any

from dataset.vocabulary import load_vocabulary
from scraper.sample_shop.stock import Drawn, Item, Stock, StockPhoto


def item(number: int, **changes: Any) -> Item:
    """Return a product; keyword arguments override its fields."""
    sku = f"MP002XW{number:05d}"
    photos = tuple(
        StockPhoto(f"/M/P/{sku}_22861704_{k}_v1.jpg", Drawn("polo", number, k)) for k in (1, 2)
    )
    values: dict[str, Any] = {
        "sku": sku,
        "name": "Поло",
        "brand": "Берёзка & Ко",
        "price": 1999,
        "labels": ("polo",),
        "photos": photos,
        "colour": "red",
        "gender": "women",
        "category": "Поло",
        "shown": "polo",
    }
    return Item(**{**values, **changes})


def shop(count: int) -> Stock:
    """Return a stock of products."""
    return Stock(tuple(item(number) for number in range(count)), load_vocabulary())
