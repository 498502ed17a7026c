"""Read people with annotated joints from COCO key-point JSON files of any joint set.

Format: https://cocodataset.org/#format-data (key-point detection).
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from dataset.errors import BadInput
from dataset.images.io import find_photos
from dataset.pose.models import JointSet

# Fraction of the images that are held out if no validation file is given.
VALIDATION_FRACTION = 0.05


@dataclass(frozen=True)
class Person:
    """A person in an image.

    Attributes:
        photo: Path of the image.
        box: Left, top, width and height in pixels.
        points: (joints, 3) float: x, y, and 0 for not annotated, 1 for hidden, 2 for visible.
        area: Area of the person in square pixels.
        annotation: Id of the annotation.
        image: Id of the image.
        nobody: Whether the image shows no person; `box` and `points` have no meaning then.
    """

    photo: Path
    box: tuple[float, float, float, float]
    points: np.ndarray
    area: float
    annotation: int
    image: int
    nobody: bool = False


@dataclass(frozen=True)
class People:
    """The content of a key-point file.

    Attributes:
        joints: The joint set.
        persons: People with annotated joints.
        photos: Image id -> path.
        missing: Images of the file that do not exist.
    """

    joints: JointSet
    persons: list[Person]
    photos: dict[int, Path]
    missing: list[Path]


def read_people(file: Path, images: Path) -> People:
    """Read the people of a file whose images exist, without crowds and people without joints.

    Args:
        file: COCO key-point JSON file.
        images: Folder of its images.

    Raises:
        BadInput: The file can't be read, is not a key-point file, or declares several joint sets.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{file} can't be read as COCO key-point JSON: {error}") from error
    try:
        return _people(content, images)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise BadInput(
            f"{file} is not a COCO key-point JSON file ({type(error).__name__}: {error}); it needs"
            " categories with keypoints, images with id and file_name, and annotations with"
            " image_id, bbox and keypoints (x, y, v for each joint)"
        ) from error


def _people(content: dict[str, Any], images: Path) -> People:
    categories = {c["id"]: c for c in content["categories"] if c.get("keypoints")}
    declared = {(tuple(c["keypoints"]), _bones(c)) for c in categories.values()}
    if len({names for names, _ in declared}) != 1:
        raise ValueError(f"{len(declared)} joint sets are declared, one is needed")
    names, bones = declared.pop()
    joints = JointSet(tuple(map(str, names)), bones)
    paths = {
        int(annotation["id"]): images / str(annotation["file_name"])
        for annotation in content["images"]
    }
    photos = {key: path for key, path in paths.items() if path.is_file()}
    persons = []
    for annotation in content["annotations"]:
        if annotation["category_id"] not in categories or annotation.get("iscrowd"):
            continue
        points, image = _points(annotation, len(names)), int(annotation["image_id"])
        if image not in paths:
            raise ValueError(
                f"annotation {annotation.get('id')} is of image {image}, which is not there"
            )
        if (points[:, 2] > 0).any() and image in photos:
            persons.append(_person(annotation, points, photos[image]))
    return People(joints, persons, photos, [p for k, p in paths.items() if k not in photos])


def _bones(category: dict[str, Any]) -> tuple[tuple[int, int], ...]:
    # COCO counts joints from 1 here.
    count = len(category["keypoints"])
    pairs = ((int(a) - 1, int(b) - 1) for a, b in category.get("skeleton", ()))
    return tuple((a, b) for a, b in pairs if 0 <= a < count and 0 <= b < count)


def _points(annotation: dict[str, Any], joints: int) -> np.ndarray:
    # Files with other objects omit key points where there are none.
    points = np.array(annotation.get("keypoints") or [0] * 3 * joints, np.float64).reshape(
        joints, 3
    )
    points[:, 2] = np.where(np.isfinite(points).all(axis=1), points[:, 2], 0)
    return np.where(points[:, 2:] > 0, points, 0.0)


def _person(annotation: dict[str, Any], points: np.ndarray, photo: Path) -> Person:
    left, top, width, height = (float(value) for value in annotation["bbox"])
    if not np.isfinite([left, top, width, height]).all() or width <= 0 or height <= 0:
        raise ValueError(f"annotation {annotation.get('id')} has the box {annotation['bbox']}")
    area = float(annotation.get("area") or width * height)
    box = (left, top, width, height)
    return Person(photo, box, points, area, int(annotation["id"]), int(annotation["image_id"]))


def hold_out(people: People, seed: int) -> tuple[People, People]:
    """Split people into training and validation, by images.

    Args:
        people: All people.
        seed: Random seed.

    Returns:
        People for training, and people of `VALIDATION_FRACTION` of the images.
    """
    photos = sorted({person.image for person in people.persons})
    count = max(1, round(len(photos) * VALIDATION_FRACTION))
    chosen = set(np.random.default_rng(seed).permutation(photos)[:count].tolist())
    inside = [p for p in people.persons if p.image in chosen]
    outside = [p for p in people.persons if p.image not in chosen]
    return replace(people, persons=outside), replace(people, persons=inside, missing=[])


def read_photos_without_people(folder: Path, joints: int) -> list[Person]:
    """Return a `Person` with `nobody` for each image in a folder and its sub-folders.

    Args:
        folder: The folder.
        joints: Number of joints.

    Raises:
        BadInput: The folder has no images.
    """
    found = find_photos(folder.rglob("*"))
    photos = found.paths
    if found.skipped:
        click.echo(f"{folder}: {found.describe_skipped()}", err=True)
    if not photos:
        raise BadInput(f"{folder} has no photos; name a folder of photos without people")
    box, points = (0.0, 0.0, 1.0, 1.0), np.zeros((joints, 3))
    # Negative ids do not collide with those of a file.
    return [Person(path, box, points, 1.0, -n, -n, True) for n, path in enumerate(photos, 1)]
