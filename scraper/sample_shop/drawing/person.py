"""People: build, pose, joints, and the frame that garments are placed in."""

from dataclasses import dataclass

import numpy as np

from scraper.sample_shop.drawing.canvas import (
    Canvas,
    Colour,
    Points,
    blend,
    curve,
    moved,
    oval,
    ribbon,
    together,
)

# Vertical positions as fractions of the person's height, from the top of the head.
NECK, SHOULDER, HIP, SOLE = 0.155, 0.19, 0.5, 1.0
UPPER_ARM, FOREARM, THIGH, SHIN = 0.165, 0.145, 0.235, 0.225
# The torso's half width at these places between shoulder line (0) and hip joints (1).
PLACES = (-0.1, 0.0, 0.12, 0.3, 0.62, 0.82, 1.0, 1.2)
# Half widths of a leg in thousandths of the height, at 0 hip, 1 knee, 2 ankle.
LEG = ((0, 0.25, 0.85, 1.0, 1.35, 1.75, 2.0), (50, 48, 32, 30, 31, 20, 18))
# Positions along the path of a limb.
INDEX = np.arange(17)
RIGHT, LEFT = 0, 1


@dataclass(frozen=True)
class Build:
    """A body: half widths of the torso relative to the height; `limbs` scales arms and legs."""

    widths: tuple[float, ...]
    limbs: float
    head: float
    slim: bool


@dataclass(frozen=True)
class Limb:
    """Angles of the two bones in radians, outwards from straight down, and their foreshortening."""

    upper: float
    lower: float
    reach: float = 1.0


@dataclass(frozen=True)
class Pose:
    """The pose; every pair is (person's right, person's left)."""

    arms: tuple[Limb, Limb]
    legs: tuple[Limb, Limb]
    arms_name: str
    lean: float
    sway: float
    slope: float
    yaw: float
    nod: float


def choose_build(rng: np.random.Generator, womens: bool) -> Build:
    """Choose an adult's build."""
    widths = np.array(
        (0.036, 0.1, 0.094, 0.088, 0.069, 0.083, 0.092, 0.087)
        if womens
        else (0.04, 0.117, 0.111, 0.099, 0.084, 0.086, 0.089, 0.082)
    )
    stout = rng.uniform(-1, 1)
    grow = np.array((0.04, 0.03, 0.05, 0.09, 0.15, 0.13, 0.1, 0.1))
    return Build(
        tuple(widths * (1 + grow * stout)),
        float((0.92 if womens else 1.08) * (1 + 0.1 * stout)),
        float(rng.uniform(0.95, 1.07)),
        womens,
    )


def choose_pose(rng: np.random.Generator) -> Pose:
    """Choose a pose of the arms and legs, and a turn of the body."""
    name = str(rng.choice(("down", "down", "hip", "hips", "raised", "wave", "crossed", "pocket")))
    arms = _arms(name, rng)
    return Pose(
        arms,
        _legs(rng),
        name,
        lean=float(rng.normal(0, 0.025)),
        sway=float(rng.normal(0, 0.012)),
        slope=float(rng.normal(0, 0.03)),
        yaw=float(np.clip(rng.normal(0, 0.33), -0.65, 0.65)),
        nod=float(rng.normal(0, 0.06)),
    )


def _arms(name: str, rng: np.random.Generator) -> tuple[Limb, Limb]:
    def spread(mean: float) -> float:
        return float(rng.normal(mean, 0.06))

    def hanging() -> Limb:
        start = spread(0.2)
        return Limb(start, start - abs(spread(0.1)))

    on_hip = Limb(spread(0.72), spread(-0.68), 0.97)
    pairs = {
        "down": (hanging(), hanging()),
        "hip": (on_hip, hanging()),
        "hips": (on_hip, Limb(spread(0.72), spread(-0.68), 0.97)),
        "raised": (Limb(spread(2.35), spread(3.75), 0.92), Limb(spread(2.35), spread(3.75), 0.92)),
        "wave": (Limb(spread(1.75), spread(2.85)), hanging()),
        "crossed": (
            Limb(spread(0.28), spread(-1.62), 0.98),
            Limb(spread(0.28), spread(-1.5), 0.98),
        ),
        "pocket": (Limb(spread(0.42), spread(-0.36), 0.95), hanging()),
    }
    return pairs[name]


