"""Evaluate pose estimation: PCK, OKS average precision, and the crop; and draw detections."""

import contextlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from dataset.errors import Failure
from dataset.images.io import Unreadable, open_photo
from dataset.pose.annotations import People, Person
from dataset.pose.crop import COLUMNS, ROWS, WHOLE, Crop, choose_crop, draw_person, grid, iou
from dataset.pose.estimator import BATCH_IMAGES, PoseEstimator
from dataset.pose.heatmaps import Estimate, PersonMask, person_view
from dataset.pose.models import JointSet

PCK_THRESHOLD = 0.2
# A crop is complete if it contains this fraction of the annotated joints.
MIN_JOINTS_INSIDE = 0.95
OKS_NAMES = (
    "AP",
    "AP50",
    "AP75",
    "AP_medium",
    "AP_large",
    "AR",
    "AR50",
    "AR75",
    "AR_medium",
    "AR_large",
)


@dataclass
class PoseDetections:
    """People with the key points that were found.

    Attributes:
        persons: Annotated people.
        points: Key points (joints, 7) of each.
        masks: Mask of each; None if the network has no mask head.
        unreadable: Path -> reason of images that can't be read.
    """

    persons: list[Person] = field(default_factory=list)
    points: list[np.ndarray] = field(default_factory=list)
    masks: list[PersonMask | None] = field(default_factory=list)
    unreadable: dict[Path, str] = field(default_factory=dict)

    def add(self, persons: Sequence[Person], estimates: Sequence[Estimate]) -> None:
        """Add people with what was found of each."""
        self.persons += persons
        self.points += [estimate.points for estimate in estimates]
        self.masks += [estimate.mask for estimate in estimates]


def detect_in_boxes(estimator: PoseEstimator, persons: Sequence[Person]) -> PoseDetections:
    """Find the joints of people whose boxes are given."""
    detections = PoseDetections()
    for batch, photos in _batches(persons, detections):
        views = [person_view(person.box, estimator.size) for person in batch]
        detections.add(batch, estimator.estimate(photos, views))
    return detections


def detect_in_photos(
    estimator: PoseEstimator, persons: Sequence[Person]
) -> tuple[PoseDetections, list[Crop]]:
    """Find the joints of the person in each whole image, and the resulting crop."""
    detections, crops, names = PoseDetections(), [], estimator.joints.names
    for batch, photos in _batches(persons, detections):
        estimates = estimator.find(photos)
        detections.add(batch, estimates)
        crops += [
            choose_crop(
                *(estimate.points, names, photo.size),
                *(estimator.gate, estimator.min_score, estimate.mask),
            )
            for estimate, photo in zip(estimates, photos, strict=True)
        ]
    return detections, crops


def _batches(
    persons: Sequence[Person], detections: PoseDetections
) -> Iterator[tuple[list[Person], list[Image.Image]]]:
    for start in tqdm(
        range(0, len(persons), BATCH_IMAGES), desc="photos", leave=False, disable=None
    ):
        batch, photos = [], []
        for person in persons[start : start + BATCH_IMAGES]:
            try:
                photos.append(open_photo(person.photo))
                batch.append(person)
            except (Unreadable, OSError) as error:
                detections.unreadable[person.photo] = str(error)
        if batch:
            yield batch, photos


def pck(detections: PoseDetections, threshold: float = PCK_THRESHOLD) -> float:
    """Return the fraction of annotated joints that are found (percentage of correct key points).

    A joint is found within a fraction of the longer side of the person's box (Yang and Ramanan,
    "Articulated Human Detection with Flexible Mixtures of Parts", TPAMI 2013; normalized by the box
    as in mmpose's PCKAccuracy).

    Args:
        detections: Detections.
        threshold: The fraction.
    """
    correct = total = 0
    for person, points in zip(detections.persons, detections.points, strict=True):
        annotated = person.points[:, 2] > 0
        distance = np.linalg.norm(points[annotated, :2] - person.points[annotated, :2], axis=1)
        correct += int((distance <= threshold * max(person.box[2:])).sum())
        total += int(annotated.sum())
    return correct / total if total else 0.0


def mask_iou(detections: PoseDetections) -> float:
    """Return the mean IoU of the masks with the annotated ones; 0 if there are none.

    Args:
        detections: Detections.
    """
    overlaps = []
    for person, found in zip(detections.persons, detections.masks, strict=True):
        annotated = person.mask_image()
        if annotated is not None and found is not None:
            truth = np.asarray(annotated) > 127
            mask = np.asarray(found.draw(annotated.size)) > 127
            overlaps.append((mask & truth).sum() / max(1, (mask | truth).sum()))
    return float(np.mean(overlaps)) if overlaps else 0.0


