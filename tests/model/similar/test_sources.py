"""Prices as they are written in feeds of different countries."""

import pytest

from model.similar.sources import parse_price


@pytest.mark.parametrize(
    ("text", "price", "currency"),
    [
        ("20", 20, ""),
        ("0", 0, ""),
        ("1299.00 USD", 1299, "USD"),
        ("1 299,50 EUR", 1299.5, "EUR"),
        ("1\u00a0299 ₽", 1299, "₽"),
        ("$1,299", 1299, "$"),
        ("1,299.50", 1299.5, ""),
        ("1.299,50 €", 1299.5, "€"),
        ("1.299.000", 1299000, ""),
        ("1'299.00 CHF", 1299, "CHF"),
        ("0,999", 0.999, ""),
        ("1.299", 1.299, ""),
        ("USD 15", 15, "USD"),
    ],
)
def test_prices(text: str, price: float, currency: str) -> None:
    assert parse_price(text) == (price, currency)


@pytest.mark.parametrize(
    "text",
    [
        *("", "abc", "-5", "- 5 EUR", "−5", "5-6", "12.5.3", "1,2,3", "nan", "inf", "1e400"),
        *("from 5 to 9", "ask for our price: 5"),
    ],
)
def test_texts_without_a_price(text: str) -> None:
    assert parse_price(text)[0] is None


def test_a_currency_column_has_priority() -> None:
    assert parse_price("15 $", "CAD") == (15, "CAD")
