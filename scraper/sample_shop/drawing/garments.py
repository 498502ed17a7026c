"""Garments: tops, polo shirts, trousers, skirts, dresses and coats."""

from dataclasses import dataclass

import numpy as np

from scraper.sample_shop.drawing.canvas import (
    Canvas,
    Colour,
    Fabric,
    Points,
    curve,
    dashes,
    moved,
    oval,
    ribbon,
)
from scraper.sample_shop.drawing.person import LEFT, LEG, RIGHT, Body, across


@dataclass(frozen=True)
class TopCut:
    """The cut of a top: `sleeve` 0 none, 1 elbow, 2 wrist; `hem` on the torso's scale."""

    sleeve: float
    hem: float
    ease: float
    neckline: float
    collar_gain: float = 1.0
    buttons: int = 3


def choose_polo(rng: np.random.Generator) -> TopCut:
    """Choose a polo shirt: short sleeves, hem at the hips."""
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
    """Choose a top without a collar: t-shirt, tank top or long sleeves."""
    return TopCut(
        float(rng.choice((0.0, 0.6, 0.75, 1.9))),
        float(rng.uniform(0.76, 0.9)),
        float(rng.uniform(1.0, 1.1)),
        float(rng.uniform(0.04, 0.12)),
    )


def sleeve_outline(figure: Body, side: int, length: float, ease: float) -> list[Points]:
    """Return the outline of a sleeve; `length` 0 shoulder, 1 elbow, 2 wrist."""
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
    canvas: Canvas, figure: Body, side: int, fabric: Fabric, length: float, ease: float = 1.3
) -> None:
    """Paint a sleeve with its creases at armpit and elbow, and its hem."""
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
    figure: Body, hem: float, ease: float, neckline: float, wide: float = 0.42
) -> Points:
    """Return the outline of a top's front: neck opening, shoulders, sides, hem."""
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


def body_folds(figure: Body, hem: float) -> list[Points]:
    """Return creases from the armpits to the waist, and at the waist."""
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


def paint_top(canvas: Canvas, figure: Body, fabric: Fabric, cut: TopCut) -> None:
    """Paint the body of a top; its sleeves are painted with the arms."""
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


def paint_polo(canvas: Canvas, figure: Body, fabric: Fabric, cut: TopCut) -> None:
    """Paint a top with a button placket and a two-part collar."""
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


def paint_cuff(canvas: Canvas, figure: Body, side: int, fabric: Fabric, cut: TopCut) -> None:
    """Paint the ribbed edge of a polo shirt's sleeve."""
    end = sleeve_outline(figure, side, cut.sleeve, 1.34)[0]
    middle = (end[13] + end[14]) / 2, (end[11] + end[16]) / 2
    half = float(np.hypot(*(end[13] - end[14]))) / 2
    canvas.paint(
        ribbon(np.vstack(middle), half), fabric.plain(cut.collar_gain), relief=0.012 * figure.scale
    )


def stitches(figure: Body, line: Points, fabric: Fabric) -> list[Points]:
    """Paint a dashed seam along `line`."""
    length = float(np.abs(np.diff(line, axis=0)).sum())
    return dashes(line, max(3, int(length / (0.009 * figure.scale))), 0.0026 * figure.scale)


WAIST = 0.7
THREAD: Colour = (206, 150, 84)


@dataclass(frozen=True)
class LegCut:
    """The cut of trousers: `length` 1 knee, 2 ankle; `thigh`, `hem`: width relative to the leg."""

    length: float
    thigh: float
    hem: float
    belt: bool


@dataclass(frozen=True)
class SkirtCut:
    """The cut of a skirt: `length` 1 knee, 2 ankle; `flare` at the hem in leg widths."""

    length: float
    flare: float
    pleats: int
    belt: bool


def choose_trousers(rng: np.random.Generator, denim: bool) -> LegCut:
    """Choose a slim, straight or wide cut."""
    thigh, hem = ((1.1, 1.3), (1.16, 1.65), (1.2, 2.2))[rng.integers(3 if denim else 2)]
    return LegCut(float(rng.uniform(1.86, 2.0)), thigh, hem, bool(rng.random() < 0.4))


def choose_shorts(rng: np.random.Generator) -> LegCut:
    """Choose a length from mid-thigh to just above the knee."""
    return LegCut(
        float(rng.uniform(0.42, 0.86)),
        float(rng.uniform(1.18, 1.35)),
        float(rng.uniform(1.4, 1.75)),
        bool(rng.random() < 0.5),
    )


def choose_skirt(rng: np.random.Generator) -> SkirtCut:
    """Choose a length from mini to midi and a width from pencil to flared."""
    flare = float(rng.choice((0.35, 0.8, 1.3, 1.8)))
    return SkirtCut(
        float(rng.uniform(0.55, 1.5)), flare, int(rng.integers(0, 2)) * 7, bool(rng.random() < 0.5)
    )


def _leg_outline(figure: Body, side: int, cut: LegCut) -> list[Points]:
    """Return the outline of one leg with its half of the hips."""
    x = across(side)
    along = np.linspace(0.34, cut.length, 13)
    outer = [figure.on_leg(side, a, _ease(cut, a)) for a in along]
    inner = [figure.on_leg(side, a, -min(_ease(cut, a), 1.0 + 0.4 * a)) for a in along]
    hips = [figure.torso(x * u, v) for u, v in ((1.03, WAIST), (1.05, 0.85), (1.08, 1.0))]
    crotch = moved(figure.hip, 0.0, 0.07 * figure.scale)
    middle = [figure.front(1.0), figure.front(WAIST + 0.01)]
    return [np.vstack([curve([*hips, *outer], 4), curve(inner[::-1], 4), crotch, *middle])]


