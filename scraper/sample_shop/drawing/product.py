"""Draw product photos: a person who wears the labelled garment with an outfit, from a seed."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from scraper.sample_shop.drawing import garments, person
from scraper.sample_shop.drawing.background import paint_backdrop
from scraper.sample_shop.drawing.canvas import (
    Canvas,
    Colour,
    Fabric,
    Points,
    choose_denim,
    choose_fabric,
    choose_neutral,
    oval,
)
from scraper.sample_shop.drawing.person import (
    LEFT,
    RIGHT,
    Body,
    Build,
    Head,
    choose_build,
    choose_pose,
    key_points,
)

LABELS = ("polo", "dress", "jeans", "skirt", "shorts", "coat")
SIZE = (600, 866)
# Index of each of COCO's 17 key points in the mirrored picture.
MIRROR = (0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15)
ZONES = {"polo": "upper", "dress": "full", "coat": "full"}


@dataclass(frozen=True)
class Outfit:
    """What a person wears and looks like; `fabric` is the labelled garment's."""

    label: str
    womens: bool
    build: Build
    looks: person.Looks
    fabric: Fabric
    other: Fabric
    polo: garments.TopCut
    top: garments.TopCut
    trousers: garments.LegCut
    jeans: garments.LegCut
    shorts: garments.LegCut
    skirt: garments.SkirtCut
    coat: garments.CoatCut
    dress_sleeve: float
    legs: Colour
    shoe: Colour
    shoe_kind: str

    @property
    def zone(self) -> str:
        """The part of the body that the labelled garment covers: upper, lower or full."""
        return ZONES.get(self.label, "lower")


def choose_outfit(label: str, rng: np.random.Generator) -> Outfit:
    """Choose everything about a product photo that is equal in all its views."""
    womens = label in ("dress", "skirt") or bool(rng.random() < 0.5)
    looks = person.choose_looks(rng, womens)
    denim = label == "jeans" or (label in ("shorts", "skirt") and rng.random() < 0.2)
    tights = label in ("dress", "skirt") and rng.random() < 0.25
    kinds = ("sneaker", "boot", "pump") if womens else ("sneaker", "sneaker", "boot")
    return Outfit(
        label=label,
        womens=womens,
        build=choose_build(rng, womens),
        looks=looks,
        fabric=choose_denim(rng) if denim else choose_fabric(rng),
        other=choose_neutral(rng),
        polo=garments.choose_polo(rng),
        top=garments.choose_top(rng),
        trousers=garments.choose_trousers(rng, denim=False),
        jeans=garments.choose_trousers(rng, denim=True),
        shorts=garments.choose_shorts(rng),
        skirt=garments.choose_skirt(rng),
        coat=garments.choose_coat(rng),
        dress_sleeve=float(rng.choice((0.0, 0.0, 0.55, 1.0, 1.9))),
        legs=(48, 44, 48) if tights else looks.skin,
        shoe=choose_neutral(rng).base,
        shoe_kind=str(rng.choice(kinds)),
    )


def dress_person(canvas: Canvas, figure: Body, outfit: Outfit) -> None:
    """Paint the person from back to front."""
    s = figure.scale
    fabric = replace(outfit.fabric, repeat=outfit.fabric.repeat * s)
    other = replace(outfit.other, repeat=outfit.other.repeat * s)
    head = Head(canvas, figure, outfit.looks)
    head.paint_hair_behind()
    behind, before = _arm_order(figure)
    for side in behind:
        _paint_arm(canvas, figure, outfit, side, fabric, other)
    for side in (RIGHT, LEFT) if figure.pose.yaw < 0 else (LEFT, RIGHT):
        person.paint_leg(canvas, figure, side, outfit.legs)
        person.paint_shoe(canvas, figure, side, outfit.shoe, outfit.shoe_kind)
    person.paint_torso(canvas, figure, outfit.looks)
    person.paint_neck(canvas, figure, outfit.looks)
    head.paint_face()
    head.paint_hair_before()
    _CLOTHES[outfit.label](canvas, figure, outfit, fabric, other)
    head.paint_strands()
    for side in before:
        _paint_arm(canvas, figure, outfit, side, fabric, other)


