"""Garments of the upper body: tops, polo shirts, and the sleeves that coats and dresses share."""

from dataclasses import dataclass

import numpy as np

from scraper.sample_shop.art.canvas import Canvas
from scraper.sample_shop.art.fabric import Fabric
from scraper.sample_shop.art.figure import Figure
from scraper.sample_shop.art.shapes import Points, curve, dashes, moved, oval, ribbon


@dataclass(frozen=True)
class TopCut:
    """How a top is cut: SLEEVE 0 none, 1 elbow, 2 wrist; HEM on the torso's scale; EASE: width."""

    sleeve: float
    hem: float
    ease: float
    neckline: float
    collar_gain: float = 1.0
    buttons: int = 3


def choose_polo(rng: np.random.Generator) -> TopCut:
    """Short sleeves, hem at the hips."""
    gain = float(rng.choice((0.72, 0.85, 1.3)))
    return TopCut(
        float(rng.uniform(0.62, 0.82)),
        float(rng.uniform(0.92, 1.12)),
        float(rng.uniform(1.04, 1.16)),
        0.05,
        gain,
        int(rng.integers(2, 4)),
    )


def choose_top(rng: np.random.Generator) -> TopCut:
    """What is worn with jeans, skirts and shorts: tee, tank or long sleeve, without a collar."""
    return TopCut(
        float(rng.choice((0.0, 0.6, 0.75, 1.9))),
        float(rng.uniform(0.76, 0.9)),
        float(rng.uniform(1.0, 1.1)),
        float(rng.uniform(0.04, 0.12)),
    )


def sleeve_outline(figure: Figure, side: int, length: float, ease: float) -> list[Points]:
    """A sleeve as far down the arm as LENGTH: 0 shoulder, 1 elbow, 2 wrist."""
    path, widths = figure.path(figure.arms[side]), figure.arm_widths()
    at = np.linspace(0, length * 8, 14)
    index = np.arange(17)
    line = np.column_stack([np.interp(at, index, path[:, i]) for i in (0, 1)])
    flare = 1 + 0.1 * np.linspace(0, 1, 14) * (length < 1.2)
    grow = np.interp(at, (0, 6), (1.0 + 0.35 * (ease - 1), ease))
    width = np.interp(at, index, widths) * grow * flare + 0.003 * figure.scale
    shapes = [ribbon(line, width), oval(line[0], width[0] * 1.02)]
    if length > 1:
        shapes += [oval(path[i], float(np.interp(i, at, width))) for i in (6, 7, 8, 9, 10)]
    return shapes


def paint_sleeve(
    canvas: Canvas, figure: Figure, side: int, fabric: Fabric, length: float, ease: float = 1.3
) -> None:
    """A sleeve with its creases at armpit and elbow, and its hem."""
    s = figure.scale
    shoulder, elbow = figure.arms[side][:2]
    turn = float(np.arctan2(*(elbow - shoulder)))
    shapes = sleeve_outline(figure, side, length, ease)
    fold = 0.02 * s * ease
    creases = [
        ribbon(curve([moved(p, -fold, -0.2 * fold), p, moved(p, fold, 0.5 * fold)]), 0.003 * s)
        for p in ([elbow, moved(elbow, 0, 0.02 * s)] if length > 1.2 else [])
    ]
    canvas.paint(
        shapes,
        fabric.placed(shoulder, -turn),
        relief=0.017 * s * ease,
        shadow=0.014 * s,
        folds=creases,
    )
    end = shapes[0]
    band = np.vstack([end[12:14], end[14:16]])
    canvas.glow([band], 0.88, 0.002 * s)


def body_outline(
    figure: Figure, hem: float, ease: float, neckline: float, wide: float = 0.42
) -> Points:
    """The front of a top: neck opening, shoulders, sides, hem."""
    places = (0.3, 0.45, 0.62, 0.82, 1.0, 1.2)
    down = [v for v in places if v < hem - 0.05] + [hem]
    loose = {v: ease * (1 + 0.05 * (0.5 < v < 0.75)) for v in down}
    side = [figure.torso(loose[v], v) for v in down]
    other = [figure.torso(-loose[v], v) for v in down]
    bottom = [figure.torso(0.5 * ease, hem + 0.015), figure.torso(-0.5 * ease, hem + 0.015)]
    shoulder = [
        figure.torso(x, v) for x, v in ((wide, -0.11), (0.76, -0.03), (1.0, 0.06), (1.02, 0.17))
    ]
    mirror = [
        figure.torso(-x, v) for x, v in ((1.02, 0.17), (1.0, 0.06), (0.76, -0.03), (wide, -0.11))
    ]
    neck = [
        figure.front(neckline * 0.7, -0.28),
        figure.front(neckline),
        figure.front(neckline * 0.7, 0.28),
    ]
    right = [*shoulder, *side, *bottom[:1]]
    left = [*bottom[1:], *other[::-1], *mirror]
    return np.vstack([curve(right, 5), curve(left, 5), curve([mirror[-1], *neck, shoulder[0]], 5)])


