"""A price as feeds write it -> a number and its currency."""

import re

NUMBER = re.compile(r"\d[\d\s.,'’]*")
# Thousands parted by commas, by points, or not at all.
COMMAS = re.compile(r"[1-9]\d{0,2}(,\d{3})+(\.\d+)?")
POINTS = re.compile(r"[1-9]\d{0,2}(\.\d{3})+,\d+|[1-9]\d{0,2}(\.\d{3}){2,}")
PLAIN = re.compile(r"\d+([.,]\d+)?")
# What says that a number is below 0.
MINUS = ("-", "−", "–")
# A currency's name or sign is no longer.
LONGEST = 8


def price_of(text: str, currency: str = "") -> tuple[float | None, str]:
    """The price that TEXT says, and its currency where CURRENCY doesn't: `1 299,50 EUR`, `$1,299`.

    None where it is no number from 0 on. One comma before three digits parts thousands; a point
    alone is always decimal.
    """
    number = NUMBER.search(text)
    if number is None:
        return None, currency
    before, after = text[: number.start()].strip(), text[number.end() :].strip()
    word = (before + after).strip()
    if before.endswith(MINUS) or len(word) > LONGEST or any(sign.isdigit() for sign in after):
        return None, currency
    return _number(re.sub(r"[\s'’]", "", number.group()).strip(".,")), currency or word


def _number(text: str) -> float | None:
    """TEXT, of digits, commas and points, as a number; None where they make none."""
    if COMMAS.fullmatch(text):
        return float(text.replace(",", ""))
    if POINTS.fullmatch(text):
        return float(text.replace(".", "").replace(",", "."))
    return float(text.replace(",", ".")) if PLAIN.fullmatch(text) else None
