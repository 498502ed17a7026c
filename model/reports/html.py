"""The mistakes that a model is surest of, as pictures for a page."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from dataset.images.io import Unreadable, thumbnail
from dataset.utils import html
from model.reports import summary
from model.reports.run_results import Judged

PAIRS, A_PAIR, SIDE = 12, 6, 160


def surest_mistakes(judged: Judged) -> dict[tuple[int, int], list[int]]:
    """(label, called so) -> its wrong test photos, the surest first; the surest pairs first."""
    called, sure = judged.shares.argmax(axis=1), judged.shares.max(axis=1)
    found: dict[tuple[int, int], list[int]] = defaultdict(list)
    for place in np.argsort(-sure, kind="stable"):
        one, other = int(judged.targets[place]), int(called[place])
        if one != other:
            found[one, other].append(int(place))
    return found


def mistakes(judged: Judged) -> list[str]:
    """HTML of the first pairs of labels with the first photos of each."""
    parts = []
    for (one, other), places in list(surest_mistakes(judged).items())[:PAIRS]:
        label, called = judged.labels[one], judged.labels[other]
        title = f"{label} called {called}, {len(places)} photos"
        shown = html.row(_figure(judged, place, label, called) for place in places[:A_PAIR])
        parts.append(f"<h3>{escape(title)}</h3><div class=mistakes>{shown}</div>")
    return parts


def _figure(judged: Judged, place: int, label: str, called: str) -> str:
    path, share = judged.test[place].path, judged.shares[place].max()
    alt = f"A photo of {label}, called {called}"
    caption = f"{share:.1%} sure: {path}"
    try:
        return html.figure(thumbnail(judged.folder / path, SIDE), caption, alt)
    except (OSError, Unreadable):
        return html.missing(caption)


STYLE = """
.lead { font-size: 1.15em; }
.confusion td { padding: .15rem .4rem; text-align: right; white-space: nowrap; }
.confusion tbody td { border: 1px solid #8884; }
.confusion tbody td { background: rgb(37 99 235 / calc(.8 * var(--share, 0))); }
.confusion td.right { outline: 1px solid #8888; }
.confusion thead * { vertical-align: bottom; padding: .4rem .2rem; border: 0; }
.confusion thead span { writing-mode: vertical-rl; transform: rotate(180deg); max-height: 12rem; }
.confusion tbody th { white-space: nowrap; }
.mistakes figure { max-width: 10rem; }
th button { font: inherit; color: inherit; background: none; border: 0; padding: 0; }
th button::after { content: " \\2195"; opacity: .5; }
th[aria-sort=ascending] button::after { content: " \\2191"; opacity: 1; }
th[aria-sort=descending] button::after { content: " \\2193"; opacity: 1; }
"""
# Help only: without it the table stands in the order of its labels.
SORTING = """<script>
for (const table of document.querySelectorAll(".sortable table"))
  table.querySelectorAll("thead th").forEach((head, place) => {
    const button = document.createElement("button");
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.onclick = () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const text = row => row.children[place].textContent;
      const order = (a, b) => text(a).localeCompare(text(b), undefined, {numeric: true});
      const rows = [...table.tBodies[0].rows].sort(order);
      table.tBodies[0].append(...(down ? rows.reverse() : rows));
    };
  });
</script>"""

CHARTS = {
    "reliability": "Share of right answers by probability",
    "coverage": "Share of right answers by how many photos are answered",
}
SCORES = (
    "Precision: of the photos that are called so, how many are. Recall: of the photos that are so,"
    " how many are called so. F1: the harmonic mean of both.",
)


def page(
    judged: Judged,
    metrics: Mapping[str, Any],
    run: Mapping[str, Any],
    charts: Mapping[str, tuple[bytes, bytes]],
) -> str:
    """The page of JUDGED with METRICS (metrics.json) and RUN (run.json).

    CHARTS: reliability, coverage and curves, each a PNG for light pages and one for dark ones.
    """
    lead, *more = summary.verdict(metrics)
    parts = [
        ("In short", [f"<p class=lead>{escape(lead)}</p>", html.bullets(more), _main(metrics)]),
        ("Labels", [html.text(*SCORES), _per_class(metrics)]),
        ("What is taken for what", [html.bullets(summary.confused(metrics)), _confusion(metrics)]),
        ("The most confident mistakes", mistakes(judged)),
        ("How far its probabilities hold", _sureness(metrics, charts)),
        ("By site and crop", _by(metrics)),
        ("How it learned", _learning(judged, charts)),
        ("What not to conclude", [html.bullets(summary.unsure(metrics))]),
        ("What it was made of", _made_of(judged, metrics, run)),
    ]
    head = f"<h1>{len(judged.labels)} labels, {metrics['accuracy']:.1%} right</h1>"
    body = "\n".join([head, html.chapters(parts), SORTING])
    return html.document("fashion-tagger run", body, STYLE)


def _main(metrics: Mapping[str, Any]) -> str:
    head = ("figure", "value", "95% interval")
    return html.table(head, summary.headline(metrics), "The main figures on the test split")


def _per_class(metrics: Mapping[str, Any]) -> str:
    counts = np.array(metrics["confusion_matrix"]["counts"])
    called = counts.sum(axis=0)
    rows = []
    for place, (label, figures) in enumerate(metrics["per_class"].items()):
        found = metrics["intervals"]["per_class"][label]
        cells = [
            c for n in summary.SCORES for c in (f"{figures[n]:.3f}", summary.between(found[n]))
        ]
        rows.append((label, *cells, figures["support"], called[place]))
    names = [c for n in summary.SCORES for c in (summary.title(n), "95% interval")]
    head = ("label", *names, "test photos", "called so")
    return f"<div class=sortable>{html.table(head, rows, 'Scores of each label')}</div>"


def _confusion(metrics: Mapping[str, Any]) -> str:
    matrix = metrics["confusion_matrix"]
    labels, counts = matrix["labels"], np.array(matrix["counts"])
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    top = "".join(f"<th scope=col><span>{escape(label)}</span></th>" for label in labels)
    rows = [
        f"<tr><th scope=row>{escape(label)}</th>"
        + "".join(_cell(counts[y, x], shares[y, x], y == x) for x in range(len(labels)))
        + "</tr>"
        for y, label in enumerate(labels)
    ]
    caption = "Test photos: a row a label, a column what it is called"
    table = (
        f"<table class=confusion><caption>{caption}</caption><thead><tr><td></td>{top}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
    )
    return html.scrolled(table, caption)


def _cell(count: int, share: float, right: bool) -> str:
    kind = " class=right" if right else ""
    shade = f' style="--share:{share:.2f}"' if count else ""
    return f"<td{kind}{shade}>{count or ''}</td>"


def _sureness(metrics: Mapping[str, Any], charts: Mapping[str, tuple[bytes, bytes]]) -> list[str]:
    calibration, points = metrics["calibration"], metrics["coverage"]["points"]
    rows = [
        (name, *(f"{calibration[when][figure]:.4f}" for when in ("before", "after")))
        for name, figure in (
            ("expected calibration error", "expected_calibration_error"),
            ("negative log likelihood", "negative_log_likelihood"),
        )
    ]
    temperature = f"temperature {calibration['temperature']:.3f}"
    return [
        html.text(
            f"All shares are divided by one temperature, fitted on {calibration['fitted_on']};"
            f" the errors are measured on the test split, over bins: {calibration['bins']}."
        ),
        html.table(("error", "as trained", temperature), rows, "Errors of the probabilities"),
        html.row(_chart(charts, name, alt) for name, alt in CHARTS.items()),
        html.table(
            ("probability at least", "photos answered", "share of all", "of them right"),
            [
                (
                    f"{p['threshold']:.3f}",
                    p["photos"],
                    f"{p['coverage']:.1%}",
                    f"{p['accuracy']:.1%}",
                )
                for p in points
            ],
            "What answering only when sure brings",
        ),
    ]


def _by(metrics: Mapping[str, Any]) -> list[str]:
    head = ("photos of", "test photos", "accuracy", "95% interval", "mean probability")
    return [
        html.table(head, _by_rows(some), f"By {name}")
        for name, some in metrics["by"].items()
        if some
    ]


def _by_rows(some: Mapping[str, Any]) -> Iterable[Sequence[object]]:
    for name, f in some.items():
        share, sure = f"{f['accuracy']:.3f}", f"{f['probability']:.3f}"
        yield name, f["photos"], share, summary.between(f["interval"]), sure


def _learning(judged: Judged, charts: Mapping[str, tuple[bytes, bytes]]) -> list[str]:
    parts = [_chart(charts, "curves", "Loss and accuracy on train and validation by epoch")]
    if judged.samples is not None:
        text = "Train photos as augmentation changes them:"
        parts += [html.text(text), html.chart(judged.samples, "Augmented train photos")]
    return parts


def _chart(charts: Mapping[str, tuple[bytes, bytes]], name: str, alt: str) -> str:
    light, dark = charts[name]
    return html.chart(light, alt, dark)


def _made_of(judged: Judged, metrics: Mapping[str, Any], run: Mapping[str, Any]) -> list[str]:
    data, head = run["dataset"], ("name", "value")
    unreadable = [f"{path}: {reason}" for path, reason in metrics.get("unreadable", {}).items()]
    return [
        html.text(
            f"{data['photos']} photos. Their fingerprint, SHA-256 of {data['of']}, is"
            f" {data['sha256']}.",
            f"Epoch {judged.best} was kept. Seed {judged.seed}. When and where: run.json.",
        ),
        html.table(("split", "photos"), metrics.get("counts", {}).items(), "Photos"),
        html.table(head, summary.known(run["options"]), "Options", words=2),
        html.table(head, run["versions"].items(), "Versions", words=2),
        html.bullets(unreadable, "Left out because they can't be read:"),
    ]
