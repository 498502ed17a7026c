"""Compare steps of training: run them, and write a page, tables and a chart."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from matplotlib.figure import Figure

from dataset.errors import Failure
from dataset.utils.cli_options import format_table
from dataset.utils.files import spreadsheet_row, write_json
from dataset.utils.html import render
from model.ablation.runner import CompareOptions, StepResult, StepRunner, read_steps
from model.data.loading import load_splits
from model.evaluation.bootstrap import difference_interval, make_bootstrap, score_interval
from model.reports.html import render_png
from model.reports.run_report import package_versions
from model.training.train import check_for_leaks, run_folder

HEADINGS = ("step", "compared with", "accuracy", "95% interval", "gain", "95% interval", "p")
EXPLANATION = (
    "Accuracy is the mean over {trainings} per step with different seeds. Intervals and p are those"
    " of a paired bootstrap over {photos} test photos (whole groups if the data has them); it"
    " resamples photos, not trainings. A step is compared with the one that the table names."
)
CSV_COLUMNS = (
    *("step", "changes", "crop", "background", "parts", "augment", "trainings", "accuracy"),
    *("low", "high", "over_seeds", "macro_f1", "validation_accuracy"),
    *("gain", "gain_low", "gain_high", "p", "minutes", "note"),
)
RESAMPLES = 5000


def compare(options: CompareOptions) -> list[dict[str, Any]]:
    """Train and evaluate each step, and write the output files.

    Returns:
        The rows of the table.

    Raises:
        BadInput: As `train`, or the file of steps is invalid.
        Failure: There are no test photos, or the weights can't be loaded.
    """
    steps = read_steps(options.steps)
    with run_folder(options) as folder:
        data = load_splits(options.data)
        if not data.examples_of("test") or not data.examples_of("validation"):
            raise Failure(f"{data.folder}: a comparison needs photos in validation/ and test/")
        check_for_leaks(data, options.cache, options.allow_leaks)
        runner = StepRunner(data, options, folder)
        results: list[StepResult] = []
        for number, step in enumerate(steps.steps):
            results.append(runner.run(number, step, results))
            click.echo(format_result(results[-1]))
        rows = [_compare_to_base(result, results, runner) for result in results]
        values = {name: str(value) for name, value in vars(options).items()}
        facts = {"versions": package_versions(), "options": values}
        write_comparison(folder, rows, steps.reference, len(runner.examples), facts)
        return rows


def _compare_to_base(
    result: StepResult, results: Sequence[StepResult], runner: StepRunner
) -> dict[str, Any]:
    """Return a row of the table, with a paired bootstrap test against the step that was changed."""
    row: dict[str, Any] = {
        "step": result.step.name,
        "changes": result.base,
        "crop": result.crop,
        "background": result.background,
        "parts": result.options.parts,
        "augment": result.options.augment,
        "note": result.note,
    }
    if result.note:
        return row
    count = len(result.correct)
    bootstrap = make_bootstrap(runner.groups, count, RESAMPLES, runner.options.seed)
    base = next((r for r in results if r.step.name == result.base and not r.note), None)
    columns = [result.correct, np.ones(count)]
    if base is not None:
        columns.append(result.correct - base.correct)
    totals = bootstrap.totals(np.stack(columns, axis=1))
    accuracies = result.accuracies
    row |= {
        "trainings": len(accuracies),
        "accuracy": result.accuracy,
        "interval": score_interval(totals[:, 0] / totals[:, 1], bootstrap.count),
        "over_seeds": float(accuracies.std(ddof=1)) if len(accuracies) > 1 else None,
        "macro_f1": float(result.macro_f1.mean()),
        "validation_accuracy": result.validation_accuracy,
        "minutes": result.seconds / 60,
    }
    if base is not None:
        gains = totals[:, 2] / totals[:, 1]
        row |= {
            "gain": float((result.correct - base.correct).mean()),
            "gain_interval": difference_interval(gains, bootstrap.count),
            "p": _p_value(gains),
        }
    return row


def _p_value(gains: np.ndarray) -> float | None:
    """Return the two-sided p value of resampled gains; None if they are NaN."""
    if np.isnan(gains).any():
        return None
    tail = min((gains <= 0).mean(), (gains >= 0).mean())
    return float(min(1.0, max(2 * tail, 1 / len(gains))))


def format_result(result: StepResult) -> str:
    """Format the result of a step as a line for the terminal."""
    if result.note:
        return f"{result.step.name}: skipped, {result.note}"
    return (
        f"{result.step.name}: accuracy {result.accuracy:.3f} over"
        f" {_format_trainings(len(result.accuracies))} ({result.crop}, {result.options.augment}),"
        f" validation accuracy {result.validation_accuracy:.3f}, {result.seconds / 60:.1f} min"
    )


def _format_trainings(count: int) -> str:
    return "1 training" if count == 1 else f"{count} trainings"


def _explain(rows: Sequence[Mapping[str, Any]], photos: int) -> str:
    """Return what the figures of some rows mean."""
    return EXPLANATION.format(trainings=_most_trainings(rows), photos=photos)


def _most_trainings(rows: Sequence[Mapping[str, Any]]) -> str:
    most = max((row.get("trainings", 0) for row in rows), default=0)
    return f"up to {_format_trainings(most)}"


def table_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the cells of a row under HEADINGS."""
    if row["note"]:
        return (row["step"], row["changes"], "", f"skipped: {row['note']}", "", "", "")
    gain = row.get("gain")
    return (
        row["step"],
        row["changes"],
        f"{row['accuracy']:.3f}",
        _format_interval(row["interval"], "{:.3f}"),
        "" if gain is None else f"{gain:+.3f}",
        _format_interval(row.get("gain_interval"), "{:+.3f}"),
        "" if row.get("p") is None else f"{row['p']:.3f}" if row["p"] >= 0.001 else "< 0.001",
    )


