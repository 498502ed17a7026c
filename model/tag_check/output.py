"""Write the results of a tag check: tables, corrected feed, report, and a sample to review."""

import csv
import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain, groupby
from pathlib import Path
from typing import Any, TextIO

from scipy.stats import binomtest

from dataset.errors import BadInput
from dataset.feeds.cells import TagLists
from dataset.feeds.product_feed import CSV, JSON, JSON_LINES, WORKBOOK, XML, ProductFeed
from dataset.feeds.tables import read_column
from dataset.images.io import thumbnail_or_none
from dataset.utils.files import spreadsheet_row, write_json
from dataset.utils.html import Figure, percent, render
from model.feeds.sources import FeedSource, ItemSource
from model.tag_check.noise_model import AGREES, MISSING, MISTAKE, NO_GARMENT, NOT_CHECKED, UNSURE
from model.tag_check.store import CheckedItem, CheckStore

CHECKED_FILE, CORRECTED_STEM, SAMPLE_FILE, REPORT_FILE, RESULTS_FILE = (
    "checked.csv",
    "corrected",
    "sample.csv",
    "report.html",
    "check.json",
)
ADDED_COLUMNS = (
    *("rank", "verdict", "suggested", "probability", "tag_probability", "margin"),
    *("expected_cost", "nearest", "reason"),
)
# Added where a row of the feed has several tags, each of which has a row.
LIST_COLUMNS = ("checked_tag", "facet")
SAMPLE_COLUMNS = ("id", "image", "tag", "suggested", "probability", "tag_is_wrong")
# Random mistakes to review: enough to estimate the precision to about 6 %.
SAMPLE_ROWS = 100
MAX_CARDS, SIDE_PIXELS, NEIGHBOUR_PIXELS = 200, 200, 96
# Rows of the report's tables.
MAX_PAIRS, MAX_REASONS = 30, 50
TEMPLATES = Path(__file__).with_name("templates")
VERDICT_MEANINGS = {
    MISTAKE: "the photo shows something else",
    AGREES: "tag and photo agree",
    UNSURE: "neither is certain: for people",
    NO_GARMENT: "blank, too small, a banner, or unlike all training photos",
    NOT_CHECKED: "see the reasons below",
    MISSING: "the photo shows a label that no tag names",
}
YES, NO = {"yes", "y", "1", "true", "да"}, {"no", "n", "0", "false", "нет"}


def write_results(
    folder: Path,
    store: CheckStore,
    source: ItemSource,
    results: Mapping[str, Any],
    seed: int,
    training_folder: Path,
    add_missing: bool = False,
) -> None:
    """Write all output files of a check.

    Args:
        folder: An existing folder.
        store: The checked items.
        source: Where the items are from.
        results: Content of `check.json`.
        seed: Random seed of the sample.
        training_folder: Folder of the training photos, which the report shows.
        add_missing: Whether the corrected feed gets the missing tags.
    """
    feed = source.feed if isinstance(source, FeedSource) else None
    header = list(feed.header) if feed else ["id", "image", "tag", "site", "post_url"]
    id_column = feed.columns.id if feed else "id"
    names = (*ADDED_COLUMNS, *LIST_COLUMNS) if store.has_tag_lists() else ADDED_COLUMNS
    rows = _checked_rows(store, header, id_column, len(names))
    _write_rows(folder / CHECKED_FILE, [*header, *_added_columns(header, names)], rows)
    if isinstance(source, FeedSource):
        path = folder / corrected_file_name(source.feed)
        _write_corrected(path, source.feed, store, results["labels"], source.tag_lists, add_missing)
    _write_sample(folder / SAMPLE_FILE, store, seed)
    write_json(results, folder / RESULTS_FILE)
    (folder / REPORT_FILE).write_text(
        render_report(store, results, source.read, training_folder),
        encoding="utf-8",
        errors="replace",
    )


def _added_columns(header: Iterable[str], names: Iterable[str]) -> list[str]:
    """Return the names of the added columns, with a prefix where the feed has such a column."""
    present = set(header)
    return [name if name not in present else f"check_{name}" for name in names]


def _checked_rows(
    store: CheckStore, header: list[str], id_column: str, added: int = len(ADDED_COLUMNS)
) -> Iterator[list[Any]]:
    for rank, item in enumerate(store.ranked(), 1):
        # Of a row that can't be parsed, at most the id is known.
        fields = item.fields or {id_column: item.id}
        yield [*(_cell(fields.get(name)) for name in header), *_added_cells(rank, item)[:added]]


