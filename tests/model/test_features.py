"""Letterboxed pixels of photos of several sizes."""

import numpy as np

from model.data import Example
from model.features import letterboxed


def photo(height: int, width: int, grey: int) -> np.ndarray:
    return np.full((height, width, 3), grey, np.uint8)


def test_photos_of_several_shapes_are_letterboxed_on_white_in_their_order() -> None:
    arrays: list[np.ndarray | str] = [
        photo(20, 30, 0),
        photo(20, 30, 50),
        photo(60, 20, 100),
        "broken",
    ]
    arrays.append(photo(20, 30, 7))
    read = [(Example(f"{i}.jpg", "ab"[i % 2], "train"), a) for i, a in enumerate(arrays)]
    photos = letterboxed(read, ["a", "b"], 30)
    assert photos.values.shape == (4, 30, 30, 3)
    assert photos.values[:, 15, 15, 0].tolist() == [0, 50, 100, 7]
    assert photos.values[0, :, 15, 0].tolist() == [255] * 5 + [0] * 20 + [255] * 5
    # Halved in size, so that the columns on the edge are a mixture of photo and white.
    row = photos.values[2, 15, :, 0].tolist()
    assert row[:9] + row[11:19] + row[21:] == [255] * 9 + [100] * 8 + [255] * 9
    assert photos.targets.tolist() == [0, 1, 0, 0]
    assert photos.unreadable == {"3.jpg": "broken"}


def test_an_empty_split_is_an_empty_array() -> None:
    assert letterboxed([], ["a"], 30).values.shape == (0, 30, 30, 3)
