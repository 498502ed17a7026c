"""Many files made to outlast a power cut at once: one wait for the disk and not one for each."""

import ctypes
import os
import sys
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

# File systems (statfs(2)) whose syncfs(2) puts all that was written onto the disk: ext, XFS, btrfs,
# F2FS, ZFS, tmpfs, and overlayfs of containers. Of others, such as FUSE's, nobody promises it.
WHOLE = (0xEF53, 0x58465342, 0x9123683E, 0xF2F52010, 0x2FC12FC1, 0x01021994, 0x794C7630)
STATFS_BYTES = 256


def sync_at_once(root: Path) -> bool:
    """See that all below ROOT outlasts a power cut, names too; False where one call can't do it.

    Raises:
        OSError: the disk can't be written.
    """
    syncfs = _syncfs()
    if syncfs is None:
        return False
    handle = os.open(root, os.O_RDONLY)
    try:
        if _kind(handle) not in WHOLE:
            return False
        if syncfs(handle):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(root))
    finally:
        os.close(handle)
    return True


def sync_each(root: Path, paths: Iterable[Path]) -> None:
    """The same for the files PATHS below ROOT, one by one, and the folders on the way to them.

    Raises:
        OSError: one is not there, or the disk can't be written.
    """
    folders: dict[Path, None] = {}
    for path in dict.fromkeys(paths):
        _sync(path)
        above = path.parent
        while above not in folders and above != root.parent:
            folders[above] = None
            above = above.parent
    # Of ROOT the name, too, which may be as new.
    for folder in (*folders, root.absolute().parent):
        _sync(folder)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _syncfs() -> Callable[[int], int] | None:
    """Linux's syncfs(2), which Python does not have; None elsewhere."""
    return getattr(_libc(), "syncfs", None) if sys.platform.startswith("linux") else None


def _kind(handle: int) -> int:
    """What kind of file system HANDLE is on, by the first field of Linux's statfs."""
    told = ctypes.create_string_buffer(STATFS_BYTES)
    if _libc().fstatfs(handle, told):
        return 0
    return ctypes.c_ulong.from_buffer(told).value & 0xFFFFFFFF
