"""Painting the head: face and hair."""

import numpy as np

from scraper.sample_shop.art.canvas import Canvas, Colour
from scraper.sample_shop.art.figure import Figure
from scraper.sample_shop.art.person import Looks
from scraper.sample_shop.art.shapes import Points, curve, oval, ribbon


class Head:
    """The head's own frame: x in half widths to the picture's right, y in half heights down."""

    def __init__(self, canvas: Canvas, figure: Figure, looks: Looks) -> None:
        self.canvas, self.figure, self.looks = canvas, figure, looks
        self.turn = 0.45 * figure.pose.yaw
        self.unit = float(figure.head_size[0])

    def at(self, x: float, y: float) -> Points:
        """A place on the head in pixels."""
        down = self.figure.head_down
        right = np.array([down[1], -down[0]])
        rx, ry = self.figure.head_size
        place: Points = self.figure.head + right * (x * rx) + down * (y * ry)
        return place

    def line(self, *places: tuple[float, float]) -> Points:
        """A smooth line through places of the head."""
        return curve([self.at(x, y) for x, y in places])

    def area(self, *places: tuple[float, float]) -> Points:
        """A smooth closed outline through places of the head."""
        return curve([self.at(x, y) for x, y in places], closed=True)

    def paint_hair_behind(self) -> None:
        """What of the hair lies behind neck and shoulders."""
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
        """Skull, ears, and the features, moved towards where the person looks."""
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
        """The cap of hair over the forehead and, where long, the strands beside the face."""
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
        """Long hair that falls over the shoulders, in front of the clothes."""
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
