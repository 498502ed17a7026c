"""Download published files such as weights once: resume, verify, then rename."""

import contextlib
import fcntl
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import httpx
from tqdm import tqdm

from dataset.errors import Failure, first_line

BLOCK_BYTES = 1 << 20
# A firewall that drops packets must not block a command for minutes.
TIMEOUT = httpx.Timeout(60, connect=15)


@dataclass(frozen=True)
class PublishedFile:
    """A file as its publisher names it.

    Attributes:
        name: File name.
        url: Address.
        digest: `md5:` or `sha256:` and the first hexadecimal digits.
    """

    name: str
    url: str
    digest: str


def fetch_published(file: PublishedFile, folder: Path, alternative: str) -> Path:
    """Return the path of a published file in a folder, downloading it if needed.

    A broken download is resumed. Processes that need the same file wait for each other.

    Args:
        file: The file.
        folder: Folder for the file.
        alternative: What else the user can do; ends the error messages.

    Raises:
        Failure: The file can't be downloaded or written, or has another digest.
    """
    path = folder / file.name
    try:
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            _fetch(file, path)
        elif (digest := file_digest(path, file.digest)) != file.digest:
            raise Failure(
                f"{path} is not {file.url}: its digest is {digest} instead of {file.digest};"
                f" remove it, or {alternative}"
            )
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise Failure(
            f"{file.name} ({file.digest}) can't be downloaded from {file.url}:"
            f" {first_line(error)}."
            f" Download it on another machine and copy it to {path}, or {alternative}"
        ) from error
    return path


def _fetch(file: PublishedFile, path: Path) -> None:
    part = path.with_name(path.name + ".part")
    with _locked(part) as target:
        if path.exists():
            return
        _download(file, target)
        digest = file_digest(part, file.digest)
        if digest != file.digest:
            target.truncate(0)
            raise Failure(
                f"{file.url} returned a file with {digest} instead of {file.digest}, which was"
                " deleted; try again: if this persists, the publisher has changed the file"
            )
        part.replace(path)


@contextlib.contextmanager
def _locked(part: Path) -> Iterator[BinaryIO]:
    """Open a file for appending while no other process has it."""
    with part.open("ab") as target:
        fcntl.flock(target, fcntl.LOCK_EX)
        yield target


def _download(file: PublishedFile, target: BinaryIO) -> None:
    offset = target.seek(0, 2)
    # A compressed response would have other offsets.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={offset}-"} if offset else {})
    with httpx.stream(
        "GET", file.url, headers=headers, timeout=TIMEOUT, follow_redirects=True
    ) as response:
        if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            # The part is complete already, or of another file: the digest decides.
            return
        response.raise_for_status()
        if response.status_code != httpx.codes.PARTIAL_CONTENT:
            target.truncate(0)
            offset = 0
        total = int(response.headers.get("content-length", 0)) + offset
        with tqdm(
            total=total or None,
            initial=offset,
            desc=file.name,
            unit="B",
            unit_scale=True,
            disable=None,
        ) as bar:
            for block in response.iter_raw():
                target.write(block)
                bar.update(len(block))
        target.flush()


def file_digest(path: Path, like: str) -> str:
    """Return the digest of a file.

    Args:
        path: The file.
        like: A digest of the wanted kind and length, such as `sha256:` and 16 digits.
    """
    kind, digits = like.split(":")
    digest = hashlib.new(kind)
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    return f"{kind}:{digest.hexdigest()[: len(digits)]}"
