"""The mistakes that a model is surest of, as pictures for a page."""

from collections import defaultdict
from html import escape

import numpy as np

from dataset import pages
from dataset.images import Unreadable
from model.judged import Judged

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
        shown = pages.row(_figure(judged, place, label, called) for place in places[:A_PAIR])
        parts.append(f"<h3>{escape(title)}</h3><div class=mistakes>{shown}</div>")
    return parts


def _figure(judged: Judged, place: int, label: str, called: str) -> str:
    path, share = judged.test[place].path, judged.shares[place].max()
    alt = f"A photo of {label}, called {called}"
    caption = f"{share:.1%} sure: {path}"
    try:
        return pages.figure((judged.folder / path).read_bytes(), caption, alt, SIDE)
    except (OSError, Unreadable):
        return pages.missing(caption)
