"""Photos of a feed that the model learned from, in other renditions."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from model.data.loading import letterbox
from model.tag_check.training_reference import TrainingNeighbour, TrainingReference
from tests.dataset.duplicates.test_alignment import encoded
from tests.dataset.duplicates.test_verification import photo


def reference(folder: Path) -> TrainingReference:
    """Return a reference of two train photos and a validation photo, with features of their own."""
    known = []
    for number, split in enumerate(("train", "train", "validation")):
        path = folder / split / "polo" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(letterbox(photo(number), 299)).save(path)
        name = str(path.relative_to(folder))
        known.append(TrainingNeighbour(f"sha of {number}", name, "polo", 1.0))
    vectors = np.eye(3, dtype=np.float32)
    return TrainingReference(
        known[:2],
        vectors[:2],
        np.zeros(3, np.float32),
        np.ones(3, np.float32),
        -1.0,
        {},
        folder=folder,
        validation=known[2:],
        validation_vectors=vectors[2:],
    )


def test_copies_of_learned_photos_are_known(tmp_path: Path) -> None:
    photos = [
        encoded(photo(0).resize((252, 324)), 70),
        photo(1).crop((0, 0, 250, 340)),
        ImageOps.mirror(photo(2)),
        photo(7),
    ]
    pixels = [letterbox(one, 299) for one in photos]
    # The features of all photos are near those of all learned ones.
    features = np.full((4, 3), 0.6, np.float32)
    found = reference(tmp_path).find_originals(features, pixels)
    assert [one and one.sha256 for one in found] == ["sha of 0", "sha of 1", "sha of 2", None]


def test_photos_with_other_features_are_not_compared(tmp_path: Path) -> None:
    features = np.array([[0, 0, 1]], np.float32)
    learned = reference(tmp_path)
    assert learned.find_originals(features, [letterbox(photo(0), 299)]) == [None]
    assert learned.find_originals(features, [letterbox(photo(2), 299)])[0] is not None
    gone = reference(tmp_path / "gone")
    (tmp_path / "gone" / "validation" / "polo" / "2.png").unlink()
    assert gone.find_originals(features, [letterbox(photo(2), 299)]) == [None]