def _format_interval(interval: Sequence[float] | None, form: str) -> str:
    return " to ".join(form.format(value) for value in interval) if interval else ""


def format_comparison(rows: Sequence[Mapping[str, Any]], reference: Mapping[str, float]) -> str:
    """Format the table for the terminal."""
    references = [(name, "", f"{value:.3f}", "", "", "", "") for name, value in reference.items()]
    return format_table(HEADINGS, [*(table_cells(row) for row in rows), *references])


def render_markdown(
    rows: Sequence[Mapping[str, Any]], reference: Mapping[str, float], photos: int
) -> str:
    """Render the table as Markdown.

    Args:
        rows: The rows.
        reference: Name -> accuracy that was measured elsewhere.
        photos: Number of test photos.
    """

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    lines = [
        "# Comparison",
        "",
        line(HEADINGS),
        "|---|---|---:|---:|---:|---:|---:|",
        *(line(table_cells(row)) for row in rows),
        *(line((f"*{n}*", "", f"*{v:.3f}*", "", "", "", "")) for n, v in reference.items()),
        "",
        _explain(rows, photos),
        "",
        "References (in italics) were measured on other photos.",
    ]
    return "\n".join(lines) + "\n"


def render_page(
    rows: Sequence[Mapping[str, Any]],
    reference: Mapping[str, float],
    photos: int,
    facts: Mapping[str, Any],
) -> str:
    """Render the table as an HTML page with a bar per step.

    Args:
        rows: The rows.
        reference: Name -> accuracy that was measured elsewhere.
        photos: Number of test photos.
        facts: Options and versions.
    """
    done = [row for row in rows if not row["note"]]
    headline = [("Test photos", f"{photos:,}", f"{_most_trainings(done)} per step")]
    title = f"{len(rows)} steps"
    if done:
        best = max(done, key=lambda row: row["accuracy"])
        gain = best["accuracy"] - done[0]["accuracy"]
        title = f"{best['step']}: {best['accuracy']:.1%} accuracy"
        headline = [
            ("Highest accuracy", f"{best['accuracy']:.1%}", best["step"]),
            ("First step", f"{done[0]['accuracy']:.1%}", done[0]["step"]),
            ("Gain", f"{100 * gain:+.1f}", "percentage points"),
            *headline,
        ]
    return render(
        Path(__file__).with_name("templates"),
        "compare.html",
        title=title,
        headline=headline,
        explanation=_explain(done, photos),
        bars=[(row["step"], row["accuracy"], row["interval"], "") for row in done]
        + [(f"{name} (reference)", value, None, "") for name, value in reference.items()],
        headings=HEADINGS,
        cells=[table_cells(row) for row in rows],
        has_references=bool(reference),
        options=[pair for group in facts.values() for pair in group.items()],
    )


def accuracy_chart(rows: Sequence[Mapping[str, Any]], reference: Mapping[str, float]) -> Figure:
    """Draw a bar per step with its interval, and the references as lines."""
    shown = [row for row in rows if not row["note"]][::-1]
    figure = Figure(figsize=(9, 1.6 + 0.42 * len(shown)), layout="constrained", dpi=110)
    axes = figure.add_subplot()
    values = [row["accuracy"] for row in shown]
    intervals = [row["interval"] or (v, v) for row, v in zip(shown, values, strict=True)]
    low = [value - interval[0] for value, interval in zip(values, intervals, strict=True)]
    high = [interval[1] - value for value, interval in zip(values, intervals, strict=True)]
    positions = range(len(shown))
    axes.barh(positions, values, color="#4878b0", height=0.62)
    axes.errorbar(values, positions, xerr=(low, high), fmt="none", ecolor="0.25", capsize=3)
    for position, (value, interval) in enumerate(zip(values, intervals, strict=True)):
        axes.text(interval[1] + 0.008, position, f"{value:.3f}", va="center", fontsize=9)
    for style, (name, value) in zip(("--", ":", "-."), reference.items(), strict=False):
        axes.axvline(value, color="#b0483a", linestyle=style, label=f"{name}: {value:.3f}")
    axes.set_yticks(positions, [row["step"] for row in shown])
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
    """Write compare.html, compare.md, compare.csv, compare.json and compare.png.

    Args:
        folder: An existing folder.
        rows: The rows of the table.
        reference: Name -> accuracy that was measured elsewhere.
        photos: Number of test photos.
        facts: Added to the JSON file.
    """
    page = render_page(rows, reference, photos, facts)
    (folder / "compare.html").write_text(page, encoding="utf-8", errors="backslashreplace")
    table = render_markdown(rows, reference, photos)
    (folder / "compare.md").write_text(table, encoding="utf-8")
    with (folder / "compare.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, CSV_COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for row in rows:
            low, high = row.get("interval") or ("", "")
            gain_low, gain_high = row.get("gain_interval") or ("", "")
            bounds = {"low": low, "high": high, "gain_low": gain_low, "gain_high": gain_high}
            values = {**row, **bounds}
            cells = spreadsheet_row(values.values())
            writer.writerow(dict(zip(values, cells, strict=True)))
    write_json(
        {"rows": list(rows), "reference": dict(reference), "photos": photos, **facts},
        folder / "compare.json",
    )
    (folder / "compare.png").write_bytes(render_png(lambda: accuracy_chart(rows, reference)))
