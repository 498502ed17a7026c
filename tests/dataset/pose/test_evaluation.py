"""Metrics of key points, computed by hand, and those of the included network."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from pycocotools import mask as masks

from dataset.pose import checkpoints
from dataset.pose.annotations import Person, read_people
from dataset.pose.cli import train_pose
from dataset.pose.crop import PERSON, WHOLE, Crop
from dataset.pose.evaluation import (
    PoseDetections,
    box_metrics,
    crop_metrics,
    evaluate_pose,
    mask_iou,
    mask_metrics,
    oks,
    pck,
)
from dataset.pose.heatmaps import PersonMask
from dataset.pose.models import JointSet, find_model
from tests.dataset.pose.test_training import write_people

PEOPLE = Path(__file__).parents[4] / "shared" / "data" / "lsp"
needs_people = pytest.mark.skipif(not PEOPLE.exists(), reason="../shared/data/lsp is not here")
JOINTS = JointSet(("neck", "left_hip", "right_hip"))

pytestmark = pytest.mark.usefixtures("one_estimator")


def person(number: int, *places: tuple[float, float]) -> Person:
    points = np.array([(*place, 2) for place in places], np.float64)
    return Person(Path("x.jpg"), (0, 0, 100, 200), points, 20_000, number, number)


def test_pck_counts_joints_within_a_fifth_of_the_longer_side() -> None:
    people = [person(1, (50, 20), (60, 100), (40, 100))]
    points = np.array([(50, 59, 1), (60, 141, 1), (40, 100, 0)], np.float64)
    assert pck(PoseDetections(people, [points])) == pytest.approx(2 / 3)
    people[0].points[1, 2] = 0
    assert pck(PoseDetections(people, [points])) == 1


def test_oks_of_the_truth_is_one_and_falls_with_distance() -> None:
    people = [person(n, (50, 20), (60, 100), (40, 100)) for n in range(1, 9)]
    truth = [one.points.copy() for one in people]
    assert oks(PoseDetections(people, truth), JOINTS)["AP"] == pytest.approx(1)
    far = [points + np.array([200, 0, 0]) for points in truth]
    assert oks(PoseDetections(people, far), JOINTS)["AP"] == pytest.approx(0)
    half = [*far[:4], *truth[4:]]
    assert oks(PoseDetections(people, half), JOINTS)["AR"] == pytest.approx(0.5)


def test_crop_figures() -> None:
    people = [person(1, (50, 20), (60, 100), (40, 100))] * 2
    crops = [Crop(PERSON, (0, 0, 100, 200), 1), Crop(PERSON, (0, 0, 50, 200), 1)]
    figures = crop_metrics(people, crops)
    assert figures == {"mean_box_iou": 0.75, "held": 0.5, "left_whole": 0}


def masked(number: int) -> Person:
    """Return a person whose mask is a square of 20 pixels."""
    pixels = np.zeros((60, 50), np.uint8)
    pixels[20:40, 10:30] = 1
    encoded = dict(masks.encode(np.asfortranarray(pixels)))
    return Person(
        Path(f"{number}.jpg"), (10, 20, 20, 20), np.zeros((3, 3)), 400, number, number, mask=encoded
    )


def found(left: float, top: float, right: float, bottom: float) -> Crop:
    mask = PersonMask(np.full((40, 40), 255, np.uint8), (left, top, right, bottom))
    return Crop(PERSON, (left, top, right, bottom), 0.9, mask=mask)


def test_boxes_and_masks_by_cocos_metrics() -> None:
    people = [masked(number) for number in range(1, 5)]
    right, half = found(10, 20, 30, 40), found(10, 20, 30, 30)
    assert mask_metrics(people, [right] * 4)["AP"] == pytest.approx(1)
    assert box_metrics(people, [right] * 4)["AP75"] == pytest.approx(1)
    for metrics in (mask_metrics, box_metrics):
        figures = metrics(people, [right, right, half, half])
        # Of four people two are found by an IoU of 0.75, and all by one of 0.5.
        assert figures["AP75"] < figures["AP50"] == pytest.approx(1)
        assert metrics(people, [Crop(WHOLE, (0, 0, 50, 60), 0)] * 4)["AP"] == 0
    detections = PoseDetections(people[:2], [], [right.mask, None])
    assert mask_iou(detections) == pytest.approx(0.5, abs=0.01)


@needs_people
def test_the_shipped_network_on_real_people() -> None:
    people = read_people([PEOPLE / "person_keypoints_val.json"], [PEOPLE / "images"])
    people = replace(people, persons=people.persons[::8])
    figures = evaluate_pose(checkpoints.load_estimator(find_model("hrnet-small")), people)
    assert figures["crop"]["mean_box_iou"] > 0.55
    assert figures["PCK"] > 0.65
    assert figures["persons"] == 32


def test_other_joints_and_broken_photos_are_named(tmp_path: Path) -> None:
    path = write_people(tmp_path, 2)
    arguments = ["--evaluate", "--annotations", str(path), "--images", str(tmp_path)]
    done = CliRunner().invoke(train_pose, arguments)
    assert done.exit_code == 2 and "joints of the network (right_ankle" in done.output

    names = list(find_model("hrnet-small").joints.names)
    content = json.loads(path.read_text())
    content["categories"][0]["keypoints"] = names
    for one in content["annotations"]:
        one["keypoints"] = [float(n) for n in range(30, 30 + 3 * len(names))]
    path.write_text(json.dumps(content))
    (tmp_path / "1.jpg").write_bytes(b"broken")
    arguments += ["--without-people", str(tmp_path)]
    done = CliRunner().invoke(train_pose, [*arguments, "--json", str(tmp_path / "out.json")])
    assert done.exit_code == 0, done.output
    assert "crop cropped without people" in done.output
    assert "1.jpg" in done.output and "PCK@0.2" in done.output
    figures = json.loads((tmp_path / "out.json").read_text())
    assert figures["persons"] == 1 and len(figures["unreadable"]) == 1 and "mask" not in figures

    content["annotations"] = []
    path.write_text(json.dumps(content))
    done = CliRunner().invoke(train_pose, arguments)
    assert done.exit_code == 2 and "has no people" in done.output