def _arm_order(figure: Body) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the arms behind the body, and those in front of it."""
    name, yaw = figure.pose.arms_name, figure.pose.yaw
    if name == "raised":
        return (RIGHT, LEFT), ()
    if name in ("hips", "hip") or abs(yaw) < 0.25 or name == "crossed":
        return (), (RIGHT, LEFT)
    far = LEFT if yaw > 0 else RIGHT
    return (far,), (1 - far,)


def _paint_arm(
    canvas: Canvas, figure: Body, outfit: Outfit, side: int, fabric: Fabric, other: Fabric
) -> None:
    """Paint the arm and its sleeve."""
    person.paint_arm(canvas, figure, side, outfit.looks)
    label = outfit.label
    if label == "coat":
        garments.paint_sleeve(canvas, figure, side, fabric, 1.93, 1.5)
    elif label == "polo":
        garments.paint_sleeve(canvas, figure, side, fabric, outfit.polo.sleeve, 1.34)
        garments.paint_cuff(canvas, figure, side, fabric, outfit.polo)
    elif label == "dress" and outfit.dress_sleeve:
        garments.paint_sleeve(canvas, figure, side, fabric, outfit.dress_sleeve, 1.25)
    elif label != "dress" and outfit.top.sleeve:
        garments.paint_sleeve(canvas, figure, side, other, outfit.top.sleeve, 1.28)


def _wear_polo(c: Canvas, f: Body, outfit: Outfit, fabric: Fabric, other: Fabric) -> None:
    garments.paint_trousers(c, f, other, outfit.trousers)
    garments.paint_polo(c, f, fabric, outfit.polo)


def _wear_dress(c: Canvas, f: Body, outfit: Outfit, fabric: Fabric, other: Fabric) -> None:
    bare = outfit.dress_sleeve == 0
    garments.paint_dress(c, f, fabric, outfit.skirt, outfit.top.neckline + 0.05, bare)


def _wear_coat(c: Canvas, f: Body, outfit: Outfit, fabric: Fabric, other: Fabric) -> None:
    garments.paint_trousers(c, f, replace(other, base=_apart(other.base)), outfit.trousers)
    garments.paint_top(c, f, other, replace(outfit.top, hem=0.85, ease=1.0, sleeve=0.5))
    garments.paint_coat(c, f, fabric, outfit.coat)


def _apart(colour: Colour) -> Colour:
    """Return a tone that can be distinguished from its neighbour's colour."""
    return (54, 54, 62) if sum(colour) > 330 else (176, 168, 156)


def _lower(
    garment: Callable[[Canvas, Body, Outfit, Fabric], None],
) -> Callable[[Canvas, Body, Outfit, Fabric, Fabric], None]:
    """Return the garment with a top, tucked in or over its waistband."""

    def wear(c: Canvas, f: Body, outfit: Outfit, fabric: Fabric, other: Fabric) -> None:
        if outfit.top.hem < 0.83:
            garments.paint_top(c, f, other, outfit.top)
            garment(c, f, outfit, fabric)
        else:
            garment(c, f, outfit, fabric)
            garments.paint_top(c, f, other, outfit.top)

    return wear


_CLOTHES: dict[str, Callable[[Canvas, Body, Outfit, Fabric, Fabric], None]] = {
    "polo": _wear_polo,
    "dress": _wear_dress,
    "coat": _wear_coat,
    "jeans": _lower(lambda c, f, o, cloth: garments.paint_trousers(c, f, cloth, o.jeans)),
    "shorts": _lower(lambda c, f, o, cloth: garments.paint_trousers(c, f, cloth, o.shorts)),
    "skirt": _lower(lambda c, f, o, cloth: garments.paint_skirt(c, f, cloth, o.skirt)),
}


