"""Garments of the legs: jeans, trousers, shorts and skirts."""

from dataclasses import dataclass

import numpy as np

from scraper.sample_shop.art.canvas import Canvas, Colour
from scraper.sample_shop.art.fabric import Fabric
from scraper.sample_shop.art.figure import LEFT, LEG, RIGHT, Figure, across
from scraper.sample_shop.art.shapes import Points, curve, moved, oval, ribbon
from scraper.sample_shop.art.tops import stitches

WAIST = 0.7
THREAD: Colour = (206, 150, 84)


@dataclass(frozen=True)
class LegCut:
    """Trousers: LENGTH 1 knee, 2 ankle; half widths at THIGH and HEM as shares of the leg's."""

    length: float
    thigh: float
    hem: float
    belt: bool


@dataclass(frozen=True)
class SkirtCut:
    """A skirt: LENGTH 1 knee, 2 ankle; FLARE at the hem in leg widths; PLEATS drawn."""

    length: float
    flare: float
    pleats: int
    belt: bool


def choose_trousers(rng: np.random.Generator, denim: bool) -> LegCut:
    """Slim, straight or wide."""
    thigh, hem = ((1.1, 1.3), (1.16, 1.65), (1.2, 2.2))[rng.integers(3 if denim else 2)]
    return LegCut(float(rng.uniform(1.86, 2.0)), thigh, hem, bool(rng.random() < 0.4))


def choose_shorts(rng: np.random.Generator) -> LegCut:
    """From mid-thigh to just above the knee."""
    return LegCut(
        float(rng.uniform(0.42, 0.86)),
        float(rng.uniform(1.18, 1.35)),
        float(rng.uniform(1.4, 1.75)),
        bool(rng.random() < 0.5),
    )


def choose_skirt(rng: np.random.Generator) -> SkirtCut:
    """Mini to midi, pencil to flared."""
    flare = float(rng.choice((0.35, 0.8, 1.3, 1.8)))
    return SkirtCut(
        float(rng.uniform(0.55, 1.5)), flare, int(rng.integers(0, 2)) * 7, bool(rng.random() < 0.5)
    )


def _leg_outline(figure: Figure, side: int, cut: LegCut) -> list[Points]:
    """One leg with its half of the hips."""
    x = across(side)
    along = np.linspace(0.34, cut.length, 13)
    outer = [figure.on_leg(side, a, _ease(cut, a)) for a in along]
    inner = [figure.on_leg(side, a, -min(_ease(cut, a), 1.0 + 0.4 * a)) for a in along]
    hips = [figure.torso(x * u, v) for u, v in ((1.03, WAIST), (1.05, 0.85), (1.08, 1.0))]
    crotch = moved(figure.hip, 0.0, 0.07 * figure.scale)
    middle = [figure.front(1.0), figure.front(WAIST + 0.01)]
    return [np.vstack([curve([*hips, *outer], 4), curve(inner[::-1], 4), crotch, *middle])]


def _ease(cut: LegCut, along: float) -> float:
    """How many times the leg's half width the cloth reaches; straight from knee to hem."""
    if cut.length < 1.2:
        return float(np.interp(along, (0.2, cut.length), (cut.thigh, cut.hem)))
    knee = max(35.0, 26 * cut.thigh + 8 * cut.hem)
    cloth = np.interp(along, (0.25, 1.0, 2.0), (48 * cut.thigh, knee, 18 * cut.hem))
    return float(cloth / np.interp(along, *LEG))


def _leg_folds(figure: Figure, side: int, cut: LegCut) -> list[Points]:
    s = figure.scale
    lines = [[(0.3, -0.9), (0.45, -0.3), (0.55, 0.4)], [(0.22, -0.8), (0.3, 0.0), (0.34, 0.8)]]
    if cut.length > 1.2:
        lines += [
            [(0.95, 1.0), (1.02, 0.2), (1.0, -0.5)],
            [(1.1, -1.0), (1.16, 0.0), (1.2, 0.6)],
            [(cut.length - 0.1, 1.1), (cut.length - 0.06, 0.0), (cut.length - 0.12, -1.0)],
        ]
    curves = [curve([figure.on_leg(side, a, o) for a, o in line]) for line in lines]
    return [ribbon(c, 0.0035 * s * np.sin(np.linspace(0.3, np.pi, len(c)))) for c in curves]


def paint_trousers(canvas: Canvas, figure: Figure, fabric: Fabric, cut: LegCut) -> None:
    """Jeans, trousers or shorts: a leg each, a fly, a waistband, and seams on denim."""
    s = figure.scale
    order = (LEFT, RIGHT) if figure.pose.yaw > 0 else (RIGHT, LEFT)
    for side in order:
        hip, knee = figure.legs[side][:2]
        turn = float(np.arctan2(*(knee - hip)))
        canvas.paint(
            _leg_outline(figure, side, cut),
            fabric.placed(hip, -turn),
            relief=0.024 * s,
            shadow=0.008 * s,
            folds=_leg_folds(figure, side, cut),
        )
        edge = [figure.on_leg(side, cut.length - 0.05, o * cut.hem) for o in (0.95, 0.0, -0.6)]
        canvas.glow([ribbon(curve(edge), 0.0016 * s)], 0.75, 0.001 * s)
    fly = curve([figure.front(v) for v in (WAIST + 0.04, 0.95, 1.12)])
    canvas.glow([ribbon(fly, 0.002 * s)], 0.7, 0.0015 * s)
    if fabric.pattern == "denim":
        _paint_seams(canvas, figure, fabric, cut)
    else:
        _paint_pockets(canvas, figure)
    paint_waistband(canvas, figure, fabric, cut.belt)


