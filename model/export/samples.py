"""Photos that an export is verified on: test photos of a run, photos of a folder, or drawn ones."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataset.errors import BadInput
from dataset.images.io import PHOTO_SUFFIXES, Unreadable, open_photo

# More photos take longer and do not find more errors.
MAX_PHOTOS = 12
# Height and width of crops and of drawn photos: odd, wide, high, small.
SHAPES = ((91, 133), (40, 1201), (1111, 37), (342, 342), (3, 2))


@dataclass(frozen=True)
class PhotoSample:
    """Batches of photos.

    Attributes:
        batches: Uint8 arrays of shape (n, height, width, 3).
        description: What the photos are.
    """

    batches: Sequence[np.ndarray]
    description: str


def load_sample(data: Path | None, test_paths: Sequence[str], folder: Path | None) -> PhotoSample:
    """Load photos, crops of odd shapes of the first one, and a batch of two.

    Args:
        data: The data folder of the run.
        test_paths: Paths of its test photos. Without readable test photos, photos are drawn.
        folder: A folder of other photos to use.

    Raises:
        BadInput: The folder has no readable photo.
    """
    if folder:
        paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in PHOTO_SUFFIXES)
        photos = _read_photos(paths)
        if not photos:
            raise BadInput(f"--photos {folder} has no readable photos; name another folder")
        return _sample(photos, f"photos of {folder}")
    photos = _read_photos([data / path for path in test_paths]) if data else []
    if photos:
        return _sample(photos, f"test photos of {data}")
    reason = f"are not in {data}" if data else "are unknown"
    return PhotoSample(
        [_draw_photo(height, width)[None] for height, width in SHAPES],
        f"{len(SHAPES)} drawn images, because the run's test photos {reason} (use --photos)",
    )


def _sample(photos: Sequence[np.ndarray], source: str) -> PhotoSample:
    first = photos[0]
    crops = [_crop(first, height, width)[None] for height, width in SHAPES]
    pair = np.stack([first, first[:, ::-1]])
    description = f"{len(photos)} {source}, {len(crops)} crops of odd shapes and a batch of two"
    return PhotoSample([*(photo[None] for photo in photos), *crops, pair], description)


def _read_photos(paths: Sequence[Path]) -> list[np.ndarray]:
    """Read MAX_PHOTOS photos at most, evenly spaced so that there are photos of all labels."""
    photos = []
    for path in paths[:: max(1, -(-len(paths) // MAX_PHOTOS))]:
        with contextlib.suppress(Unreadable, OSError):
            photos.append(np.asarray(open_photo(path)))
    return photos


def _crop(photo: np.ndarray, height: int, width: int) -> np.ndarray:
    """Crop a photo, which is repeated where it is too small."""
    repeats = (-(-height // photo.shape[0]), -(-width // photo.shape[1]), 1)
    return np.tile(photo, repeats)[:height, :width]


def _draw_photo(height: int, width: int) -> np.ndarray:
    """Draw a colour gradient with noise."""
    rng = np.random.default_rng(height * width)
    gradient = np.linspace(0, 255, height)[:, None, None] + np.linspace(0, 255, width)[:, None]
    noise = rng.integers(-40, 40, (height, width, 3))
    return np.clip(gradient * (0.3, 0.5, 0.7) + noise, 0, 255).astype(np.uint8)
