"""Make the annotations with masks that hrnet-small is trained on, as COCO JSON for `train-pose`.

    python benchmarks/masks.py worn ../shared/data/worn train worn-train.json
    python benchmarks/masks.py grabcut person_keypoints_train.json images lsp-train.json

`worn` converts the boxes and masks of the street photos. `grabcut` adds masks to people with key
points alone: GrabCut (Rother et al., SIGGRAPH 2004) separates the person from the background; the
bones are inside, and what is far away from them is outside. It needs opencv-python-headless.
"""

import csv
import json
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image
from pycocotools import mask as masks
from scipy.ndimage import median_filter

# Longer side of a person for GrabCut, in pixels, and the margin around the person.
PERSON_PIXELS, MARGIN_PIXELS = 200, 30
ITERATIONS = 4
# Distances from the bones relative to the size of the body: within the first a pixel is inside,
# within the second it probably is, and beyond the third it is outside. Ends of limbs reach farther.
SURE, PROBABLE, FARTHEST = 0.012, 0.035, 0.085
END_PROBABLE = {"head": 0.05, "": 0.03}
END_FARTHEST = {"ankle": 0.11, "head": 0.11, "wrist": 0.09, "": 0.085}
# People with a joint that is not annotated may reach farther by this factor.
PARTIAL = 2.0
# A mask that fills less or more of the zone around the bones is a mistake.
MIN_FILLED, MAX_FILLED = 0.25, 0.85

FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)


@click.group()
def main() -> None:
    """Make annotations with masks."""