def _paint_pockets(canvas: Canvas, figure: Figure) -> None:
    s = figure.scale
    lines = [
        curve([figure.torso(x * 0.62, WAIST + 0.06), figure.torso(x * 1.02, 0.92)]) for x in (-1, 1)
    ]
    canvas.glow([ribbon(line, 0.002 * s) for line in lines], 0.7, 0.0015 * s)


def _paint_seams(canvas: Canvas, figure: Figure, fabric: Fabric, cut: LegCut) -> None:
    """Top stitching: pockets, fly, outer seams, hems; and a rivet at each pocket."""
    s = figure.scale
    lines = [curve([figure.front(0.76, 0.14), figure.front(0.95, 0.14), figure.front(1.06, 0.02)])]
    for side in (RIGHT, LEFT):
        x = across(side)
        pocket = [
            figure.torso(x * u, v) for u, v in ((0.5, WAIST + 0.05), (0.62, 0.84), (1.0, 0.9))
        ]
        outer = [
            figure.on_leg(side, a, _ease(cut, a) - 0.12) for a in np.linspace(0.15, cut.length, 6)
        ]
        hem = [figure.on_leg(side, cut.length - 0.07, o * cut.hem) for o in (0.9, 0.0, -0.6)]
        lines += [curve(pocket), curve(outer), curve(hem)]
        canvas.paint(oval(moved(pocket[0], 0.004 * s, 0.004 * s), 0.003 * s), (214, 160, 96))
    canvas.glow([ribbon(line, 0.0028 * s) for line in lines], 0.82, 0.0015 * s)
    canvas.paint([d for line in lines for d in stitches(figure, line, fabric)], THREAD, opacity=0.8)


def paint_waistband(canvas: Canvas, figure: Figure, fabric: Fabric, belt: bool) -> None:
    """A band around the waist with its button, or a belt with its buckle."""
    s = figure.scale
    band = curve([figure.torso(u, WAIST + 0.015) for u in (-1.05, 0, 1.05)])
    colour: Colour = (58, 42, 36) if sum(fabric.base) > 260 else (150, 108, 70)
    canvas.paint(
        ribbon(band, 0.0105 * s),
        colour if belt else fabric.placed(figure.front(WAIST)),
        relief=0.02 * s,
        shadow=0.004 * s,
    )
    at = figure.front(WAIST + 0.015)
    if belt:
        canvas.paint(oval(at, 0.011 * s, 0.009 * s), (206, 184, 130))
        canvas.paint(oval(at, 0.007 * s, 0.0055 * s), colour)
    else:
        canvas.paint(oval(at, 0.0045 * s), (196, 178, 150))


def skirt_sides(figure: Figure, length: float, flare: float) -> tuple[list[Points], list[Points]]:
    """The hanging sides from the hips to the hem: the picture's left, its right."""
    along = np.linspace(0.1, length, 6)
    out = 1.12 + flare * (along / max(length, 0.6)) ** 1.2 * min(1.0, length + 0.2)
    return tuple(
        [figure.on_leg(side, a, o) for a, o in zip(along, out, strict=True)]
        for side in (RIGHT, LEFT)
    )  # type: ignore[return-value]


def hem_line(left: Points, right: Points, flare: float, s: float) -> list[Points]:
    """The hem from RIGHT to LEFT, sagging, and waved where the skirt is wide."""
    t = np.linspace(0, 1, 13)[1:-1]
    sag = np.sin(np.pi * t) * 0.016 * s + np.sin(t * 22) * 0.0035 * s * min(flare, 1.4)
    return [right + (left - right) * a + np.array([0, b]) for a, b in zip(t, sag, strict=True)]


def drape(figure: Figure, length: float, flare: float, count: int) -> list[Points]:
    """Folds that fall from hip to hem."""
    left, right = skirt_sides(figure, length, flare)
    folds = []
    for i in range(count):
        t = (i + 0.7) / (count + 0.4)
        top = figure.torso(2 * t - 1, 0.95)
        mid, low = left[2] + (right[2] - left[2]) * t, left[-1] + (right[-1] - left[-1]) * t
        line = curve([top, mid, moved(low, 0, 0.012 * figure.scale)])
        folds.append(ribbon(line, np.linspace(0.001, 0.006, len(line)) * figure.scale))
    return folds


def paint_skirt(canvas: Canvas, figure: Figure, fabric: Fabric, cut: SkirtCut) -> None:
    """A skirt with its waistband."""
    s = figure.scale
    left, right = skirt_sides(figure, cut.length, cut.flare)
    hips = [figure.torso(u, v) for u, v in ((-1.07, 1.0), (-1.06, 0.85), (-1.03, WAIST))]
    waist = [figure.torso(-u[0], u[1]) for u in ((-1.03, WAIST), (-1.06, 0.85), (-1.07, 1.0))]
    sides = curve([*left[::-1], *hips], 4), curve([*waist, *right], 4)
    outline = np.vstack(
        [*sides, curve([right[-1], *hem_line(left[-1], right[-1], cut.flare, s), left[-1]], 4)]
    )
    count = cut.pleats or (4 if cut.flare > 0.6 else 2)
    canvas.paint(
        outline,
        fabric.placed(figure.front(1.0)),
        relief=0.04 * s,
        shadow=0.014 * s,
        folds=drape(figure, cut.length, cut.flare, count),
    )
    if cut.pleats:
        canvas.glow(
            [ribbon(f[: len(f) // 2], 0.0012 * s) for f in drape(figure, cut.length, cut.flare, 7)],
            0.8,
            0.001 * s,
        )
    paint_waistband(canvas, figure, fabric, cut.belt)
