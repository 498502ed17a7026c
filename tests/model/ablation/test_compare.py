"""A comparison through the command, on drawn photos and a backbone of random weights."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from parsel import Selector
from PIL import Image

from dataset.pose.crop import KEEP
from model.ablation.compare import _p_value, write_comparison
from model.ablation.runner import (
    BUILD_CROP,
    AblationStep,
    CompareOptions,
    StepRunner,
    TrainingResult,
)
from model.data.loading import SplitData
from model.training.config import TrainOptions
from tests.support.browser import find_overflow, needs_chromium
from tests.support.drawn_splits import draw_splits, random_backbone, run

STEPS = """
[reference]
"somebody" = 0.5

[[step]]
name = "plain"
optimizer = "sgd"
augment = "none"
fine_tune = 0
head_epochs = 10

[[step]]
name = "+ mirror"
augment = "mirror"

[[step]]
name = "+ cutout"
from = "plain"
augment = "cutout"

[[step]]
name = "useful"
from = "plain"
augment = "useful"

[[step]]
name = "+ crop"
crop = "person"

[[step]]
name = "+ one block"
from = "best"
fine_tune = 1
epochs = 1
seeds = 1
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, short_backbone: None) -> Path:
    folder = tmp_path_factory.mktemp("compare")
    draw_splits(folder / "splits", {"a": "red", "б": "blue"})
    random_backbone(folder / "backbone.weights.h5")
    (folder / "steps.toml").write_text(STEPS)
    options = ("--weights", "backbone.weights.h5", "--steps", "steps.toml", "--seeds", "2")
    done = run(folder, *options, "--precision", "float32", "--out", "out", command="compare")
    assert done.returncode == 0, done.stderr
    assert "+ one block" in done.stdout
    return folder


def rows(work: Path) -> list[dict[str, str]]:
    with (work / "out" / "compare.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_each_step_is_compared_with_the_one_that_it_changes(work: Path) -> None:
    results = rows(work)
    assert [row["changes"] for row in results[:4]] == ["", "plain", "plain", "plain"]
    assert [row["trainings"] for row in results] == ["2", "2", "2", "2", "2", "1"]
    for row in results:
        assert float(row["low"]) <= float(row["accuracy"]) <= float(row["high"])
    plain = float(results[0]["accuracy"])
    assert float(results[1]["gain"]) == pytest.approx(float(results[1]["accuracy"]) - plain)


@pytest.mark.slow
def test_table_chart_and_reference_are_written(work: Path) -> None:
    page = (work / "out" / "compare.md").read_text(encoding="utf-8")
    assert page.count("| + mirror | plain |") == 1
    assert "| *somebody* |" in page
    comparison = json.loads((work / "out" / "compare.json").read_text(encoding="utf-8"))
    assert comparison["photos"] == 12
    with Image.open(work / "out" / "compare.png") as picture:
        assert min(picture.size) > 300
    assert not list((work / "out").rglob("head.npz"))


def test_the_page_has_a_bar_per_step_and_the_reference(tmp_path: Path) -> None:
    row = {"step": "plain <b>", "changes": "", "note": "", "trainings": 2, "accuracy": 0.5}
    better = row | {"step": "+ crop", "accuracy": 0.75, "interval": (0.7, 0.8), "changes": "plain"}
    skipped = row | {"step": "+ blur", "note": "no person is found"}
    steps = [row | {"interval": None}, better | {"gain": 0.25, "p": 0.01}, skipped]
    write_comparison(tmp_path, steps, {"somebody": 0.6}, 12, {"options": {"seeds": "2"}})
    page = Selector((tmp_path / "compare.html").read_text(encoding="utf-8"))
    assert page.css(".bars .name::text").getall() == ["plain <b>", "+ crop", "somebody (reference)"]
    assert [f"width:{n:.1f}%" for n in (50, 75, 60)] == page.css(
        ".bars .fill::attr(style)"
    ).getall()
    assert page.css(".headline .value::text").getall() == ["75.0%", "50.0%", "+25.0", "12"]
    assert "skipped: no person is found" in page.css("td::text").getall()


def test_the_p_value_of_gains() -> None:
    assert _p_value(np.full(1000, 0.1)) == pytest.approx(1 / 1000)
    assert _p_value(np.array([0.1, -0.1] * 500)) == 1
    assert _p_value(np.array([0.1] * 975 + [-0.1] * 25)) == pytest.approx(0.05)
    assert _p_value(np.full(10, np.nan)) is None


def test_photos_that_a_build_cropped_are_not_called_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = TrainingResult(np.ones(4), 1.0, 1.0, 1.0)
    monkeypatch.setattr(StepRunner, "_train", lambda *_: training)
    runner = StepRunner.__new__(StepRunner)
    runner.options = CompareOptions(tmp_path, tmp_path / "out", tmp_path / "steps.toml", seeds=1)
    runner.base_options = TrainOptions(data=tmp_path, out=tmp_path / "out")
    runner.data = SplitData(tmp_path, ("a", "b"), ())
    runner.data_crop, runner.data_by_crop = BUILD_CROP, {(BUILD_CROP, KEEP): runner.data}
    plain = runner.run(0, AblationStep("plain", "", {}, None, None, 0), ())
    named = runner.run(1, AblationStep("named", "plain", {}, "whole", None, 0), (plain,))
    person = runner.run(2, AblationStep("person", "plain", {}, "person", None, 0), (plain, named))
    assert (plain.crop, named.crop) == (BUILD_CROP, BUILD_CROP)
    assert plain.accuracies.tolist() == [1.0] and not plain.note
    assert person.crop == "person" and "cropped already" in person.note


@needs_chromium
def test_the_page_fits_wide_and_narrow_windows(tmp_path: Path) -> None:
    row = {"step": "x" * 80, "changes": "y" * 80, "note": "", "trainings": 2, "accuracy": 0.5}
    steps = [row | {"interval": (0.4, 0.6), "gain": 0.1, "gain_interval": (-0.2, 0.4), "p": 0.1}]
    write_comparison(tmp_path, steps, {"z" * 60: 0.6}, 12, {"options": {"weights": "w" * 300}})
    assert find_overflow(tmp_path / "compare.html") == []
