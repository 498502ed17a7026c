"""A folder of photos that were downloaded from the URLs of a feed, named by URL.

A photo that is there is not downloaded again; remove the folder to download all of them again.
"""

import contextlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from dataset.images.io import sha256_of
from dataset.images.store import ImageStore


@dataclass(frozen=True)
class UrlImageCache:
    """Photos below a folder: `ab/cd/abcd….jpg`, by the SHA-256 of their URLs."""

    root: Path

    @cached_property
    def _store(self) -> ImageStore:
        return ImageStore(self.root, option="--fetched")

    def find(self, url: str) -> Path | None:
        """Return the photo of a URL, None if it was not downloaded."""
        return next(self.root.glob(_key(url, "*")), None)

    def keep(self, url: str, body: bytes, extension: str) -> None:
        """Store the photo of a URL durably.

        Raises:
            Failure: The folder cannot be written.
        """
        self._store.put(body, _key(url, extension))
        self._store.sync()

    def in_use(self) -> contextlib.AbstractContextManager[None]:
        """Create the folder and mark it as in use, see `ImageStore.in_use`."""
        return self._store.in_use()


def _key(url: str, extension: str) -> str:
    # A feed may contain lone surrogates, which UTF-8 cannot encode.
    return ImageStore.key(sha256_of(url.encode("utf-8", "replace")), extension)
