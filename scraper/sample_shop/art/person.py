"""Painting the person: skin, limbs and shoes."""

from dataclasses import dataclass

import numpy as np

from scraper.sample_shop.art.canvas import Canvas, Colour
from scraper.sample_shop.art.figure import LEFT, Figure, across
from scraper.sample_shop.art.shapes import Points, blend, curve, moved, oval, ribbon, together

SKINS: tuple[Colour, ...] = (
    (246, 214, 192),
    (236, 194, 164),
    (222, 172, 138),
    (198, 146, 110),
    (160, 110, 78),
    (118, 78, 56),
    (88, 58, 44),
)
HAIRS: tuple[Colour, ...] = (
    (34, 28, 27),
    (58, 40, 32),
    (96, 64, 42),
    (140, 92, 56),
    (196, 154, 96),
    (226, 196, 142),
    (150, 70, 42),
    (158, 156, 154),
)
LONG, SHORT = ("long", "bob", "bun", "tail", "curls"), ("crop", "crop", "sweep", "bald", "curls")


@dataclass(frozen=True)
class Looks:
    """Colours and hair of a person."""

    skin: Colour
    hair: Colour
    style: str
    lips: float

    def skin_at(self, gain: float) -> Colour:
        """The skin, brighter (GAIN above 1) or darker; darker skin turns redder, as skin does."""
        r, g, b = self.skin
        return (r * gain, g * gain * min(1.0, gain + 0.03), b * gain * min(1.0, gain + 0.02))


def choose_looks(rng: np.random.Generator, womens: bool) -> Looks:
    """Skin, hair colour and hair style, not tied to one another."""
    skin = SKINS[rng.integers(len(SKINS))]
    hair = HAIRS[rng.integers(len(HAIRS))]
    style = str(rng.choice(LONG if womens else SHORT))
    return Looks(skin, hair, style, 0.75 if womens else 0.35)


def paint_leg(canvas: Canvas, figure: Figure, side: int, colour: Colour) -> None:
    """A leg to the ankle; whatever is worn covers its top."""
    path = figure.path(figure.legs[side])
    shapes = [ribbon(path[3:], figure.leg_widths()[3:]), oval(path[-1], 0.018 * figure.scale)]
    canvas.paint(shapes, colour, relief=0.02 * figure.scale, shadow=0.012 * figure.scale)


def paint_torso(canvas: Canvas, figure: Figure, looks: Looks) -> None:
    """Neck to waist; whatever is worn covers the hips."""
    right = [figure.torso(-0.95, v) for v in (0.08, 0.16, 0.3, 0.45, 0.66)]
    left = [figure.torso(0.95, v) for v in (0.66, 0.45, 0.3, 0.16, 0.08)]
    top = [
        figure.torso(u, v) for u, v in ((0.84, 0.03), (0.4, -0.04), (-0.4, -0.04), (-0.84, 0.03))
    ]
    canvas.paint(curve([*right, *left, *top], closed=True), looks.skin, relief=0.04 * figure.scale)
    bones = [
        ribbon(
            curve([figure.front(0.03, u * 0.12), figure.front(0.0, u * 0.6)]), 0.0025 * figure.scale
        )
        for u in (-1, 1)
    ]
    canvas.glow(bones, 0.86, 0.003 * figure.scale)


def paint_neck(canvas: Canvas, figure: Figure, looks: Looks) -> None:
    """The neck, in the chin's shade."""
    s = figure.scale
    half = figure.build.widths[0] * s * 0.86
    top = blend(figure.head, figure.neck, 0.35)
    path = curve([top, figure.neck, figure.torso(0, 0.06)], steps=5)
    widths = half * np.interp(np.linspace(0, 1, len(path)), (0, 0.55, 1), (1, 1, 1.5))
    canvas.paint(ribbon(path, widths), looks.skin_at(0.94), relief=0.014 * s)
    canvas.glow([oval(blend(figure.head, figure.neck, 0.8), half, 0.016 * s)], 0.8, 0.008 * s)


def paint_arm(canvas: Canvas, figure: Figure, side: int, looks: Looks) -> None:
    """A bare arm with its hand."""
    s = figure.scale
    path = figure.path(figure.arms[side])
    shapes = together(
        ribbon(path, figure.arm_widths()),
        oval(path[0], 0.0265 * s * figure.build.limbs),
        oval(path[8], 0.0215 * s * figure.build.limbs),
        hand(figure, side),
    )
    canvas.paint(shapes, looks.skin, relief=0.016 * s, shadow=0.014 * s)


def hand(figure: Figure, side: int) -> list[Points]:
    """Palm, fingers and thumb, going on from the forearm."""
    s, k = figure.scale, figure.build.limbs
    elbow, wrist = figure.arms[side][1:]
    ahead = (wrist - elbow) / max(1e-6, float(np.hypot(*(wrist - elbow))))
    inwards = np.array([-ahead[1], ahead[0]]) * (1 if side == LEFT else -1)
    palm = curve([wrist - ahead * 0.01 * s, wrist + ahead * 0.025 * s, wrist + ahead * 0.062 * s])
    thumb = curve(
        [
            wrist + ahead * 0.01 * s,
            wrist + ahead * 0.026 * s + inwards * 0.014 * s * k,
            wrist + ahead * 0.042 * s + inwards * 0.016 * s * k,
        ]
    )
    width = np.interp(np.linspace(0, 1, len(palm)), (0, 0.5, 0.85, 1), (14, 18, 12, 6))
    return [ribbon(palm, width * s * k / 1000), ribbon(thumb, 0.0055 * s * k)]


def paint_shoe(canvas: Canvas, figure: Figure, side: int, colour: Colour, kind: str) -> None:
    """A sneaker, boot or pump, seen from the front and above."""
    s, x = figure.scale, across(side)
    knee, ankle = figure.legs[side][1:]
    aim = 0.45 * x + 0.9 * figure.pose.yaw
    toe = ankle + np.array([aim * 0.03, 0.05 if kind != "pump" else 0.056]) * s
    if kind == "boot":
        shaft = ribbon(
            np.vstack([ankle + (knee - ankle) * 0.32, moved(ankle, 0, 0.012 * s)]), 0.026 * s
        )
        canvas.paint(shaft, colour, relief=0.015 * s, shadow=0.008 * s)
    path = curve(
        [moved(ankle, 0, (0.014 if kind == "pump" else -0.006) * s), (ankle + toe) / 2, toe]
    )
    widths = np.interp(np.linspace(0, 1, len(path)), (0, 0.6, 0.9, 1), (19, 23, 19, 12))
    sole = [
        moved(p, 0, 0.006 * s)
        for p in (ribbon(path, widths * s / 1000), oval(toe, 0.016 * s, 0.01 * s))
    ]
    canvas.paint(sole, (232, 230, 226) if kind == "sneaker" else (40, 34, 32))
    upper = [ribbon(path, widths * s / 1000), oval(toe, 0.015 * s, 0.009 * s)]
    canvas.paint(upper, colour, relief=0.014 * s)
    if kind == "sneaker":
        for t in (0.35, 0.5, 0.65):
            middle = path[int(t * (len(path) - 1))]
            lace = np.vstack([moved(middle, -0.011 * s, 0), moved(middle, 0.011 * s, 0)])
            canvas.paint(ribbon(lace, 0.002 * s), (240, 240, 238))
