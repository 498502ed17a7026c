"""Views: the part of a photo that a network looks at, as an affine map, and back.

A view is a (2, 3) float matrix from the view's pixels to the photo's. Coordinates are those of
pixel centres: 0 is the centre of the first pixel, as in COCO's files.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image

# As published: room around the person's box.
WIDEN = 1.25
# The columns of a point that are x and y: its own, and two corners of where it may be.
PLACES = slice(0, 2), slice(3, 5), slice(5, 7)


def person_view(
    box: tuple[float, float, float, float],
    size: tuple[int, int],
    widen: float = WIDEN,
    turn: float = 0.0,
) -> np.ndarray:
    """The view of SIZE (height, width) that shows BOX (left, top, width, height) in the middle.

    The box is first brought to the view's shape, then made WIDEN times as large, then turned by
    TURN degrees.
    """
    left, top, width, height = box
    scale = max(width / size[1], height / size[0]) * widen
    a, b = scale * np.cos(np.radians(turn)), scale * np.sin(np.radians(turn))
    matrix = np.array([[a, -b, 0.0], [b, a, 0.0]])
    # The middle of the box goes to the middle of the view, as in the published code.
    middle = np.array([size[1] / 2, size[0] / 2])
    matrix[:, 2] = (left + width / 2, top + height / 2) - matrix[:, :2] @ middle
    return matrix


def mirrored(view: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """VIEW of SIZE (height, width), left and right exchanged."""
    return view @ np.array([[-1.0, 0, size[1] - 1], [0, 1, 0], [0, 0, 1]])


def to_photo(points: np.ndarray, view: np.ndarray) -> np.ndarray:
    """POINTS (..., 2) of a view's pixels in the photo's."""
    return points @ view[:, :2].T + view[:, 2]


def to_view(points: np.ndarray, view: np.ndarray) -> np.ndarray:
    """POINTS (..., 2) of the photo's pixels in the view's."""
    return (points - view[:, 2]) @ np.linalg.inv(view[:, :2]).T


def move_places(points: np.ndarray, how: Callable[[np.ndarray], np.ndarray]) -> None:
    """HOW, done to every place (joints, 2) of POINTS, which is changed."""
    for columns in PLACES:
        points[:, columns] = how(points[:, columns])


def look(photo: Image.Image, view: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """What VIEW shows of PHOTO: (height, width, 3) uint8, black where the photo ends."""
    # Without this first, shrinking would skip pixels.
    step = max(1, int(np.sqrt(abs(np.linalg.det(view[:, :2])))))
    small = photo.reduce(step) if step > 1 else photo
    # Pillow counts from a pixel's corner, and the small photo's pixels are STEP wide.
    linear, shift = view[:, :2], view[:, 2]
    corner = (shift + 0.5 - linear @ (0.5, 0.5)) / step
    linear = linear / step
    data = (*linear[0], corner[0], *linear[1], corner[1])
    seen = small.transform(
        (size[1], size[0]), Image.Transform.AFFINE, data, Image.Resampling.BILINEAR
    )
    return np.asarray(seen)
