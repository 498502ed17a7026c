"""Perceptual duplicates: a 64-bit DCT hash a photo, and who is near whom."""

from collections.abc import Sequence

import imagehash
import numpy as np
from PIL import Image

# Hamming distance in bits up to which two photos are taken for one.
NEAR = 4


def perceptual_hash(image: Image.Image) -> str:
    """64-bit DCT hash of IMAGE as 16 hex digits, equal to `str(imagehash.phash(image))`."""
    return str(imagehash.phash(image))


class HashIndex:
    """Hashes with an owner each, to be asked for the nearest one within a distance."""

    def __init__(self, hashes: Sequence[str] = (), owners: Sequence[int] = ()) -> None:
        self._count = len(hashes)
        self._hashes = np.zeros(max(1024, 2 * self._count), np.uint64)
        self._owners = np.zeros(len(self._hashes), np.int64)
        self._hashes[: self._count] = [int(text, 16) for text in hashes]
        self._owners[: self._count] = owners

    def __len__(self) -> int:
        return self._count

    def add(self, text: str, owner: int) -> None:
        """Put the hash TEXT (16 hex digits) of OWNER in."""
        if self._count == len(self._hashes):
            self._hashes = np.concatenate([self._hashes, np.zeros_like(self._hashes)])
            self._owners = np.concatenate([self._owners, np.zeros_like(self._owners)])
        self._hashes[self._count] = int(text, 16)
        self._owners[self._count] = owner
        self._count += 1

    def nearest(self, text: str, within: int = NEAR) -> int | None:
        """The owner of the hash nearest to TEXT, at most WITHIN bits away; None if none is."""
        if not self._count:
            return None
        apart = np.bitwise_count(self._hashes[: self._count] ^ np.uint64(int(text, 16)))
        first = int(apart.argmin())
        return int(self._owners[first]) if apart[first] <= within else None
