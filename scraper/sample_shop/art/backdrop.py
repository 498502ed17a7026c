"""What stands behind the person: half the time a studio, half the time a cluttered place."""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from scraper.sample_shop.art.canvas import Pixels
from scraper.sample_shop.art.furniture import (
    RGB,
    Rng,
    darker,
    draw_chair,
    draw_frames,
    draw_house,
    draw_lamp,
    draw_plant,
    draw_shelf,
    draw_sofa,
    draw_tree,
    draw_window,
    tone,
)


def paint_backdrop(rng: Rng, size: tuple[int, int], floor: float) -> Pixels:
    """The empty picture, (height, width, 3) float32 in 0..255; FLOOR is where the floor begins."""
    if rng.random() < 0.5:
        return _studio(rng, size, floor)
    width, height = size
    place = (_room, _street, _shop, _abstract, _garden)[rng.integers(5)]
    # Drawn at half size: it is out of focus anyway.
    image = Image.new("RGB", (width // 2 + 1, height // 2 + 1))
    place(rng, image, floor / 2)
    image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.9, 2.6))))
    pixels = np.asarray(image.resize(size, Image.Resampling.BICUBIC), np.float32)
    grain = rng.normal(0, 1, (height // 2 + 1, width // 2 + 1, 1)).astype(np.float32)
    noise = grain.repeat(2, axis=0).repeat(2, axis=1)[:height, :width] * np.float32(
        rng.uniform(0.5, 2.5)
    )
    return np.asarray(pixels + noise, np.float32)


def _studio(rng: Rng, size: tuple[int, int], floor: float) -> Pixels:
    """A sweep of white to grey paper, lit from one side."""
    width, height = size
    x, y = np.linspace(-1, 1, width)[None, :], np.arange(height)[:, None]
    level, side = rng.uniform(214, 246), rng.uniform(-8, 8)
    glow = rng.uniform(6, 22) * (1 - x**2 / 2 - (y / height - 0.4) ** 2 * 2)
    ground = -rng.uniform(4, 16) / (1 + np.exp(-(y - floor) / (0.03 * height)))
    tint = 1 + rng.normal(0, 0.006, 3)
    light = np.clip(level + glow + side * x + ground, 0, 255)
    return np.asarray(np.clip(light[:, :, None] * tint, 0, 255), np.float32)


def _vertical(image: Image.Image, top: RGB, bottom: RGB, first: int, last: int) -> None:
    """Fill the rows FIRST to LAST with a gradient."""
    rows = max(1, last - first)
    t = np.linspace(0, 1, rows)[:, None]
    strip = ((1 - t) * np.array(top) + t * np.array(bottom)).astype(np.uint8)[:, None]
    image.paste(Image.fromarray(strip).resize((image.width, rows)), (0, first))


def _room(rng: Rng, image: Image.Image, floor: float) -> None:
    """A wall, a floor, and furniture."""
    width, height, line = image.width, image.height, int(floor)
    wall = tone(rng, 150, 225, 14)
    _vertical(image, wall, darker(wall, 0.9), 0, line)
    wood = tone(rng, 90, 170, 6)
    wood = (min(255, wood[0] + 24), wood[1], max(0, wood[2] - 26))
    _vertical(image, wood, darker(wood, 0.8), line, height)
    draw = ImageDraw.Draw(image)
    for x in np.arange(-width, 2 * width, width / 6):
        draw.line((x, height, width / 2 + (x - width / 2) * 0.5, line), darker(wood, 0.85))
    draw.rectangle((0, line - 7, width, line), darker(wall, 1.08))
    things: list[Callable[[Rng, ImageDraw.ImageDraw, float, float, float], None]] = [
        draw_window,
        draw_frames,
        draw_plant,
        draw_sofa,
        draw_lamp,
        draw_shelf,
        draw_chair,
    ]
    picks = rng.permutation(len(things))[: rng.integers(3, 6)]
    for pick in sorted(int(p) for p in picks):
        things[pick](rng, draw, rng.uniform(0, 1) * width, line, width)


def _street(rng: Rng, image: Image.Image, floor: float) -> None:
    """Sky, houses with windows, trees, pavement."""
    width, height, line = image.width, image.height, int(floor)
    _vertical(image, (176, 204, 228), (228, 232, 232), 0, line)
    ground = tone(rng, 120, 175, 6)
    _vertical(image, ground, darker(ground, 1.15), line, height)
    draw = ImageDraw.Draw(image)
    left = -rng.uniform(0, 40)
    while left < width:
        wide, top = rng.uniform(60, 130), floor * rng.uniform(0.02, 0.45)
        draw_house(rng, draw, (left, top, left + wide, floor))
        left += wide
    for _ in range(int(rng.integers(0, 4))):
        draw_tree(rng, draw, rng.uniform(0, width), floor)
    for i in range(5):
        y = floor + (height - floor) * (i / 5) ** 1.5
        draw.line((0, y, width, y), darker(ground, 0.88))


def _shop(rng: Rng, image: Image.Image, floor: float) -> None:
    """A shop: rails of clothes, spots, a mirror."""
    width, height = image.width, image.height
    wall = tone(rng, 170, 232, 10)
    _vertical(image, darker(wall, 0.95), wall, 0, int(floor))
    _vertical(image, darker(wall, 0.82), darker(wall, 0.92), int(floor), height)
    draw = ImageDraw.Draw(image)
    for top in (0.18, 0.56):
        y, x = floor * top, 0.0
        draw.line((0, y, width, y), (70, 68, 66), 3)
        while x < width:
            wide, long = rng.uniform(8, 18), floor * rng.uniform(0.2, 0.33)
            cloth = tone(rng, 40, 225, 48)
            draw.polygon(
                [
                    (x + wide / 2, y),
                    (x + wide, y + 9),
                    (x + wide, y + long),
                    (x, y + long),
                    (x, y + 9),
                ],
                cloth,
            )
            draw.line((x + wide * 0.7, y + 12, x + wide * 0.7, y + long), darker(cloth, 0.8), 2)
            x += wide * rng.uniform(0.9, 1.5)
    if rng.random() < 0.6:
        x = rng.uniform(0.05, 0.75) * width
        draw.rectangle((x - 4, floor * 0.1, x + 66, floor + 4), (96, 74, 52))
        draw.rectangle((x, floor * 0.1 + 4, x + 62, floor), darker(wall, 1.05))


def _abstract(rng: Rng, image: Image.Image, floor: float) -> None:
    """A coloured wall with big shapes."""
    wall = tone(rng, 120, 220, 32)
    _vertical(image, wall, darker(wall, 0.85), 0, image.height)
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(4, 11))):
        x, y = rng.uniform(0, image.width), rng.uniform(0, image.height)
        r, tall = rng.uniform(12, 90), rng.uniform(0.5, 1.8)
        area = (x - r, y - r * tall, x + r, y + r * tall)
        shape = (draw.ellipse, draw.rectangle)[rng.integers(2)]
        shape(area, tone(rng, 80, 235, 40))
    draw.rectangle((0, floor, image.width, image.height), darker(wall, 0.75))


def _garden(rng: Rng, image: Image.Image, floor: float) -> None:
    """Leaves and spots of light, and a path."""
    _vertical(image, (150, 182, 140), (96, 132, 82), 0, int(floor))
    _vertical(image, (188, 178, 152), (160, 148, 124), int(floor), image.height)
    draw = ImageDraw.Draw(image)
    for _ in range(260):
        x, y, r = rng.uniform(0, image.width), floor * rng.uniform(0, 1.02), rng.uniform(4, 16)
        green = rng.uniform(70, 175)
        draw.ellipse(
            (x - r, y - r * 0.7, x + r, y + r * 0.7),
            (int(green * 0.72), int(green), int(green * 0.55)),
        )
    for _ in range(int(rng.integers(10, 50))):
        x, y, r = rng.uniform(0, image.width), floor * rng.uniform(0.3, 1), rng.uniform(2, 5)
        draw.ellipse((x - r, y - r, x + r, y + r), tone(rng, 150, 235, 60))
