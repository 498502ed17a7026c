"""The photos that an export is checked on: a run's test photos, a folder's, or drawn ones."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataset.errors import BadInput
from dataset.images.io import PHOTO_SUFFIXES, Unreadable, open_photo

# So many photos show whether an export is right; more only take longer.
MOST = 12
# (height, width) of drawn photos, and of what is cut from a real one: odd, wide, high, tiny.
SHAPES = ((91, 133), (40, 1201), (1111, 37), (342, 342), (3, 2))


@dataclass(frozen=True)
class Sample:
    """Batches of photos, (n, height, width, 3) uint8, and in words what they are."""

    batches: Sequence[np.ndarray]
    said: str


def sample_of(data: Path | None, tested: Sequence[str], folder: Path | None) -> Sample:
    """Photos of FOLDER; else those TESTED, paths below DATA; else drawn ones.

    Each as it is, then the first one cut to odd, wide and high shapes, and a batch of two.

    Raises:
        BadInput: FOLDER has no photo that can be read.
    """
    if folder:
        found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in PHOTO_SUFFIXES)
        photos = _some(found)
        if not photos:
            raise BadInput(f"--photos {folder} has no photo that can be read; name another folder")
        return _sample(photos, f"photos of {folder}")
    photos = _some([data / path for path in tested]) if data else []
    if photos:
        return _sample(photos, f"test photos of {data}")
    return Sample(
        [_drawn(height, width)[None] for height, width in SHAPES],
        f"{len(SHAPES)} drawn pictures, for the run's test photos are not"
        f" {f'below {data}' if data else 'named in it'} (--photos names others)",
    )


def _sample(photos: Sequence[np.ndarray], what: str) -> Sample:
    first = photos[0]
    cuts = [_cut(first, height, width)[None] for height, width in SHAPES]
    two = np.stack([first, first[:, ::-1]])
    said = f"{len(photos)} {what}, {len(cuts)} cuts of odd shapes and a batch of two"
    return Sample([*(photo[None] for photo in photos), *cuts, two], said)


def _some(paths: Sequence[Path]) -> list[np.ndarray]:
    """MOST photos of PATHS, (height, width, 3) uint8 each; those that can't be read left out.

    They are spread over PATHS, so that there are photos of all labels among them.
    """
    photos = []
    for path in paths[:: max(1, -(-len(paths) // MOST))]:
        with contextlib.suppress(Unreadable, OSError):
            photos.append(np.asarray(open_photo(path)))
    return photos


def _cut(photo: np.ndarray, height: int, width: int) -> np.ndarray:
    """PHOTO, laid side by side as often as it takes, cut to HEIGHT and WIDTH."""
    times = (-(-height // photo.shape[0]), -(-width // photo.shape[1]), 1)
    return np.tile(photo, times)[:height, :width]


def _drawn(height: int, width: int) -> np.ndarray:
    """Colours that run across, with noise on them: edges of every size."""
    rng = np.random.default_rng(height * width)
    run = np.linspace(0, 255, height)[:, None, None] + np.linspace(0, 255, width)[:, None]
    noise = rng.integers(-40, 40, (height, width, 3))
    return np.clip(run * (0.3, 0.5, 0.7) + noise, 0, 255).astype(np.uint8)
