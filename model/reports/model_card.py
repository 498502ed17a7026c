"""`README.md` of a run: a model card (Mitchell et al., "Model Cards for Model Reporting", 2019)."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from model.reports import summary
from model.reports.run_results import Judged

LOAD = """```python
import keras, numpy as np, PIL.Image
model = keras.saving.load_model("model.keras")
model.predict(np.asarray(PIL.Image.open("photo.jpg").convert("RGB"))[None])
```"""


# An underscore within a word is only itself.
OBEYED = re.compile(r"[\\`*\[\]<>#|~$&]|(?<!\w)_|_(?!\w)")


def run_card(judged: Judged, metrics: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    """The card of JUDGED as Markdown, with METRICS (metrics.json) and RUN (run.json)."""
    sections = [
        "---\nlibrary_name: keras\npipeline_tag: image-classification\n---",
        "# Model card",
        *_what_it_is(judged),
        "## Figures",
        _lines(summary.verdict(metrics)),
        markdown_table(("figure", "value", "95% interval"), summary.headline(metrics)),
        "## Labels",
        markdown_table(
            ("label", *map(summary.title, summary.SCORES), "test photos"), _per_class(metrics)
        ),
        *_pairs(metrics),
        *_by(metrics),
        "## Data",
        _lines(_data(metrics, run["dataset"])),
        "## Recipe",
        f"Epoch {judged.best} of {len(judged.history.get('loss', ()))} was kept, the best on"
        f" validation. Seed {judged.seed}.",
        markdown_table(("option", "value"), summary.known(run["options"])),
        "## Limits",
        _lines(summary.unsure(metrics)),
        "## Files",
        "`report.html` shows all of this with pictures. `metrics.json` holds every figure,"
        " `predictions.csv` what they are computed from, `run.json` versions and machine.",
    ]
    return "\n\n".join(sections) + "\n"


def _what_it_is(judged: Judged) -> list[str]:
    return [
        f"An Inception-v3 classifier of {len(judged.labels)} labels of garments:"
        f" {', '.join(map(plain_text, judged.labels))}. It takes raw photos, (batch, height, width,"
        " 3) uint8 of any size, and gives calibrated shares, a label each, in the order of"
        " `labels.json`.",
        LOAD,
        "## Intended use",
        "To check tags of product photos and to suggest them to people. Not to identify or judge"
        " the people on photos, and not to decide alone where a mistake harms somebody.",
    ]


def _data(metrics: Mapping[str, Any], data: Mapping[str, Any]) -> list[str]:
    return [
        f"{data['photos']} photos, fingerprint (SHA-256 of {data['of']}) {data['sha256']}",
        *(f"{name}: {n} photos" for name, n in metrics.get("counts", {}).items()),
        f"left out as unreadable: {len(metrics.get('unreadable', {}))}",
    ]


def _per_class(metrics: Mapping[str, Any]) -> Iterable[Sequence[object]]:
    for label, figures in metrics["per_class"].items():
        found = metrics["intervals"]["per_class"][label]
        cells = [
            f"{figures[name]:.3f}" + (f" ({summary.between(found[name])})" if found[name] else "")
            for name in summary.SCORES
        ]
        yield label, *cells, figures["support"]


def _pairs(metrics: Mapping[str, Any]) -> list[str]:
    pairs = summary.confused(metrics)
    return ["Most often confused:", _lines(pairs)] if pairs else []


def _by(metrics: Mapping[str, Any]) -> list[str]:
    head = ("photos of", "test photos", "accuracy", "95% interval")
    rows = [
        (f"{kind} {name}", f["photos"], f"{f['accuracy']:.3f}", summary.between(f["interval"]))
        for kind, some in metrics["by"].items()
        for name, f in some.items()
    ]
    return ["## By site and crop", markdown_table(head, rows)] if rows else []


def _lines(lines: Iterable[str]) -> str:
    return "\n".join(f"- {plain_text(line)}" for line in lines)


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """ROWS below HEAD; all columns but the first to the right."""
    lines = [" | ".join(plain_text(str(cell)) for cell in row) for row in rows]
    top = f"| {' | '.join(head)} |\n|---{'|---:' * (len(head) - 1)}|"
    return "\n".join([top, *(f"| {line} |" for line in lines)])


def plain_text(text: str) -> str:
    """TEXT of a stranger with every sign escaped that Markdown or HTML would obey."""
    line = "".join(sign if sign.isprintable() else "?" for sign in text)
    return OBEYED.sub(r"\\\g<0>", line)
