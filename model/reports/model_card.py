"""Render `README.md` of a run, a model card.

Mitchell et al., "Model Cards for Model Reporting", FAT* 2019, https://arxiv.org/abs/1810.03993.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from model.reports import run_results
from model.reports.run_results import RunResults

LOADING_EXAMPLE = """```python
import keras, numpy as np, PIL.Image
model = keras.saving.load_model("model.keras")
model.predict(np.asarray(PIL.Image.open("photo.jpg").convert("RGB"))[None])
```"""
# With a mask as written by `build-dataset --background both`.
MASK_LOADING_EXAMPLE = """```python
import keras, numpy as np, PIL.Image
model = keras.saving.load_model("model.keras")
photo, mask = PIL.Image.open("photo.jpg").convert("RGB"), PIL.Image.open("mask.png").convert("L")
model.predict(np.dstack([photo, mask])[None])
```"""


# Characters of Markdown and HTML markup. An underscore within a word is not one.
MARKUP = re.compile(r"[\\`*\[\]<>#|~$&]|(?<!\w)_|_(?!\w)")


def render_model_card(
    results: RunResults, metrics: Mapping[str, Any], run: Mapping[str, Any]
) -> str:
    """Render the model card as Markdown.

    Args:
        results: Predictions for the validation and test photos.
        metrics: Content of `metrics.json`.
        run: Content of `run.json`.
    """
    photos = run_results.evaluated_photos(metrics)
    sections = [
        "---\nlibrary_name: keras\npipeline_tag: image-classification\n---",
        "# Model card",
        *_overview(results),
        "## Summary",
        _bullets(run_results.findings(metrics)),
        markdown_table(("metric", "value", "95% interval"), run_results.main_metrics(metrics)),
        "## Labels",
        markdown_table(
            ("label", *map(run_results.score_title, run_results.SCORES), photos),
            _label_rows(metrics),
        ),
        *_confusions(metrics),
        *_groups(metrics),
        "## Data",
        _bullets(_data(metrics, run["dataset"])),
        "## Training",
        run_results.training_sentence(results),
        markdown_table(("option", "value"), run_results.option_rows(run["options"])),
        "## Limitations",
        _bullets(run_results.limitations(metrics)),
        "## Files",
        "`report.html` shows these results with photos. `metrics.json` has all metrics,"
        " `predictions.csv` the predictions they are computed from, and `run.json` the versions and"
        " the machine.",
    ]
    return "\n\n".join(sections) + "\n"


def _overview(results: RunResults) -> list[str]:
    if results.folds is not None:
        return [
            f"A cross-validation of an Inception-v3 classifier with {len(results.labels)} labels of"
            f" garments: {', '.join(map(escape_markdown, results.labels))}. It estimates the"
            " accuracy of a training; the networks are not kept. Train without `--folds` for a"
            " model."
        ]
    has_mask = results.channels == 4
    return [
        f"An Inception-v3 classifier with {len(results.labels)} labels of garments:"
        f" {', '.join(map(escape_markdown, results.labels))}. The input is a batch of photos,"
        f" (batch, height, width, {results.channels}) uint8 of any size"
        + (", whose fourth channel is the person's mask" if has_mask else "")
        + ", the output calibrated probabilities in the order of `labels.json`.",
        MASK_LOADING_EXAMPLE if has_mask else LOADING_EXAMPLE,
        "## Intended use",
        "Checking the tags of product photos, and suggesting tags to people. Not for identifying or"
        " judging the people on photos, nor for automatic decisions in which an error does harm.",
    ]


def _data(metrics: Mapping[str, Any], dataset: Mapping[str, Any]) -> list[str]:
    return [
        f"{dataset['photos']} photos; the SHA-256 of {dataset['hashed']} is {dataset['sha256']}",
        *(f"{split}: {count} photos" for split, count in metrics.get("counts", {}).items()),
        f"excluded because they can't be read: {len(metrics.get('unreadable', {}))}",
    ]


def _label_rows(metrics: Mapping[str, Any]) -> Iterable[Sequence[object]]:
    for label, scores in metrics["per_class"].items():
        intervals = metrics["intervals"]["per_class"][label]
        cells = [
            f"{scores[name]:.3f}"
            + (f" ({run_results.format_interval(intervals[name])})" if intervals[name] else "")
            for name in run_results.SCORES
        ]
        yield label, *cells, scores["support"]


def _confusions(metrics: Mapping[str, Any]) -> list[str]:
    sentences = run_results.frequent_confusions(metrics)
    return ["Most frequent confusions:", _bullets(sentences)] if sentences else []


def _groups(metrics: Mapping[str, Any]) -> list[str]:
    head = ("photos of", run_results.evaluated_photos(metrics), "accuracy", "95% interval")
    rows = [
        (
            f"{kind} {name}",
            group["photos"],
            f"{group['accuracy']:.3f}",
            run_results.format_interval(group["interval"]),
        )
        for kind, groups in metrics["by"].items()
        for name, group in groups.items()
    ]
    return ["## By site and crop", markdown_table(head, rows)] if rows else []


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {escape_markdown(line)}" for line in lines)


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Render a table in Markdown; all columns but the first are aligned to the right."""
    lines = [" | ".join(escape_markdown(str(cell)) for cell in row) for row in rows]
    top = f"| {' | '.join(head)} |\n|---{'|---:' * (len(head) - 1)}|"
    return "\n".join([top, *(f"| {line} |" for line in lines)])


def escape_markdown(text: str) -> str:
    """Return untrusted text on one line, with the markup of Markdown and HTML escaped."""
    line = "".join(character if character.isprintable() else "?" for character in text)
    return MARKUP.sub(r"\\\g<0>", line)