def crop_metrics(persons: Sequence[Person], crops: Sequence[Crop]) -> dict[str, float]:
    """Return the mean IoU of crops and boxes, and fractions of complete and of uncropped people.

    Args:
        persons: Annotated people.
        crops: The crop of each.
    """
    overlaps, complete = [], []
    for person, crop in zip(persons, crops, strict=True):
        left, top, width, height = person.box
        overlaps.append(iou(crop.box, (left, top, left + width, top + height)))
        annotated = person.points[person.points[:, 2] > 0, :2]
        low, high = np.array(crop.box[:2]) - 1, np.array(crop.box[2:]) + 1
        complete.append(
            bool(((annotated >= low) & (annotated <= high)).all(axis=1).mean() >= MIN_JOINTS_INSIDE)
        )
    return {
        "mean_box_iou": float(np.mean(overlaps)),
        "held": float(np.mean(complete)),
        "left_whole": float(np.mean([crop.outcome == WHOLE for crop in crops])),
    }


def oks(detections: PoseDetections, joints: JointSet) -> dict[str, float]:
    """Return COCO's average precision and recall by object key-point similarity (OKS)."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth, predictions = _as_coco(detections, joints)
    # pycocotools prints its progress.
    with contextlib.redirect_stdout(io.StringIO()):
        annotations = COCO()
        annotations.dataset = truth
        annotations.createIndex()
        evaluator = COCOeval(annotations, annotations.loadRes(predictions), "keypoints")
        evaluator.params.kpt_oks_sigmas = joints.sigmas
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    # pycocotools returns -1 if there is no such person.
    pairs = zip(OKS_NAMES, evaluator.stats, strict=False)
    return {name: float(value) for name, value in pairs if value >= 0}


def _as_coco(
    detections: PoseDetections, joints: JointSet
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    truth, predictions = [], []
    for number, (person, points) in enumerate(
        zip(detections.persons, detections.points, strict=True), start=1
    ):
        record = {"image_id": person.image, "category_id": 1}
        truth.append(
            record
            | {
                "id": number,
                "bbox": list(person.box),
                "area": person.area,
                "iscrowd": 0,
                "keypoints": person.points.ravel().tolist(),
                "num_keypoints": int((person.points[:, 2] > 0).sum()),
            }
        )
        score = float(points[:, 2].mean())
        predictions.append(record | {"keypoints": points[:, :3].ravel().tolist(), "score": score})
    category = {"id": 1, "name": "person", "keypoints": list(joints.names)}
    images = [{"id": image} for image in sorted({person.image for person in detections.persons})]
    return {"images": images, "annotations": truth, "categories": [category]}, predictions


def evaluate_pose(
    estimator: PoseEstimator, people: People, empty: Sequence[Person] = ()
) -> dict[str, Any]:
    """Measure a pose estimator.

    OKS and PCK are measured with given boxes, as is usual; the crop is measured in whole images,
    for the largest person of each.

    Args:
        estimator: The estimator.
        people: Annotated people.
        empty: Images without people, of which the fraction that is cropped is measured.

    Raises:
        Failure: No person can be measured, or the joints are not those of the network.
    """
    if people.joints.names != estimator.joints.names:
        raise Failure(
            f"the annotations' joints ({', '.join(people.joints.names)}) are not the network's"
            f" ({', '.join(estimator.joints.names)}); evaluate on a file of the same joints"
        )
    in_boxes = detect_in_boxes(estimator, people.persons)
    if not in_boxes.persons:
        raise Failure("no person with annotated joints is in a readable photo")
    largest = {person.image: person for person in sorted(people.persons, key=lambda p: p.area)}
    in_photos, crops = detect_in_photos(estimator, list(largest.values()))
    figures = crop_metrics(in_photos.persons, crops)
    _, empty_crops = detect_in_photos(estimator, empty)
    if empty_crops:
        cropped = [crop.outcome != WHOLE for crop in empty_crops]
        figures["cropped_without_people"] = float(np.mean(cropped))
    return {
        "persons": len(in_boxes.persons),
        "photos": len(in_photos.persons),
        "PCK": pck(in_boxes),
        "OKS": oks(in_boxes, people.joints),
        "crop": figures,
        "missing": [str(path) for path in people.missing],
        "unreadable": {str(path): why for path, why in in_boxes.unreadable.items()},
    }


def detection_grid(
    persons: Sequence[Person], points: Sequence[np.ndarray], joints: JointSet, gate: float
) -> Image.Image:
    """Draw the first people with their detected joints."""
    count = COLUMNS * ROWS
    return grid(
        [
            draw_person(open_photo(person.photo), person_points, joints, gate)
            for person, person_points in zip(persons[:count], points[:count], strict=True)
        ]
    )
