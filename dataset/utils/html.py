"""Render HTML pages from Jinja templates.

The pages need no other file: styles, scripts and images are embedded. Templates escape all values,
since labels, paths and captions come from other people. `templates/page.html` is the base of the
pages and `templates/macros.html` has their common parts.
"""

import base64
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

TEMPLATES = Path(__file__).with_name("templates")


@dataclass(frozen=True)
class Figure:
    """An image with its caption.

    Attributes:
        jpeg: The image file; None if it can't be read.
        caption: Text below the image.
        alt: What the image shows, if the caption does not say it.
    """

    jpeg: bytes | None
    caption: str
    alt: str = ""


@functools.cache
def environment(folder: Path = TEMPLATES) -> jinja2.Environment:
    """Return an environment for the templates of a folder and the common ones.

    All values are escaped, and an undefined name is an error. Callers share the environment, since
    it keeps the compiled templates.
    """
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, TEMPLATES]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["percent"] = percent
    templates.filters["data_uri"] = data_uri
    return templates


def render(folder: Path, template: str, **context: Any) -> str:
    """Render a template of a folder."""
    return environment(folder).get_template(template).render(context)


def percent(fraction: float) -> str:
    """Format a fraction between 0 and 1 in whole percent.

    Values close to 0 and 1 are not rounded to them: "under 1%", "over 99%".
    """
    if 0 < fraction < 0.005:
        return "under 1%"
    return "over 99%" if 0.995 <= fraction < 1 else f"{fraction:.0%}"


def data_uri(data: bytes, media_type: str) -> str:
    """Return data as a `data:` URL."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"