def _legs(rng: np.random.Generator) -> tuple[Limb, Limb]:
    def spread(mean: float) -> float:
        return float(rng.normal(mean, 0.025))

    start = spread(0.03)
    pairs = {
        "together": (Limb(start, start - 0.02), Limb(spread(0.03), spread(0.0))),
        "apart": (Limb(spread(0.17), spread(0.15)), Limb(spread(0.17), spread(0.15))),
        "walking": (Limb(spread(0.1), spread(-0.08), 0.93), Limb(spread(0.02), spread(0.0))),
        "at ease": (Limb(spread(0.17), spread(0.02), 0.98), Limb(spread(0.02), spread(0.04))),
    }
    return pairs[str(rng.choice(list(pairs)))]


class Body:
    """The person in the picture: joints in pixels, and the frame that garments are placed in.

    Attributes:
        side: 0 for the person's right (on the left of the picture), 1 for the left.
        scale: The person's height in pixels.
        hip: The midpoint between the hip joints.
    """

    def __init__(self, build: Build, pose: Pose, scale: float, hip: Points) -> None:
        self.build, self.pose, self.scale = build, pose, scale
        self.narrow = 1 - 0.24 * min(1.0, abs(pose.yaw))
        self.hip = np.asarray(hip, float)
        # Directions of the torso: down the spine, and across to the person's left.
        self.down = np.array([np.sin(pose.lean), np.cos(pose.lean)])
        self.across = np.array([np.cos(pose.lean + pose.slope), np.sin(pose.lean + pose.slope)])
        self.collar = self.hip - self.down * (HIP - SHOULDER) * scale
        self.neck = self.collar - self.down * (SHOULDER - NECK) * scale
        turned = np.array([np.sin(pose.lean + pose.nod), np.cos(pose.lean + pose.nod)])
        self.head_down = turned
        self.head = self.neck - turned * 0.082 * scale + self.across * pose.yaw * 0.012 * scale
        self.head_size = np.array([0.047, 0.066]) * scale * build.head
        self.arms = (self._arm(RIGHT), self._arm(LEFT))
        self.legs = (self._leg(RIGHT), self._leg(LEFT))
        self._leg_lines = tuple(
            np.column_stack([self.path(leg), self.leg_widths()]) for leg in self.legs
        )

    def torso(self, u: float, v: float) -> Points:
        """Return a point on the torso: `u` -1..1 between the outlines, `v` 0 shoulders, 1 hips."""
        half = np.interp(v, PLACES, self.build.widths) * self.scale * self.narrow
        middle = self.hip - self.down * (HIP - SHOULDER) * (1 - v) * self.scale
        bend = self.pose.sway * self.scale * np.sin(np.pi * min(max(v, 0.0), 1.0))
        tilt = (
            self.across if v < 0.5 else blend(self.across, np.array([1.0, 0.0]), min(1, 2 * v - 1))
        )
        place: Points = middle + tilt * (u * half) + np.array([bend, 0.0])
        return place

    def front(self, v: float, u: float = 0.0) -> Points:
        """Return a point on the centre line of the front, which moves as the person turns."""
        return self.torso(0.75 * self.pose.yaw + u * self.narrow, v)

    def arm_widths(self, ease: float = 1.0) -> Points:
        """Return half widths (n,) along an arm's path, widest at the shoulder."""
        return np.interp(
            np.linspace(0, 2, 17), (0, 0.3, 0.9, 1.0, 1.3, 2.0), (26, 26, 21, 21, 21, 14)
        ) * (self.build.limbs * self.scale * ease / 1000)

    def leg_widths(self, ease: float = 1.0) -> Points:
        """Return half widths (n,) along a leg's path, widest at the top."""
        return np.interp(np.linspace(0, 2, 17), *LEG) * (
            self.build.limbs * self.scale * ease / 1000
        )

    def path(self, joints: Points) -> Points:
        """Return 17 points along a limb of three joints; index 8 is the middle joint, rounded."""
        a, b, c = joints
        return curve([a, blend(a, b, 0.5), b, blend(b, c, 0.5), c], steps=4)

    def _arm(self, side: int) -> Points:
        limb, sign = self.pose.arms[side], across(side)
        near = 1 + 0.06 * sign * self.pose.yaw
        shoulder = self.torso(0.82 * sign, 0.085)
        return self._bones(shoulder, limb, sign, UPPER_ARM * near, FOREARM * near)

    def _leg(self, side: int) -> Points:
        limb, sign = self.pose.legs[side], across(side)
        top = self.hip + np.array([sign * 0.5 * self.build.widths[6] * self.scale * self.narrow, 0])
        return self._bones(top, limb, sign, THIGH, SHIN)

    def _bones(self, start: Points, limb: Limb, sign: int, first: float, second: float) -> Points:
        ends = [start]
        for angle, length in ((limb.upper, first), (limb.lower, second)):
            step = np.array([sign * np.sin(angle), np.cos(angle)]) * limb.reach
            ends.append(ends[-1] + step * length * self.scale)
        return np.array(ends)

    def on_leg(self, side: int, along: float, out: float) -> Points:
        """Return a point beside a leg: `along` 0 hip, 1 knee, 2 ankle; `out` in half widths."""
        at = min(max(along, 0), 2) * 8
        x, y, width = (np.interp(at, INDEX, line) for line in self._leg_lines[side].T)
        place: Points = np.array([x + across(side) * out * width, y])
        return place


