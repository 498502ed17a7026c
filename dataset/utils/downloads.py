"""Published files, such as weights, fetched once: resumed, checked, then put in place."""

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
# A firewall that swallows packets must not hold a command for minutes.
TIMEOUT = httpx.Timeout(60, connect=15)


@dataclass(frozen=True)
class PublishedFile:
    """A file as its publisher names it. `digest`: `md5:` or `sha256:` and the first hex digits."""

    name: str
    url: str
    digest: str


def fetch_published(file: PublishedFile, folder: Path, instead: str) -> Path:
    """FILE in FOLDER, fetched there when it is missing; a broken download goes on where it broke.

    INSTEAD says what else a person can do, and ends the message of an error.

    Raises:
        Failure: it can't be fetched or written, or its digest is another.
    """
    path = folder / file.name
    try:
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            _fetch(file, path)
        elif (found := file_digest(path, file.digest)) != file.digest:
            raise Failure(
                f"{path} is not {file.url}: it has {found} instead of {file.digest}; remove it,"
                f" or {instead}"
            )
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise Failure(
            f"{file.name} ({file.digest}) can't be fetched from {file.url}:"
            f" {first_line(error)}."
            f" Fetch it elsewhere and put it at {path}, or {instead}"
        ) from error
    return path


def _fetch(file: PublishedFile, path: Path) -> None:
    part = path.with_name(path.name + ".part")
    with _locked(part) as target:
        if path.exists():
            return
        _download(file, target)
        found = file_digest(part, file.digest)
        if found != file.digest:
            target.truncate(0)
            raise Failure(
                f"{file.url} gave a file with {found} instead of {file.digest}; it was thrown"
                " away: try again, and if it stays so the publisher has changed the file"
            )
        part.replace(path)


@contextlib.contextmanager
def _locked(part: Path) -> Iterator[BinaryIO]:
    """PART opened to append, with no other process at it: two at once wait for each other."""
    with part.open("ab") as target:
        fcntl.flock(target, fcntl.LOCK_EX)
        yield target


def _download(file: PublishedFile, target: BinaryIO) -> None:
    had = target.seek(0, 2)
    # A compressed answer would have offsets of its own.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={had}-"} if had else {})
    with httpx.stream(
        "GET", file.url, headers=headers, timeout=TIMEOUT, follow_redirects=True
    ) as answer:
        if answer.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            # The part is whole already, or of another file: its digest tells.
            return
        answer.raise_for_status()
        if answer.status_code != httpx.codes.PARTIAL_CONTENT:
            target.truncate(0)
            had = 0
        total = int(answer.headers.get("content-length", 0)) + had
        with tqdm(
            total=total or None,
            initial=had,
            desc=file.name,
            unit="B",
            unit_scale=True,
            disable=None,
        ) as bar:
            for block in answer.iter_raw():
                target.write(block)
                bar.update(len(block))
        target.flush()


def file_digest(path: Path, like: str) -> str:
    """The digest of the file PATH, of the kind and length of LIKE: `sha256:` and hex digits."""
    kind, wanted = like.split(":")
    found = hashlib.new(kind)
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            found.update(block)
    return f"{kind}:{found.hexdigest()[: len(wanted)]}"
