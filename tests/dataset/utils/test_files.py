"""Atomic writes of files and folders."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dataset.errors import Failure
from dataset.utils.files import (
    atomic_path,
    exclusive_use,
    original_cell,
    replace_folder,
    restore_folder,
    spreadsheet_row,
)


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


@pytest.mark.parametrize(
    "cell",
    [
        "=1+1",
        "@SUM(1)",
        "+1+1",
        "-2+3",
        "=cmd|' /C calc'!A0",
        " =1",
        "\t=1",
        "\ufeff=1",
        "＝1",
        "\rx",
    ],
)
def test_formulas_are_text_in_tables(cell: str) -> None:
    assert spreadsheet_row(["a", cell]) == ["a", f"'{cell}"]
    assert original_cell(f"'{cell}") == cell


@pytest.mark.parametrize("cell", ["-5", "+7", "-0.5", "+79161234567", "a=1", "", "'a", 5, None])
def test_other_cells_stay(cell: object) -> None:
    assert spreadsheet_row([cell]) == [cell]
    assert original_cell(cell) == cell


def test_one_process_writes_at_a_time(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    program = (
        "import sys; from pathlib import Path; from dataset.utils.files import exclusive_use\n"
        "with exclusive_use(Path(sys.argv[1]), '--out'): print('in', flush=True); input()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program, str(out)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "in\n"
    with (
        pytest.raises(Failure, match=rf"--out .*: process {other.pid} writes there"),
        exclusive_use(out, "--out"),
    ):
        pass
    other.communicate("\n", timeout=60)
    with exclusive_use(out, "--out"):
        pass
    assert list(out.parent.iterdir()) == []
    (tmp_path / "file").touch()
    with (
        pytest.raises(Failure, match="can't be written"),
        exclusive_use(tmp_path / "file" / "out", "--out"),
    ):
        pass
