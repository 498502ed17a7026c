"""Metrics of key points, computed by hand, and those of the included network."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from dataset.pose import checkpoints
from dataset.pose.annotations import Person, read_people
from dataset.pose.cli import train_pose
from dataset.pose.crop import PERSON, Crop
from dataset.pose.evaluation import PoseDetections, crop_metrics, evaluate_pose, oks, pck
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


@needs_people
def test_the_shipped_network_on_real_people() -> None:
    people = read_people([PEOPLE / "person_keypoints_val.json"], [PEOPLE / "images"])
    figures = evaluate_pose(checkpoints.load_estimator(find_model("hrnet-small")), people)
    assert figures["crop"]["mean_box_iou"] > 0.55
    assert figures["PCK"] > 0.65
    assert figures["persons"] == 250


def test_other_joints_and_broken_photos_are_named(tmp_path: Path) -> None:
    path = write_people(tmp_path, 2)
    arguments = ["--evaluate", "--annotations", str(path), "--images", str(tmp_path)]
    done = CliRunner().invoke(train_pose, arguments)
    assert done.exit_code == 1 and "not the network's" in done.output

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
    assert figures["persons"] == 1 and len(figures["unreadable"]) == 1

    content["annotations"] = []
    path.write_text(json.dumps(content))
    done = CliRunner().invoke(train_pose, arguments)
    assert done.exit_code == 2 and "has no people" in done.output
