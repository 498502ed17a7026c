"""Parts of a page that opens from disk and needs no other file: text, tables, pictures.

Everything that is given as text is escaped here: labels, paths and captions come from strangers.
"""

import base64
from collections.abc import Iterable, Sequence
from html import escape

STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; }
main:focus { outline: none; }
a { color: LinkText; }
.skip { position: absolute; left: -99rem; } .skip:focus { left: 1rem; top: .5rem; }
nav ul { columns: 16rem; }
:focus-visible { outline: 3px solid #3b82f6; outline-offset: 2px; }
table { border-collapse: collapse; margin: .5rem 0 1rem; }
caption { text-align: left; padding: .2rem 0; }
th, td { padding: .2rem .8rem; border-bottom: 1px solid #8884; text-align: left; }
td { overflow-wrap: anywhere; }
th[scope=row] { font-weight: normal; min-width: 7rem; overflow-wrap: anywhere; }
td.n, th.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.scroll { overflow: auto; max-height: 90vh; }
.scroll thead th { position: sticky; top: 0; background: Canvas; }
.scroll tbody th { position: sticky; left: 0; background: Canvas; }
.row { display: flex; flex-wrap: wrap; gap: .5rem; margin: .4rem 0 1rem; align-items: flex-end; }
figure { margin: 0; max-width: 8rem; font-size: 12px; overflow-wrap: anywhere; }
figure img { display: block; max-width: 100%; border-radius: 3px; background: #fff; }
.chart { display: block; max-width: 100%; height: auto; }
.pair { border: 1px solid #8886; border-radius: 5px; padding: .3rem; display: flex; gap: .3rem; }
.good { color: #17803d; } .bad { color: #c0262d; }
@media (prefers-color-scheme: dark) { .good { color: #4ade80; } .bad { color: #f87171; } }
"""


def document(title: str, body: str, style: str = "") -> str:
    """The page: TITLE in its tab, BODY, HTML, in it; STYLE is added to the common one."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}'
        '</title><meta name="viewport" content="width=device-width">'
        f'<style>{STYLE}{style}</style></head><body>\n<a class="skip" href="#main">Skip to the'
        f' content</a>\n<main id="main" tabindex="-1">\n{body}\n</main></body></html>\n'
    )


def part(title: str, *content: str, anchor: str = "") -> str:
    """CONTENT, HTML, below the heading TITLE; `none` where there is nothing."""
    inside = "\n".join(part for part in content if part) or "<p>none</p>"
    name = f' id="{escape(anchor)}"' if anchor else ""
    return f"<h2{name}>{escape(title)}</h2>\n{inside}"


def chapters(parts: Sequence[tuple[str, Sequence[str]]]) -> str:
    """A list of links, and all of PARTS, each a title and its HTML; the empty ones left out."""
    full = [(title, content) for title, content in parts if any(content)]
    links = "".join(
        f'<li><a href="#part-{number}">{escape(title)}</a></li>'
        for number, (title, _) in enumerate(full)
    )
    shown = [
        part(title, *content, anchor=f"part-{number}")
        for number, (title, content) in enumerate(full)
    ]
    return f'<nav aria-label="On this page"><ul>{links}</ul></nav>\n' + "\n".join(shown)


def text(*lines: str) -> str:
    """A paragraph a line."""
    return "".join(f"<p>{escape(line)}</p>" for line in lines if line)


def percent(share: float) -> str:
    """SHARE, from 0 to 1, in whole percent; never as certain as it is not."""
    if 0 < share < 0.005:
        return "under 1 %"
    return "over 99 %" if 0.995 <= share < 1 else f"{100 * share:.0f} %"


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[object]],
    caption: str = "",
    words: int = 1,
) -> str:
    """ROWS below HEAD; the first WORDS columns are text, the others stand to the right.

    With a CAPTION the table scrolls by itself, by keyboard too.
    """

    def cell(tag: str, place: int, value: object) -> str:
        kind = " class=n" if place >= words else ""
        return f"<{tag}{kind}>{escape(str(value))}</{tag.partition(' ')[0]}>"

    def cells(values: Sequence[object], tags: Sequence[str]) -> str:
        # The first tag is the first cell's, the second that of all others.
        return "".join(cell(tags[min(i, 1)], i, value) for i, value in enumerate(values))

    lines = [f"<tr>{cells(row, ('th scope=row', 'td'))}</tr>" for row in rows]
    if not lines:
        return ""
    top = f"<thead><tr>{cells(head, ('th scope=col', 'th scope=col'))}</tr></thead>"
    body = f"{top}<tbody>{''.join(lines)}</tbody></table>"
    if not caption:
        return f"<table>{body}"
    return scrolled(f"<table><caption>{escape(caption)}</caption>{body}", caption)


def scrolled(content: str, name: str) -> str:
    """CONTENT, HTML, in a region called NAME that scrolls, by keyboard too."""
    return f'<div class=scroll tabindex=0 role=region aria-label="{escape(name)}">{content}</div>'


def bullets(lines: Sequence[str], title: str = "") -> str:
    """LINES as points of a list below the line TITLE."""
    if not lines:
        return ""
    points = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<p>{escape(title)}</p><ul>{points}</ul>" if title else f"<ul>{points}</ul>"


def figures(photos: Iterable[tuple[bytes, str]]) -> str:
    """Return a row of figures of JPEGs and their captions."""
    return row(figure(photo, caption) for photo, caption in photos)


def row(parts: Iterable[str]) -> str:
    """PARTS, HTML, side by side as far as there is room."""
    return f"<div class=row>{''.join(parts)}</div>"


def figure(jpeg: bytes, caption: str, alt: str = "") -> str:
    """Return a figure of a JPEG with a caption; the alternative text defaults to the caption."""
    small = _uri(jpeg, "jpeg")
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure><img src="{small}" alt="{escape(alt or caption)}">{below}</figure>'


def missing(caption: str) -> str:
    """What stands where a photo can't be read."""
    return f"<figure>{escape(caption)}</figure>"


def chart(light: bytes, alt: str, dark: bytes | None = None) -> str:
    """The PNG LIGHT, or DARK where the reader's screen is, with what it shows as ALT."""
    image = f'<img class=chart src="{_uri(light, "png")}" alt="{escape(alt)}">'
    if dark is None:
        return f"<p>{image}</p>"
    other = f'<source media="(prefers-color-scheme: dark)" srcset="{_uri(dark, "png")}">'
    return f"<p><picture>{other}{image}</picture></p>"


def _uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
