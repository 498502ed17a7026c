"""Download an image, check consent (`noai`, `noimageai`) and content, hash and store it."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Executor

from parsel import Selector

from dataset.images.store import ImageStore
from dataset.maintenance.takedown import REASON as FORGOTTEN
from scraper.addresses import PRIVATE, SCHEME
from scraper.examining import POLYGLOT, TOO_MANY, TOO_SMALL, Fetched, Refused
from scraper.readers import Readers
from scraper.spiders.base import Answer

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


LARGEST_BYTES = 20_000_000
# Refused for one of these, a photo under a signed address may be there under a new one.
GONE = ("HTTP 403", "HTTP 404", "HTTP 410")
TOO_LARGE = "too large"
# What asking again can't mend.
FINAL = (TOO_SMALL, TOO_MANY, TOO_LARGE, POLYGLOT, PRIVATE, SCHEME, REASON, FORGOTTEN)


Download = Callable[[str], Awaitable[Answer | Refused]]


async def fetch_image(
    download: Download,
    addresses: Sequence[str],
    store: ImageStore,
    readers: Readers,
    files: Executor,
) -> Fetched | Refused:
    """Download an image from the first of ADDRESSES that has it, check it and put it into STORE.

    READERS decode the image in their own processes; FILES run writes to the store in threads.

    Raises:
        Failure: The store can't be written.
    """
    body = await ask_for(download, addresses)
    if isinstance(body, Refused):
        return body
    examined = await readers.examine(body)
    if isinstance(examined, Fetched):
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(files, store.put, body, examined.store_key)
    return examined


async def ask_for(download: Download, addresses: Sequence[str]) -> bytes | Refused:
    """The body that the first of ADDRESSES has that is there."""
    outcome: Answer | Refused = Refused("no address")
    for address in addresses:
        outcome = await download(address)
        # Stores of photos say 403 of what is not there, too.
        if isinstance(outcome, Refused) or f"HTTP {outcome.status}" not in GONE:
            break
    if isinstance(outcome, Refused):
        return outcome
    return _refused_by_site(outcome) or outcome.body


def _refused_by_site(answer: Answer) -> Refused | None:
    if answer.status != 200:
        return Refused(f"HTTP {answer.status}")
    return Refused(REASON) if forbidden(answer.headers) else None