def _added_cells(rank: int, item: CheckedItem) -> list[Any]:
    nearest = "; ".join(f"{n['label']} {n['similarity']:.2f} {n['path']}" for n in item.nearest)
    numbers = [item.probability, item.tag_probability, item.margin, item.expected_cost]
    cells = ["" if value is None else f"{value:.6g}" for value in numbers]
    reason = item.reason if item.id else f"row {item.number}: {item.reason}"
    first = [rank, item.verdict, item.suggested or "", *cells, nearest, reason]
    return [*first, item.tag, item.facet]


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    return _to_json(value) if isinstance(value, dict | list) else value


def _write_rows(
    path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]], delimiter: str = ","
) -> None:
    """Write a CSV file."""
    with _open_text(path) as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(spreadsheet_row(header))
        writer.writerows(map(spreadsheet_row, rows))


def _open_text(path: Path) -> TextIO:
    """Open a UTF-8 file; lone surrogates, which JSON can escape, become question marks."""
    return path.open("w", encoding="utf-8", errors="replace", newline="")


def corrected_file_name(feed: ProductFeed) -> str:
    """Return the name of the corrected copy of a feed: in its format, of XML a table."""
    suffix = feed.path.suffix.lower()
    suffixes = {
        CSV: suffix if suffix in (".csv", ".tsv", ".txt") else ".csv",
        WORKBOOK: ".xlsx",
        XML: ".csv",
        JSON: ".json",
        JSON_LINES: suffix if suffix in (".jsonl", ".ndjson") else ".jsonl",
    }
    return f"{CORRECTED_STEM}{suffixes[feed.kind]}"


def _write_corrected(
    path: Path,
    feed: ProductFeed,
    store: CheckStore,
    labels: Sequence[str],
    tag_lists: TagLists | None = None,
    add_missing: bool = False,
) -> None:
    """Write the parsed rows of a feed, with the suggested tag in place of each mistake."""
    spellings = {labels[index]: tag for index, tag in store.spellings(AGREES).items()}

    def corrected(tags: list[CheckedItem]) -> Iterator[dict[str, Any]]:
        first = tags[0]
        if len(tags) == 1 and not first.feed_column and first.verdict != MISSING:
            yield from _corrected_rows(first, feed.columns.tags[0][1], spellings)
            return
        changes, added = _tag_changes(tags, spellings), {}
        if add_missing:
            added = {t.facet: _spelling(t, spellings) for t in tags if t.verdict == MISSING}
        for row in first.rows:
            # Further rows of a product may have no tags.
            is_tagged = row is first.rows[0] or any(row.get(name) for _, name in feed.columns.tags)
            if is_tagged and tag_lists is not None:
                yield _with_tags(row, feed.columns.tags, tag_lists, changes, added)
            else:
                yield row

    items = groupby(store.in_order(), key=lambda item: item.number)
    parsed = (row for _, tags in items for row in corrected(list(tags)))
    if feed.is_json:
        _write_json_rows(path, parsed, is_list=feed.kind == JSON)
        return
    titles = feed.titles or feed.header
    rows = ([_cell(values.get(name)) for name in feed.header] for values in parsed)
    if feed.kind == WORKBOOK:
        _write_workbook(path, titles, rows)
    else:
        _write_rows(path, titles, rows, feed.delimiter or ",")


