"""Zip archives of strangers, as torch writes them: nothing unpacked, nothing twice, in pieces."""

import io
import zipfile
from collections import Counter
from collections.abc import Sequence

from dataset.pose.pickles import Hostile

# What is read at once. The list of parts is: it takes 200 KB for the largest network here.
BLOCK = 2 << 20


class Frugal(io.FileIO):
    """A file that gives little at once: `zipfile` would read a list of parts of any length."""

    def read(self, size: int | None = -1, /) -> bytes:
        """SIZE bytes, or those that are left.

        Raises:
            Hostile: they are more than BLOCK.
        """
        asked = BLOCK + 1 if size is None or size < 0 else min(size, BLOCK + 1)
        data = super().read(asked) or b""
        if len(data) > BLOCK:
            raise Hostile("its list of parts is absurdly long")
        return data


def read_part(archive: zipfile.ZipFile, name: str, longest: int) -> bytes:
    """The part NAME of ARCHIVE, which is refused if it is longer than LONGEST bytes.

    Raises:
        Hostile: it is.
    """
    if archive.getinfo(name).file_size > longest:
        raise Hostile(f"its part {name} is too long")
    with archive.open(name) as part:
        return b"".join(iter(lambda: part.read(BLOCK), b""))


def refuse_bombs(entries: Sequence[zipfile.ZipInfo], size: int) -> None:
    """torch stores without compression: what unpacks to more than the file is no file of its.

    Raises:
        Hostile: it is no archive of torch.
    """
    if any(e.compress_type != zipfile.ZIP_STORED for e in entries):
        raise Hostile("it is a compressed archive")
    if sum(entry.file_size for entry in entries) > size:
        raise Hostile("its parts are larger than the file")
    names = Counter(entry.filename for entry in entries)
    if twice := [name for name, count in names.items() if count > 1]:
        raise Hostile(f"it has two parts {twice[0]!r}")