def across(side: int) -> int:
    """Return -1 for the person's right (on the left of the picture) and 1 for the left."""
    return 1 if side == LEFT else -1


def key_points(figure: Body) -> Points:
    """Return the 17 COCO key points (17, 3): x, y in pixels, and 2 for visible or 1 for hidden."""
    centre, (rx, ry), yaw = figure.head, figure.head_size, figure.pose.yaw
    right, down = np.array([figure.head_down[1], -figure.head_down[0]]), figure.head_down

    def on_head(x: float, y: float) -> Points:
        place: Points = centre + right * (x * rx) + down * (y * ry)
        return place

    face = [
        on_head(0.62 * yaw, 0.2),
        on_head(0.4 + 0.45 * yaw, -0.06),
        on_head(-0.4 + 0.45 * yaw, -0.06),
        on_head(1.0 - 0.25 * max(0.0, yaw), 0.08),
        on_head(-1.0 - 0.25 * min(0.0, yaw), 0.08),
    ]
    body = [
        (figure.arms if bone < 3 else figure.legs)[side][bone % 3]
        for bone in (0, 1, 2, 3, 4, 5)
        for side in (LEFT, RIGHT)
    ]
    points = np.column_stack([np.vstack([*face, *body]), np.full(17, 2.0)])
    # The ear on the side away from the camera is hidden.
    points[3, 2] = 1 if yaw > 0.3 else 2
    points[4, 2] = 1 if yaw < -0.3 else 2
    return points


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
        """Return the skin colour, brighter (`gain` above 1) or darker; darker skin is redder."""
        r, g, b = self.skin
        return (r * gain, g * gain * min(1.0, gain + 0.03), b * gain * min(1.0, gain + 0.02))


def choose_looks(rng: np.random.Generator, womens: bool) -> Looks:
    """Choose skin, hair colour and hair style independently."""
    skin = SKINS[rng.integers(len(SKINS))]
    hair = HAIRS[rng.integers(len(HAIRS))]
    style = str(rng.choice(LONG if womens else SHORT))
    return Looks(skin, hair, style, 0.75 if womens else 0.35)


def paint_leg(canvas: Canvas, figure: Body, side: int, colour: Colour) -> None:
    """Paint a leg down to the ankle; garments cover its top."""
    path = figure.path(figure.legs[side])
    shapes = [ribbon(path[3:], figure.leg_widths()[3:]), oval(path[-1], 0.018 * figure.scale)]
    canvas.paint(shapes, colour, relief=0.02 * figure.scale, shadow=0.012 * figure.scale)


def paint_torso(canvas: Canvas, figure: Body, looks: Looks) -> None:
    """Paint the torso from neck to waist; garments cover the hips."""
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


def paint_neck(canvas: Canvas, figure: Body, looks: Looks) -> None:
    """Paint the neck in the shade of the chin."""
    s = figure.scale
    half = figure.build.widths[0] * s * 0.86
    top = blend(figure.head, figure.neck, 0.35)
    path = curve([top, figure.neck, figure.torso(0, 0.06)], steps=5)
    widths = half * np.interp(np.linspace(0, 1, len(path)), (0, 0.55, 1), (1, 1, 1.5))
    canvas.paint(ribbon(path, widths), looks.skin_at(0.94), relief=0.014 * s)
    canvas.glow([oval(blend(figure.head, figure.neck, 0.8), half, 0.016 * s)], 0.8, 0.008 * s)


def paint_arm(canvas: Canvas, figure: Body, side: int, looks: Looks) -> None:
    """Paint a bare arm with its hand."""
    s = figure.scale
    path = figure.path(figure.arms[side])
    shapes = together(
        ribbon(path, figure.arm_widths()),
        oval(path[0], 0.0265 * s * figure.build.limbs),
        oval(path[8], 0.0215 * s * figure.build.limbs),
        hand(figure, side),
    )
    canvas.paint(shapes, looks.skin, relief=0.016 * s, shadow=0.014 * s)


def hand(figure: Body, side: int) -> list[Points]:
    """Return palm, fingers and thumb at the end of the forearm."""
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


