"""`compare`: the same split under one change after another, each with its intervals and a test."""

from collections.abc import Sequence
from typing import Any

import click
import numpy as np

from dataset.errors import Failure
from model import compare_papers
from model.bench import Bench, CompareOptions, Row
from model.data import find_data
from model.intervals import interval, resampling
from model.origins import origins
from model.run_facts import versions
from model.steps import read_steps
from model.training import run_folder

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
            click.echo(compare_papers.line(rows[-1]))
        table = [_compared(row, rows, bench) for row in rows]
        facts = {"versions": versions(), "options": {n: str(v) for n, v in vars(options).items()}}
        compare_papers.write(part, table, steps.reference, len(bench.examples), facts)
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
    groups = origins(bench.plain.folder, bench.examples).groups
    draw = resampling(groups, len(row.right), RESAMPLES, bench.options.seed)
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
