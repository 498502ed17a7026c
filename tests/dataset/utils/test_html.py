"""The templates escape all values, and their parts can be used with a keyboard."""

import io
from typing import Any

import pytest
from markupsafe import Markup
from parsel import Selector
from PIL import Image

from dataset.images.io import thumbnail_or_none
from dataset.utils import html
from dataset.utils.html import Figure

macros: Any = html.environment().get_template("macros.html").module

HOSTILE = '"><script>x()</script>'


def photo() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (400, 200), "red").save(out, "PNG")
    return out.getvalue()


def test_values_are_escaped() -> None:
    parts = [
        macros.section(HOSTILE, macros.paragraphs([HOSTILE]), HOSTILE),
        macros.table([HOSTILE], [[HOSTILE]], HOSTILE),
        macros.bullets([HOSTILE], HOSTILE),
        macros.figure(Figure(thumbnail_or_none(photo, 112), HOSTILE, HOSTILE)),
        macros.chart(photo(), HOSTILE, photo()),
        macros.figure(Figure(None, HOSTILE)),
        macros.sections([(HOSTILE, macros.paragraphs([HOSTILE]))]),
    ]
    base = html.environment().get_template("page.html").render(title=HOSTILE)
    page = Selector(base.replace("<main", "".join(parts) + "<main"))
    assert not page.css("script")
    assert page.css("title::text").get() == HOSTILE
    assert page.css("img::attr(alt)").getall() == [HOSTILE] * 2


def test_a_table_names_its_rows_and_columns() -> None:
    table = Selector(str(macros.table(("a", "b", "c"), [(1, 2, 3)], "Numbers", text_columns=2)))
    assert table.css("thead th[scope=col]::text").getall() == ["a", "b", "c"]
    assert table.css("tbody th[scope=row]::text").getall() == ["1"]
    assert table.css("td.n::text").getall() == ["3"]
    assert table.css("div[tabindex='0']::attr(aria-label)").get() == "Numbers"
    assert table.css("caption::text").get() == "Numbers"
    assert str(macros.table(("a",), [], "Nothing")).strip() == ""


def test_sections_without_content_are_left_out() -> None:
    page = Selector(str(macros.sections([("one", Markup("<p>x</p>")), ("none", ""), ("two", "y")])))
    assert page.css("h2::text").getall() == ["one", "two"]
    links = page.css("nav a::attr(href)").getall()
    assert [page.css(f"h2{link}::text").get() for link in links] == ["one", "two"]


def test_thumbnails_are_small_and_broken_images_are_named() -> None:
    page = Selector(str(macros.figure(Figure(thumbnail_or_none(photo, 100), "red"))))
    assert len(page.css("img::attr(src)").get("")) < 2000
    assert thumbnail_or_none(lambda: b"no photo", 112) is None
    assert "<figure>broken</figure>" in str(macros.figure(Figure(None, "broken")))


@pytest.mark.parametrize(
    ("fraction", "text"),
    [
        *((0, "0%"), (1e-9, "under 1%"), (0.004, "under 1%"), (0.006, "1%"), (0.5, "50%")),
        *((0.994, "99%"), (0.996, "over 99%"), (1 - 1e-9, "over 99%"), (1, "100%")),
    ],
)
def test_no_fraction_is_shown_as_more_certain_than_it_is(fraction: float, text: str) -> None:
    assert html.percent(fraction) == text
