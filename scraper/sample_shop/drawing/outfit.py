"""Outfits: the garments, what they are combined with, and the painting order."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from scraper.sample_shop.drawing import garments, person
from scraper.sample_shop.drawing.canvas import Canvas, Colour
from scraper.sample_shop.drawing.fabric import Fabric, choose_denim, choose_fabric, choose_neutral
from scraper.sample_shop.drawing.person import LEFT, RIGHT, Body, Build, Head, choose_build

ZONES = {"polo": "upper", "dress": "full", "coat": "full"}


@dataclass(frozen=True)
class Outfit:
    """What a person wears and looks like; `fabric` is the labelled garment's."""

    label: str
    womens: bool
    build: Build
    looks: person.Looks
    fabric: Fabric
    other: Fabric
    polo: garments.TopCut
    top: garments.TopCut
    trousers: garments.LegCut
    jeans: garments.LegCut
    shorts: garments.LegCut
    skirt: garments.SkirtCut
    coat: garments.CoatCut
    dress_sleeve: float
    legs: Colour
    shoe: Colour
    shoe_kind: str

    @property
    def zone(self) -> str:
        """The part of the body that the labelled garment covers: upper, lower or full."""
        return ZONES.get(self.label, "lower")


def choose_outfit(label: str, rng: np.random.Generator) -> Outfit:
    """Choose everything about a product photo that is equal in all its views."""
    womens = label in ("dress", "skirt") or bool(rng.random() < 0.5)
    looks = person.choose_looks(rng, womens)
    denim = label == "jeans" or (label in ("shorts", "skirt") and rng.random() < 0.2)
    tights = label in ("dress", "skirt") and rng.random() < 0.25
    kinds = ("sneaker", "boot", "pump") if womens else ("sneaker", "sneaker", "boot")
    return Outfit(
        label=label,
        womens=womens,
        build=choose_build(rng, womens),
        looks=looks,
        fabric=choose_denim(rng) if denim else choose_fabric(rng),
        other=choose_neutral(rng),
        polo=garments.choose_polo(rng),
        top=garments.choose_top(rng),
        trousers=garments.choose_trousers(rng, denim=False),
        jeans=garments.choose_trousers(rng, denim=True),
        shorts=garments.choose_shorts(rng),
        skirt=garments.choose_skirt(rng),
        coat=garments.choose_coat(rng),
        dress_sleeve=float(rng.choice((0.0, 0.0, 0.55, 1.0, 1.9))),
        legs=(48, 44, 48) if tights else looks.skin,
        shoe=choose_neutral(rng).base,
        shoe_kind=str(rng.choice(kinds)),
    )


def dress_person(canvas: Canvas, figure: Body, outfit: Outfit) -> None:
    """Paint the person from back to front."""
    s = figure.scale
    fabric = replace(outfit.fabric, repeat=outfit.fabric.repeat * s)
    other = replace(outfit.other, repeat=outfit.other.repeat * s)
    head = Head(canvas, figure, outfit.looks)
    head.paint_hair_behind()
    behind, before = _arm_order(figure)
    for side in behind:
        _paint_arm(canvas, figure, outfit, side, fabric, other)
    for side in (RIGHT, LEFT) if figure.pose.yaw < 0 else (LEFT, RIGHT):
        person.paint_leg(canvas, figure, side, outfit.legs)
        person.paint_shoe(canvas, figure, side, outfit.shoe, outfit.shoe_kind)
    person.paint_torso(canvas, figure, outfit.looks)
    person.paint_neck(canvas, figure, outfit.looks)
    head.paint_face()
    head.paint_hair_before()
    _CLOTHES[outfit.label](canvas, figure, outfit, fabric, other)
    head.paint_strands()
    for side in before:
        _paint_arm(canvas, figure, outfit, side, fabric, other)


def _arm_order(figure: Body) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the arms behind the body, and those in front of it."""
    name, yaw = figure.pose.arms_name, figure.pose.yaw
    if name == "raised":
        return (RIGHT, LEFT), ()
    if name in ("hips", "hip") or abs(yaw) < 0.25 or name == "crossed":
        return (), (RIGHT, LEFT)
    far = LEFT if yaw > 0 else RIGHT
    return (far,), (1 - far,)


def _paint_arm(
    canvas: Canvas, figure: Body, outfit: Outfit, side: int, fabric: Fabric, other: Fabric
) -> None:
    """Paint the arm and its sleeve."""
    person.paint_arm(canvas, figure, side, outfit.looks)
    label = outfit.label
    if label == "coat":
        garments.paint_sleeve(canvas, figure, side, fabric, 1.93, 1.5)
    elif label == "polo":
        garments.paint_sleeve(canvas, figure, side, fabric, outfit.polo.sleeve, 1.34)
        garments.paint_cuff(canvas, figure, side, fabric, outfit.polo)
    elif label == "dress" and outfit.dress_sleeve:
        garments.paint_sleeve(canvas, figure, side, fabric, outfit.dress_sleeve, 1.25)
    elif label != "dress" and outfit.top.sleeve:
        garments.paint_sleeve(canvas, figure, side, other, outfit.top.sleeve, 1.28)


def _wear_polo(c: Canvas, f: Body, outfit: Outfit, fabric: Fabric, other: Fabric) -> None:
    garments.paint_trousers(c, f, other, outfit.trousers)
    garments.paint_polo(c, f, fabric, outfit.polo)


def _wear_dress(c: Canvas, f: Body, outfit: Outfit, fabric: Fabric, other: Fabric) -> None:
    bare = outfit.dress_sleeve == 0
    garments.paint_dress(c, f, fabric, outfit.skirt, outfit.top.neckline + 0.05, bare)


def _wear_coat(c: Canvas, f: Body, outfit: Outfit, fabric: Fabric, other: Fabric) -> None:
    garments.paint_trousers(c, f, replace(other, base=_apart(other.base)), outfit.trousers)
    garments.paint_top(c, f, other, replace(outfit.top, hem=0.85, ease=1.0, sleeve=0.5))
    garments.paint_coat(c, f, fabric, outfit.coat)


def _apart(colour: Colour) -> Colour:
    """Return a tone that can be distinguished from its neighbour's colour."""
    return (54, 54, 62) if sum(colour) > 330 else (176, 168, 156)


def _lower(
    garment: Callable[[Canvas, Body, Outfit, Fabric], None],
) -> Callable[[Canvas, Body, Outfit, Fabric, Fabric], None]:
    """Return the garment with a top, tucked in or over its waistband."""

    def wear(c: Canvas, f: Body, outfit: Outfit, fabric: Fabric, other: Fabric) -> None:
        if outfit.top.hem < 0.83:
            garments.paint_top(c, f, other, outfit.top)
            garment(c, f, outfit, fabric)
        else:
            garment(c, f, outfit, fabric)
            garments.paint_top(c, f, other, outfit.top)

    return wear


_CLOTHES: dict[str, Callable[[Canvas, Body, Outfit, Fabric, Fabric], None]] = {
    "polo": _wear_polo,
    "dress": _wear_dress,
    "coat": _wear_coat,
    "jeans": _lower(lambda c, f, o, cloth: garments.paint_trousers(c, f, cloth, o.jeans)),
    "shorts": _lower(lambda c, f, o, cloth: garments.paint_trousers(c, f, cloth, o.shorts)),
    "skirt": _lower(lambda c, f, o, cloth: garments.paint_skirt(c, f, cloth, o.skirt)),
}
