"""Photos fetched from the addresses that a feed names: each in a file that is named by its address.

What is there is not asked for again; remove the folder to have it all fetched anew.
"""

import contextlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from dataset.images.io import sha256_of
from dataset.images.store import ImageStore


@dataclass(frozen=True)
class UrlImageCache:
    """Those below the folder ROOT: `ab/cd/abcd….jpg`, by the SHA-256 of their addresses."""

    root: Path

    @cached_property
    def _store(self) -> ImageStore:
        return ImageStore(self.root, option="--fetched")

    def find(self, url: str) -> Path | None:
        """The photo that came for URL; None where none did."""
        return next(self.root.glob(_key(url, "*")), None)

    def keep(self, url: str, body: bytes, extension: str) -> None:
        """Have BODY, a photo that came for URL, power cut or not.

        Raises:
            Failure: the folder can't be written.
        """
        self._store.put(body, _key(url, extension))
        self._store.sync()

    def in_use(self) -> contextlib.AbstractContextManager[None]:
        """The folder, made where it is not there, while photos are put into it; see ImageStore."""
        return self._store.in_use()


def _key(url: str, extension: str) -> str:
    # A feed may hold halves of signs that UTF-8 has no bytes for.
    return ImageStore.key(sha256_of(url.encode("utf-8", "replace")), extension)
