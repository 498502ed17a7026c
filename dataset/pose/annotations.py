"""Read people with annotated joints or masks from COCO JSON files of any joint set.

Format: https://cocodataset.org/#format-data (key-point detection and object detection).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image

from dataset.errors import BadInput
from dataset.images.io import find_photos
from dataset.pose.models import JointSet

# Fraction of the images that are held out if no validation file is given.
VALIDATION_FRACTION = 0.05
# COCO's name of the category whose annotations are people.
PERSON = "person"


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
        is_empty: Whether the image shows no person; `box` and `points` have no meaning then.
        mask: The person's mask as COCO's compressed run-length encoding; None without one.
    """

    photo: Path
    box: tuple[float, float, float, float]
    points: np.ndarray
    area: float
    annotation: int
    image: int
    is_empty: bool = False
    mask: dict[str, Any] | None = None

    @property
    def has_joints(self) -> bool:
        """Return whether any joint is annotated."""
        return bool((self.points[:, 2] > 0).any())

    def mask_image(self) -> Image.Image | None:
        """Return the mask in the size of the image, 0 or 255; None without one."""
        if self.mask is None:
            return None
        from pycocotools import mask

        return Image.fromarray(mask.decode(self.mask) * np.uint8(255))


@dataclass(frozen=True)
class People:
    """The content of annotation files.

    Attributes:
        joints: The joint set.
        persons: People with annotated joints or masks.
        missing: Images of the files that do not exist.
    """

    joints: JointSet
    persons: list[Person]
    missing: list[Path]

    @property
    def has_masks(self) -> bool:
        """Return whether any person has a mask."""
        return any(person.mask is not None for person in self.persons)


def read_people(
    files: Sequence[Path], folders: Sequence[Path], joints: JointSet | None = None
) -> People:
    """Read the people of files whose images exist.

    Crowds, and people with neither annotated joints nor a mask, are excluded. Images and
    annotations are numbered in order. A file that is named twice counts twice.

    Args:
        files: COCO JSON files. Joints are matched by name; those that `joints` does not have are
            excluded, and those that a file does not have are not annotated.
        folders: Folder of the images of each file, or one for all.
        joints: The joint set; None for that of the first file that declares one.

    Raises:
        BadInput: A file can't be read, is not a COCO file, or declares several joint sets; no file
            declares joints; or the number of folders does not match.
    """
    if len(folders) not in (1, len(files)):
        raise BadInput(
            f"{len(files)} annotation files have {len(folders)} folders of images; name one folder"
            " for each file, in the same order, or one for all"
        )
    folders = folders if len(folders) == len(files) else [*folders] * len(files)
    parts = [_read_file(file, folder) for file, folder in zip(files, folders, strict=True)]
    joints = joints or next((part.joints for part in parts if part.joints.names), None)
    if joints is None:
        raise BadInput(f"{files[0]} has no categories with keypoints; name a file of key points")
    numbers: dict[tuple[int, int], int] = {}
    persons: list[Person] = []
    for index, part in enumerate(parts):
        for person in part.persons:
            persons.append(
                replace(
                    person,
                    points=_match_joints(person.points, part.joints, joints),
                    annotation=len(persons) + 1,
                    image=numbers.setdefault((index, person.image), len(numbers) + 1),
                )
            )
    persons = [person for person in persons if person.has_joints or person.mask is not None]
    return People(joints, persons, [path for part in parts for path in part.missing])


def _match_joints(points: np.ndarray, own: JointSet, joints: JointSet) -> np.ndarray:
    """Return points (joints, 3) in the order of another joint set."""
    matched = np.zeros((len(joints.names), 3))
    for index, name in enumerate(joints.names):
        if name in own.names:
            matched[index] = points[own.names.index(name)]
    return matched


def _read_file(file: Path, images: Path) -> People:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{file} can't be read as COCO JSON: {error}") from error
    try:
        return _people(content, images)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise BadInput(
            f"{file} is not a COCO JSON file of people ({type(error).__name__}: {error}); it needs"
            " categories with keypoints or named person, images with id and file_name, and"
            " annotations with image_id, bbox, and keypoints (x, y, v for each joint) or a"
            " segmentation"
        ) from error


def _people(content: dict[str, Any], images: Path) -> People:
    categories = {
        c["id"]: c for c in content["categories"] if c.get("keypoints") or c.get("name") == PERSON
    }
    declared = {
        tuple(map(str, c["keypoints"])): _bones(c)
        for c in categories.values()
        if c.get("keypoints")
    }
    if not categories or len(declared) > 1:
        raise ValueError(f"{len(declared)} joint sets are declared, one is needed")
    names, bones = next(iter(declared.items()), ((), ()))
    joints = JointSet(names, bones)
    records = {int(image["id"]): image for image in content["images"]}
    paths = {key: images / str(image["file_name"]) for key, image in records.items()}
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
        mask = _mask(annotation.get("segmentation"), records[image])
        if ((points[:, 2] > 0).any() or mask) and image in photos:
            persons.append(_person(annotation, points, photos[image], mask))
    return People(joints, persons, [p for k, p in paths.items() if k not in photos])


def _mask(segmentation: Any, image: dict[str, Any]) -> dict[str, Any] | None:
    """Return a segmentation (polygons or run lengths) as compressed run lengths.

    Raises:
        ValueError: The image has no width and height, or the segmentation is malformed.
    """
    if not segmentation:
        return None
    from pycocotools import mask

    if "width" not in image or "height" not in image:
        raise ValueError(f"image {image['id']} has a segmentation, but no width and height")
    height, width = int(image["height"]), int(image["width"])
    if isinstance(segmentation, list):
        return dict(mask.merge(mask.frPyObjects(segmentation, height, width)))
    if list(segmentation["size"]) != [height, width]:
        raise ValueError(
            f"a segmentation has the size {segmentation['size']} in an image of {[height, width]}"
        )
    if isinstance(segmentation["counts"], list):
        return dict(mask.frPyObjects(segmentation, height, width))
    return {"size": [height, width], "counts": segmentation["counts"]}


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


def _person(
    annotation: dict[str, Any], points: np.ndarray, photo: Path, mask: dict[str, Any] | None
) -> Person:
    left, top, width, height = (float(value) for value in annotation["bbox"])
    if not np.isfinite([left, top, width, height]).all() or width <= 0 or height <= 0:
        raise ValueError(f"annotation {annotation.get('id')} has the box {annotation['bbox']}")
    area = float(annotation.get("area") or width * height)
    box = (left, top, width, height)
    ids = int(annotation["id"]), int(annotation["image_id"])
    return Person(photo, box, points, area, *ids, mask=mask)


def hold_out(people: People, seed: int) -> tuple[People, People]:
    """Split people into training and validation, by images.

    Args:
        people: All people.
        seed: Random seed.

    Returns:
        People for training, and people of `VALIDATION_FRACTION` of the images.
    """
    photos = sorted({person.photo for person in people.persons})
    count = max(1, round(len(photos) * VALIDATION_FRACTION))
    order = np.random.default_rng(seed).permutation(len(photos))
    chosen = {photos[index] for index in order[:count]}
    inside = [p for p in people.persons if p.photo in chosen]
    outside = [p for p in people.persons if p.photo not in chosen]
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
