"""Evaluate pose estimation by PCK and COCO's metrics, and the crop; and draw detections."""

import contextlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
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
from dataset.pose.heatmaps import MASK_THRESHOLD, Estimate, PersonMask, person_view
from dataset.pose.models import JointSet

PCK_THRESHOLD = 0.2
# A crop is complete if it contains this fraction of the annotated joints.
MIN_JOINTS_INSIDE = 0.95
# Names of the first values of `COCOeval.stats`, by its kind of evaluation.
KEYPOINTS, BOXES, MASKS = "keypoints", "bbox", "segm"
_OKS_NAMES = (
    *("AP", "AP50", "AP75", "AP_medium", "AP_large"),
    *("AR", "AR50", "AR75", "AR_medium", "AR_large"),
)
_IOU_NAMES = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR")
STATISTICS = {KEYPOINTS: _OKS_NAMES, BOXES: _IOU_NAMES, MASKS: _IOU_NAMES}


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
    """Return the mean IoU of masks with the annotated ones; 0 if none is annotated."""
    overlaps = [
        _mask_overlap(person, found)
        for person, found in zip(detections.persons, detections.masks, strict=True)
        if person.mask
    ]
    return float(np.mean(overlaps)) if overlaps else 0.0


def _mask_overlap(person: Person, found: PersonMask | None) -> float:
    """Return the IoU of a mask with that of a person; 0 without a mask."""
    annotated = person.mask_image()
    if annotated is None or found is None:
        return 0.0
    truth = np.asarray(annotated) > 0
    mask = np.asarray(found.draw(annotated.size)) > MASK_THRESHOLD
    return float((mask & truth).sum() / max(1, (mask | truth).sum()))


def crop_metrics(persons: Sequence[Person], crops: Sequence[Crop]) -> dict[str, float]:
    """Return the mean IoU of crops and boxes, and fractions of complete and of uncropped people.

    Complete: the crop contains `MIN_JOINTS_INSIDE` of the annotated joints.

    Args:
        persons: Annotated people.
        crops: The crop of each.
    """
    overlaps, complete = [], []
    for person, crop in zip(persons, crops, strict=True):
        left, top, width, height = person.box
        overlaps.append(iou(crop.box, (left, top, left + width, top + height)))
        if not person.has_joints:
            continue
        annotated = person.points[person.points[:, 2] > 0, :2]
        low, high = np.array(crop.box[:2]) - 1, np.array(crop.box[2:]) + 1
        complete.append(
            bool(((annotated >= low) & (annotated <= high)).all(axis=1).mean() >= MIN_JOINTS_INSIDE)
        )
    held = {"held": float(np.mean(complete))} if complete else {}
    return {
        "mean_box_iou": float(np.mean(overlaps)),
        **held,
        "left_whole": float(np.mean([crop.outcome == WHOLE for crop in crops])),
    }


def oks(detections: PoseDetections, joints: JointSet) -> dict[str, float]:
    """Return COCO's average precision and recall by object key-point similarity (OKS)."""
    predictions = [
        {
            "image_id": person.image,
            "keypoints": points[:, :3].ravel().tolist(),
            "score": float(points[:, 2].mean()),
        }
        for person, points in zip(detections.persons, detections.points, strict=True)
    ]
    return coco_metrics(KEYPOINTS, detections.persons, predictions, joints)


def box_metrics(persons: Sequence[Person], crops: Sequence[Crop]) -> dict[str, float]:
    """Return COCO's average precision and recall of the boxes of crops, one for each image.

    Args:
        persons: The person in each image.
        crops: The crop of each; whole images are not detections.
    """
    predictions = [
        {
            "image_id": person.image,
            "bbox": [left, top, right - left, bottom - top],
            "score": crop.score,
        }
        for person, crop in zip(persons, crops, strict=True)
        if crop.outcome != WHOLE
        for left, top, right, bottom in [crop.box]
    ]
    return coco_metrics(BOXES, persons, predictions)


def mask_metrics(persons: Sequence[Person], crops: Sequence[Crop]) -> dict[str, float]:
    """Return COCO's average precision and recall of the masks of crops, one for each image.

    Args:
        persons: The person in each image, with a mask.
        crops: The crop of each; those without a mask are not detections.
    """
    from pycocotools import mask

    predictions = []
    for person, crop in zip(persons, crops, strict=True):
        if crop.mask is None or person.mask is None:
            continue
        height, width = person.mask["size"]
        pixels = np.asarray(crop.mask.draw((width, height))) > MASK_THRESHOLD
        encoded = mask.encode(np.asfortranarray(pixels.astype(np.uint8)))
        predictions.append({"image_id": person.image, "segmentation": encoded, "score": crop.score})
    return coco_metrics(MASKS, persons, predictions)


