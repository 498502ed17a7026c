"""Training samples: key points follow the view, and only the subject's joints are targets."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as masks

from dataset.errors import BadInput
from dataset.pose.annotations import Person, read_photos_without_people
from dataset.pose.heatmaps import UNANNOTATED, draw_partial_mask
from dataset.pose.models import JointSet
from dataset.pose.samples import (
    PoseAugmentation,
    PoseSamples,
    Scene,
    combine_people,
    paste_person,
)

JOINTS = JointSet(("left_hand", "right_hand"))
STILL = PoseAugmentation(
    rotated_fraction=0,
    scale=0,
    half_body_fraction=0,
    shift=0,
    whole_fraction=1,
    second_person_fraction=0,
    brightness=0,
)
WHITE, GREY = (250, 250, 250), (40, 40, 40)


def person(folder: Path, number: int, area: float = 100.0) -> Person:
    """Return a dark image with a white dot on the left hand; the right one is not annotated."""
    path = folder / f"{number}.png"
    photo = Image.new("RGB", (96, 96), GREY)
    photo.paste(WHITE, (20, 28, 29, 37))
    photo.save(path)
    points = np.array([(24, 32, 2), (0, 0, 0)], np.float64)
    return Person(path, (10, 10, 40, 60), points, area, number, number)


def peak(maps: np.ndarray, joint: int) -> tuple[float, float]:
    y, x = np.unravel_index(maps[..., joint].argmax(), maps.shape[:2])
    return float(x) * 4, float(y) * 4


def brightest(seen: np.ndarray) -> tuple[float, float]:
    y, x = np.nonzero(seen[..., 0] > seen[..., 0].max() - 0.5)
    return float(x.mean()), float(y.mean())


@pytest.mark.parametrize(
    "augmentation",
    [STILL, PoseAugmentation(half_body_fraction=0, brightness=0, second_person_fraction=0)],
)
def test_targets_lie_where_the_joints_are_seen(
    tmp_path: Path, augmentation: PoseAugmentation
) -> None:
    people = [person(tmp_path, n) for n in range(16)]
    seen, maps = PoseSamples(people, JOINTS, (96, 96), 16, (3,), augmentation)[0]
    # A mirrored hand is the other one, so the two channels tell which was seen.
    found = 0
    for one, targets in zip(seen, maps, strict=True):
        joint = int(targets[..., 1].max() > 0.9)
        assert (targets[..., 1 - joint] == UNANNOTATED).all()
        if targets[..., joint].max() > 0.9:
            assert peak(targets, joint) == pytest.approx(brightest(one), abs=4)
            found += 1
    assert found >= 8


def test_the_same_seed_gives_the_same_samples(tmp_path: Path) -> None:
    people = [person(tmp_path, n) for n in range(4)]
    one = PoseSamples(people, JOINTS, (64, 64), 4, (1, 2), PoseAugmentation(whole_fraction=0.5))[0]
    same = PoseSamples(people, JOINTS, (64, 64), 4, (1, 2), PoseAugmentation(whole_fraction=0.5))[0]
    other = PoseSamples(people, JOINTS, (64, 64), 4, (1, 3), PoseAugmentation(whole_fraction=0.5))[
        0
    ]
    assert np.array_equal(one[0], same[0])
    assert np.array_equal(one[1], same[1])
    assert not np.array_equal(one[0], other[0])


def test_whole_photos_are_of_their_largest_person(tmp_path: Path) -> None:
    large = person(tmp_path, 1, 900)
    small = replace(large, area=100, annotation=2)
    seen, _ = PoseSamples([large, small], JOINTS, (96, 96), 2, (0,), STILL)[0]
    # The small one's own box shows the dot larger than the whole photo does.
    sizes = sorted(int((one[..., 0] > one[..., 0].max() - 0.5).sum()) for one in seen)
    assert sizes[0] == pytest.approx(81, abs=18)
    assert sizes[1] > 1.2 * sizes[0]


def test_a_person_beside_another_is_smaller_and_not_to_be_found(tmp_path: Path) -> None:
    one, other = person(tmp_path, 1), replace(person(tmp_path, 2), box=(12, 20, 24, 24))
    photo, second = Image.open(one.photo), Image.open(other.photo)
    dark = photo.convert("L").point(lambda value: 255 * (value < 99))
    for seed in range(8):
        scene = combine_people(
            Scene(photo, one.points, one.box, dark), second, other, np.random.default_rng(seed)
        )
        canvas, points = scene.photo, scene.points
        assert scene.mask and np.asarray(scene.mask).sum() == np.asarray(dark).sum()
        assert canvas.width > 96
        x, y = points[0, :2].astype(int)
        assert canvas.getpixel((int(x), int(y))) == WHITE
        # The corner of the subject's own photo is there, unscaled.
        assert canvas.getpixel((int(x) - 20, int(y) - 28)) == GREY
        assert points[1, 2] == 0


def test_nobody_is_to_be_found_where_nobody_is(tmp_path: Path) -> None:
    person(tmp_path, 1)
    (tmp_path / "notes.txt").write_text("no photo")
    empty = read_photos_without_people(tmp_path, 2)
    assert [one.photo.name for one in empty] == ["1.png"]
    samples = PoseSamples(
        empty * 8,
        JOINTS,
        (64, 64),
        8,
        (0,),
        PoseAugmentation(whole_fraction=0.5, second_person_fraction=1),
    )
    seen, maps = samples[0]
    assert (maps == 0).all()
    assert len({one.tobytes() for one in seen}) == 8
    with pytest.raises(BadInput, match="has no photos"):
        read_photos_without_people(tmp_path / "none", 2)


def test_photos_that_cannot_be_read_teach_nothing(tmp_path: Path) -> None:
    broken = person(tmp_path, 1)
    broken.photo.write_bytes(b"no photo")
    samples = PoseSamples([broken], JOINTS, (64, 64), 1, (0,), STILL, masks=True)
    _, (maps, masks) = samples[0]
    assert (maps == UNANNOTATED).all() and (masks == UNANNOTATED).all()
    assert list(samples.unreadable) == [broken.photo]


def masked(folder: Path, number: int) -> Person:
    """Return an image whose white dot is the person's mask; no joint is annotated."""
    one = person(folder, number)
    photo = np.asarray(Image.open(one.photo).convert("L")) > 99
    return replace(
        one,
        points=np.zeros((2, 3)),
        box=(20, 28, 9, 9),
        mask=dict(masks.encode(np.asfortranarray(photo.astype(np.uint8)))),
    )