@main.command()
@click.argument("folder", type=FOLDER)
@click.argument("split", type=click.Choice(["train", "validation"]))
@click.argument("out", type=FILE)
def worn(folder: Path, split: str, out: Path) -> None:
    """Convert the people of a split of the street photos."""
    with (folder / "labels.csv").open(encoding="utf-8") as file:
        chosen = {row["id"] for row in csv.DictReader(file) if row["split"] == split}
    with (folder / "boxes.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["id"] in chosen]
    images, annotations = [], []
    for number, row in enumerate(rows, start=1):
        mask = np.asarray(Image.open(folder / "masks" / f"{row['id']}.png"), np.uint8)
        height, width = mask.shape
        image = {"id": number, "file_name": f"{row['id']}.jpg", "width": width, "height": height}
        images.append(image)
        left, top, right, bottom = (float(row[name]) for name in ("x0", "y0", "x1", "y1"))
        annotations.append(
            {
                "id": number,
                "image_id": number,
                "category_id": 1,
                "bbox": [left, top, right - left, bottom - top],
                "area": int(mask.sum()),
                "iscrowd": 0,
                "segmentation": run_lengths(mask),
            }
        )
    categories = [{"id": 1, "name": "person"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    out.write_text(json.dumps(content), encoding="utf-8")
    click.echo(f"{len(annotations)} people: {out}")


@main.command()
@click.argument("annotations", type=FILE)
@click.argument("images", type=FOLDER)
@click.argument("out", type=FILE)
def grabcut(annotations: Path, images: Path, out: Path) -> None:
    """Add masks to the people of a COCO key-point file."""
    from dataset.images.io import open_photo
    from dataset.pose.models import JointSet

    content = json.loads(annotations.read_text(encoding="utf-8"))
    (category,) = content["categories"]
    bones = tuple((a - 1, b - 1) for a, b in category["skeleton"])
    joints = JointSet(tuple(category["keypoints"]), bones)
    by_id = {image["id"]: image for image in content["images"]}
    count = 0
    for person in content["annotations"]:
        image = by_id[person["image_id"]]
        photo = open_photo(images / image["file_name"])
        image["width"], image["height"] = photo.size
        points = np.array(person["keypoints"], float).reshape(-1, 3)
        mask = cut_out(photo, points, max(person["bbox"][2:]), joints)
        if mask is not None:
            person["segmentation"], count = run_lengths(mask), count + 1
    out.write_text(json.dumps(content), encoding="utf-8")
    click.echo(f"{count} of {len(content['annotations'])} people have a mask: {out}")


def cut_out(photo: Image.Image, points: np.ndarray, side: float, joints: Any) -> np.ndarray | None:
    """Return the mask of a person, 0 or 1 in the photo's size; None if GrabCut fails.

    Args:
        photo: An RGB image.
        points: The person's joints (joints, 3).
        side: Longer side of the person's box in pixels.
        joints: The joint set.
    """
    import cv2

    cv2.setRNGSeed(0)
    scale = min(1.0, PERSON_PIXELS / side)
    size = max(8, round(photo.width * scale)), max(8, round(photo.height * scale))
    zones = draw_zones(points * (scale, scale, 1), joints, (size[1], size[0]))
    if zones is None:
        return None
    sure, probable, near = zones
    classes = np.full(near.shape, cv2.GC_BGD, np.uint8)
    classes[near] = cv2.GC_PR_BGD
    classes[probable] = cv2.GC_PR_FGD
    classes[sure] = cv2.GC_FGD
    rows, columns = np.nonzero(near)
    top, left = max(0, rows.min() - MARGIN_PIXELS), max(0, columns.min() - MARGIN_PIXELS)
    window = (
        slice(top, rows.max() + MARGIN_PIXELS),
        slice(left, columns.max() + MARGIN_PIXELS),
    )
    pixels = np.asarray(photo.resize(size, Image.Resampling.BILINEAR))[window][..., ::-1].copy()
    own = classes[window].copy()
    # The state of the two colour models.
    background, foreground = np.zeros((1, 65)), np.zeros((1, 65))
    try:
        mode = cv2.GC_INIT_WITH_MASK
        cv2.grabCut(pixels, own, None, background, foreground, ITERATIONS, mode)
    except cv2.error:
        return None
    mask = np.zeros(near.shape, np.uint8)
    mask[window] = np.isin(own, (cv2.GC_FGD, cv2.GC_PR_FGD))
    mask = median_filter(mask, 3)
    if not MIN_FILLED <= mask.sum() / near.sum() <= MAX_FILLED:
        return None
    enlarged = Image.fromarray(mask * np.uint8(255)).resize(photo.size, Image.Resampling.BILINEAR)
    return (np.asarray(enlarged) > 127).astype(np.uint8)


def draw_zones(
    points: np.ndarray, joints: Any, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Return where the person is, probably is, and may be; None without bones.

    Args:
        points: The person's joints (joints, 3).
        joints: The joint set.
        size: Height and width of the zones.
    """
    from dataset.pose.heatmaps import BONES_PER_BODY, draw_body

    annotated, places = points[:, 2] > 0, points[:, :2]
    bones = [pair for pair in joints.bones if annotated[list(pair)].all()]
    if not bones:
        return None
    longest = max(float(np.linalg.norm(places[a] - places[b])) for a, b in bones)
    body = max(float(np.ptp(places[annotated], axis=0).max()), BONES_PER_BODY * longest)
    torso = [i for i, name in enumerate(joints.names) if name.endswith(("shoulder", "hip"))]
    corners = places[torso] if annotated[torso].all() else places[:0]
    core = 0.8 * corners + 0.2 * corners.mean(axis=0) if len(corners) else corners
    thickness, reach = max(0.7, SURE * body), 1.0 if annotated.all() else PARTIAL

    def radii(table: dict[str, float], factor: float) -> list[float]:
        return [
            factor * next(radius for part, radius in table.items() if part in name)
            for name in joints.names
        ]

    return (
        draw_body(places, bones, core, thickness, [thickness] * len(places), size),
        draw_body(places, bones, corners, PROBABLE * body, radii(END_PROBABLE, body), size),
        draw_body(
            *(places, bones, corners, FARTHEST * body * reach),
            *(radii(END_FARTHEST, body * reach), size),
        ),
    )


def run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """Return a mask as COCO's compressed run-length encoding."""
    encoded = masks.encode(np.asfortranarray(mask))
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


if __name__ == "__main__":
    main()
