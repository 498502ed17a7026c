"""Tests of drawn products: reproducible images and valid key points."""

import numpy as np
import pytest

from scraper.sample_shop.drawing.product import LABELS, coco_annotations, draw_product


def test_labels() -> None:
    assert LABELS == ("polo", "dress", "jeans", "skirt", "shorts", "coat")


@pytest.mark.parametrize("label", LABELS)
def test_the_same_arguments_draw_the_same_pixels(label: str) -> None:
    first, again, other = (draw_product(label, seed) for seed in (5, 5, 6))
    assert first.photo.mode == "RGB"
    assert first.photo.size == (600, 866)
    assert first.photo.tobytes() == again.photo.tobytes()
    assert np.array_equal(first.key_points, again.key_points)
    assert first.photo.tobytes() != other.photo.tobytes()


def test_another_view_shows_the_same_garment() -> None:
    front, other = draw_product("dress", 3), draw_product("dress", 3, view=1)
    assert front.colour == other.colour
    assert front.photo.tobytes() != other.photo.tobytes()


def test_size_is_respected() -> None:
    assert draw_product("coat", 1, size=(300, 433)).photo.size == (300, 433)


def test_unknown_label_is_rejected() -> None:
    with pytest.raises(ValueError, match="sock"):
        draw_product("sock", 0)


@pytest.mark.slow
def test_people_vary_in_size_and_visible_key_points() -> None:
    drawings = [draw_product(label, seed) for label in LABELS for seed in range(3)]
    heights = [drawing.box[3] / 866 for drawing in drawings]
    assert min(heights) < 0.7 < 0.95 < max(heights)
    assert {int((d.key_points[:, 2] > 0).sum()) for d in drawings} > {17}


@pytest.mark.parametrize("label", LABELS)
def test_key_points_are_anatomical(label: str) -> None:
    for seed in range(4):
        points = draw_product(label, seed).key_points
        assert points.shape == (17, 3)
        assert set(points[:, 2]) <= {0.0, 1.0, 2.0}
        hidden = points[:, 2] == 0
        assert not points[hidden].any()
        assert (points[:, 0] < 600).all()
        assert (points[:, 1] < 866).all()
        # In a front view, the left shoulder and hip of a person are on the right of the image.
        for left, right in ((5, 6), (11, 12)):
            if points[left, 2] and points[right, 2]:
                assert points[left, 0] > points[right, 0]
        for upper, lower in ((5, 11), (11, 13), (13, 15)):
            if points[upper, 2] and points[lower, 2]:
                assert points[upper, 1] < points[lower, 1]


def test_key_points_of_the_labelled_garment_are_visible() -> None:
    # Shoulders and hips (5, 6, 11, 12) for a polo shirt; hips and knees (13, 14) for shorts.
    needed = {"polo": [5, 6, 11, 12], "shorts": [11, 12, 13, 14], "dress": [5, 6, 11, 12]}
    for label, points in needed.items():
        for seed in range(6):
            assert draw_product(label, seed).key_points[points, 2].all(), (label, seed)


def test_coco_annotations_match_the_drawings() -> None:
    drawings = [draw_product("polo", seed) for seed in range(3)]
    annotations = coco_annotations([(f"{i}.jpg", drawing) for i, drawing in enumerate(drawings)])
    assert set(annotations) == {"images", "annotations", "categories"}
    assert annotations["images"][2] == {"id": 3, "file_name": "2.jpg", "width": 600, "height": 866}
    category = annotations["categories"][0]
    assert category["keypoints"][:2] == ["nose", "left_eye"]
    assert category["keypoints"][16] == "right_ankle"
    assert len(category["keypoints"]) == 17
    # COCO's own file starts its skeleton with the left ankle to the left knee.
    assert category["skeleton"][0] == [16, 14]
    for drawing, entry in zip(drawings, annotations["annotations"], strict=True):
        assert len(entry["keypoints"]) == 51
        visible = sum(1 for v in entry["keypoints"][2::3] if v > 0)
        assert entry["num_keypoints"] == visible == int((drawing.key_points[:, 2] > 0).sum())
        left, top, width, height = entry["bbox"]
        assert 0 <= left < left + width <= 600
        assert 0 <= top < top + height <= 866
        assert 0 < entry["area"] < width * height
        assert entry["iscrowd"] == 0
