"""A run's figures as sentences, the same ones on the page, on the card and at a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

SCORES = ("precision", "recall", "f1")


def between(interval: Sequence[float] | None) -> str:
    """INTERVAL as text; empty where there is none."""
    return f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else ""


def per_cent(interval: Sequence[float] | None) -> str:
    """INTERVAL in per cent as an insertion; empty where there is none."""
    return f" (95% interval {interval[0]:.1%} to {interval[1]:.1%})" if interval else ""


def verdict(metrics: Mapping[str, Any]) -> list[str]:
    """What the figures mean for who wants to use the model, the weightiest first."""
    found, photos = metrics["intervals"], sum(map(sum, metrics["confusion_matrix"]["counts"]))
    tops = {k: share for k, share in metrics["top_k"].items() if k != "1"}
    best = max(metrics["per_class"], key=lambda n: metrics["per_class"][n]["support"])
    return [
        f"It names {metrics['accuracy']:.1%} of {photos} test photos rightly"
        f"{per_cent(found['accuracy'])}. It never saw them while it learned.",
        f"Saying {best} every time would be right for {metrics['majority']:.1%}, guessing for"
        f" {metrics['chance']:.1%}.",
        *(
            f"For {share:.1%} the right label is among its first {k}{per_cent(found['top_k'][k])}."
            for k, share in tops.items()
        ),
        _believable(metrics["calibration"]),
        _when_sure(metrics["coverage"]),
    ]


def _believable(calibration: Mapping[str, Any]) -> str:
    before, after = (calibration[n]["expected_calibration_error"] for n in ("before", "after"))
    return (
        f"Its probabilities are off by {after:.1%} on average (expected calibration error;"
        f" {before:.1%} before temperature {calibration['temperature']:.2f})."
    )


def _when_sure(coverage: Mapping[str, Any]) -> str:
    wanted, chosen = coverage["wanted_accuracy"], coverage["chosen_on_validation"]
    if chosen is None:
        return (
            f"No threshold makes {wanted:.0%} of its answers right, for {coverage['least_photos']}"
            " validation photos or more."
        )
    start = (
        f"Where only answers of a probability of at least {chosen['threshold']:.2f} count (chosen"
        f" on validation for {wanted:.0%}), it answers {chosen['coverage']:.1%} of the test photos"
    )
    return start + (f", {chosen['accuracy']:.1%} of them rightly." if chosen["photos"] else ".")


def confused(metrics: Mapping[str, Any], most: int = 10) -> list[str]:
    """The pairs of labels that are taken for one another most often."""
    matrix = metrics["confusion_matrix"]
    counts, labels = np.array(matrix["counts"]), matrix["labels"]
    wrong = counts * (1 - np.eye(len(labels), dtype=int))
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = [divmod(int(place), len(labels)) for place in order]
    return [
        f"{wrong[one, other]} of {counts[one].sum()} photos of {labels[one]} are called"
        f" {labels[other]}"
        for one, other in pairs
        if wrong[one, other]
    ]


def unsure(metrics: Mapping[str, Any], few: int = 30) -> list[str]:
    """What a reader must not conclude from the figures."""
    per_class, found = metrics["per_class"], metrics["intervals"]
    absent = [name for name, figures in per_class.items() if not figures["support"]]
    rare = [name for name, figures in per_class.items() if 0 < figures["support"] < few]
    lines = [
        f"Intervals are of the 95% level, from {found['resamples']} resamples of {found['units']}"
        f" {found['resampled']}: they say how far the figures would move with other photos of the"
        " same kind, not with photos from elsewhere.",
        "It knows its own labels only: it gives one of them to a photo of anything.",
        "Labels, of hashtags above all, are wrong in part, in the test split too: some mistakes are"
        " the label's.",
    ]
    if absent:
        lines.append(
            f"No test photos of {', '.join(absent)}: their scores count as 0 in macro figures."
        )
    if rare:
        lines.append(f"Fewer than {few} test photos of {', '.join(rare)}: little is known of them.")
    if found["accuracy"] is None:
        lines.append(f"The test photos are one of {found['resampled']}: no interval can be told.")
    return lines


def headline(metrics: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The main figures as rows: name, value, its interval."""
    found = metrics["intervals"]
    rows = [("accuracy", f"{metrics['accuracy']:.3f}", between(found["accuracy"]))]
    for mean in ("macro", "weighted"):
        for name in SCORES:
            value = f"{metrics[mean][name]:.3f}"
            rows.append((f"{mean} {title(name)}", value, between(found[mean][name])))
    for k, share in metrics["top_k"].items():
        if k != "1":
            rows.append((f"among the first {k}", f"{share:.3f}", between(found["top_k"][k])))
    after = metrics["calibration"]["after"]
    rows.append(("negative log likelihood", f"{after['negative_log_likelihood']:.3f}", ""))
    error = after["expected_calibration_error"]
    rows.append(("expected calibration error", f"{error:.3f}", ""))
    return rows


def title(score: str) -> str:
    """SCORE as it is written: F1 has a capital."""
    return "F1" if score == "f1" else score


def known(options: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """OPTIONS as rows; in words where one was left to the program."""
    return [(n, "left to the recipe" if v is None else v) for n, v in options.items()]