@dataclass(frozen=True)
class Drawing:
    """A drawn RGB photo of a garment with a label and a colour, worn by a person.

    Attributes:
        key_points: (17, 3) float in COCO's order: x, y in pixels, and 0 outside the picture (then
            x = y = 0), 1 hidden, 2 visible.
        box: The person's x, y, width and height in pixels.
        area: The number of pixels that the person covers.
        mask: (height, width) uint8: 1 where the picture shows the person.
    """

    label: str
    photo: Image.Image
    key_points: NDArray[np.float64]
    box: tuple[float, float, float, float]
    area: float
    mask: NDArray[np.uint8]
    colour: str
    womens: bool


def draw_product(label: str, seed: int, size: tuple[int, int] = SIZE, view: int = 0) -> Drawing:
    """Draw the product `seed` of a label as `size` (width, height) pixels.

    Another view shows the same garment on the same person in another pose and framing. The same
    arguments draw the same pixels.

    Raises:
        ValueError: The label is not one of LABELS.
    """
    number = _number(label)
    outfit = choose_outfit(label, np.random.default_rng([number, seed]))
    rng = np.random.default_rng([number, seed, 1 + view])
    figure, floor = _framed(rng, outfit, size)
    canvas = Canvas(paint_backdrop(rng, size, floor), float(rng.choice((-1.0, 1.0))))
    _paint_floor_shadow(canvas, figure)
    dress_person(canvas, figure, outfit)
    photo, points = canvas.image(), key_points(figure)
    box, mask = _person_box(canvas), (canvas.person > 0.5).astype(np.uint8)
    if rng.random() < 0.5:
        photo, points, box = _mirrored(photo, points, box)
        mask = mask[:, ::-1]
    return Drawing(
        label,
        photo,
        _inside(points, size),
        box,
        float(canvas.person.sum().round()),
        mask,
        outfit.fabric.name,
        outfit.womens,
    )


def draw_summary(label: str, seed: int) -> tuple[str, bool]:
    """Return the colour's name and whether it is women's wear, without drawing the product."""
    outfit = choose_outfit(label, np.random.default_rng([_number(label), seed]))
    return outfit.fabric.name, outfit.womens


def _number(label: str) -> int:
    if label not in LABELS:
        raise ValueError(f"no drawing of {label!r}; known are {', '.join(LABELS)}")
    return LABELS.index(label)


def _framed(rng: np.random.Generator, outfit: Outfit, size: tuple[int, int]) -> tuple[Body, float]:
    """Return the person placed in the picture, and the row where the floor begins."""
    pose = choose_pose(rng)
    frame = _cut_off if rng.random() < 0.4 else _whole
    top, scale = frame(rng, outfit.zone, size)
    # Raised arms are no wider than the hips, so the person always fits the width.
    x = size[0] * float(np.clip(rng.normal(0.5, 0.07), 0.36, 0.64))
    figure = Body(outfit.build, pose, scale, np.array([x, top + scale * 0.5]))
    floor = top + scale * rng.uniform(0.83, 0.93)
    return figure, float(min(floor, size[1] * 0.97))


def _whole(rng: np.random.Generator, zone: str, size: tuple[int, int]) -> tuple[float, float]:
    """Return the top of the head and the person's height in pixels, with head and feet in view."""
    share = float(0.45 + 0.5 * rng.beta(3, 1.3))
    scale = min(share * size[1], size[0] * 1.45)
    room = size[1] - scale
    return float(room * rng.uniform(0.35, 0.75)), scale


def _cut_off(rng: np.random.Generator, zone: str, size: tuple[int, int]) -> tuple[float, float]:
    """Return the same values, cropped at the legs or the head, as in shop photos."""
    width, height = size
    if zone == "lower":
        above, below = rng.uniform(0.2, 0.34), rng.uniform(1.01, 1.05)
    elif zone == "upper":
        above, below = rng.uniform(-0.06, -0.02), rng.uniform(0.62, 0.8)
    else:
        above, below = rng.uniform(-0.06, -0.02), rng.uniform(0.88, 0.97)
    scale = min(height / (below - above), width * 2.1)
    return float(-above * scale), float(scale)


