"""What a check of tags leaves: tables, the corrected feed, a page, and a sample for people."""

import csv
import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from scipy.stats import binomtest

from dataset.errors import BadInput
from dataset.images.io import thumbnail_or_none
from dataset.utils.files import write_json
from dataset.utils.html import Figure, render
from model.feeds.product_feed import Feed
from model.feeds.sources import FeedSource, Source
from model.tag_check.noise_model import AGREES, MISTAKE, NOTHING, UNCHECKED, UNSURE
from model.tag_check.store import Checked, Store

CHECKED, CORRECTED, SAMPLE, PAGE, FIGURES = (
    "checked.csv",
    "corrected",
    "sample.csv",
    "report.html",
    "check.json",
)
ADDED = (
    *("rank", "verdict", "suggested", "probability", "tag_probability", "margin"),
    *("expected_cost", "nearest", "reason"),
)
# So many asserted mistakes, drawn at random, tell a person how many are right, to 6 % or so.
SAMPLED = 100
SHOWN, SIDE = 200, 200
# Rows of the report's tables.
MAX_PAIRS, MAX_REASONS = 30, 50
TEMPLATES = Path(__file__).with_name("templates")
WORDS = {
    MISTAKE: "the photo shows something else",
    AGREES: "tag and photo agree",
    UNSURE: "neither is certain: for people to look at",
    NOTHING: "blank, too small, a banner, or unlike all that the model knows",
    UNCHECKED: "see the reasons below",
}
YES, NO = {"yes", "y", "1", "true"}, {"no", "n", "0", "false"}


def write(
    folder: Path, store: Store, source: Source, figures: Mapping[str, Any], seed: int
) -> None:
    """All papers of the check in STORE into FOLDER."""
    feed = source.feed if isinstance(source, FeedSource) else None
    header = list(feed.header) if feed else ["id", "image", "tag", "site", "post_url"]
    id_column = feed.columns.id if feed else "id"
    _write_rows(folder / CHECKED, [*header, *_named(header)], _ranked(store, header, id_column))
    if feed is not None:
        corrected = folder / f"{CORRECTED}{feed.path.suffix.lower()}"
        _write_corrected(corrected, feed, store, figures["labels"])
    _write_sample(folder / SAMPLE, store, seed)
    write_json(figures, folder / FIGURES)
    (folder / PAGE).write_text(
        render_report(store, figures, source.read), encoding="utf-8", errors="replace"
    )


def _named(header: Iterable[str]) -> list[str]:
    """The added columns, called otherwise where the feed has one of that name."""
    there = set(header)
    return [name if name not in there else f"check_{name}" for name in ADDED]


def _ranked(store: Store, header: list[str], id_column: str) -> Iterator[list[Any]]:
    for rank, one in enumerate(store.ranked(), 1):
        # Of a row that can't be parsed only the id is known, if that.
        fields = one.fields or {id_column: one.id}
        yield [*(_cell(fields.get(name)) for name in header), *_added(rank, one)]


def _added(rank: int, one: Checked) -> list[Any]:
    near = "; ".join(f"{n['label']} {n['similarity']:.2f} {n['path']}" for n in one.nearest)
    numbers = [one.probability, one.given, one.margin, one.expected]
    told = ["" if value is None else f"{value:.6g}" for value in numbers]
    reason = one.reason if one.id else f"row {one.number}: {one.reason}"
    return [rank, one.verdict, one.suggested or "", *told, near, reason]


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    return _json(value) if isinstance(value, dict | list) else value


def _write_rows(
    path: Path, header: Sequence[str], rows: Iterable[list[Any]], delimiter: str = ","
) -> None:
    """Write HEADER and ROWS to PATH as CSV."""
    with _opened(path) as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(header)
        writer.writerows(rows)


def _opened(path: Path) -> TextIO:
    """Open PATH for UTF-8 text; lone surrogates, which JSON can escape, become question marks."""
    return path.open("w", encoding="utf-8", errors="replace", newline="")


def _write_corrected(path: Path, feed: Feed, store: Store, labels: Sequence[str]) -> None:
    """Write the parsed rows of FEED, with the suggested tag in place of each mistake."""
    column = feed.columns.tag
    spelt = {labels[place]: tag for place, tag in store.spellings(AGREES).items()}

    def corrected(one: Checked) -> dict[str, Any]:
        if one.verdict != MISTAKE or one.suggested is None:
            return one.fields
        tag = spelt.get(one.suggested, one.suggested)
        return one.fields | {column: _in_place_of(one.fields.get(column), tag)}

    written = (corrected(one) for one in store.in_order() if one.fields)
    if feed.is_json:
        with _opened(path) as file:
            file.writelines(f"{_json(values)}\n" for values in written)
        return
    rows = ([_cell(values.get(name)) for name in feed.header] for values in written)
    _write_rows(path, feed.header, rows, feed.delimiter)


