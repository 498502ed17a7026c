"""Write files and folders atomically: to a temporary name first, then renamed."""

import contextlib
import fcntl
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dataset.errors import BadInput, Failure

# Prefix of the name of a file that is still being written.
PARTIAL_PREFIX = ".part-"
# Cells that a spreadsheet runs as a formula, also after characters that it ignores, and numbers,
# which may begin in the same way.
FORMULA_START = re.compile(r"[\t\r\n]|[\s\x00-\x1f\ufeff\u200b]*[=+\-@\uff1d\uff0b\uff0d\uff20]")
SIGNED_NUMBER = re.compile(r"[+-]?\d+([.,]\d+)?([eE][+-]?\d+)?%?")


@contextlib.contextmanager
def _renamed_on_success(temporary: Path, path: Path, sync: bool) -> Iterator[None]:
    try:
        yield
        if sync:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside a file, and rename it to that file when the block succeeds.

    The temporary file has a fixed name with the suffix of `path`, is synced to disk before the
    rename, and is removed when the block raises. One process at a time may write a path this way.
    """
    temporary = path.with_name(f"{PARTIAL_PREFIX}{path.name}")
    temporary.unlink(missing_ok=True)
    with _renamed_on_success(temporary, path, sync=True):
        yield temporary


def write_atomically(
    path: Path, data: bytes, temporary_folder: Path | None = None, sync: bool = True
) -> None:
    """Write bytes to a file, which holds either its old or its new content at any time.

    Several processes may write the same path at once. Missing folders are created.

    Args:
        path: The file to create or replace.
        data: Its content.
        temporary_folder: Where the temporary file is written, on the same disk. Defaults to the
            folder of `path`.
        sync: Sync the file to disk before the rename. Without it, a power cut may leave a
            truncated file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=temporary_folder or path.parent, prefix=PARTIAL_PREFIX)
    with _renamed_on_success(Path(name), path, sync), os.fdopen(handle, "wb") as file:
        file.write(data)


def write_json(value: Mapping[str, Any], path: Path) -> None:
    """Write a mapping as indented JSON in UTF-8, with a final newline."""
    text = json.dumps(value, ensure_ascii=False, indent=2) + "\n"
    # A surrogate stands for an undecodable byte, in a file name for instance: write its escape.
    path.write_text(text, encoding="utf-8", errors="backslashreplace")


def spreadsheet_row(cells: Iterable[Any]) -> list[Any]:
    """Return the cells of a row of a table that people open.

    A text that a spreadsheet would run as a formula gets an apostrophe before it.
    """
    return [f"'{cell}" if _is_formula(cell) else cell for cell in cells]


def original_cell(cell: Any) -> Any:
    """Return a cell as it was before `spreadsheet_row`."""
    is_defused = isinstance(cell, str) and cell.startswith("'") and _is_formula(cell[1:])
    return cell[1:] if is_defused else cell


def _is_formula(cell: Any) -> bool:
    return (
        isinstance(cell, str)
        and FORMULA_START.match(cell) is not None
        and SIGNED_NUMBER.fullmatch(cell) is None
    )


@contextlib.contextmanager
def exclusive_use(path: Path, option: str) -> Iterator[None]:
    """Hold the exclusive right to write a file or folder within the block.

    A file beside `path` is locked and has the number of this process.

    Args:
        path: The file or folder, which need not exist.
        option: The option that names it, for messages.

    Raises:
        Failure: Another process holds the right, or the folder of `path` can't be written.
    """
    target = path.absolute()
    lock = target.with_name(f".{target.name[:200]}.lock")
    handle = _lock_file(lock, path, option)
    try:
        yield
    finally:
        # Removed while it is locked: a process that opened it meanwhile opens it again.
        lock.unlink(missing_ok=True)
        os.close(handle)


def _lock_file(lock: Path, path: Path, option: str) -> int:
    """Return the handle of a locked file, which is created if it does not exist."""
    while True:
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(lock, os.O_CREAT | os.O_RDWR, 0o644)
        except OSError as error:
            raise Failure(
                f"{option} {path} can't be written: {error.strerror}; choose another path"
            ) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            process = os.read(handle, 20).decode("ascii", "replace").strip() or "another one"
            os.close(handle)
            raise Failure(
                f"{option} {path}: process {process} writes there already; wait until it ends, or"
                " choose another path"
            ) from error
        except OSError:
            # Some network file systems have no locks.
            return handle
        with contextlib.suppress(FileNotFoundError):
            if os.fstat(handle).st_ino == lock.stat().st_ino:
                os.ftruncate(handle, 0)
                # A full disk is reported by what is written next.
                with contextlib.suppress(OSError):
                    os.write(handle, str(os.getpid()).encode())
                return handle
        os.close(handle)


def temporary_folder_of(out: Path) -> Path:
    """Return the path at which the folder `out` is built before it is renamed."""
    return out.with_name(f".{out.name}.part")


def create_temporary_folder(out: Path) -> Path:
    """Create an empty folder beside `out` in which its new content is built.

    Raises:
        BadInput: The folder cannot be created.
    """
    folder = temporary_folder_of(out)
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise BadInput(f"--out {out}: {error.strerror}; name a folder that can be made") from error
    return folder


def replace_folder(new: Path, out: Path) -> None:
    """Rename the folder `new` to `out` and remove the previous `out`.

    A folder cannot be renamed over another one, so the previous one is renamed first;
    `restore_folder` undoes that if the process is killed in between.
    """
    previous = _previous_folder_of(out)
    shutil.rmtree(previous, ignore_errors=True)
    if out.exists():
        out.rename(previous)
    new.rename(out)
    shutil.rmtree(previous, ignore_errors=True)


def restore_folder(out: Path) -> None:
    """Restore the previous `out` if `replace_folder` was killed between its two renames."""
    previous = _previous_folder_of(out)
    if previous.exists() and not out.exists():
        previous.rename(out)


def _previous_folder_of(out: Path) -> Path:
    return out.with_name(f".{out.name}.before")


def require_new_output(out: Path, instead: str) -> None:
    """Raise an error when `out` exists and is not an empty folder.

    Args:
        out: The value of --out.
        instead: What to do about it, the end of the message.

    Raises:
        BadInput: It exists and is not an empty folder.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadInput(f"--out {out} already exists; {instead}")


def unfinished_path(out: Path) -> Path:
    """Return where the intermediate results for `--out` are until it is complete."""
    return out.with_name(f"{out.name}.unfinished")


def require_new_run(out: Path, resume: bool) -> None:
    """Raise an error when `out` can't be the folder of a training.

    Args:
        out: The value of --out.
        resume: Whether an interrupted training is continued.

    Raises:
        BadInput: It exists, or it belongs to an interrupted training that is not continued.
    """
    require_new_output(out, "name a new folder for this run")
    if not resume and (folder := unfinished_path(out)).exists():
        raise BadInput(
            f"{folder} is an interrupted training; continue with --resume, or remove the folder"
        )


def make_folder(folder: Path, out: Path) -> None:
    """Create a folder for intermediate results, unless it exists.

    Args:
        folder: The folder to create.
        out: The value of --out that the results are for, named in the message.

    Raises:
        BadInput: It cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"--out {out}: {error.strerror}; choose another folder") from error
