"""Tables of a check hold whatever a feed may."""

from pathlib import Path

import pytest

from model.check_papers import _write_rows
from model.product_feed import Columns, Feed


@pytest.mark.parametrize(
    ("encoding", "cell", "written"),
    [
        ("utf-8", "a\udcffb", b"a\xffb"),
        ("utf-8", "a\ud800b", b"a?b"),
        ("cp1251", "Платье\udc98 δ", "Платье".encode("cp1251") + b"\x98 ?"),
        ("utf-16-le", "a\udcff", "a?".encode("utf-16-le")),
    ],
)
def test_signs_that_no_file_can_hold_end_no_check(
    tmp_path: Path, encoding: str, cell: str, written: bytes
) -> None:
    feed = Feed(tmp_path / "a.csv", ("x",), Columns("x", "x", "x"), encoding=encoding)
    _write_rows(tmp_path / "out.csv", ["x"], [[cell]], feed)
    head = "x\n".encode(encoding)
    assert (tmp_path / "out.csv").read_bytes() == head + written + "\n".encode(encoding)
