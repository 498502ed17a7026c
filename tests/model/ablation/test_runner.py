"""Steps of a comparison: their files, other views, predictions and scores."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dataset.errors import BadInput
from model.ablation import runner as runner_module
from model.ablation.runner import (
    AblationStep,
    CompareOptions,
    StepRunner,
    fraction_correct,
    macro_f1,
    predict_classes,
    read_steps,
)
from model.cli_options import STEPS_FILE
from model.data.loading import Example, FacetGroups, SplitData, load_splits
from model.training.config import TrainOptions
from tests.support.drawn_splits import draw_splits, random_backbone

SINGLE = SplitData(Path("x"), ("a", "b", "c"), ())
SEVERAL = SplitData(
    Path("x"), ("a", "b", "c", "d"), (), facets=FacetGroups(("one", "two"), ((0, 1), (2, 3)))
)


def test_one_label() -> None:
    predicted = predict_classes(np.array([[0.0, 1, 2], [3, 1, 2]]), SINGLE)
    assert predicted.tolist() == [2, 0]
    assert fraction_correct(predicted, np.array([2, 1])).tolist() == [1, 0]
    assert macro_f1(predicted, np.array([2, 1]), SINGLE) == pytest.approx(1 / 3)


def test_several_labels() -> None:
    logits = np.array([[0.0, 1, 5, 9], [3, 1, 8, 2], [0, 4, 1, 2]])
    predicted, targets = predict_classes(logits, SEVERAL), np.array([[1, 0], [0, -1], [1, 1]])
    assert predicted.tolist() == [[1, 1], [0, 0], [1, 1]]
    assert fraction_correct(predicted, targets).tolist() == [0.5, 1, 1]
    # The second facet has one error in two photos.
    assert macro_f1(predicted, targets, SEVERAL) == pytest.approx((1 + (0 + 2 / 3) / 2) / 2)


def test_each_combination_of_parts_and_channels_has_its_own_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        runner_module, "prepare_backbone", lambda options, channels: (options.parts, channels)
    )
    runner = StepRunner.__new__(StepRunner)
    runner.prepared = {}
    options = TrainOptions(tmp_path, tmp_path)
    masked = replace(SINGLE, examples=(Example("a.jpg", "a", "train", background="both"),))
    for data, channels in ((SINGLE, 3), (masked, 4), (SINGLE, 3)):
        for parts in ("whole", "halves"):
            prepared = runner._prepare(replace(options, parts=parts), data)
            assert prepared == (parts, channels)
    assert len(runner.prepared) == 4


@pytest.mark.slow
def test_steps_with_other_parts_and_backgrounds_are_trained(
    tmp_path: Path, short_backbone: None
) -> None:
    folder = draw_splits(tmp_path / "splits", {"a": "red", "b": "blue"})
    options = CompareOptions(
        folder,
        tmp_path / "out",
        tmp_path / "steps.toml",
        weights=str(random_backbone(tmp_path / "backbone.weights.h5")),
        image_size=75,
        precision="float32",
        cache=tmp_path / "cache",
        seeds=1,
    )
    (tmp_path / "out").mkdir()
    runner = StepRunner(load_splits(folder), options, tmp_path / "out")
    head = {"fine_tune": 0, "augment": "none", "feature_layers": ("mixed5",)}
    steps = [
        AblationStep("plain", "", head, "whole", None, 0),
        AblationStep("halves", "plain", {"parts": "halves"}, None, None, 0),
        AblationStep("both", "halves", {}, "person", "both", 0),
        AblationStep("tuned", "both", {"fine_tune": 1, "epochs": 1}, None, None, 0),
    ]
    results = [runner.run(number, step, ()) for number, step in enumerate(steps[:1])]
    for number, step in enumerate(steps[1:], 1):
        results.append(runner.run(number, step, results))
    assert {*runner.prepared} == {("whole", 3), ("halves", 3), ("halves", 4)}
    assert [result.background for result in results] == ["keep", "keep", "both", "both"]
    assert all(result.accuracy > 0.9 for result in results[:3])
    assert 0 <= results[3].accuracy <= 1


def test_the_built_in_steps_are_those_of_the_thesis() -> None:
    steps = read_steps(STEPS_FILE)
    assert list(steps.reference.values()) == [0.697, 0.81]
    names = [step.name for step in steps.steps]
    assert names[:3] == ["SGD, no augmentation, whole photo", "+ Adam", "+ mirror"]
    by_name = {step.name: step for step in steps.steps}
    assert by_name["+ cutout"].base == "+ Adam"
    crops = ["strip", "person", None, None, None]
    assert [step.crop for step in steps.steps[-6:-1]] == crops
    assert {step.against for step in steps.steps[-6:-1]} == {"+ the useful ones together"}
    assert by_name["+ background removed"].background == "white"
    assert by_name["+ upper and lower half"].settings == {"parts": "halves"}
    assert by_name["+ both backgrounds"].background == "both"
    assert by_name["+ fine-tuning"].settings["time_budget"] == 900
    assert by_name["+ fine-tuning"].settings["fine_tune"] is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"no \[\[step\]\]"),
        ("[[step]]\naugment='none'", "needs a unique name"),
        ("[[step]]\nname='a'\n[[step]]\nname='a'", "needs a unique name, not 'a'"),
        ("[[step]]\nname='a'\n[[step]]\nname='b'\nfrom='c'", "from = 'c' is not a step before it"),
        ("[[step]]\nname='a'\naugment='flip'", "augment = 'flip'.*unknown transform"),
        ("[[step]]\nname='a'\nspeed=3", "unknown setting 'speed'"),
        ("[[step]]\nname='a'\nseed=3", "same for all steps"),
        ("[[step]]\nname='a'\nhead_epochs='many'", "must be of type int"),
        ("[[step]]\nname='a'\nmixup=true", "must be of type float"),
        ("[[step]]\nname='a'\ncrop='head'", "crop must be whole, strip, person"),
        ("[[step]]\nname='a'\n[reference]\nx=81", "accuracy from 0 to 1"),
        ("[[step", "no TOML|not TOML|invalid|Expected"),
    ],
)
def test_invalid_steps_are_rejected_with_the_file(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "steps.toml"
    path.write_text(text)
    with pytest.raises(BadInput, match=message) as raised:
        read_steps(path)
    assert "steps.toml" in str(raised.value)
