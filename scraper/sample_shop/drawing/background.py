"""Backgrounds of drawn photos; each is drawn at half size."""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from scraper.sample_shop.drawing.canvas import Pixels

Rng = np.random.Generator
RGB = tuple[int, int, int]


def tone(rng: Rng, low: int = 60, high: int = 220, spread: float = 30) -> RGB:
    """Return a muted colour between `low` and `high`."""
    hue = rng.uniform(0, 2 * np.pi) + np.array((0, 2.1, 4.2))
    tint = rng.uniform(0, 1.1) * spread * np.cos(hue) + (0.15, 0, -0.15) * np.array(spread)
    r, g, b = np.clip(rng.uniform(low, high) + tint, 20, 250).astype(int)
    return int(r), int(g), int(b)


def darker(colour: RGB, gain: float) -> RGB:
    return tuple(int(min(255, c * gain)) for c in colour)  # type: ignore[return-value]


def draw_window(rng: Rng, draw: ImageDraw.ImageDraw, x: float, y: float, w: float) -> None:
    top, wide, high = y * 0.1, w * rng.uniform(0.25, 0.4), y * rng.uniform(0.4, 0.6)
    draw.rectangle((x - wide / 2 - 4, top - 4, x + wide / 2 + 4, top + high + 4), (236, 234, 228))
    sky = (196, 220, 238)
    draw.rectangle((x - wide / 2, top, x + wide / 2, top + high), sky)
    for _ in range(5):
        px, py = x + rng.uniform(-0.4, 0.4) * wide, top + high * rng.uniform(0.6, 1)
        draw.ellipse((px - 14, py - 12, px + 14, min(py + 12, top + high)), (120, 158, 112))
    draw.line((x, top, x, top + high), (236, 234, 228), 4)
    draw.line((x - wide / 2, top + high / 2, x + wide / 2, top + high / 2), (236, 234, 228), 4)
    curtain = tone(rng, 120, 230, 20)
    for side in (-1, 1):
        for i in range(4):
            cx = x + side * (wide / 2 + 2 + i * 6)
            draw.rectangle((cx - 3, top - 8, cx + 3, y - 8), darker(curtain, 0.9 + 0.12 * (i % 2)))


def draw_frames(rng: Rng, draw: ImageDraw.ImageDraw, x: float, y: float, w: float) -> None:
    for i in range(int(rng.integers(1, 4))):
        px, py = x + (i - 1) * w * 0.2, y * rng.uniform(0.12, 0.3)
        wide, high = w * rng.uniform(0.07, 0.13), w * rng.uniform(0.09, 0.17)
        draw.rectangle((px, py, px + wide, py + high), tone(rng, 30, 120, 12))
        draw.rectangle((px + 3, py + 3, px + wide - 3, py + high - 3), (238, 234, 226))
        draw.ellipse((px + 8, py + 9, px + wide - 8, py + high - 9), tone(rng, 80, 200, 50))


def draw_plant(rng: Rng, draw: ImageDraw.ImageDraw, x: float, y: float, w: float) -> None:
    base, pot = y + w * 0.06, tone(rng, 110, 210, 30)
    for _ in range(16):
        angle, length = rng.uniform(-1.2, 1.2), w * rng.uniform(0.15, 0.38)
        tip = (x + np.sin(angle) * length, base - w * 0.14 - np.cos(angle) * length)
        green = (int(rng.uniform(40, 90)), int(rng.uniform(90, 150)), int(rng.uniform(50, 90)))
        middle = (x + np.sin(angle) * length * 0.4, base - w * 0.14 - length * 0.55)
        side = w * 0.022
        draw.polygon(
            [
                (x, base - w * 0.13),
                (middle[0] - side, middle[1]),
                tip,
                (middle[0] + side, middle[1]),
            ],
            green,
        )
    draw.polygon(
        [
            (x - w * 0.07, base - w * 0.15),
            (x + w * 0.07, base - w * 0.15),
            (x + w * 0.05, base),
            (x - w * 0.05, base),
        ],
        pot,
    )


def draw_sofa(rng: Rng, draw: ImageDraw.ImageDraw, x: float, y: float, w: float) -> None:
    colour, wide, top = tone(rng, 70, 190, 36), w * 0.42, y - w * 0.2
    draw.rounded_rectangle((x - wide, top, x + wide, y + w * 0.05), 16, colour)
    draw.rounded_rectangle(
        (x - wide, y - w * 0.08, x + wide, y + w * 0.07), 10, darker(colour, 1.12)
    )
    for side in (-1, 1):
        cx = x + side * wide
        draw.rounded_rectangle(
            (cx - 14, y - w * 0.13, cx + 14, y + w * 0.08), 10, darker(colour, 0.88)
        )
        pillow = tone(rng, 90, 230, 45)
        px = x + side * wide * 0.6
        draw.rounded_rectangle((px - 18, y - w * 0.17, px + 18, y - w * 0.06), 8, pillow)


def draw_lamp(rng: Rng, draw: ImageDraw.ImageDraw, x: float, y: float, w: float) -> None:
    top = y * rng.uniform(0.25, 0.4)
    draw.line((x, top, x, y), (60, 56, 54), 4)
    draw.polygon(
        [(x - 14, top - 34), (x + 14, top - 34), (x + 28, top + 8), (x - 28, top + 8)],
        (246, 226, 178),
    )
    draw.ellipse((x - 20, y - 4, x + 20, y + 6), (60, 56, 54))


