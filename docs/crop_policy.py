"""Draw docs/images/crop-policy.png: crops of drawn people with known key points.

python docs/crop_policy.py
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dataset.pose.crop import (
    BLUR,
    GREY,
    KEEP,
    WHITE,
    choose_crop,
    draw_person,
    replace_background,
)
from dataset.pose.heatmaps import PersonMask
from dataset.pose.models import JointSet
from scraper.sample_shop.drawing.product import NAMES, SKELETON, Drawing, draw_product

PICTURE = Path(__file__).parent / "images" / "crop-policy.png"
JOINTS = JointSet(NAMES, tuple((one - 1, other - 1) for one, other in SKELETON))
THRESHOLD = 0.3
SIDE, GAP, TEXT = 170, 14, 34
MASK_SIZE = 64, 92


@dataclass(frozen=True)
class Case:
    """An image with key points, and a mask if the network finds masks."""

    title: str
    photo: Image.Image
    points: np.ndarray
    mask: PersonMask | None = None
    background: str = KEEP


def scored(drawing: Drawing) -> np.ndarray:
    """Return the key points of a drawing with scores as a network gives them."""
    points = drawing.key_points.copy()
    points[:, 2] = np.choose(points[:, 2].astype(int), (0.05, 0.7, 0.9))
    return points


def half(drawing: Drawing) -> Case:
    """Return the upper half of a drawing; points below the border have low scores."""
    middle = int(drawing.key_points[11:13, 1].mean()) + 60
    photo, points = drawing.photo.crop((0, 0, drawing.photo.width, middle)), scored(drawing)
    below = points[:, 1] > middle
    points[below, 1], points[below, 2] = middle - 8, 0.1
    return Case("half a person: points below\nthe threshold don't count", photo, points)


def few(drawing: Drawing) -> Case:
    """Return a drawing from the knees down."""
    top = int(drawing.key_points[13:15, 1].min()) - 30
    photo = drawing.photo.crop((0, top, drawing.photo.width, drawing.photo.height))
    points = scored(drawing) - np.array([0, top, 0])
    points[points[:, 1] < 0] = 5, 5, 0.05
    return Case("fewer than five points:\nthe whole photo", photo, points)


def cases() -> list[Case]:
    """Return the cases of the picture in order."""
    # A whole person with space around, before a background that blur and white visibly replace.
    drawing = draw_product("shorts", 12)
    points = scored(drawing)
    whole = Case("no mask: the key points' box,\nextended by head and feet", drawing.photo, points)
    drawn = Image.fromarray(drawing.mask * np.uint8(255)).resize(MASK_SIZE)
    mask = PersonMask(np.asarray(drawn), (0.0, 0.0, *drawing.photo.size))
    masked = [
        Case(title, drawing.photo, points, mask, background)
        for title, background in (
            ("key points and mask\ndisagree: the mask's box", KEEP),
            ("--background blur", BLUR),
            ("--background white", WHITE),
        )
    ]
    return [*masked, whole, half(drawing), few(drawing)]


def column(case: Case, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> Image.Image:
    """Draw the title, the image with key points and box, and the crop below."""
    crop = choose_crop(case.points, NAMES, case.photo.size, THRESHOLD, mask=case.mask)
    seen = draw_person(case.photo, case.points, JOINTS, THRESHOLD, crop.box, SIDE * 3 // 2)
    kept = replace_background(case.photo, crop, case.background)
    kept.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    sheet = Image.new("RGB", (SIDE, TEXT + SIDE * 3 // 2 + GAP + SIDE), "white")
    ImageDraw.Draw(sheet).multiline_text((0, 0), case.title, fill="black", font=font)
    sheet.paste(seen, ((SIDE - seen.width) // 2, TEXT + (SIDE * 3 // 2 - seen.height) // 2))
    sheet.paste(kept, ((SIDE - kept.width) // 2, TEXT + SIDE * 3 // 2 + GAP))
    return sheet


def main() -> None:
    """Write the picture."""
    font = ImageFont.load_default(12)
    columns = [column(case, font) for case in cases()]
    width = GAP + len(columns) * (SIDE + GAP)
    sheet = Image.new("RGB", (width, columns[0].height + 2 * GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for number, one in enumerate(columns):
        left = GAP + number * (SIDE + GAP)
        sheet.paste(one, (left, GAP))
        if number:
            draw.line([(left - GAP // 2, GAP), (left - GAP // 2, sheet.height - GAP)], fill=GREY)
    sheet.quantize(128).save(PICTURE, optimize=True)


if __name__ == "__main__":
    main()
