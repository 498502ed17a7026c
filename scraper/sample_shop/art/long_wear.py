"""Garments of the whole body: dresses and coats."""

from dataclasses import dataclass

import numpy as np

from scraper.sample_shop.art.bottoms import SkirtCut, drape, hem_line, skirt_sides
from scraper.sample_shop.art.canvas import Canvas, Colour
from scraper.sample_shop.art.fabric import Fabric
from scraper.sample_shop.art.figure import Figure
from scraper.sample_shop.art.shapes import Points, curve, moved, oval, ribbon
from scraper.sample_shop.art.tops import body_folds, body_outline


@dataclass(frozen=True)
class CoatCut:
    """A coat: LENGTH as a skirt's; ROWS of buttons; OPEN shows what is beneath."""

    length: float
    ease: float
    rows: int
    open: bool
    belt: bool


def choose_coat(rng: np.random.Generator) -> CoatCut:
    """To the knee and about, with one or two rows of buttons."""
    return CoatCut(
        float(rng.uniform(0.85, 1.3)),
        float(rng.uniform(1.16, 1.3)),
        int(rng.integers(1, 3)),
        bool(rng.random() < 0.3),
        bool(rng.random() < 0.35),
    )


def paint_dress(
    canvas: Canvas, figure: Figure, fabric: Fabric, cut: SkirtCut, neckline: float, strap: bool
) -> None:
    """Bodice and skirt of one cloth, gathered or belted at the waist."""
    s = figure.scale
    left, right = skirt_sides(figure, cut.length, cut.flare)
    bodice = body_outline(figure, 0.6, 1.02, neckline, 0.62 if strap else 0.42)
    hips = [figure.torso(u, v) for u, v in ((-1.08, 1.0), (-1.06, 0.85), (-1.02, 0.6))]
    waist = [figure.torso(-u[0], u[1]) for u in ((-1.02, 0.6), (-1.06, 0.85), (-1.08, 1.0))]
    sides = curve([*left[::-1], *hips], 4), curve([*waist, *right], 4)
    hem = curve([right[-1], *hem_line(left[-1], right[-1], cut.flare, s), left[-1]], 4)
    canvas.paint(
        [bodice, np.vstack([*sides, hem])],
        fabric.placed(figure.front(0.6)),
        relief=0.045 * s,
        shadow=0.012 * s,
        folds=[*body_folds(figure, 0.6), *drape(figure, cut.length, cut.flare, 5)],
    )
    seam = curve([figure.torso(u, 0.6) for u in (-1.02, 0, 1.02)])
    if cut.belt:
        canvas.paint(ribbon(seam, 0.008 * s), fabric.plain(0.62), relief=0.01 * s, shadow=0.004 * s)
    else:
        canvas.glow([ribbon(seam, 0.002 * s)], 0.72, 0.002 * s)


def paint_coat(canvas: Canvas, figure: Figure, fabric: Fabric, cut: CoatCut) -> None:
    """The body of a coat: two fronts, lapels, buttons, pockets; sleeves come with the arms."""
    s = figure.scale
    left, right = skirt_sides(figure, cut.length, 0.75)
    for x, side in ((1, right), (-1, left)):
        _paint_front(canvas, figure, fabric, cut, x, side, (left[-1] + right[-1]) / 2)
    if not cut.open:
        low = moved((left[-1] + right[-1]) / 2, 0, 0.01 * s)
        edge = curve([figure.front(0.3), figure.front(0.9), low])
        canvas.glow([ribbon(edge, 0.0022 * s)], 0.6, 0.002 * s)
        _paint_buttons(canvas, figure, fabric, cut)
    if cut.belt:
        belt = curve([figure.torso(u * cut.ease, 0.63) for u in (-1.04, 0, 1.04)])
        band = ribbon(belt, 0.013 * s)
        canvas.paint(band, fabric.plain(0.86), relief=0.012 * s, shadow=0.008 * s)
    paint_lapels(canvas, figure, fabric, 0.42)


def _paint_front(
    canvas: Canvas,
    figure: Figure,
    fabric: Fabric,
    cut: CoatCut,
    x: int,
    side: list[Points],
    middle: Points,
) -> None:
    """One front with its pocket: X -1 or 1, SIDE from hip to hem, MIDDLE of the hem."""
    s, gap = figure.scale, x * (0.34 if cut.open else 0.0)
    top = ((0.42, -0.12), (0.8, -0.04), (1.03, 0.05), (1.08, 0.2))
    flank = ((0.98, 0.35), (1.03, 0.62), (1.02, 0.85), (1.0, 1.0))
    outer = [figure.torso(x * u, v) for u, v in top]
    outer += [figure.torso(x * u * cut.ease, v) for u, v in flank]
    low = moved(middle, (0.021 * figure.pose.yaw + 0.05 * gap) * s, 0.012 * s)
    inner = [low, figure.front(0.9, gap), figure.front(0.45, gap), figure.front(0.1, x * 0.2)]
    canvas.paint(
        np.vstack([curve([*outer, *side], 4), curve(inner, 4)]),
        fabric.placed(figure.front(0.5)),
        relief=0.045 * s,
        shadow=0.016 * s,
        folds=drape(figure, cut.length, 0.75, 3),
    )
    pocket = np.vstack([figure.torso(x * u, v) for u, v in ((0.5, 0.93), (1.0, 0.9))])
    canvas.glow([ribbon(pocket, 0.0065 * s)], 0.84, 0.0015 * s)


def _paint_buttons(canvas: Canvas, figure: Figure, fabric: Fabric, cut: CoatCut) -> None:
    colour: Colour = (44, 36, 34) if sum(fabric.base) > 300 else (188, 160, 116)
    columns = (0.1,) if cut.rows == 1 else (-0.3, 0.3)
    for u in columns:
        for v in (0.5, 0.72, 0.94):
            place = figure.front(v, u)
            canvas.paint(oval(place, 0.0075 * figure.scale), colour, shadow=0.004 * figure.scale)


def paint_lapels(canvas: Canvas, figure: Figure, fabric: Fabric, depth: float) -> None:
    """A coat's collar and its two lapels, down to DEPTH on the torso."""
    s = figure.scale
    shade = fabric.placed(figure.front(0), 0.6)
    for x in (-1, 1):
        lapel = np.vstack(
            [
                figure.torso(0.4 * x, -0.1),
                figure.front(0.05, 0.26 * x),
                figure.front(depth, 0.02 * x),
                figure.front(0.24, 0.62 * x),
                figure.front(0.15, 0.5 * x),
                figure.front(0.13, 0.66 * x),
                figure.torso(0.66 * x, -0.02),
            ]
        )
        canvas.paint(lapel, shade, relief=0.012 * s, shadow=0.01 * s)
        edge = np.vstack([figure.front(0.15, 0.5 * x), figure.front(0.1, 0.3 * x)])
        canvas.glow([ribbon(edge, 0.0015 * s)], 0.7, 0.001 * s)
