"""Test photos of plain folders that a model would learn from."""

from pathlib import Path

import pytest
from PIL import ImageOps

from dataset.errors import BadInput
from model.data.loading import load_splits
from model.training.train import check_for_leaks, find_leaked_test_photos
from tests.dataset.duplicates.test_alignment import drawn


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return splits with a resized and a bordered train photo in the test split."""
    photos = {
        "train/polo/a": drawn(1),
        "train/dress/b": drawn(2),
        "validation/polo/c": drawn(3),
        "test/polo/small": drawn(1).resize((140, 180)),
        "test/dress/bordered": ImageOps.expand(drawn(3), 20, "white"),
        "test/dress/other": drawn(4),
    }
    for name, photo in photos.items():
        path = tmp_path / "splits" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        photo.save(path)
    (tmp_path / "splits" / "test" / "polo" / "broken.png").write_bytes(b"no photo")
    return tmp_path / "splits"


def test_learned_test_photos_are_found_once(folder: Path, tmp_path: Path) -> None:
    data, cache = load_splits(folder), tmp_path / "cache"
    expected = [
        ("test/dress/bordered.png", "validation/polo/c.png"),
        ("test/polo/small.png", "train/polo/a.png"),
    ]
    assert find_leaked_test_photos(data, cache) == expected
    (kept,) = cache.glob("split-leaks-*.json")
    kept.write_text('{"pairs": []}')
    assert find_leaked_test_photos(data, cache) == []
    # Other photos have another result.
    drawn(5).save(folder / "test" / "dress" / "new.png")
    assert find_leaked_test_photos(load_splits(folder), cache) == expected


def test_they_are_refused_unless_they_are_allowed(folder: Path, tmp_path: Path) -> None:
    data = load_splits(folder)
    with pytest.raises(BadInput, match=r"2 of the 4 test photos .* --allow-leaks"):
        check_for_leaks(data, tmp_path, allow=False)
    assert check_for_leaks(data, tmp_path, allow=True) == 2
