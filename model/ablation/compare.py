"""What a comparison leaves: its table in Markdown, CSV and JSON, and a chart."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from matplotlib.figure import Figure

from dataset.errors import Failure
from dataset.utils.files import write_json
from dataset.utils.tables import format_table
from model.ablation.config import read_steps
from model.ablation.runner import Bench, CompareOptions, Row
from model.data.loading import find_data
from model.evaluation.bootstrap import interval, resampling
from model.reports.charts import png
from model.reports.run_report import versions
from model.training.train import run_folder

if TYPE_CHECKING:
    from model.ablation.runner import Row


HEADINGS = ("step", "compared with", "accuracy", "95% interval", "gain", "95% interval", "p")
WORDS = (
    "Accuracy is the mean over {trainings} a step (other seeds); intervals and p are of a"
    " paired bootstrap over {photos} test photos (whole groups where the data knows them), which"
    " draws photos again, not trainings. A step is compared with the one that it changes."
)
FIELDS = (
    *("step", "changes", "crop", "augment", "trainings", "accuracy", "low", "high", "over_seeds"),
    *("macro_f1", "validation_accuracy", "gain", "gain_low", "gain_high", "p", "minutes", "note"),
)


def line(row: "Row") -> str:
    """A step that was just measured, in a line."""
    if row.note:
        return f"{row.step.name}: left out, {row.note}"
    return (
        f"{row.step.name}: accuracy {row.accuracy:.3f} over {_trainings(len(row.accuracies))}"
        f" ({row.crop}, {row.options.augment}), validation {row.validation:.3f},"
        f" {row.seconds / 60:.1f} min"
    )


def _trainings(count: int) -> str:
    return "1 training" if count == 1 else f"{count} trainings"


def cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """ROW under HEADINGS."""
    if row["note"]:
        return (row["step"], row["changes"], "", f"left out: {row['note']}", "", "", "")
    gain = row.get("gain")
    return (
        row["step"],
        row["changes"],
        f"{row['accuracy']:.3f}",
        _span(row["interval"], "{:.3f}"),
        "" if gain is None else f"{gain:+.3f}",
        _span(row.get("gain_interval"), "{:+.3f}"),
        "" if row.get("p") is None else f"{row['p']:.3f}" if row["p"] >= 0.001 else "< 0.001",
    )


def _span(pair: Sequence[float] | None, form: str) -> str:
    return " to ".join(form.format(value) for value in pair) if pair else ""


def summary(rows: Sequence[Mapping[str, Any]], reference: Mapping[str, float]) -> str:
    """The table for a terminal."""
    others = [(name, "", f"{value:.3f}", "", "", "", "") for name, value in reference.items()]
    return format_table(HEADINGS, [*(cells(row) for row in rows), *others])


def markdown(rows: Sequence[Mapping[str, Any]], reference: Mapping[str, float], photos: int) -> str:
    """The table as a page of Markdown."""

    def row_of(values: Sequence[str]) -> str:
        return "| " + " | ".join(value.replace("|", "\\|") for value in values) + " |"

    most = max((row.get("trainings", 0) for row in rows), default=0)
    lines = [
        "# Comparison",
        "",
        row_of(HEADINGS),
        "|---|---|---:|---:|---:|---:|---:|",
        *(row_of(cells(row)) for row in rows),
        *(row_of((f"*{n}*", "", f"*{v:.3f}*", "", "", "", "")) for n, v in reference.items()),
        "",
        WORDS.format(trainings=f"up to {_trainings(most)}", photos=photos),
        "",
        "References (in italics) were measured by others on other photos.",
    ]
    return "\n".join(lines) + "\n"


def chart(rows: Sequence[Mapping[str, Any]], reference: Mapping[str, float]) -> Figure:
    """Accuracies with their intervals, a bar a step, REFERENCE as lines."""
    shown = [row for row in rows if not row["note"]][::-1]
    figure = Figure(figsize=(9, 1.6 + 0.42 * len(shown)), layout="constrained", dpi=110)
    axes = figure.add_subplot()
    values = [row["accuracy"] for row in shown]
    spans = [row["interval"] or (v, v) for row, v in zip(shown, values, strict=True)]
    low = [value - span[0] for value, span in zip(values, spans, strict=True)]
    high = [span[1] - value for value, span in zip(values, spans, strict=True)]
    places = range(len(shown))
    axes.barh(places, values, color="#4878b0", height=0.62)
    axes.errorbar(values, places, xerr=(low, high), fmt="none", ecolor="0.25", capsize=3)
    for place, (value, span) in enumerate(zip(values, spans, strict=True)):
        axes.text(span[1] + 0.008, place, f"{value:.3f}", va="center", fontsize=9)
    for style, (name, value) in zip(("--", ":", "-."), reference.items(), strict=False):
        axes.axvline(value, color="#b0483a", linestyle=style, label=f"{name}: {value:.3f}")
    axes.set_yticks(places, [row["step"] for row in shown])
    axes.set_xlim(0, 1)
    axes.set_xlabel("accuracy on the test split, with 95% intervals")
    axes.grid(axis="x", alpha=0.3)
    if reference:
        axes.legend(loc="upper center", bbox_to_anchor=(0.4, -0.14), ncols=2, frameon=False)
    return figure


def write_comparison(
    folder: Path,
    rows: Sequence[Mapping[str, Any]],
    reference: Mapping[str, float],
    photos: int,
    facts: Mapping[str, Any],
) -> None:
    """compare.md, .csv, .json and .png in FOLDER."""
    page = markdown(rows, reference, photos)
    (folder / "compare.md").write_text(page, encoding="utf-8")
    with (folder / "compare.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for row in rows:
            low, high = row.get("interval") or ("", "")
            gain_low, gain_high = row.get("gain_interval") or ("", "")
            spans = {"low": low, "high": high, "gain_low": gain_low, "gain_high": gain_high}
            writer.writerow({**row, **spans})
    write_json(
        {"rows": list(rows), "reference": dict(reference), "photos": photos, **facts},
        folder / "compare.json",
    )
    (folder / "compare.png").write_bytes(png(lambda: chart(rows, reference)))


RESAMPLES = 5000


def compare(options: CompareOptions) -> list[dict[str, Any]]:
    """Train and measure each step, write the table, its chart and files; returns the table's rows.

    Raises:
        BadInput: as `train`, or a file of steps that means nothing.
        Failure: no test photos, or weights that can't be had.
    """
    steps = read_steps(options.steps)
    with run_folder(options) as part:
        data = find_data(options.data)
        if not data.of("test") or not data.of("validation"):
            raise Failure(f"{data.folder}: a comparison needs photos in validation/ and in test/")
        bench = Bench(data, options, part)
        rows: list[Row] = []
        for number, step in enumerate(steps.steps):
            rows.append(bench.run(number, step, rows))
            click.echo(line(rows[-1]))
        table = [_compared(row, rows, bench) for row in rows]
        facts = {"versions": versions(), "options": {n: str(v) for n, v in vars(options).items()}}
        write_comparison(part, table, steps.reference, len(bench.examples), facts)
        return table


def _compared(row: Row, rows: Sequence[Row], bench: Bench) -> dict[str, Any]:
    """ROW for the table, with the paired bootstrap against the row that it changes."""
    found: dict[str, Any] = {
        "step": row.step.name,
        "changes": row.base,
        "crop": row.crop,
        "augment": row.options.augment,
        "note": row.note,
    }
    if row.note:
        return found
    draw = resampling(bench.groups, len(row.right), RESAMPLES, bench.options.seed)
    base = next((one for one in rows if one.step.name == row.base and not one.note), None)
    columns_ = [row.right, np.ones(len(row.right))]
    if base is not None:
        columns_.append(row.right - base.right)
    totals = draw.totals(np.stack(columns_, axis=1))
    found |= {
        "trainings": len(row.accuracies),
        "accuracy": row.accuracy,
        "interval": interval(totals[:, 0] / totals[:, 1]),
        "over_seeds": float(row.accuracies.std(ddof=1)) if len(row.accuracies) > 1 else None,
        "macro_f1": float(row.macro_f1.mean()),
        "validation_accuracy": row.validation,
        "minutes": row.seconds / 60,
    }
    if base is not None:
        gains = totals[:, 2] / totals[:, 1]
        found |= {
            "gain": float((row.right - base.right).mean()),
            "gain_interval": interval(gains),
            "p": _p_value(gains),
        }
    return found


def _p_value(gains: np.ndarray) -> float | None:
    """Two-sided, of resampled GAINS: how often the sign is the other one, twice."""
    if np.isnan(gains).any():
        return None
    tail = min((gains <= 0).mean(), (gains >= 0).mean())
    return float(min(1.0, max(2 * tail, 1 / len(gains))))
