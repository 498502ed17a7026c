"""A person without clothes as geometry: build, pose, joints, and where cloth can hang."""

from dataclasses import dataclass

import numpy as np

from scraper.sample_shop.art.shapes import Points, blend, curve

# Down the body, in parts of the person's height from the top of the head.
NECK, SHOULDER, HIP, SOLE = 0.155, 0.19, 0.5, 1.0
UPPER_ARM, FOREARM, THIGH, SHIN = 0.165, 0.145, 0.235, 0.225
# The torso's half width at these places between shoulder line (0) and hip joints (1).
PLACES = (-0.1, 0.0, 0.12, 0.3, 0.62, 0.82, 1.0, 1.2)
# Half widths of a leg, in thousandths of the height, at these places: 0 hip, 1 knee, 2 ankle.
LEG = ((0, 0.25, 0.85, 1.0, 1.35, 1.75, 2.0), (50, 48, 32, 30, 31, 20, 18))
RIGHT, LEFT = 0, 1


@dataclass(frozen=True)
class Build:
    """A body: half widths of the torso in parts of the height; `limbs` scales arms and legs."""

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
    """How the person stands; every pair is (person's right, person's left)."""

    arms: tuple[Limb, Limb]
    legs: tuple[Limb, Limb]
    arms_name: str
    lean: float
    sway: float
    slope: float
    yaw: float
    nod: float


def choose_build(rng: np.random.Generator, womens: bool) -> Build:
    """A grown person, slim to stout."""
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
    """Arms down, on the hips, raised or crossed; legs together, apart or walking; turned a bit."""
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


class Figure:
    """The person on the picture: joints in pixels, and a frame that clothes are cut in.

    `side` is 0 for the person's right (on the picture's left), 1 for the left; `scale` is the
    person's height in pixels; `hip` is the middle between the hip joints.
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

    def torso(self, u: float, v: float) -> Points:
        """A place on the torso: U -1..1 between outlines, V 0 shoulders, 1 hips."""
        half = np.interp(v, PLACES, self.build.widths) * self.scale * self.narrow
        middle = self.hip - self.down * (HIP - SHOULDER) * (1 - v) * self.scale
        bend = self.pose.sway * self.scale * np.sin(np.pi * min(max(v, 0.0), 1.0))
        tilt = (
            self.across if v < 0.5 else blend(self.across, np.array([1.0, 0.0]), min(1, 2 * v - 1))
        )
        place: Points = middle + tilt * (u * half) + np.array([bend, 0.0])
        return place

    def front(self, v: float, u: float = 0.0) -> Points:
        """A place on the front's middle line, which moves sideways as the person turns."""
        return self.torso(0.75 * self.pose.yaw + u * self.narrow, v)

    def arm_widths(self, ease: float = 1.0) -> Points:
        """Half widths (n,) along an arm's path, thickest at the shoulder."""
        return np.interp(
            np.linspace(0, 2, 17), (0, 0.3, 0.9, 1.0, 1.3, 2.0), (26, 26, 21, 21, 21, 14)
        ) * (self.build.limbs * self.scale * ease / 1000)

    def leg_widths(self, ease: float = 1.0) -> Points:
        """Half widths (n,) along a leg's path, thickest at the top."""
        return np.interp(np.linspace(0, 2, 17), *LEG) * (
            self.build.limbs * self.scale * ease / 1000
        )

    def path(self, joints: Points) -> Points:
        """17 points along a limb of three JOINTS, the middle joint at index 8, slightly rounded."""
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
        """A place beside a leg: ALONG 0 hip, 1 knee, 2 ankle; OUT in half widths, outwards."""
        path, widths = self.path(self.legs[side]), self.leg_widths()
        at = np.clip(along, 0, 2) * 8
        index = np.arange(17)
        centre = np.array([np.interp(at, index, path[:, i]) for i in (0, 1)])
        place: Points = centre + np.array([across(side) * out * np.interp(at, index, widths), 0.0])
        return place


def across(side: int) -> int:
    """-1 for the person's right, on the picture's left; 1 for the left."""
    return 1 if side == LEFT else -1


def key_points(figure: Figure) -> Points:
    """COCO's 17 key points (17, 3): x, y in pixels, and 2 where seen, 1 where covered."""
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
    # Turned to the left of the picture, the right-hand ear is hidden, and the other way round.
    points[3, 2] = 1 if yaw > 0.3 else 2
    points[4, 2] = 1 if yaw < -0.3 else 2
    return points
