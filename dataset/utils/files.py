"""Write files and folders atomically."""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dataset.errors import BadInput


def write_json(value: Mapping[str, Any], path: Path) -> None:
    """VALUE as JSON for people and programs: UTF-8, indented, a line at the end."""
    text = json.dumps(value, ensure_ascii=False, indent=2) + "\n"
    # What stands for a byte that is no text (in a file's name, say) is written as its escape.
    path.write_text(text, encoding="utf-8", errors="backslashreplace")


def aside_of(out: Path) -> tuple[Path, Path]:
    """Where OUT is built, and where the one before it stands while the two change places."""
    return out.with_name(f".{out.name}.part"), out.with_name(f".{out.name}.before")


def prepare(out: Path) -> Path:
    """An empty folder beside OUT to build in.

    Raises:
        BadInput: it can't be made.
    """
    part, _ = aside_of(out)
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
    except OSError as error:
        raise BadInput(f"--out {out}: {error.strerror}; name a folder that can be made") from error
    return part


def put_in_place(out: Path) -> None:
    """Let the folder that was built aside take OUT's place."""
    part, before = aside_of(out)
    shutil.rmtree(before, ignore_errors=True)
    if out.exists():
        out.rename(before)
    part.rename(out)
    shutil.rmtree(before, ignore_errors=True)


# How the name of a half-written file begins.
PART = ".part-"


def write_atomically(
    path: Path, data: bytes, aside_in: Path | None = None, sync: bool = True
) -> None:
    """Write DATA to PATH: aside, synced, then renamed, so that a half file never stands there.

    ASIDE_IN: the folder, on the same disk, of the half file; PATH's own where it is None. Without
    SYNC only a power cut may leave a half file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(dir=aside_in or path.parent, prefix=PART)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        Path(aside).replace(path)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise


def refuse_taken(out: Path, instead: str) -> None:
    """Raise BadInput, which ends with INSTEAD, when OUT exists and is not an empty folder."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadInput(f"--out {out} is there already; {instead}")


def make_folder(folder: Path, out: Path) -> None:
    """Make FOLDER, where what goes to OUT is worked on.

    Raises:
        BadInput: it can't be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"--out {out}: {error.strerror}; name another folder") from error
