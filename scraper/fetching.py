"""The bytes of an image: asked for, checked, hashed and stored."""

from collections.abc import Awaitable, Callable, Sequence

from dataset.catalogue.forgetting import REASON as FORGOTTEN
from dataset.stores import ImageStore
from scraper import consent
from scraper.addresses import PRIVATE, SCHEME
from scraper.examining import POLYGLOT, TOO_MANY, TOO_SMALL, Fetched, Refused
from scraper.hands import Hands
from scraper.readers import Readers
from scraper.spiders.base import Answer

LARGEST_BYTES = 20_000_000
# Refused for one of these, a photo under a signed address may be there under a new one.
GONE = ("HTTP 403", "HTTP 404", "HTTP 410")
TOO_LARGE = "too large"
# What asking again can't mend.
FINAL = (TOO_SMALL, TOO_MANY, TOO_LARGE, POLYGLOT, PRIVATE, SCHEME, consent.REASON, FORGOTTEN)


Download = Callable[[str], Awaitable[Answer | Refused]]


async def fetch_image(
    download: Download,
    addresses: Sequence[str],
    store: ImageStore,
    readers: Readers,
    hands: Hands,
    came: bool = True,
) -> Fetched | Refused:
    """Fetch the first of ADDRESSES that is there, have READERS check it, put it into STORE.

    HANDS do what a disk may hold up. What came before its process died is not asked for again,
    where CAME says that it may have.

    Raises:
        Failure: the store can't be written.
    """
    body: bytes | Refused | None = store.arrivals.find(addresses[0]) if came else None
    if body is None:
        body = await ask_for(download, addresses)
    if isinstance(body, Refused):
        return body
    # At hand as soon as it came: who reads it may take a while.
    arrival = hands.do(store.receive, addresses[0], body)
    try:
        examined = await readers.examine(body)
    finally:
        # Where no reader can be begun, what came is kept all the same.
        file = await arrival
    if isinstance(examined, Fetched):
        await hands.do(store.put, body, examined.store_key, file)
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
    return Refused(consent.REASON) if consent.forbidden(answer.headers) else None
