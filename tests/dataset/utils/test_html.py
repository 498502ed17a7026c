"""Parts of pages: what is given as text stays text, and keyboards reach all of it."""

import io

import pytest
from parsel import Selector
from PIL import Image

from dataset.images.io import Unreadable, thumbnail
from dataset.utils import html

HOSTILE = '"><script>x()</script>'


def photo() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (400, 200), "red").save(out, "PNG")
    return out.getvalue()


def test_text_of_strangers_is_never_obeyed() -> None:
    parts = [
        html.part(HOSTILE, html.text(HOSTILE), anchor=HOSTILE),
        html.table([HOSTILE], [[HOSTILE]], HOSTILE),
        html.bullets([HOSTILE], HOSTILE),
        html.figure(thumbnail(photo()), HOSTILE, HOSTILE),
        html.chart(photo(), HOSTILE, photo()),
        html.missing(HOSTILE),
        html.chapters([(HOSTILE, [html.text(HOSTILE)])]),
    ]
    page = Selector(html.document(HOSTILE, "".join(parts)))
    assert not page.css("script")
    assert page.css("title::text").get() == HOSTILE
    assert page.css("img::attr(alt)").getall() == [HOSTILE] * 2


def test_a_table_names_its_rows_and_columns() -> None:
    table = Selector(html.table(("a", "b", "c"), [(1, 2, 3)], "Numbers", words=2))
    assert table.css("thead th[scope=col]::text").getall() == ["a", "b", "c"]
    assert table.css("tbody th[scope=row]::text").getall() == ["1"]
    assert table.css("td.n::text").getall() == ["3"]
    assert table.css("div[tabindex='0']::attr(aria-label)").get() == "Numbers"
    assert table.css("caption::text").get() == "Numbers"
    assert html.table(("a",), [], "Nothing") == ""


def test_chapters_without_content_are_left_out() -> None:
    page = Selector(html.chapters([("one", ["", "<p>x</p>"]), ("none", [""]), ("two", ["y"])]))
    assert page.css("h2::text").getall() == ["one", "two"]
    links = page.css("nav a::attr(href)").getall()
    assert [page.css(f"h2{link}::text").get() for link in links] == ["one", "two"]


def test_photos_are_made_small_and_broken_ones_are_told() -> None:
    page = Selector(html.figure(thumbnail(photo(), 100), "red"))
    assert len(page.css("img::attr(src)").get("")) < 2000
    with pytest.raises(Unreadable):
        thumbnail(b"no photo")


@pytest.mark.parametrize(
    ("share", "said"),
    [
        *((0, "0 %"), (1e-9, "under 1 %"), (0.004, "under 1 %"), (0.006, "1 %"), (0.5, "50 %")),
        *((0.994, "99 %"), (0.996, "over 99 %"), (1 - 1e-9, "over 99 %"), (1, "100 %")),
    ],
)
def test_no_share_is_shown_as_more_certain_than_it_is(share: float, said: str) -> None:
    assert html.percent(share) == said