def test_the_mask_lies_where_the_person_is_seen(tmp_path: Path) -> None:
    augmentation = PoseAugmentation(whole_fraction=0.5, brightness=0, copy_paste_fraction=0)
    people = [masked(tmp_path, n) for n in range(8)]
    samples = PoseSamples(people, JOINTS, (96, 96), 8, (3,), augmentation, masks=True)
    seen, (maps, targets) = samples[0]
    assert (maps == UNANNOTATED).all() and targets.shape == (8, 48, 48)
    for view, target in zip(seen, targets, strict=True):
        # Half of the way from dark to white, normalized.
        bright = (view[..., 0] > 0.36).reshape(48, 2, 48, 2).mean(axis=(1, 3))
        assert np.abs(bright - target).mean() < 0.06


def test_the_box_lies_where_the_person_is_seen(tmp_path: Path) -> None:
    augmentation = PoseAugmentation(
        whole_fraction=0.5,
        second_person_fraction=0,
        brightness=0,
        copy_paste_fraction=0,
        rotation=0,
    )
    people = [masked(tmp_path, n) for n in range(7)]
    broken = masked(tmp_path, 7)
    broken.photo.write_bytes(b"no photo")
    samples = PoseSamples([*people, broken], JOINTS, (96, 96), 8, (3,), augmentation, boxes=True)
    seen, (_, _, boxes) = samples[0]
    assert boxes.shape == (8, 4)
    unknown = [i for i, box in enumerate(boxes) if (box == UNANNOTATED).all()]
    assert len(unknown) == 1 and not seen[unknown[0]].any()
    for view, box in zip(seen, boxes, strict=True):
        y, x = np.nonzero(view[..., 0] > 0.36)
        # A dot that the view cuts ends at its edge.
        edges = [x.min(), y.min(), x.max() + 1, y.max() + 1] if len(x) else [0]
        if min(edges) > 0 and max(edges) < 96:
            assert 96 * box == pytest.approx(edges, abs=3)
    empty = replace(people[0], is_empty=True)
    _, (_, _, boxes) = PoseSamples([empty], JOINTS, (96, 96), 1, (3,), augmentation, boxes=True)[0]
    assert (boxes == UNANNOTATED).all()


def test_a_pasted_person_keeps_mask_and_points(tmp_path: Path) -> None:
    one = masked(tmp_path, 1)
    points = np.array([(24, 32, 2), (0, 0, 0)], np.float64)
    scene = Scene(Image.open(one.photo), points, one.box, one.mask_image())
    for seed in range(4):
        pasted = paste_person(scene, Image.new("RGB", (30, 50), "red"), np.random.default_rng(seed))
        pixels, mask = np.asarray(pasted.photo), np.asarray(pasted.mask)
        assert pasted.mask and pasted.photo.size == scene.photo.size == pasted.mask.size
        x, y = pasted.points[0, :2].round().astype(int)
        assert mask[y, x] > 200 and (pixels[y, x] > 200).all()
        assert (pixels[mask == 0].mean(axis=0) > (200, -1, -1)).all()
        left, top, width, height = pasted.box
        assert left - 1 <= x <= left + width and top - 1 <= y <= top + height


def test_key_points_imply_a_part_of_the_mask() -> None:
    joints = JointSet(("l_shoulder", "r_shoulder", "l_hip", "r_hip"), ((0, 1), (2, 3)))
    points = np.array([(40, 30, 2), (56, 30, 2), (42, 60, 2), (54, 60, 2)], np.float64)
    mask = draw_partial_mask(points, joints, (96, 96))
    assert mask.shape == (48, 48)
    assert mask[22, 24] == 1 and mask[2, 2] == 0 and mask[22, 18] == UNANNOTATED
    points[0, 2] = 0
    # A joint that is not annotated may be farther away.
    assert (draw_partial_mask(points, joints, (96, 96)) != 0).sum() > (mask != 0).sum()
    points[:, 2] = 0
    assert (draw_partial_mask(points, joints, (96, 96)) == UNANNOTATED).all()
