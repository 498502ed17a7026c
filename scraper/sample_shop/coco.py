"""The drawn people's key points as COCO's person-keypoint JSON."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from scraper.sample_shop.drawing import Drawing

NAMES = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder",
    "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee",
    "right_knee", "left_ankle", "right_ankle",
)  # fmt: skip
# Pairs of key points, counted from 1, as in COCO's own files.
SKELETON = (
    (16, 14), (14, 12), (17, 15), (15, 13), (12, 13), (6, 12), (7, 13), (6, 7), (6, 8), (7, 9),
    (8, 10), (9, 11), (2, 3), (1, 2), (1, 3), (2, 4), (3, 5), (4, 6), (5, 7),
)  # fmt: skip


def coco_annotations(drawings: Iterable[tuple[str, Drawing]]) -> dict[str, Any]:
    """COCO's dictionary for DRAWINGS, pairs of file name and drawing; ids count from 1."""
    images, annotations = [], []
    for number, (name, drawing) in enumerate(drawings, 1):
        width, height = drawing.photo.size
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        annotations.append(_annotation(number, drawing))
    person = {
        "id": 1,
        "name": "person",
        "supercategory": "person",
        "keypoints": list(NAMES),
        "skeleton": [list(pair) for pair in SKELETON],
    }
    return {"images": images, "annotations": annotations, "categories": [person]}


def _annotation(number: int, drawing: Drawing) -> dict[str, Any]:
    points = np.column_stack(
        [drawing.key_points[:, :2].round(1), drawing.key_points[:, 2].astype(int)]
    )
    return {
        "id": number,
        "image_id": number,
        "category_id": 1,
        "keypoints": [v for x, y, seen in points.tolist() for v in (x, y, int(seen))],
        "num_keypoints": int((points[:, 2] > 0).sum()),
        "bbox": list(drawing.box),
        "area": drawing.area,
        "iscrowd": 0,
    }