def paint_shoe(canvas: Canvas, figure: Body, side: int, colour: Colour, kind: str) -> None:
    """Paint a sneaker, boot or pump, seen from the front and above."""
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


class Head:
    """The head's frame: x in half widths to the right of the picture, y in half heights down."""

    def __init__(self, canvas: Canvas, figure: Body, looks: Looks) -> None:
        self.canvas, self.figure, self.looks = canvas, figure, looks
        self.turn = 0.45 * figure.pose.yaw
        self.unit = float(figure.head_size[0])

    def at(self, x: float, y: float) -> Points:
        """Return a point of the head in pixels."""
        down = self.figure.head_down
        right = np.array([down[1], -down[0]])
        rx, ry = self.figure.head_size
        place: Points = self.figure.head + right * (x * rx) + down * (y * ry)
        return place

    def line(self, *places: tuple[float, float]) -> Points:
        """Return a smooth line through points of the head."""
        return curve([self.at(x, y) for x, y in places])

    def area(self, *places: tuple[float, float]) -> Points:
        """Return a smooth closed outline through points of the head."""
        return curve([self.at(x, y) for x, y in places], closed=True)

    def paint_hair_behind(self) -> None:
        """Paint the part of the hair behind neck and shoulders."""
        style, colour = self.looks.style, self._hair(0.82)
        outlines = {
            "long": (
                (-1.15, -0.5),
                (-1.35, 0.6),
                (-1.4, 2.1),
                (-0.6, 2.5),
                (0.6, 2.5),
                (1.4, 2.1),
                (1.35, 0.6),
                (1.15, -0.5),
                (0, -1.15),
            ),
            "bob": (
                (-1.15, -0.5),
                (-1.4, 0.4),
                (-1.3, 1.1),
                (0, 1.2),
                (1.3, 1.1),
                (1.4, 0.4),
                (1.15, -0.5),
                (0, -1.15),
            ),
            "tail": ((0.3, -0.9), (1.5, -0.5), (1.75, 0.6), (1.45, 1.9), (1.2, 0.8), (0.7, 0)),
        }
        if style in outlines:
            sign = -1 if style == "tail" and self.turn > 0 else 1
            outline = self.area(*((sign * x, y) for x, y in outlines[style]))
            self.canvas.paint(outline, colour, relief=0.5 * self.unit, folds=self._strands())
        elif style == "curls":
            self.canvas.paint(self._curls(1.28, -0.2), colour, relief=0.3 * self.unit)

    def paint_face(self) -> None:
        """Paint skull, ears and features, shifted in the viewing direction."""
        skin, unit, t = self.looks.skin, self.unit, self.turn
        for x in (-1, 1):
            self.canvas.paint(
                oval(self.at(x * 0.98 - 0.2 * t, 0.1), 0.16 * unit, 0.26 * unit),
                self.looks.skin_at(0.93),
                relief=0.1 * unit,
            )
        jaw = 0.5 if self.figure.build.slim else 0.62
        outline = self.area(
            (0, -1),
            (0.7, -0.8),
            (0.98, -0.25),
            (0.92, 0.3),
            (0.74 + 0.1 * t, 0.68),
            (jaw * 0.6 + 0.15 * t, 0.95),
            (0.25 * t, 1.02),
            (-jaw * 0.6 + 0.15 * t, 0.95),
            (-0.74 + 0.1 * t, 0.68),
            (-0.92, 0.3),
            (-0.98, -0.25),
            (-0.7, -0.8),
        )
        self.canvas.paint(outline, skin, relief=0.5 * unit, depth=0.8, shadow=0.25 * unit)
        for x in (-1, 1):
            self._paint_eye(x)
        cheeks = [oval(self.at(x * 0.52 + t, 0.34), 0.22 * unit) for x in (-1, 1)]
        self.canvas.paint(cheeks, (226, 120, 104), relief=0, opacity=0.1)
        self._paint_nose_and_mouth()

    def _paint_eye(self, x: int) -> None:
        paint, unit = self.canvas.paint, self.unit
        middle = 0.4 * x + self.turn
        width = 0.2 * (1 - 0.25 * max(0.0, x * self.turn))
        eye = self.area(
            (middle - width, -0.05), (middle, -0.13), (middle + width, -0.05), (middle, 0.01)
        )
        paint(eye, (244, 240, 236))
        paint(oval(self.at(middle + 0.1 * self.turn, -0.06), 0.085 * unit), (62, 46, 38))
        lid = self.line((middle - width, -0.05), (middle, -0.14), (middle + width, -0.05))
        paint(ribbon(lid, 0.028 * unit), (44, 32, 30))
        brow = self.line(
            (middle - 0.26, -0.29 - 0.025 * x), (middle, -0.345), (middle + 0.26, -0.29 + 0.025 * x)
        )
        thick = 0.04 if self.figure.build.slim else 0.06
        dark: Colour = (
            self.looks.hair[0] * 0.6,
            self.looks.hair[1] * 0.55,
            self.looks.hair[2] * 0.5,
        )
        paint(ribbon(brow, thick * unit), dark, opacity=0.85)

    def _paint_nose_and_mouth(self) -> None:
        unit, t, sign = self.unit, self.turn * 1.25, 1 if self.turn > 0 else -1
        nose = self.line((t - 0.06 * sign, -0.05), (t + 0.1 * sign, 0.25), (t - 0.05 * sign, 0.3))
        self.canvas.glow([ribbon(nose, 0.03 * unit)], 0.74, 0.035 * unit)
        self.canvas.glow([oval(self.at(t, 0.31), 0.15 * unit, 0.04 * unit)], 0.78, 0.04 * unit)
        r, g, b = self.looks.skin
        lips = (r * 0.72 + 38 * self.looks.lips, g * 0.58, b * 0.6)
        mouth = self.area(
            (t - 0.27, 0.57),
            (t - 0.08, 0.525),
            (t, 0.54),
            (t + 0.08, 0.525),
            (t + 0.27, 0.57),
            (t, 0.67),
        )
        self.canvas.paint(mouth, lips, opacity=0.9)
        smile = self.line((t - 0.3, 0.545), (t, 0.605), (t + 0.3, 0.545))
        self.canvas.paint(
            ribbon(smile, 0.016 * unit), (lips[0] * 0.55, lips[1] * 0.5, lips[2] * 0.5)
        )

    def paint_hair_before(self) -> None:
        """Paint the hair over the forehead and, where long, beside the face."""
        style, t, relief = self.looks.style, self.turn, 0.3 * self.unit
        if style == "bald":
            return
        part = 0.35 if t >= 0 else -0.35
        low = 0.15 if style in ("long", "bob") else -0.05
        line = -0.55 if style == "crop" else -0.42
        cap = self.area(
            (-1.08, low),
            (-1.16, -0.5),
            (-0.75, -1.06),
            (0, -1.22),
            (0.75, -1.06),
            (1.16, -0.5),
            (1.08, low),
            (0.93, -0.2),
            (0.72 + t * 0.4, line),
            (part + t, line - 0.22),
            (-0.72 + t * 0.4, line),
            (-0.93, -0.2),
        )
        self.canvas.paint(cap, self._hair(1), relief=relief, folds=self._strands())
        if style == "curls":
            self.canvas.paint(self._curls(1.12, -0.75), self._hair(1), relief=relief)
        if style == "bun":
            self.canvas.paint(
                oval(self.at(0.1, -1.38), 0.46 * self.unit), self._hair(1), relief=relief
            )

    def paint_strands(self) -> None:
        """Paint long hair that falls over the shoulders, in front of the garments."""
        if self.looks.style != "long":
            return
        for x in (-1, 1):
            strand = self.area(
                (x * 1.02, -0.3),
                (x * 1.2, 0.5),
                (x * 1.25, 1.5),
                (x * 1.0, 2.5),
                (x * 0.85, 2.2),
                (x * 0.98, 1.2),
                (x * 0.92, 0.2),
            )
            self.canvas.paint(
                strand, self._hair(1), relief=0.25 * self.unit, shadow=0.15 * self.unit
            )

    def _hair(self, gain: float) -> Colour:
        r, g, b = self.looks.hair
        return (r * gain, g * gain, b * gain)

    def _strands(self) -> list[Points]:
        return [
            ribbon(
                self.line((0.2 * x, -1.2), (x * 0.8, -0.8), (x * 1.12, 0.2), (x * 1.15, 1.8)),
                0.04 * self.unit,
            )
            for x in (-1.0, -0.8, 0.75, 1.0)
        ]

    def _curls(self, reach: float, lowest: float) -> list[Points]:
        angles = np.linspace(0, 2 * np.pi, 23, endpoint=False)
        places = [(reach * np.cos(a), -0.35 + reach * 0.95 * np.sin(a)) for a in angles]
        places += [(0.86 * x, -0.35 + 0.86 * (y + 0.35)) for x, y in places]
        return [oval(self.at(x, y), 0.25 * self.unit) for x, y in places if y < lowest + 0.7] + [
            oval(self.at(0, -0.9), 0.7 * self.unit, 0.4 * self.unit)
        ]