def body_folds(figure: Figure, hem: float) -> list[Points]:
    """Creases from the armpits to the waist, and at the waist."""
    s = figure.scale
    lines = []
    for x in (-1, 1):
        lines += [
            [(x * 0.92, 0.26), (x * 0.55, 0.36), (x * 0.3, 0.38)],
            [(x * 1.0, 0.55), (x * 0.6, 0.62), (x * 0.25, 0.6)],
            [(x * 1.0, 0.7), (x * 0.65, 0.72), (x * 0.4, 0.78)],
        ]
    curves = [curve([figure.torso(u, min(v, hem)) for u, v in line]) for line in lines]
    taper = [0.0045 * s * (1 - np.linspace(0, 1, len(c))) for c in curves]
    return [ribbon(c, t) for c, t in zip(curves, taper, strict=True)]


def paint_top(canvas: Canvas, figure: Figure, fabric: Fabric, cut: TopCut) -> None:
    """The body of any top; its sleeves are painted with the arms."""
    s = figure.scale
    outline = body_outline(
        figure, cut.hem, cut.ease, cut.neckline, 0.6 if cut.sleeve == 0 else 0.42
    )
    canvas.paint(
        outline,
        fabric.placed(figure.front(0.5), -figure.pose.lean),
        relief=0.035 * s,
        shadow=0.01 * s,
        folds=body_folds(figure, cut.hem),
    )
    hem = curve([figure.torso(u * cut.ease, cut.hem - 0.02) for u in (-0.97, 0, 0.97)])
    canvas.glow([ribbon(hem, 0.0018 * s)], 0.8, 0.001 * s)
    neck = curve(
        [
            figure.torso(-0.42, -0.05),
            figure.front(cut.neckline, -0.12),
            figure.front(cut.neckline, 0.12),
            figure.torso(0.42, -0.05),
        ]
    )
    canvas.glow([ribbon(neck, 0.004 * s)], 0.86, 0.001 * s)


def paint_polo(canvas: Canvas, figure: Figure, fabric: Fabric, cut: TopCut) -> None:
    """A top with a button placket and a collar of two leaves."""
    s = figure.scale
    paint_top(canvas, figure, fabric, cut)
    trim = fabric.plain(cut.collar_gain)
    strip = curve([figure.front(v) for v in (0.02, 0.15, 0.3)])
    canvas.paint(ribbon(strip, 0.0105 * s), trim, relief=0.004 * s, shadow=0.004 * s)
    opening = np.vstack([figure.front(0.0, -0.16), figure.front(0.09), figure.front(0.0, 0.16)])
    canvas.glow([opening], 0.78, 0.003 * s)
    dark = sum(trim) < 330
    for v in np.linspace(0.12, 0.26, cut.buttons):
        canvas.paint(oval(figure.front(v), 0.0042 * s), (236, 232, 224) if dark else (70, 62, 58))
    for x in (-1, 1):
        leaf = curve(
            [
                figure.torso(0.46 * x, -0.13),
                figure.front(-0.02, 0.3 * x),
                figure.front(0.055, 0.04 * x),
                figure.front(0.15, 0.34 * x),
                figure.torso(0.66 * x, 0.02),
                figure.torso(0.58 * x, -0.07),
            ],
            5,
            closed=True,
        )
        canvas.paint(leaf, trim, relief=0.01 * s, shadow=0.008 * s)


def paint_cuff(canvas: Canvas, figure: Figure, side: int, fabric: Fabric, cut: TopCut) -> None:
    """The ribbed edge of a polo shirt's sleeve."""
    end = sleeve_outline(figure, side, cut.sleeve, 1.34)[0]
    middle = (end[13] + end[14]) / 2, (end[11] + end[16]) / 2
    half = float(np.hypot(*(end[13] - end[14]))) / 2
    canvas.paint(
        ribbon(np.vstack(middle), half), fabric.plain(cut.collar_gain), relief=0.012 * figure.scale
    )


def stitches(figure: Figure, line: Points, fabric: Fabric) -> list[Points]:
    """A dashed seam along LINE."""
    length = float(np.abs(np.diff(line, axis=0)).sum())
    return dashes(line, max(3, int(length / (0.009 * figure.scale))), 0.0026 * figure.scale)
