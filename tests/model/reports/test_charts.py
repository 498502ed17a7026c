"""Charts for two to a hundred classes."""

import io

import numpy as np
import pytest
from PIL import Image

from dataset.utils.plots import plot_history
from model.reports import charts


@pytest.mark.parametrize(("classes", "most"), [(2, 700), (40, 2400), (100, 2600)])
def test_a_confusion_chart_has_a_limited_size(classes: int, most: int) -> None:
    labels = [f"$рубашка_{place}$ of a very long name indeed" for place in range(classes)]
    counts = np.eye(classes, dtype=int) * 7
    png = charts.render_png(lambda: charts.confusion_chart(counts, labels, 1.0))
    with Image.open(io.BytesIO(png)) as picture:
        assert 400 <= min(picture.size) <= max(picture.size) <= most


def test_missing_glyphs_cause_no_warnings(recwarn: pytest.WarningsRecorder) -> None:
    charts.render_png(lambda: charts.confusion_chart(np.eye(2, dtype=int), ["🔥", "連衣裙"], 1.0))
    assert [str(one.message) for one in recwarn] == []


def test_labels_are_shortened_to_one_line() -> None:
    assert charts.shorten_label("a\nb\x1b[0m") == "a?b?[0m"
    assert len(charts.shorten_label("x" * 99)) == charts.MAX_LABEL_CHARACTERS


def test_the_best_epoch_and_the_stages_are_marked() -> None:
    figure = plot_history({"loss": [3.0, 2.0, 1.0], "val_loss": [3.0, 2.0, 2.0]}, 2, ("loss",), 1)
    _, names = figure.axes[0].get_legend_handles_labels()
    assert names == ["train", "validation", "kept: epoch 2", "second stage begins"]
