"""What a check of tags leaves: tables, the corrected feed, a page, and a sample for people."""

import csv
import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, TextIO

from scipy.stats import binomtest

from dataset.errors import BadInput
from dataset.images.io import Unreadable, thumbnail
from dataset.utils import html
from dataset.utils.files import write_json
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
        _page(store, figures, source.read), encoding="utf-8", errors="replace"
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


def _page(store: Store, figures: Mapping[str, Any], read: Callable[[str], bytes]) -> str:
    counts = figures["verdicts"]
    total = figures["items"]
    mistakes = counts.get(MISTAKE, 0)
    lead = f"{mistakes:,} of {total:,} tags are taken for wrong"
    sure = figures["expected_precision"]
    lines = [
        f"Of those, {sure:.0%} are expected to be wrong indeed, by the model's own probabilities;"
        f" {SAMPLE} has {min(SAMPLED, mistakes)} of them, drawn at random, for people to say."
        if sure is not None
        else "Nothing is asserted to be wrong.",
        f"About {figures['estimated_wrong_rate']:.1%} of all tags are wrong, as estimated.",
    ]
    rows = [(v, WORDS[v], counts[v]) for v in WORDS if v in counts]
    table = html.table(("verdict", "what it means", "items"), rows, "Items by verdict", words=2)
    pairs = [(t, s, n) for t, s, n in store.mistakes()[:30]]
    parts = [
        ("In short", [html.text(*lines), table]),
        ("What is tagged as what", [_pairs(pairs)]),
        (f"Mistakes, the costliest first (at most {SHOWN})", [_cards(store, MISTAKE, read)]),
        ("Unsure, the costliest first", [_cards(store, UNSURE, read, SHOWN // 4)]),
        ("No garment seen", [_cards(store, NOTHING, read, SHOWN // 4)]),
        ("Not checked", [_problems(figures["problems"])]),
    ]
    body = f"<h1>{escape(lead)}</h1>\n{html.chapters(parts)}"
    return html.document("fashion-tagger check", body, STYLE)


STYLE = """
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 1rem; }
.cards article { border: 1px solid #8886; border-radius: 6px; padding: .6rem; min-width: 0; }
.cards figure, .cards img { max-width: 100%; }
.cards img { height: 200px; width: 100%; object-fit: contain; background: #fff; }
.cards p { margin: .3rem 0; overflow-wrap: anywhere; }
.cards small { opacity: .8; }
"""


def _pairs(pairs: list[tuple[str, str, int]]) -> str:
    head = ("tagged", "but looks like", "items")
    return html.table(head, pairs, "Mistakes by tag and suggestion", words=2)


def _problems(problems: Mapping[str, int]) -> str:
    rows = list(problems.items())
    return html.table(("reason", "items"), rows[:50], "Items by reason")


def _cards(store: Store, verdict: str, read: Callable[[str], bytes], most: int = SHOWN) -> str:
    shown = list(store.ranked(verdict, most))
    if not shown:
        return ""
    return f"<div class=cards>{''.join(_card(one, read) for one in shown)}</div>"


def _card(one: Checked, read: Callable[[str], bytes]) -> str:
    alt = f"Photo of item {one.id}, tagged {one.tag}"
    try:
        photo = html.figure(thumbnail(read(one.image), SIDE), "", alt)
    except (OSError, ValueError, Unreadable):
        photo = html.missing("the photo can't be read any more")
    said = f"tagged <b class=bad>{escape(one.tag)}</b>"
    if one.suggested and one.probability is not None and one.suggested != one.label:
        sure = html.percent(one.probability)
        said += f", looks like <b class=good>{escape(one.suggested)}</b> ({sure})"
    near = ", ".join(f"{n['label']} ({n['similarity']:.2f})" for n in one.nearest)
    lines = [one.reason, f"nearest: {near}" if near else ""]
    small = "".join(f"<p><small>{escape(line)}</small></p>" for line in lines if line)
    return f"<article>{photo}<p>{said}</p><p><small>{escape(one.id)}</small></p>{small}</article>"