def _paint_floor_shadow(canvas: Canvas, figure: Body) -> None:
    s = figure.scale
    feet = [figure.legs[side][2] + np.array([0.01 * s, 0.05 * s]) for side in (RIGHT, LEFT)]
    canvas.glow([oval((feet[0] + feet[1]) / 2, 0.15 * s, 0.025 * s)], 0.8, 0.03 * s)
    canvas.glow([oval(foot, 0.05 * s, 0.012 * s) for foot in feet], 0.6, 0.01 * s)


def _person_box(canvas: Canvas) -> tuple[float, float, float, float]:
    covered = canvas.person > 0.5
    rows, columns = np.flatnonzero(covered.any(axis=1)), np.flatnonzero(covered.any(axis=0))
    left, top = float(columns[0]), float(rows[0])
    return left, top, float(columns[-1] + 1 - left), float(rows[-1] + 1 - top)


def _mirrored(
    photo: Image.Image, points: Points, box: tuple[float, float, float, float]
) -> tuple[Image.Image, Points, tuple[float, float, float, float]]:
    swapped = points[list(MIRROR)]
    swapped[:, 0] = photo.width - 1 - swapped[:, 0]
    left, top, width, height = box
    flipped = photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return flipped, swapped, (photo.width - left - width, top, width, height)


def _inside(points: Points, size: tuple[int, int]) -> Points:
    """Return the points with those outside the picture set to zero, as in COCO."""
    x, y = points[:, 0], points[:, 1]
    seen = (x >= 0) & (x < size[0]) & (y >= 0) & (y < size[1])
    result: Points = np.where(seen[:, None], points, 0.0)
    return result


NAMES = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder",
    "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee",
    "right_knee", "left_ankle", "right_ankle",
)  # fmt: skip
# Pairs of key points, counted from 1, as in COCO's own files.
SKELETON = (
    (16, 14), (14, 12), (17, 15), (15, 13), (12, 13), (6, 12), (7, 13), (6, 7), (6, 8), (7, 9),
    (8, 10), (9, 11), (2, 3), (1, 2), (1, 3), (2, 4), (3, 5), (4, 6), (5, 7),
)  # fmt: skip


def coco_annotations(drawings: Iterable[tuple[str, Drawing]]) -> dict[str, Any]:
    """Return the COCO dictionary for pairs of file name and drawing; ids count from 1."""
    images, annotations = [], []
    for number, (name, drawing) in enumerate(drawings, 1):
        width, height = drawing.photo.size
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        annotations.append(_annotation(number, drawing))
    person = {
        "id": 1,
        "name": "person",
        "supercategory": "person",
        "keypoints": list(NAMES),
        "skeleton": [list(pair) for pair in SKELETON],
    }
    return {"images": images, "annotations": annotations, "categories": [person]}


def _annotation(number: int, drawing: Drawing) -> dict[str, Any]:
    points = np.column_stack(
        [drawing.key_points[:, :2].round(1), drawing.key_points[:, 2].astype(int)]
    )
    return {
        "id": number,
        "image_id": number,
        "category_id": 1,
        "keypoints": [v for x, y, seen in points.tolist() for v in (x, y, int(seen))],
        "num_keypoints": int((points[:, 2] > 0).sum()),
        "segmentation": _run_lengths(drawing.mask),
        "bbox": list(drawing.box),
        "area": drawing.area,
        "iscrowd": 0,
    }


def _run_lengths(mask: NDArray[np.uint8]) -> dict[str, Any]:
    """Return a mask as COCO's compressed run-length encoding."""
    from pycocotools import mask as masks

    encoded = masks.encode(np.asfortranarray(mask))
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}
