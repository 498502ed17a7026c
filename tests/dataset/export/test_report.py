"""The report, the dataset card and the list of excluded images."""

import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from dataset.export.layout import BuildResult
from tests.dataset.test_build import run
from tests.support.browser import find_overflow, needs_chromium
from tests.support.catalogue_data import CatalogueBuilder, photo_bytes


@pytest.fixture
def built(tmp_path: Path) -> tuple[Path, BuildResult]:
    builder = CatalogueBuilder(tmp_path)
    builder.products("polo", 20, 0)
    builder.image(photo_bytes(50), builder.post("both", "polo", "jeans"))
    builder.image(photo_bytes(51, (60, 80)), builder.post("tiny", "polo"))
    builder.image(photo_bytes(3, (240, 320)), builder.post("large", "polo"))
    done = run(builder)
    return tmp_path / "splits", done


def test_the_page_needs_no_other_file(built: tuple[Path, BuildResult]) -> None:
    page = (built[0] / "report.html").read_text(encoding="utf-8")
    assert page.count('src="data:image/jpeg;base64,') >= 12 + 3
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    for text in ("too small: 1", "side 60, at least 75", "polo, jeans", "of more than one photo"):
        assert text in page
    assert "<td class=n>at least 75 (side)</td><td class=n>1</td>" in page


def test_every_excluded_image_is_listed(built: tuple[Path, BuildResult]) -> None:
    rows = pq.read_table(built[0] / "excluded.parquet").to_pylist()
    assert sorted(row["reason"] for row in rows) == [
        "conflict of labels",
        "duplicate of another photo",
        "too small",
    ]
    assert all(len(row["sha256"]) == 64 and row["post_url"] for row in rows)


def test_the_card_tells_counts_audit_conflicts_and_gaps(built: tuple[Path, BuildResult]) -> None:
    card = (built[0] / "README.md").read_text(encoding="utf-8")
    for text in (
        "20 photos of 1 labels",
        "- conflict of labels: 1",
        "- polo, jeans: 1",
        "## Leakage audit",
        "There is one label",
        'path: "train/**"',
    ):
        assert text in card


def test_the_audit_reads_what_was_written(built: tuple[Path, BuildResult]) -> None:
    assert built[1].audit.photos == 20
    assert built[1].audit.leaks == []


@needs_chromium
def test_the_page_fits_wide_and_narrow_windows(built: tuple[Path, BuildResult]) -> None:
    assert find_overflow(built[0] / "report.html") == []
