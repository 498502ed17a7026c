"""bfloat16 is used if the machine supports it and the heat maps stay the same."""

from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image

from dataset.pose import estimator
from dataset.pose.estimator import PoseEstimator, choose_network, draw_people, has_bfloat16
from dataset.pose.models import find_model
from dataset.pose.samples import normalize


class Network:
    """Returns the views, multiplied by a factor, as heat maps."""

    def __init__(self, factor: float) -> None:
        self.factor = factor
        self.input = keras.KerasTensor((None, 64, 48, 3))

    def __call__(self, views: np.ndarray) -> np.ndarray:
        return views * self.factor


@pytest.mark.parametrize(
    ("factor", "multiplies", "wanted"),
    [(1.01, True, "bfloat16"), (1.1, True, "float32"), (1.01, False, "float32")],
)
def test_the_twin_is_used_where_its_heat_maps_are_near(
    monkeypatch: pytest.MonkeyPatch, factor: float, multiplies: bool, wanted: str
) -> None:
    monkeypatch.setattr(estimator, "has_bfloat16", lambda: multiplies)
    networks = {"float32": Network(1.0), "bfloat16": Network(factor)}
    original: Any = Network(1.0)
    assert choose_network(original, lambda name: networks[name]) is networks[wanted]


@pytest.mark.usefixtures("one_estimator")
def test_the_drawn_people_show_their_joints_to_the_packaged_network() -> None:
    from dataset.pose.checkpoints import load_estimator

    model = find_model("hrnet-small")
    estimator = load_estimator(model)
    views = draw_people(model.size)
    maps, *_ = estimator.predict(views, flip=estimator.flip)
    assert (maps.max(axis=(1, 2)) >= model.gate).mean() > 0.9
    assert np.array_equal(views, draw_people(model.size))
    for count in range(1, len(views)):
        alone, *_ = estimator.predict(views[:count], flip=estimator.flip)
        assert np.array_equal(alone, maps[:count]), "heat maps depend on the size of the batch"


