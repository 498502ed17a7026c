"""What came from the network and is not in the catalogue yet: a process that dies loses none of it.

Each answer is a file in a folder beside the photos, named by its address and its bytes. Nothing
here is synced: what a kill or a power cut left half is not what its name says.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dataset.images import sha256_of

FOLDER = ".came"
# A name: the digest of the address, and that of the bytes.
DIGEST = 64


@dataclass(frozen=True)
class Arrivals:
    """Answers by their addresses, in FOLDER; where that is None, as for S3, none is kept."""

    folder: Path | None

    def add(self, url: str, body: bytes) -> Path | None:
        """Keep BODY, which came for URL; where it is now.

        Raises:
            OSError: the folder can't be written.
        """
        if self.folder is None:
            return None
        path = self.folder / f"{digest(url)}-{sha256_of(body)}"
        try:
            _write_new(path, body)
        except FileNotFoundError:
            self.folder.mkdir(parents=True, exist_ok=True)
            _write_new(path, body)
        except FileExistsError:
            if path.read_bytes() != body:
                # Not written over: it may be the photo in place, too.
                path.unlink()
                _write_new(path, body)
        return path

    def digests(self) -> set[str]:
        """Of the addresses that anything came for, as `digest` makes them."""
        return {path.name[:DIGEST] for path in self._all()}

    def find(self, url: str) -> bytes | None:
        """What came for URL, whole; None where nothing did."""
        for path in self._of({digest(url)}):
            with contextlib.suppress(OSError):
                body = path.read_bytes()
                if path.name.endswith(sha256_of(body)):
                    return body
        return None

    def drop(self, urls: Iterable[str]) -> None:
        """Forget what came for URLS: it stands in the catalogue."""
        for path in self._of(set(map(digest, urls))):
            # A leftover is removed when a crawl ends.
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def clear(self) -> None:
        """Forget whatever came: nobody wants it any more."""
        for path in self._all():
            path.unlink(missing_ok=True)
        if self.folder is not None:
            with contextlib.suppress(OSError):
                self.folder.rmdir()

    def _of(self, digests: set[str]) -> Iterator[Path]:
        return (path for path in self._all() if path.name[:DIGEST] in digests)

    def _all(self) -> list[Path]:
        try:
            return list(self.folder.iterdir()) if self.folder else []
        except FileNotFoundError:
            return []


def digest(url: str) -> str:
    """How the file begins that came for URL."""
    return sha256_of(url.encode())


def _write_new(path: Path, body: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(body)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
