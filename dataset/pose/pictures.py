"""Key points drawn into photos, for people to judge."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from dataset.crop import Box
from dataset.images import open_photo
from dataset.pose.annotations import JointSet, Person

LEFT, RIGHT, MIDDLE = (255, 150, 30), (40, 170, 255), (120, 230, 90)
BOX, GREY = (255, 40, 90), (226, 226, 226)
TILE, COLUMNS, ROWS, GAP = 160, 8, 4, 4


def draw_person(
    photo: Image.Image,
    points: np.ndarray,
    joints: JointSet,
    gate: float,
    box: Box | None = None,
    side: int = TILE,
) -> Image.Image:
    """PHOTO within SIDE x SIDE, its bones, POINTS (joints, 3) of at least GATE, and BOX drawn."""
    tile = photo.copy()
    tile.thumbnail((side, side), Image.Resampling.BILINEAR)
    scale = tile.width / photo.width
    draw = ImageDraw.Draw(tile)
    seen, places = points[:, 2] >= gate, points[:, :2] * scale
    for one, other in joints.bones:
        if seen[one] and seen[other]:
            draw.line([*places[one], *places[other]], _colour(joints.names[other]), width=2)
    for name, (x, y), shown in zip(joints.names, places, seen, strict=True):
        if shown:
            draw.ellipse([x - 2, y - 2, x + 2, y + 2], fill=_colour(name), outline="white")
    if box:
        left, top, right, bottom = (side * scale for side in box)
        edges = [left, top, max(left, right - 1), max(top, bottom - 1)]
        draw.rectangle(edges, outline=BOX, width=2)
    return tile


def _colour(name: str) -> tuple[int, int, int]:
    if name.startswith(("left", "l_")):
        return LEFT
    return RIGHT if name.startswith(("right", "r_")) else MIDDLE


def grid(tiles: Sequence[Image.Image], columns: int = COLUMNS, side: int = TILE) -> Image.Image:
    """TILES in rows on light grey, each in the middle of its place of SIDE x SIDE pixels."""
    columns, pitch = min(columns, max(1, len(tiles))), side + GAP
    rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (columns * pitch + GAP, rows * pitch + GAP), GREY)
    for number, tile in enumerate(tiles):
        left = GAP + number % columns * pitch + (side - tile.width) // 2
        top = GAP + number // columns * pitch + (side - tile.height) // 2
        sheet.paste(tile, (left, top))
    return sheet


def found_grid(
    persons: Sequence[Person], points: Sequence[np.ndarray], joints: JointSet, gate: float
) -> Image.Image:
    """A grid of the first persons' photos with what was found in each."""
    count = COLUMNS * ROWS
    return grid(
        [
            draw_person(open_photo(person.photo), one, joints, gate)
            for person, one in zip(persons[:count], points[:count], strict=True)
        ]
    )
