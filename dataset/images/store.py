"""The image store: files by their SHA-256 in a folder or in any file system of fsspec.

`UrlImageCache` adds names by URL, for photos that were downloaded from the URLs of a feed.
"""

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
from dataset.images.io import sha256_of
from dataset.utils.files import PARTIAL_PREFIX, write_atomically


@dataclass(frozen=True)
class ImageStore:
    """A folder of images, each under a key made of its SHA-256: `ab/cd/abcd….jpg`.

    Write to it within `in_use`, which removes temporary files of killed processes. Files are
    durable after `sync`.

    Attributes:
        root: The folder.
        max_concurrent_writes: How many threads may write at a time.
        option: The command-line option that names the folder, for error messages.
    """

    root: Path
    # Set while written files may not be on disk yet.
    _unsynced: threading.Event = field(default_factory=threading.Event, repr=False, compare=False)
    max_concurrent_writes: int = field(default=1, init=False, compare=False)
    option: str = field(default="--images", compare=False, kw_only=True)

    def __str__(self) -> str:
        return str(self.root)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the place: other processes open the store again."""
        return open_store, (self._place(),)

    def _place(self) -> Path | str:
        """Return what `open_store` opens the store from in any working directory."""
        return self.root.absolute()

    @staticmethod
    def key(sha256: str, extension: str) -> str:
        """Return the key of a file: its path below the root."""
        return f"{sha256[:2]}/{sha256[2:4]}/{sha256}.{extension}"

    def put(self, data: bytes, key: str) -> None:
        """Store a file under a key, unless it is there with the same content.

        Raises:
            Failure: The folder cannot be written.
        """
        path = self.root / key
        with self._storage_errors():
            if not _has_content(path, data):
                write_atomically(path, data, self.root, sync=False)
        self._unsynced.set()

    def sync(self) -> None:
        """Wait until all written files and their names are on disk.

        One `os.sync` per batch replaces an fsync of each file and of each new folder, which takes
        ten times as long. Linux waits for the disk; macOS only starts to write.
        """
        if self._unsynced.is_set():
            # Cleared first: a file written meanwhile is synced by the next call.
            self._unsynced.clear()
            os.sync()

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Create the folder and mark it as in use by this process.

        Temporary files are removed at the start and at the end if no other process uses it.

        Raises:
            Failure: The folder cannot be created.
        """
        with self._storage_errors():
            self.root.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.root, os.O_RDONLY)
        try:
            self._remove_temporary_files(handle)
            yield
            self._remove_temporary_files(handle)
        finally:
            os.close(handle)

    def _remove_temporary_files(self, handle: int) -> None:
        """Remove temporary files unless another process has locked the folder."""
        # Some network file systems have no locks: then the files stay.
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for path in self.root.glob(f"{PARTIAL_PREFIX}*"):
                path.unlink()
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_SH)

    @contextlib.contextmanager
    def _storage_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise Failure(
                f"photos can't be stored in {self}: {first_line(error)}; free disk space, or"
                f" choose another path with {self.option}"
            ) from error

    def read(self, key: str) -> bytes:
        """Return the file of a key.

        Raises:
            OSError: It does not exist or cannot be read.
        """
        return (self.root / key).read_bytes()

    def keys(self) -> Iterator[str]:
        """Yield the keys of all files in order."""
        for folder in sorted(self.root.glob("??")):
            for path in sorted(folder.glob("??/*")):
                yield path.relative_to(self.root).as_posix()

    def remove(self, key: str) -> None:
        """Remove the file of a key if it exists.

        Raises:
            Failure: The file cannot be removed.
        """
        with self._storage_errors():
            (self.root / key).unlink(missing_ok=True)


@dataclass(frozen=True)
class RemoteStore(ImageStore):
    """An image store below an fsspec URL, such as `s3://bucket/photos`, whose writes are atomic.

    Errors of the file system are raised as OSError.

    Attributes:
        url: The URL.
    """

    url: str = ""
    max_concurrent_writes: int = field(default=32, init=False, compare=False)

    def __str__(self) -> str:
        return self.url

    def _place(self) -> str:
        return self.url

    @cached_property
    def _file_system(self) -> tuple[Any, str]:
        """The file system and the path of the URL in it."""
        import fsspec

        try:
            file_system, path = fsspec.core.url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise BadInput(
                f"{self.option} {self.url}: {first_line(error)}; for S3: pip install"
                " 'fashion-tagger[s3]'"
            ) from error
        return file_system, path.rstrip("/")

    @contextlib.contextmanager
    def _opened(self) -> Iterator[tuple[Any, str]]:
        file_system = self._file_system
        try:
            yield file_system
        except OSError:
            raise
        # Each file system of fsspec raises its own errors.
        except Exception as error:
            raise OSError(first_line(error)) from error

    def put(self, data: bytes, key: str) -> None:
        """Store a file under a key.

        Raises:
            Failure: The store cannot be written.
        """
        with self._storage_errors(), self._opened() as (file_system, path):
            file_system.pipe_file(f"{path}/{key}", data)

    def sync(self) -> None:
        """Do nothing: a remote write is durable when it returns."""

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Check that the store can be read before anything is written to it."""
        with self._storage_errors(), self._opened() as (file_system, path):
            file_system.exists(path)
        yield

    def read(self, key: str) -> bytes:
        """Return the file of a key.

        Raises:
            OSError: It does not exist or cannot be read.
        """
        with self._opened() as (file_system, path):
            return file_system.cat_file(f"{path}/{key}")

    def keys(self) -> Iterator[str]:
        """Yield the keys of all files in order."""
        with self._opened() as (file_system, path):
            for name in sorted(file_system.find(path)):
                yield name.removeprefix(path).lstrip("/")

    def remove(self, key: str) -> None:
        """Remove the file of a key if it exists.

        Raises:
            Failure: The file cannot be removed.
        """
        with (
            self._storage_errors(),
            self._opened() as (file_system, path),
            contextlib.suppress(FileNotFoundError),
        ):
            file_system.rm_file(f"{path}/{key}")


def _has_content(path: Path, data: bytes) -> bool:
    """Return whether a file has a content: a power cut may have left a truncated file."""
    try:
        return path.stat().st_size == len(data) and path.read_bytes() == data
    except FileNotFoundError:
        return False


def open_store(location: Path | str, option: str = "--images") -> ImageStore:
    """Open the image store in a folder or at an fsspec URL.

    Args:
        location: The folder or URL.
        option: The command-line option that names it, for error messages.
    """
    text = str(location)
    if "://" not in text or text.startswith("file://"):
        return ImageStore(Path(text.removeprefix("file://")), option=option)
    return RemoteStore(Path(text), url=text, option=option)


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