def coco_metrics(
    kind: str,
    persons: Sequence[Person],
    predictions: Sequence[dict[str, Any]],
    joints: JointSet | None = None,
) -> dict[str, float]:
    """Return the metrics of pycocotools, without those for which there are no people.

    Args:
        kind: A key of `STATISTICS`.
        persons: Annotated people.
        predictions: COCO results without categories.
        joints: The joint set, for key points.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    if not predictions:
        return dict.fromkeys(STATISTICS[kind][:3], 0.0)
    category: dict[str, Any] = {"id": 1, "name": "person"}
    if joints:
        category["keypoints"] = list(joints.names)
    # pycocotools prints its progress.
    with contextlib.redirect_stdout(io.StringIO()):
        annotations = COCO()
        annotations.dataset = {
            "images": list({person.image: _image(person) for person in persons}.values()),
            "annotations": [_annotation(n, person) for n, person in enumerate(persons, start=1)],
            "categories": [category],
        }
        annotations.createIndex()
        results = annotations.loadRes([{"category_id": 1, **one} for one in predictions])
        evaluator = COCOeval(annotations, results, kind)
        if joints:
            evaluator.params.kpt_oks_sigmas = joints.sigmas
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    # pycocotools returns -1 if there is no such person.
    pairs = zip(STATISTICS[kind], evaluator.stats, strict=False)
    return {name: float(value) for name, value in pairs if value >= 0}


def _image(person: Person) -> dict[str, Any]:
    size = dict(zip(("height", "width"), person.mask["size"], strict=True)) if person.mask else {}
    return {"id": person.image, **size}


def _annotation(number: int, person: Person) -> dict[str, Any]:
    return {
        "id": number,
        "image_id": person.image,
        "category_id": 1,
        "bbox": list(person.box),
        "area": person.area,
        "iscrowd": 0,
        "keypoints": person.points.ravel().tolist(),
        "num_keypoints": int((person.points[:, 2] > 0).sum()),
        **({"segmentation": person.mask} if person.mask else {}),
    }


def evaluate_pose(
    estimator: PoseEstimator, people: People, empty: Sequence[Person] = ()
) -> dict[str, Any]:
    """Measure a pose estimator.

    OKS and PCK are measured with given boxes, as is usual; crops, their boxes and masks are
    measured in whole images, for the largest person of each.

    Args:
        estimator: The estimator.
        people: Annotated people, with the joints of the network.
        empty: Images without people, of which the fraction that is cropped is measured.

    Returns:
        The metrics; those of joints or masks only if some are annotated.

    Raises:
        Failure: No person can be measured.
    """
    largest = {person.photo: person for person in sorted(people.persons, key=lambda p: p.area)}
    in_photos, crops = detect_in_photos(estimator, list(largest.values()))
    if not in_photos.persons:
        raise Failure("no person with annotated joints or a mask is in a readable photo")
    figures: dict[str, Any] = {"photos": len(in_photos.persons)}
    with_joints = [person for person in people.persons if person.has_joints]
    if with_joints:
        in_boxes = detect_in_boxes(estimator, with_joints)
        figures |= {
            "persons": len(in_boxes.persons),
            "PCK": pck(in_boxes),
            "OKS": oks(in_boxes, people.joints),
        }
    figures["box"] = box_metrics(in_photos.persons, crops)
    masked = [
        (person, replace(crop, mask=crop.mask if crop.outcome != WHOLE else None))
        for person, crop in zip(in_photos.persons, crops, strict=True)
        if person.mask
    ]
    if masked:
        persons, masked_crops = zip(*masked, strict=True)
        figures["mask"] = mask_metrics(persons, masked_crops)
        figures["mask"]["mean_iou"] = float(np.mean([_mask_overlap(p, c.mask) for p, c in masked]))
    figures["crop"] = crop_metrics(in_photos.persons, crops)
    _, empty_crops = detect_in_photos(estimator, empty)
    if empty_crops:
        cropped = [crop.outcome != WHOLE for crop in empty_crops]
        figures["crop"]["cropped_without_people"] = float(np.mean(cropped))
    return figures | {
        "missing": [str(path) for path in people.missing],
        "unreadable": {str(path): why for path, why in in_photos.unreadable.items()},
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
