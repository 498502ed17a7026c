"""Things that stand about in a background; every picture is drawn at half size."""

import numpy as np
from PIL import ImageDraw

Rng = np.random.Generator
RGB = tuple[int, int, int]


def tone(rng: Rng, low: int = 60, high: int = 220, spread: float = 30) -> RGB:
    """A muted colour between LOW and HIGH."""
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