class Boxes(PoseEstimator):
    """Finds joints in the upper left corner of every view, and a box in the lower right one."""

    seen: ClassVar[list[np.ndarray]] = []

    def predict(self, views: np.ndarray, flip: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        self.seen.append(views)
        maps = np.zeros((len(views), 16, 16, 14), np.float32)
        maps[:, np.arange(14) // 2, np.arange(14) // 2, np.arange(14)] = 0.2
        boxes = np.tile(np.array([0.5, 0.5, 1, 1], np.float32), (len(views), 1))
        return maps, np.zeros((len(views), 32, 32), np.uint8), boxes


def test_later_passes_show_the_box_of_the_box_head() -> None:
    model: Any = None
    found = Boxes(model, find_model("hrnet-small").joints, (64, 64), gate=0.3, min_score=0.1)
    photo = Image.new("RGB", (640, 640), "red")
    photo.paste("blue", (320, 320, 640, 640))
    (estimate,) = found.find([photo])
    # A quarter of the photo is blue. With a margin, the second view shows the blue part, and the
    # third one its lower right quarter.
    blue = [float(np.mean(views[0][..., 2] > 200)) for views in found.seen]
    assert blue == pytest.approx([0.25, (1 / 1.3) ** 2, ((0.5 + 0.65) / 1.3) ** 2], abs=0.05)
    # The result is the mean of the second and the third pass, though their joints have too low
    # scores for a person. By definition a view is shifted by half of its pixels.
    assert estimate.mask
    assert estimate.mask.bounds == pytest.approx([520, 520, 676, 676], abs=8)
    corner = [480 - 1.3 * 160, 560 - 1.3 * 80]
    assert estimate.points[0, :2] == pytest.approx(2 * [np.mean(corner)], abs=8)


class SmallPerson(PoseEstimator):
    """Finds the blue person if it is large in a view; otherwise something else, with low scores."""

    views: ClassVar[list[int]] = []

    def predict(self, views: np.ndarray, flip: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        self.views.append(len(views))
        maps = np.zeros((len(views), 16, 16, 14), np.float32)
        masks = np.zeros((len(views), 32, 32), np.uint8)
        boxes = np.zeros((len(views), 4), np.float32)
        for index, view in enumerate(views):
            rows, columns = np.nonzero(view[..., 2] > 128)
            is_large = len(rows) > 0.012 * 64 * 64
            if is_large:
                joints = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
                masks[index, joints[1] // 2 : joints[3] // 2, joints[0] // 2 : joints[2] // 2] = 255
                boxes[index] = np.array(joints) / 64
            else:
                joints, boxes[index] = (30, 20, 52, 44), (0.1, 0.6, 0.4, 0.9)
            x = np.linspace(joints[0] / 4, (joints[2] - 1) / 4, 14).astype(int)
            y = np.linspace(joints[1] / 4, (joints[3] - 1) / 4, 14).astype(int)
            maps[index, y, x, np.arange(14)] = 0.6 if is_large else 0.35
        return maps, masks, boxes


@pytest.mark.parametrize("side", [48, 120])
def test_a_person_that_is_uncertain_is_searched_from_the_corners(side: int) -> None:
    model: Any = None
    SmallPerson.views.clear()
    found = SmallPerson(model, find_model("hrnet-small").joints, (64, 64), gate=0.2, min_score=0.2)
    photo = Image.new("RGB", (480, 480), "red")
    person = (480 - side, 20, 480, 20 + side)
    photo.paste("blue", person)
    (estimate,) = found.find([photo])
    assert estimate.mask
    assert estimate.mask.bounds == pytest.approx(person, abs=12)
    # A person that was found in the whole image is certain: no third pass, and no search. The one
    # corner view that shows the small person large enough needs no third pass either.
    assert found.views == ([1, 1, 1, 4, 4, 3] if side == 48 else [1, 1])


def test_corner_views_of_a_long_image_are_not_repeated() -> None:
    views = estimator._corner_views((300, 200), (64, 64))
    assert [view[0, 2] for view in views] == pytest.approx([0, 60])
    assert len(estimator._corner_views((300, 290), (64, 64))) == 4


def test_boxes_are_averaged_with_those_of_the_mirrored_view() -> None:
    photos = keras.Input((64, 64, 3))
    maps = layers.Conv2D(14, 4, 4)(photos)
    mask = layers.Reshape((64, 64))(layers.Conv2D(1, 1)(photos))
    # Depends on where things are in the view.
    box = layers.Dense(4, "sigmoid")(layers.Flatten()(maps))
    network = keras.Model(photos, [maps, mask, box])
    found = PoseEstimator(network, find_model("hrnet-small").joints, (64, 64), flip=True)
    views = draw_people((64, 64))
    both = np.concatenate([views, views[:, :, ::-1]])
    _, _, boxes = found.predict(both, flip=True)
    assert boxes is not None and boxes.shape == (8, 4)
    assert np.allclose(boxes[:4], _mirror(boxes[4:]), atol=1e-4)
    alone = np.asarray(network(normalize(both))[2])
    assert not np.allclose(alone[:4], _mirror(alone[4:]), atol=1e-4)
    assert np.allclose(boxes[:4], (alone[:4] + _mirror(alone[4:])) / 2, atol=1e-4)


def _mirror(boxes: np.ndarray) -> np.ndarray:
    left, top, right, bottom = boxes.T
    return np.stack([1 - right, top, 1 - left, bottom], axis=1)


@pytest.mark.parametrize(
    ("text", "has"),
    [
        ("processor: 0\nflags\t\t: fpu avx512_bf16 avx2\n", True),
        ("Features\t: fp asimd bf16\n", True),
        ("flags : fpu avx2\nmodel name : a bf16 chip\n", False),
        (None, False),
    ],
)
def test_processors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, has: bool
) -> None:
    monkeypatch.setattr(estimator, "has_gpu", lambda: False)
    file = tmp_path / "cpuinfo"
    if text is not None:
        file.write_text(text)
    assert has_bfloat16(file) is has