def draw_shelf(rng: Rng, draw: ImageDraw.ImageDraw, x: float, y: float, w: float) -> None:
    wide, top = w * 0.32, y * rng.uniform(0.15, 0.35)
    frame = tone(rng, 60, 170, 12)
    draw.rectangle((x - wide / 2, top, x + wide / 2, y), darker(frame, 0.75))
    rows = 4
    for row in range(rows):
        low = top + (y - top) * (row + 1) / rows
        px = x - wide / 2 + 4
        while px < x + wide / 2 - 10:
            thick, high = rng.uniform(4, 11), (y - top) / rows * rng.uniform(0.45, 0.85)
            draw.rectangle((px, low - high, px + thick, low), tone(rng, 50, 220, 55))
            px += thick + rng.uniform(0, 5)
        draw.rectangle((x - wide / 2, low - 3, x + wide / 2, low + 2), frame)


def draw_chair(rng: Rng, draw: ImageDraw.ImageDraw, x: float, y: float, w: float) -> None:
    colour, seat = tone(rng, 60, 190, 30), y - w * 0.1
    for dx in (-0.09, 0.09):
        draw.line(
            (x + dx * w, seat - w * 0.24, x + dx * w * 1.15, y + w * 0.08), darker(colour, 0.7), 5
        )
    draw.rounded_rectangle((x - w * 0.1, seat - w * 0.26, x + w * 0.1, seat - w * 0.12), 6, colour)
    draw.rounded_rectangle((x - w * 0.12, seat - 6, x + w * 0.12, seat + 8), 5, colour)


def draw_house(
    rng: Rng, draw: ImageDraw.ImageDraw, area: tuple[float, float, float, float]
) -> None:
    left, top, right, bottom = area
    wall = tone(rng, 110, 210, 22)
    draw.rectangle(area, wall)
    step, glass = rng.uniform(20, 30), tone(rng, 60, 150, 14)
    for y in np.arange(top + 14, bottom - 30, step * 1.3):
        for x in np.arange(left + 10, right - 12, step):
            draw.rectangle(
                (x, y, x + step * 0.5, y + step * 0.8), darker(glass, rng.uniform(0.8, 1.4))
            )
    shade = tone(rng, 80, 200, 60)
    draw.polygon(
        [
            (left + 6, bottom - 42),
            (right - 6, bottom - 42),
            (right, bottom - 30),
            (left, bottom - 30),
        ],
        shade,
    )
    draw.rectangle((left + 8, bottom - 30, right - 8, bottom), darker(wall, 0.55))


def draw_tree(rng: Rng, draw: ImageDraw.ImageDraw, x: float, y: float) -> None:
    top = y * rng.uniform(0.25, 0.5)
    draw.line((x, y, x, top), (84, 66, 52), 7)
    for _ in range(14):
        px, py, r = x + rng.normal(0, 22), top + rng.normal(0, 20), rng.uniform(10, 22)
        green = (int(rng.uniform(70, 120)), int(rng.uniform(120, 165)), int(rng.uniform(60, 95)))
        draw.ellipse((px - r, py - r, px + r, py + r), green)


def paint_backdrop(rng: Rng, size: tuple[int, int], floor: float) -> Pixels:
    """Return a backdrop, (3, height, width) float32 in 0..255; the floor begins at row `floor`."""
    if rng.random() < 0.5:
        return _studio(rng, size, floor)
    width, height = size
    place = (_room, _street, _shop, _abstract, _garden)[rng.integers(5)]
    # Drawn at half size; it is blurred afterwards.
    image = Image.new("RGB", (width // 2 + 1, height // 2 + 1))
    place(rng, image, floor / 2)
    image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.9, 2.6))))
    channels = image.resize(size, Image.Resampling.BICUBIC).split()
    pixels = np.stack([np.asarray(channel, np.float32) for channel in channels])
    grain = rng.normal(0, 1, (height // 2 + 1, width // 2 + 1)).astype(np.float32)
    grain *= np.float32(rng.uniform(0.5, 2.5))
    pixels += grain.repeat(2, axis=0).repeat(2, axis=1)[:height, :width]
    return pixels


def _studio(rng: Rng, size: tuple[int, int], floor: float) -> Pixels:
    """A sweep of white to grey paper, lit from one side."""
    width, height = size
    x, y = np.linspace(-1, 1, width)[None, :], np.arange(height)[:, None]
    level, side = rng.uniform(214, 246), rng.uniform(-8, 8)
    glow = rng.uniform(6, 22) * (1 - x**2 / 2 - (y / height - 0.4) ** 2 * 2)
    ground = -rng.uniform(4, 16) / (1 + np.exp(-(y - floor) / (0.03 * height)))
    tint = 1 + rng.normal(0, 0.006, 3)
    light = glow + level
    light += side * x
    light += ground
    np.clip(light, 0, 255, out=light)
    pixels, values = np.empty((3, height, width), np.float32), np.empty_like(light)
    for channel, gain in zip(pixels, tint, strict=True):
        channel[:] = np.clip(np.multiply(light, gain, out=values), 0, 255, out=values)
    return pixels


def _vertical(image: Image.Image, top: RGB, bottom: RGB, first: int, last: int) -> None:
    """Fill the rows `first` to `last` with a gradient."""
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
    """Sky, houses with windows, trees and pavement."""
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
    """A shop with clothes rails, spotlights and a mirror."""
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
    """A coloured wall with large shapes."""
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
    """Leaves, spots of light and a path."""
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