def _corrected_rows(
    item: CheckedItem, column: str, spellings: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    """Yield the rows of an item with one tag."""
    is_mistake = item.verdict == MISTAKE and item.suggested is not None
    tag = _spelling(item, spellings)
    for row in item.rows:
        # Further rows of a product may have no tag.
        is_tagged = is_mistake and (row is item.rows[0] or row.get(column))
        yield row | {column: _replace_tag(row.get(column), tag)} if is_tagged else row


def _spelling(item: CheckedItem, spellings: Mapping[str, str]) -> str:
    """Return the suggested label as the feed writes it."""
    label = item.suggested or ""
    return spellings.get(label, label)


def _tag_changes(
    tags: Sequence[CheckedItem], spellings: Mapping[str, str]
) -> dict[str, dict[str, str | None]]:
    """Return column -> wrong tag -> its suggestion; None if another tag of the item has it."""
    present = {tag.label for tag in tags if tag.verdict not in (MISTAKE, MISSING)}
    changes: dict[str, dict[str, str | None]] = {}
    for tag in tags:
        if tag.verdict == MISTAKE and tag.suggested is not None:
            new = None if tag.suggested in present else _spelling(tag, spellings)
            changes.setdefault(tag.feed_column, {})[tag.tag] = new
            present.add(tag.suggested)
    return changes


def _with_tags(
    row: Mapping[str, Any],
    columns: Sequence[tuple[str, str]],
    tag_lists: TagLists,
    changes: Mapping[str, Mapping[str, str | None]],
    added: Mapping[str, str],
) -> dict[str, Any]:
    """Return a row of a feed with other tags, listed as the feed lists them.

    Args:
        row: Column -> value.
        columns: Facet and name of the columns of tags.
        tag_lists: Changes values.
        changes: Column -> tag -> the tag that replaces it.
        added: Facet -> missing tag; it is added to the facet's column, or to that of all facets.
    """
    own = {facet for facet, _ in columns}
    changed = dict(row)
    for facet, name in columns:
        new = {f: tag for f, tag in added.items() if f == facet or (not facet and f not in own)}
        if new or name in changes:
            changed[name] = tag_lists.change(row.get(name), changes.get(name, {}), new)
    return changed


def _write_json_rows(path: Path, rows: Iterable[Any], is_list: bool) -> None:
    """Write objects as a JSON list, or one per line."""
    start, separator, end = ("[\n", ",\n", "\n]\n") if is_list else ("", "\n", "\n")
    with _open_text(path) as file:
        file.write(start)
        for number, row in enumerate(rows):
            file.write(f"{separator if number else ''}{_to_json(row)}")
        file.write(end)


def _write_workbook(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write an Excel workbook; all cells are text, none is a formula."""
    from openpyxl import Workbook
    from openpyxl.cell import WriteOnlyCell
    from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE

    book = Workbook(write_only=True)
    sheet = book.create_sheet("feed")

    def cell(value: Any) -> Any:
        text = ILLEGAL_CHARACTERS_RE.sub("", str(value)).encode("utf-8", "replace").decode()
        written = WriteOnlyCell(sheet, value=text)
        written.data_type = "s"
        written.quotePrefix = True
        return written

    for row in chain([header], rows):
        sheet.append(list(map(cell, row)))
    book.save(path)


def _to_json(values: Any) -> str:
    return json.dumps(values, ensure_ascii=False)


def _replace_tag(value: Any, tag: str) -> Any:
    """Return a tag in place of a value; of a list, the first value is replaced."""
    return [tag, *value[1:]] if isinstance(value, list) else tag


def _write_sample(path: Path, store: CheckStore, seed: int) -> None:
    sample: list[CheckedItem] = []
    rng = random.Random(seed)
    for count, item in enumerate(store.ranked(MISTAKE), 1):
        # Reservoir sampling: every mistake has the same probability (Vitter's algorithm R, 1985).
        if len(sample) < SAMPLE_ROWS:
            sample.append(item)
        elif (index := rng.randrange(count)) < SAMPLE_ROWS:
            sample[index] = item
    rows = (
        [item.id, item.image, item.tag, item.suggested, f"{item.probability:.6g}", ""]
        for item in sample
    )
    _write_rows(path, SAMPLE_COLUMNS, rows)


def review_precision(path: Path) -> dict[str, Any]:
    """Compute the precision of mistakes from a reviewed sample.

    Args:
        path: A `sample.csv` with answers in the column tag_is_wrong.

    Returns:
        Numbers of reviewed, unreviewed and correct rows, the precision, and its 95 % Wilson score
        interval.

    Raises:
        BadInput: The file is not a sample or has no answers.
    """
    cells = [cell.strip().lower() for cell in read_column(path, "tag_is_wrong")]
    invalid = sorted({cell for cell in cells if cell} - YES - NO)
    if invalid:
        raise BadInput(f"--reviewed {path}: tag_is_wrong must be yes or no, not {invalid[0]!r}")
    answers = [cell in YES for cell in cells if cell]
    if not answers:
        raise BadInput(
            f"--reviewed {path}: no answers; write yes or no in the column tag_is_wrong of"
            f" {SAMPLE_FILE}"
        )
    low, high = binomtest(sum(answers), len(answers)).proportion_ci(method="wilson")
    return {
        "reviewed": len(answers),
        "unreviewed": len(cells) - len(answers),
        "correct": sum(answers),
        "precision": sum(answers) / len(answers),
        "interval": [float(low), float(high)],
    }


@dataclass(frozen=True)
class Card:
    """An item in the report.

    Attributes:
        id: The item's id.
        figure: Its photo.
        tag: Its tag.
        suggested: Suggested label, empty if it is the tag's own.
        probability: Probability of the suggested label.
        reason: Reason of the verdict, or empty.
        neighbours: The nearest training photos.
    """

    id: str
    figure: Figure
    tag: str
    suggested: str
    probability: float
    reason: str
    neighbours: Sequence[Figure]


def format_wrong_rate(results: Mapping[str, Any]) -> str:
    """Return the estimated rate of wrong tags with its interval as a sentence."""
    low, high = results["wrong_rate_interval"]
    return (
        f"An estimated {results['estimated_wrong_rate']:.1%} of the tags are wrong (95% interval"
        f" {low:.1%} to {high:.1%})."
    )


def render_report(
    store: CheckStore,
    results: Mapping[str, Any],
    read: Callable[[str], bytes],
    training_folder: Path,
) -> str:
    """Render `report.html`.

    Args:
        store: Checked items.
        results: Content of `check.json`.
        read: Returns the bytes of an item's photo.
        training_folder: Folder of the training photos.
    """

    @cache
    def training_photo(path: str) -> bytes | None:
        return thumbnail_or_none((training_folder / path).read_bytes, NEIGHBOUR_PIXELS)

    def cards(verdict: str, count: int) -> list[Card]:
        return [_card(item, read, training_photo) for item in store.ranked(verdict, count)]

    counts = results["verdicts"]
    mistakes, precision = counts.get(MISTAKE, 0), results["expected_precision"]
    lines = [
        f"By the calibrated probabilities, {precision:.0%} of the reported mistakes are expected to"
        f" be wrong tags. {SAMPLE_FILE} has a random sample of {min(SAMPLE_ROWS, mistakes)} to"
        " review."
        if precision is not None
        else "No tag is reported as wrong.",
        format_wrong_rate(results),
    ]
    return render(
        TEMPLATES,
        "report.html",
        title="fashion-tagger check",
        mistakes=mistakes,
        total=results["tags"],
        headline=_headline(results),
        lines=lines,
        verdicts=[
            (verdict, VERDICT_MEANINGS[verdict], counts[verdict])
            for verdict in VERDICT_MEANINGS
            if verdict in counts
        ],
        mistake_pairs=store.pairs(MISTAKE)[:MAX_PAIRS],
        unsure_pairs=store.pairs(UNSURE)[:MAX_PAIRS],
        counts={
            "mistake": mistakes,
            "unsure": counts.get(UNSURE, 0),
            "no_garment": counts.get(NO_GARMENT, 0),
            "missing": counts.get(MISSING, 0),
        },
        mistake_cards=cards(MISTAKE, MAX_CARDS),
        unsure_cards=cards(UNSURE, MAX_CARDS // 4),
        no_garment_cards=cards(NO_GARMENT, MAX_CARDS // 4),
        missing_cards=cards(MISSING, MAX_CARDS // 4),
        problems=list(results["problems"].items())[:MAX_REASONS],
    )


def _headline(results: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return the headline figures of the report: name, value, note."""
    counts, total = results["verdicts"], results["tags"]
    low, high = results["wrong_rate_interval"]
    return [
        ("Checked tags", f"{total:,}", ""),
        *(
            (verdict.capitalize(), f"{counts[verdict]:,}", percent(counts[verdict] / max(1, total)))
            for verdict in VERDICT_MEANINGS
            if verdict in counts
        ),
        (
            "Estimated wrong tags",
            f"{results['estimated_wrong_rate']:.1%}",
            f"{low:.1%} to {high:.1%}",
        ),
    ]


def _card(
    item: CheckedItem,
    read: Callable[[str], bytes],
    training_photo: Callable[[str], bytes | None],
) -> Card:
    jpeg = thumbnail_or_none(lambda: read(item.image), SIDE_PIXELS)
    differs = item.suggested and item.probability is not None and item.suggested != item.label
    return Card(
        id=item.id,
        figure=Figure(
            jpeg,
            "" if jpeg else "the photo can no longer be read",
            f"Photo of item {item.id}" + (f", tagged {item.tag}" if item.tag else ""),
        ),
        tag=item.tag,
        suggested=(item.suggested or "") if differs else "",
        probability=item.probability or 0.0,
        reason=item.reason,
        neighbours=[
            Figure(
                training_photo(near["path"]),
                f"{near['label']} {near['similarity']:.2f}",
                f"Training photo of {near['label']}, similarity {near['similarity']:.2f}",
            )
            for near in item.nearest
        ],
    )
