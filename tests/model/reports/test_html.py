"""The errors that the report shows, missing photos, and charts for two to a hundred classes."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dataset.pose.crop import Crop
from dataset.utils import html
from dataset.utils.plots import plot_history
from model.reports.html import (
    MAX_LABEL_CHARACTERS,
    _mistake,
    confusion_chart,
    most_confident_mistakes,
    photo_pairs,
    photos_by_prediction,
    render_png,
    shorten_label,
)
from tests.model.reports.test_run_report import results

macros: Any = html.environment().get_template("macros.html").module


def test_pairs_are_ordered_by_confidence(tmp_path: Path) -> None:
    one = results(tmp_path, ["a", "b", "c"], {"train": 1, "validation": 5, "test": 40})
    sure, called = one.probabilities.max(axis=1), one.probabilities.argmax(axis=1)
    photos = photos_by_prediction(one)
    assert sum(map(len, photos.values())) == len(one.test)
    found = {pair: places for pair, places in photos.items() if pair[0] != pair[1]}
    assert sum(map(len, found.values())) == (called != one.targets).sum()
    firsts = [sure[places[0]] for places in found.values()]
    assert firsts == sorted(firsts, reverse=True)
    for (label, other), places in found.items():
        assert {(one.targets[i], called[i]) for i in places} == {(label, other)}
    shown = [(pair.label, pair.predicted) for pair in photo_pairs(one)]
    assert shown[: len(found)] == [(one.labels[a], one.labels[b]) for a, b in found]
    assert all(label == predicted for label, predicted in shown[len(found) :])


def test_the_surest_mistakes_are_shown_with_their_crops_and_heat_maps(tmp_path: Path) -> None:
    one = results(tmp_path, ["a", "b"], {"train": 1, "validation": 0, "test": 20})
    indices = most_confident_mistakes(one)
    confidence = one.probabilities.max(axis=1)[indices].tolist()
    assert confidence == sorted(confidence, reverse=True)
    assert all(one.probabilities[i].argmax() != one.targets[i] for i in indices)
    crop = Crop("person", (2.0, 2.0, 20.0, 30.0), 0.9)
    cropped = replace(
        one,
        test=[replace(example, crop=crop) for example in one.test],
        heat_maps={indices[0]: b"heat map"},
    )
    plain, drawn = _mistake(one, indices[0]), _mistake(cropped, indices[0])
    assert plain.photo.jpeg
    assert drawn.photo.jpeg
    assert plain.photo.jpeg != drawn.photo.jpeg
    assert plain.heat_map is None
    assert drawn.heat_map is not None
    assert drawn.heat_map.jpeg == b"heat map"
    assert drawn.label != drawn.predicted


def test_a_missing_photo_is_replaced_by_its_name(tmp_path: Path) -> None:
    one = results(tmp_path, ["a", "b"], {"train": 1, "validation": 0, "test": 20})
    (place, *_), *_ = photos_by_prediction(one).values()
    path = one.test[place].path
    (tmp_path / path).unlink()
    (figure,) = [f for p in photo_pairs(one) for f in p.figures if f.caption.endswith(f" {path}")]
    assert figure.jpeg is None
    assert f": {path}</figure>" in str(macros.figure(figure))


@pytest.mark.parametrize(("classes", "most"), [(2, 700), (40, 2400), (100, 2600)])
def test_a_confusion_chart_has_a_limited_size(classes: int, most: int) -> None:
    labels = [f"$рубашка_{place}$ of a very long name indeed" for place in range(classes)]
    counts = np.eye(classes, dtype=int) * 7
    png = render_png(lambda: confusion_chart(counts, labels, 1.0))
    with Image.open(io.BytesIO(png)) as picture:
        assert 400 <= min(picture.size) <= max(picture.size) <= most


def test_missing_glyphs_cause_no_warnings(recwarn: pytest.WarningsRecorder) -> None:
    render_png(lambda: confusion_chart(np.eye(2, dtype=int), ["🔥", "連衣裙"], 1.0))
    assert [str(one.message) for one in recwarn] == []


def test_labels_are_shortened_to_one_line() -> None:
    assert shorten_label("a\nb\x1b[0m") == "a?b?[0m"
    assert len(shorten_label("x" * 99)) == MAX_LABEL_CHARACTERS


def test_the_best_epoch_and_the_stages_are_marked() -> None:
    figure = plot_history({"loss": [3.0, 2.0, 1.0], "val_loss": [3.0, 2.0, 2.0]}, 2, ("loss",), 1)
    _, names = figure.axes[0].get_legend_handles_labels()
    assert names == ["train", "validation", "kept: epoch 2", "second stage begins"]
