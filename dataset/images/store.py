"""Where photos are kept, under their SHA-256: a folder, or any place that fsspec knows."""

import contextlib
import fcntl
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from dataset.errors import BadInput, Failure, first_line
from dataset.utils.files import PARTIAL_PREFIX, write_atomically


@dataclass(frozen=True)
class ImageStore:
    """A folder of photos, each under a key made of its SHA-256: `ab/cd/abcd….jpg`.

    While photos are put into it, `in_use` removes temporary files of killed processes. Files that
    were put are durable after `sync`.
    """

    root: Path
    # Set while files may not be on the disk yet.
    _unsynced: threading.Event = field(default_factory=threading.Event, repr=False, compare=False)
    # How many photos are put at a time, at most: to a disk one after the other.
    side_by_side: int = field(default=1, init=False, compare=False)
    # The option that names the place, for errors.
    option: str = field(default="--images", compare=False, kw_only=True)

    def __str__(self) -> str:
        return str(self.root)

    @staticmethod
    def key(sha256: str, extension: str) -> str:
        """Where bytes of SHA256 belong, below the root."""
        return f"{sha256[:2]}/{sha256[2:4]}/{sha256}.{extension}"

    def put(self, data: bytes, key: str) -> None:
        """Store DATA under KEY; a file with the same content is not written again.

        Raises:
            Failure: The folder can't be written.
        """
        path = self.root / key
        with self._explained():
            if not _holds(path, data):
                write_atomically(path, data, self.root, sync=False)
        self._unsynced.set()

    def sync(self) -> None:
        """Wait until all files that were put, and their names, are on the disk.

        One `os.sync` per batch replaces an fsync of each file and of each new folder, which takes
        ten times as long. Linux waits for the disk here; macOS only starts to write.
        """
        if self._unsynced.is_set():
            # Cleared first: a file that is put meanwhile waits for the next call.
            self._unsynced.clear()
            os.sync()

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """The store while photos are put into it.

        Raises:
            Failure: the folder can't be made.
        """
        with self._explained():
            self.root.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.root, os.O_RDONLY)
        try:
            self._clear(handle)
            yield
            self._clear(handle)
        finally:
            os.close(handle)

    def _clear(self, handle: int) -> None:
        """Remove half files unless another process has the folder HANDLE in use."""
        # Some network disks have no locks: then half files are left.
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for part in self.root.glob(f"{PARTIAL_PREFIX}*"):
                part.unlink()
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_SH)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise Failure(
                f"photos can't be kept in {self}: {first_line(error)}; make room or name"
                f" another place with {self.option}"
            ) from error

    def read(self, key: str) -> bytes:
        """The photo of KEY.

        Raises:
            OSError: it is not there, or can't be read.
        """
        return (self.root / key).read_bytes()

    def keys(self) -> Iterator[str]:
        """The key of every file that is kept, in their order."""
        for first in sorted(self.root.glob("??")):
            for path in sorted(first.glob("??/*")):
                yield path.relative_to(self.root).as_posix()

    def remove(self, key: str) -> None:
        """See that nothing is kept under KEY.

        Raises:
            Failure: the file can't be removed.
        """
        with self._explained():
            (self.root / key).unlink(missing_ok=True)


@dataclass(frozen=True)
class RemoteStore(ImageStore):
    """The same below an fsspec URL, such as `s3://bucket/photos`, whose writes are all or nothing.

    What it raises is made an OSError, as a folder's is.
    """

    url: str = ""
    side_by_side: int = field(default=32, init=False, compare=False)

    def __str__(self) -> str:
        return self.url

    @cached_property
    def _place(self) -> tuple[Any, str]:
        """The file system and the path of the URL there."""
        import fsspec

        try:
            place, path = fsspec.core.url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise BadInput(
                f"--images {self.url}: {first_line(error)}; for S3: pip install"
                " 'fashion-tagger[s3]'"
            ) from error
        return place, path.rstrip("/")

    @contextlib.contextmanager
    def _asked(self) -> Iterator[tuple[Any, str]]:
        place = self._place
        try:
            yield place
        except OSError:
            raise
        # Each kind of place has errors of its own.
        except Exception as error:
            raise OSError(first_line(error)) from error

    def put(self, data: bytes, key: str) -> None:
        """Store DATA under KEY.

        Raises:
            Failure: The store can't be written.
        """
        with self._explained(), self._asked() as (place, path):
            place.pipe_file(f"{path}/{key}", data)

    def sync(self) -> None:
        """Do nothing: a remote write is durable when it returns."""

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """The store while photos are put into it: there are no half files here."""
        with self._explained(), self._asked() as (place, path):
            # Who may not look will not write either.
            place.exists(path)
        yield

    def read(self, key: str) -> bytes:
        """The photo of KEY.

        Raises:
            OSError: it is not there, or can't be read.
        """
        with self._asked() as (place, path):
            return place.cat_file(f"{path}/{key}")

    def keys(self) -> Iterator[str]:
        """The key of every file that is kept, in their order."""
        with self._asked() as (place, path):
            for found in sorted(place.find(path)):
                yield found.removeprefix(path).lstrip("/")

    def remove(self, key: str) -> None:
        """See that nothing is kept under KEY.

        Raises:
            Failure: it can't be removed.
        """
        with (
            self._explained(),
            self._asked() as (place, path),
            contextlib.suppress(FileNotFoundError),
        ):
            place.rm_file(f"{path}/{key}")


def _holds(path: Path, data: bytes) -> bool:
    """Whether PATH is DATA: a power cut may have left something else of a photo in no row."""
    try:
        return path.stat().st_size == len(data) and path.read_bytes() == data
    except FileNotFoundError:
        return False


def open_store(place: Path | str) -> ImageStore:
    """The store at PLACE: a folder, or an fsspec URL."""
    text = str(place)
    if "://" not in text or text.startswith("file://"):
        return ImageStore(Path(text.removeprefix("file://")))
    return RemoteStore(Path(text), url=text)