def _ease(cut: LegCut, along: float) -> float:
    """Return the fabric's half width relative to the leg's; constant from knee to hem."""
    if cut.length < 1.2:
        return float(np.interp(along, (0.2, cut.length), (cut.thigh, cut.hem)))
    knee = max(35.0, 26 * cut.thigh + 8 * cut.hem)
    cloth = np.interp(along, (0.25, 1.0, 2.0), (48 * cut.thigh, knee, 18 * cut.hem))
    return float(cloth / np.interp(along, *LEG))


def _leg_folds(figure: Body, side: int, cut: LegCut) -> list[Points]:
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


def paint_trousers(canvas: Canvas, figure: Body, fabric: Fabric, cut: LegCut) -> None:
    """Paint jeans, trousers or shorts: two legs, a fly, a waistband, and seams on denim."""
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


def _paint_pockets(canvas: Canvas, figure: Body) -> None:
    s = figure.scale
    lines = [
        curve([figure.torso(x * 0.62, WAIST + 0.06), figure.torso(x * 1.02, 0.92)]) for x in (-1, 1)
    ]
    canvas.glow([ribbon(line, 0.002 * s) for line in lines], 0.7, 0.0015 * s)


def _paint_seams(canvas: Canvas, figure: Body, fabric: Fabric, cut: LegCut) -> None:
    """Paint top stitching on pockets, fly, outer seams and hems, and a rivet at each pocket."""
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


def paint_waistband(canvas: Canvas, figure: Body, fabric: Fabric, belt: bool) -> None:
    """Paint a band around the waist with its button, or a belt with its buckle."""
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


def skirt_sides(figure: Body, length: float, flare: float) -> tuple[list[Points], list[Points]]:
    """Return the sides from the hips to the hem: left and right in the picture."""
    along = np.linspace(0.1, length, 6)
    out = 1.12 + flare * (along / max(length, 0.6)) ** 1.2 * min(1.0, length + 0.2)
    return tuple(
        [figure.on_leg(side, a, o) for a, o in zip(along, out, strict=True)]
        for side in (RIGHT, LEFT)
    )  # type: ignore[return-value]


def hem_line(left: Points, right: Points, flare: float, s: float) -> list[Points]:
    """Return the hem from `right` to `left`: curved, and wavy where the skirt is wide."""
    t = np.linspace(0, 1, 13)[1:-1]
    sag = np.sin(np.pi * t) * 0.016 * s + np.sin(t * 22) * 0.0035 * s * min(flare, 1.4)
    return [right + (left - right) * a + np.array([0, b]) for a, b in zip(t, sag, strict=True)]


def drape(figure: Body, length: float, flare: float, count: int) -> list[Points]:
    """Return folds from hip to hem."""
    left, right = skirt_sides(figure, length, flare)
    folds = []
    for i in range(count):
        t = (i + 0.7) / (count + 0.4)
        top = figure.torso(2 * t - 1, 0.95)
        mid, low = left[2] + (right[2] - left[2]) * t, left[-1] + (right[-1] - left[-1]) * t
        line = curve([top, mid, moved(low, 0, 0.012 * figure.scale)])
        folds.append(ribbon(line, np.linspace(0.001, 0.006, len(line)) * figure.scale))
    return folds


def paint_skirt(canvas: Canvas, figure: Body, fabric: Fabric, cut: SkirtCut) -> None:
    """Paint a skirt with its waistband."""
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


@dataclass(frozen=True)
class CoatCut:
    """The cut of a coat: `length` as of a skirt; `rows` of buttons; `open` in front."""

    length: float
    ease: float
    rows: int
    open: bool
    belt: bool


def choose_coat(rng: np.random.Generator) -> CoatCut:
    """Choose a coat of about knee length with one or two rows of buttons."""
    return CoatCut(
        float(rng.uniform(0.85, 1.3)),
        float(rng.uniform(1.16, 1.3)),
        int(rng.integers(1, 3)),
        bool(rng.random() < 0.3),
        bool(rng.random() < 0.35),
    )


def paint_dress(
    canvas: Canvas, figure: Body, fabric: Fabric, cut: SkirtCut, neckline: float, strap: bool
) -> None:
    """Paint a bodice and skirt of one fabric, gathered or belted at the waist."""
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


def paint_coat(canvas: Canvas, figure: Body, fabric: Fabric, cut: CoatCut) -> None:
    """Paint the body of a coat: two fronts, lapels, buttons and pockets."""
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
    figure: Body,
    fabric: Fabric,
    cut: CoatCut,
    x: int,
    side: list[Points],
    middle: Points,
) -> None:
    """Paint one front with its pocket.

    Args:
        canvas: The picture.
        figure: The person.
        fabric: The coat's fabric.
        cut: The coat's cut.
        x: -1 or 1, the outer side of the torso.
        side: Line from hip to hem.
        middle: Middle of the hem.
    """
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


def _paint_buttons(canvas: Canvas, figure: Body, fabric: Fabric, cut: CoatCut) -> None:
    colour: Colour = (44, 36, 34) if sum(fabric.base) > 300 else (188, 160, 116)
    columns = (0.1,) if cut.rows == 1 else (-0.3, 0.3)
    for u in columns:
        for v in (0.5, 0.72, 0.94):
            place = figure.front(v, u)
            canvas.paint(oval(place, 0.0075 * figure.scale), colour, shadow=0.004 * figure.scale)


def paint_lapels(canvas: Canvas, figure: Body, fabric: Fabric, depth: float) -> None:
    """Paint a coat's collar and its two lapels, down to `depth` on the torso."""
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
