"""What came from the network and is not in the catalogue yet: a process that dies loses none of it.

Each answer is a file beside the photos, named by its address. Nothing here is synced: what a power
cut left half is known by its digest.
"""

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dataset.images import sha256_of, write_atomically

# How the name of such a file begins, and how many bytes of it are the digest of the others.
CAME, DIGEST = ".came-", 64


@dataclass(frozen=True)
class Arrivals:
    """Answers by their addresses, in FOLDER; where that is None, as for S3, none is kept."""

    folder: Path | None

    def add(self, url: str, body: bytes) -> None:
        """Keep BODY, which came for URL.

        Raises:
            OSError: the folder can't be written.
        """
        if self.folder is not None:
            data = sha256_of(body).encode() + body
            write_atomically(self._path(self.folder, url), data, sync=False)

    def find(self, url: str) -> bytes | None:
        """What came for URL, whole; None where nothing did."""
        if self.folder is None:
            return None
        try:
            data = self._path(self.folder, url).read_bytes()
        except OSError:
            return None
        digest, body = data[:DIGEST], data[DIGEST:]
        return body if sha256_of(body).encode() == digest else None

    def drop(self, urls: Iterable[str]) -> None:
        """Forget what came for URLS: it stands in the catalogue."""
        if self.folder is not None:
            for url in urls:
                # A leftover is removed when a crawl ends.
                with contextlib.suppress(OSError):
                    self._path(self.folder, url).unlink(missing_ok=True)

    def clear(self) -> None:
        """Forget whatever came: nobody wants it any more."""
        if self.folder is not None:
            for path in self.folder.glob(f"{CAME}*"):
                path.unlink(missing_ok=True)

    @staticmethod
    def _path(folder: Path, url: str) -> Path:
        return folder / f"{CAME}{sha256_of(url.encode())}"
