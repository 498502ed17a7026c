"""Whether a page or photo may be learned from: `noai` and `noimageai`, in headers and pages."""

import re
from collections.abc import Mapping

from parsel import Selector

REASON = "noai"
WORDS = {"noai", "noimageai"}
# A page without these letters needs no closer look.
LETTERS = re.compile(rb"no(image)?ai", re.IGNORECASE)


def forbidden(headers: Mapping[str, str], body: bytes = b"") -> bool:
    """Whether HEADERS (X-Robots-Tag), or BODY where it is a web page (meta), forbid it.

    Rules for another robot's name apply to this crawler as well.
    """
    if _says(headers.get("x-robots-tag", "")):
        return True
    if "html" not in headers.get("content-type", "") or not LETTERS.search(body):
        return False
    page = Selector(text=body.decode("utf-8", "replace"), type="html")
    return any(
        _says(meta.attrib.get("content", ""))
        for meta in page.css("meta[name][content]")
        if re.search("robot|bot$|tagger", meta.attrib["name"], re.IGNORECASE)
    )


def _says(told: str) -> bool:
    return bool(WORDS & set(re.split(r"[\s,:;]+", told.lower())))
