"""Atomic writes of files and folders."""

from pathlib import Path

import pytest

from dataset.utils.files import atomic_path, replace_folder, restore_folder


def test_a_file_is_replaced_only_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "model.weights.h5"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="disk full"), atomic_path(path) as temporary:
        assert temporary.suffixes == path.suffixes
        temporary.write_bytes(b"n")
        raise OSError("disk full")
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == b"old"
    with atomic_path(path) as temporary:
        temporary.write_bytes(b"new")
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"new"]


def test_a_folder_is_replaced_and_restored(tmp_path: Path) -> None:
    out, new = tmp_path / "out", tmp_path / "new"
    for folder in (out, new):
        folder.mkdir()
        (folder / folder.name).touch()
    replace_folder(new, out)
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == [
        "out",
        "out/new",
    ]
    # As after a kill between the two renames.
    out.rename(tmp_path / ".out.before")
    restore_folder(out)
    assert (out / "new").exists()