def _json(values: Any) -> str:
    return json.dumps(values, ensure_ascii=False)


def _in_place_of(before: Any, tag: str) -> Any:
    """TAG as BEFORE was said: first of several where it was a list."""
    return [tag, *before[1:]] if isinstance(before, list) else tag


def _write_sample(path: Path, store: Store, seed: int) -> None:
    drawn: list[Checked] = []
    rng = random.Random(seed)
    for count, one in enumerate(store.ranked(MISTAKE), 1):
        # Every mistake has the same chance, however many there are (Vitter's algorithm R, 1985).
        if len(drawn) < SAMPLED:
            drawn.append(one)
        elif (place := rng.randrange(count)) < SAMPLED:
            drawn[place] = one
    head = ["id", "image", "tag", "suggested", "probability", "tag_is_wrong"]
    rows = ([o.id, o.image, o.tag, o.suggested, f"{o.probability:.6g}", ""] for o in drawn)
    _write_rows(path, head, rows)


def precision_of(path: Path) -> dict[str, Any]:
    """How many of the mistakes in the sample PATH people found to be mistakes, with its interval.

    The Wilson score interval of 95 % (1927).

    Raises:
        BadInput: it is no sample, or nobody has said anything in it.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            said = [(row.get("tag_is_wrong") or "").strip().lower() for row in csv.DictReader(file)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"--reviewed {path} can't be read: {error}") from error
    strange = sorted({one for one in said if one} - YES - NO)
    if strange:
        raise BadInput(f"--reviewed {path}: tag_is_wrong is yes or no, not {strange[0]!r}")
    told = [one in YES for one in said if one]
    if not told:
        raise BadInput(
            f"--reviewed {path}: say yes or no in the column tag_is_wrong of {SAMPLE}, row by row"
        )
    low, high = binomtest(sum(told), len(told)).proportion_ci(method="wilson")
    return {
        "reviewed": len(told),
        "left": len(said) - len(told),
        "right": sum(told),
        "precision": sum(told) / len(told),
        "interval": [float(low), float(high)],
    }


@dataclass(frozen=True)
class Card:
    """An item as the report shows it.

    Attributes:
        id: The item's id.
        figure: Its photo.
        tag: Its tag.
        suggested: Suggested label, empty if it is the tag's own.
        probability: Probability of the suggested label.
        lines: Reason of the verdict and nearest training photos.
    """

    id: str
    figure: Figure
    tag: str
    suggested: str
    probability: float
    lines: Sequence[str]


def render_report(store: Store, figures: Mapping[str, Any], read: Callable[[str], bytes]) -> str:
    """Render `report.html`.

    Args:
        store: Checked items.
        figures: Content of `check.json`.
        read: Returns the bytes of an item's photo.
    """
    counts = figures["verdicts"]
    mistakes, precision = counts.get(MISTAKE, 0), figures["expected_precision"]
    lines = [
        f"By the model's own probabilities, {precision:.0%} of them are expected to be wrong."
        f" {SAMPLE} has a random sample of {min(SAMPLED, mistakes)} for a review by people."
        if precision is not None
        else "No tag is reported as wrong.",
        f"An estimated {figures['estimated_wrong_rate']:.1%} of all tags are wrong.",
    ]
    return render(
        TEMPLATES,
        "report.html",
        title="fashion-tagger check",
        mistakes=mistakes,
        total=figures["items"],
        lines=lines,
        verdicts=[
            (verdict, WORDS[verdict], counts[verdict]) for verdict in WORDS if verdict in counts
        ],
        pairs=store.mistakes()[:MAX_PAIRS],
        shown=SHOWN,
        mistake_cards=_cards(store, MISTAKE, read, SHOWN),
        unsure_cards=_cards(store, UNSURE, read, SHOWN // 4),
        no_garment_cards=_cards(store, NOTHING, read, SHOWN // 4),
        problems=list(figures["problems"].items())[:MAX_REASONS],
    )


def _cards(store: Store, verdict: str, read: Callable[[str], bytes], count: int) -> list[Card]:
    return [_card(item, read) for item in store.ranked(verdict, count)]


def _card(item: Checked, read: Callable[[str], bytes]) -> Card:
    jpeg = thumbnail_or_none(lambda: read(item.image), SIDE)
    nearest = ", ".join(f"{near['label']} ({near['similarity']:.2f})" for near in item.nearest)
    differs = item.suggested and item.probability is not None and item.suggested != item.label
    return Card(
        id=item.id,
        figure=Figure(
            jpeg,
            "" if jpeg else "the photo can no longer be read",
            f"Photo of item {item.id}, tagged {item.tag}",
        ),
        tag=item.tag,
        suggested=(item.suggested or "") if differs else "",
        probability=item.probability or 0.0,
        lines=[line for line in (item.reason, nearest and f"nearest: {nearest}") if line],
    )
