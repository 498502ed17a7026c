"""Tag photos: predict labels, decide which are certain enough, and write a row per photo.

The rows are written in batches to a folder beside the output file, with a state file that says how
many of them are complete: the same command continues an interrupted one.
"""

import csv
import io
import json
import math
import shutil
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import click
import numpy as np
import sqlalchemy as sa
from tqdm import tqdm

from dataset.catalogue.models import TagVerdictRow
from dataset.catalogue.session import open_catalogue
from dataset.errors import BadInput, Failure, first_line, shorten_for_display
from dataset.review.queues import PROPOSED
from dataset.utils import keras_backend
from dataset.utils.cli_options import format_table
from dataset.utils.engines import LOCAL_ENGINE, Engine
from dataset.utils.files import (
    exclusive_use,
    make_folder,
    require_new_output,
    spreadsheet_row,
    unfinished_path,
    write_atomically,
)
from dataset.utils.threads import prefetch
from model.evaluation.calibration import softmax
from model.evaluation.metrics import TARGET_ACCURACY
from model.inference.preprocessing import PhotoInput, PreparedPhoto, Preprocessor
from model.tagging.sources import PhotoItem, PhotoSource, SourceOptions

if TYPE_CHECKING:
    from model.inference.predictor import Predictor, SavedRun

TAGGED, UNSURE, FAILED = STATUSES = ("tagged", "unsure", "failed")
CSV_SUFFIXES, JSON_LINES_SUFFIXES = (".csv",), (".jsonl", ".ndjson")
COLUMNS = ("photo", "id", "status", "label", "probability", "labels", "top", "reason")
EXPLANATION = "explanation"
# Separator of the labels in a cell.
SEPARATOR = ", "
STATE_FILE, ROWS_FILE, PICTURES_FOLDER = "state.json", "rows", "explained"
# Reasons of failed photos that are shown at most.
MAX_SHOWN_REASONS = 5


@dataclass(frozen=True)
class LabelScore:
    """A label with its calibrated probability.

    Attributes:
        facet: What the label describes, such as the colour; labels of one facet exclude each
            other. Empty for a run with one label per photo.
    """

    label: str
    probability: float
    facet: str = ""


@dataclass(frozen=True)
class PhotoTags:
    """The labels of a photo.

    Attributes:
        status: TAGGED, UNSURE or FAILED.
        labels: The labels that are certain enough, at most one per facet.
        top: The most probable labels, in descending order.
        reason: Why the photo is unsure or failed, or empty.
    """

    status: str
    labels: tuple[LabelScore, ...] = ()
    top: tuple[LabelScore, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class Tagger:
    """A run's model with its preprocessing and its threshold.

    Attributes:
        run: The run.
        predictor: Its network.
        threshold: Lowest probability of a label that is certain enough; None: that of the run's
            validation photos, for each facet if the run has facets.
        top: Number of labels in `PhotoTags.top`.
        engine: Prepares and predicts the photos of a command.
    """

    run: "SavedRun"
    predictor: "Predictor"
    threshold: float | None = None
    top: int = 3
    engine: Engine = LOCAL_ENGINE

    @cached_property
    def preprocessor(self) -> Preprocessor:
        """Prepares photos as those of the training."""
        run = self.run
        return Preprocessor(run.crop, run.build_options, self.predictor.size)

    def tag(self, photos: Sequence[PreparedPhoto]) -> list[PhotoTags]:
        """Predict photos and decide their labels."""
        readable = [photo for photo in photos if photo.pixels is not None]
        if not readable:
            return [self.decide(photo, None) for photo in photos]
        rows = iter(self.probabilities(self.predictor.predict_prepared(readable).logits))
        return [self.decide(p, None if p.pixels is None else next(rows)) for p in photos]

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Return the probabilities of calibrated logits, both of shape (n, classes).

        With facets, the predictor's logits are logarithms of probabilities.
        """
        return np.exp(logits.astype(np.float64)) if self.run.facets else softmax(logits)

    def decide(
        self, photo: PreparedPhoto, probabilities: np.ndarray | None, top: int | None = None
    ) -> PhotoTags:
        """Decide the labels of a photo.

        Args:
            photo: The photo.
            probabilities: Calibrated probabilities of shape (classes,); None without a prediction.
            top: Number of labels in the result's `top`; None: that of the tagger.
        """
        if probabilities is None:
            return PhotoTags(FAILED, reason=photo.problem)
        order = np.argsort(-probabilities, kind="stable")[: top or self.top]
        labels = self.predictor.labels
        scores = tuple(
            LabelScore(labels[i], float(probabilities[i]), self._facet_names.get(labels[i], ""))
            for i in order.tolist()
        )
        if photo.no_garment_reason:
            return PhotoTags(UNSURE, (), scores, photo.no_garment_reason)
        certain = self._certain_labels(probabilities)
        if certain:
            return PhotoTags(TAGGED, certain, scores)
        return PhotoTags(UNSURE, (), scores, self._below_threshold)

    def _certain_labels(self, probabilities: np.ndarray) -> tuple[LabelScore, ...]:
        """Return the most probable label of each facet if it is certain enough."""
        names = self.predictor.labels
        certain: dict[str, LabelScore] = {}
        for facet, threshold in self.thresholds.items():
            best = max(self._members[facet], key=lambda index: probabilities[index])
            if probabilities[best] >= threshold:
                label = names[best]
                score = float(probabilities[best])
                certain[label] = LabelScore(label, score, self._facet_names.get(label, ""))
        return tuple(sorted(certain.values(), key=lambda score: -score.probability))

    @cached_property
    def thresholds(self) -> dict[str, float]:
        """Facet -> lowest probability of a certain label; infinity if none is certain.

        A run with one label per photo has one facet without a name.
        """
        own = self.run.facet_thresholds or {"": self.run.confidence_threshold}
        chosen = own if self.threshold is None else dict.fromkeys(own, self.threshold)
        return {name: math.inf if value is None else value for name, value in chosen.items()}

    @cached_property
    def _members(self) -> dict[str, list[int]]:
        """Facet -> class indices of its labels."""
        names = self.predictor.labels
        return {
            facet: [names.index(label) for label in self.run.facets.get(facet, names)]
            for facet in self.thresholds
        }

    @cached_property
    def _facet_names(self) -> dict[str, str]:
        """Label -> its facets; empty for a run with one label per photo."""
        names: dict[str, list[str]] = {}
        for facet, labels in self.run.facets.items():
            for label in labels:
                names.setdefault(label, []).append(facet)
        return {label: "+".join(facets) for label, facets in names.items()}

    @cached_property
    def _below_threshold(self) -> str:
        known = {value for value in self.thresholds.values() if math.isfinite(value)}
        if not known:
            return "no threshold is known"
        return "below " + (f"{known.pop():.3f}" if len(known) == 1 else "the thresholds")


def load_tagger(folder: Path, threshold: float | None, top: int, precision: str) -> Tagger:
    """Load the tagger of a run.

    Args:
        folder: The run directory.
        threshold: Lowest probability of a certain label; None: that of the run's validation photos.
        top: Number of most probable labels to return.
        precision: A value of --precision.

    Raises:
        BadInput: The folder is not a run directory.
        Failure: The model can't be used.
    """
    keras_backend.import_backend()
    from model.inference.predictor import load_predictor, load_run

    run = load_run(folder)
    return Tagger(run, load_predictor(run, precision), threshold, top)


def describe_threshold(run: "SavedRun", threshold: float | None) -> str:
    """Return which labels are certain enough, for users.

    Args:
        run: The run.
        threshold: The value of --threshold, or None.
    """
    if threshold is not None:
        return f"labels of a probability below {threshold:g} are unsure (--threshold)"
    if run.facets:
        shown = ", ".join(
            f"{facet} {'none' if value is None else format(value, '.3f')}"
            for facet, value in run.facet_thresholds.items()
        )
        return (
            f"labels of a probability below that of their facet ({shown}) are unsure: above it,"
            f" {TARGET_ACCURACY:.0%} of the validation photos are right"
        )
    chosen = run.confidence_threshold
    if chosen is None:
        return (
            f"all labels are unsure: {run.folder} has no threshold above which"
            f" {TARGET_ACCURACY:.0%} of its validation photos are right; name one with --threshold"
        )
    return (
        f"labels of a probability below {chosen:.3f} are unsure: above it, {TARGET_ACCURACY:.0%} of"
        " the validation photos are right"
    )


@dataclass(frozen=True)
class TagOptions:
    """Options of `tag-photos`; `tag-photos --help` describes each.

    Attributes:
        out: The file to write; None: standard output.
        source: Options about the photos.
    """

    run: Path
    source: SourceOptions
    out: Path | None = None
    top: int = 3
    threshold: float | None = None
    explain: bool = False
    precision: str = "auto"


@dataclass
class TagCounts:
    """How many photos were tagged.

    Attributes:
        statuses: Status -> photos.
        labels: Label -> tagged photos.
        reasons: Reason -> failed photos, the most frequent ones.
    """

    statuses: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)

    # Distinct reasons that are counted at most; each photo may have its own.
    MAX_REASONS = 1000

    def add(self, tags: PhotoTags) -> None:
        """Count a photo."""
        self.statuses[tags.status] += 1
        self.labels.update(score.label for score in tags.labels)
        if tags.status == FAILED and (
            tags.reason in self.reasons or len(self.reasons) < self.MAX_REASONS
        ):
            self.reasons[tags.reason] += 1


def tag_photos(
    options: TagOptions, sources: Sequence[PhotoSource], engine: Engine = LOCAL_ENGINE
) -> TagCounts:
    """Tag photos and write a row per photo.

    Args:
        options: The options of the command.
        sources: The photos.
        engine: Prepares and predicts the photos.

    Raises:
        BadInput: There is no such run, or `--out` belongs to another command.
        Failure: The model can't be used, or there are no photos.
    """
    tagger = replace(
        load_tagger(options.run, options.threshold, options.top, options.precision), engine=engine
    )
    click.echo(describe_threshold(tagger.run, options.threshold), err=True)
    items = (item for source in sources for item in source.items(tagger.run.crop))
    save = partial(save_proposals, options.source.catalogue) if not options.source.names else None
    if options.out is None:
        return _tag_all(items, tagger, TerminalOutput(), save)
    with exclusive_use(options.out, "--out"):
        try:
            return _tag_to_file(options, options.out, tagger, items, save)
        except OSError as error:
            raise Failure(
                f"--out {options.out} can't be written: {first_line(error)}; free disk space, and"
                " repeat the command to continue, or name another file"
            ) from error


def _tag_to_file(
    options: TagOptions,
    out: Path,
    tagger: Tagger,
    items: Iterator[PhotoItem],
    save: "SaveRows | None",
) -> TagCounts:
    output = FileOutput(out, _command_facts(options, tagger), options.explain)
    if output.done:
        last = next(islice(items, output.done - 1, None), None)
        if last is None or last.name != output.last:
            raise Failure(
                f"the photos have changed since {out} was interrupted; remove {output.folder}, and"
                " repeat the command"
            )
    counts = _tag_all(items, tagger, output, save)
    output.finish()
    return counts


def _command_facts(options: TagOptions, tagger: Tagger) -> dict[str, Any]:
    """Return the options that decide the rows of a command."""
    # A URL of a catalogue may contain a password.
    source = {n: v for n, v in asdict(options.source).items() if n != "catalogue"}
    values = {
        **source,
        "model": tagger.predictor.cache_key,
        "threshold": {n: None if math.isinf(t) else t for n, t in tagger.thresholds.items()},
        **{name: getattr(options, name) for name in ("top", "explain")},
    }
    as_json: dict[str, Any] = json.loads(json.dumps(values, default=str))
    return as_json


@dataclass(frozen=True)
class TagRow:
    """A photo with its tags.

    Attributes:
        number: Number of the row, from 1.
        item: The photo.
        tags: Its tags.
        pixels: The photo as the network gets it; None if it failed.
    """

    number: int
    item: PhotoItem
    tags: PhotoTags
    pixels: np.ndarray | None


class TagOutput(Protocol):
    """Where rows are written."""

    done: int
    counts: TagCounts

    def write(self, rows: Sequence[TagRow], tagger: Tagger) -> None:
        """Write rows; the tags are counted already."""


# Saves rows with a model's name and digest, before they are written.
SaveRows = Callable[[Sequence[TagRow], str], None]


def _tag_all(
    items: Iterator[PhotoItem], tagger: Tagger, output: TagOutput, save: SaveRows | None = None
) -> TagCounts:
    """Tag photos chunk by chunk; the next chunk is prepared while the network predicts."""
    chunks = prefetch(prepare_items(items, tagger))
    number = output.done
    with tqdm(initial=number, desc="photos", unit=" photos", disable=None) as bar:
        for chunk in chunks:
            tags = tagger.tag([photo for _, photo in chunk])
            rows = []
            for (item, photo), photo_tags in zip(chunk, tags, strict=True):
                number += 1
                output.counts.add(photo_tags)
                rows.append(TagRow(number, item, photo_tags, photo.pixels))
            if save is not None:
                save(rows, tagger.predictor.cache_key)
            output.write(rows, tagger)
            bar.update(len(rows))
    if not number:
        raise Failure("there are no photos to tag")
    return output.counts


def save_proposals(catalogue: str, rows: Sequence[TagRow], model: str) -> None:
    """Save the most probable labels of photos in the catalogue, for review.

    The first row of a command replaces the proposals of earlier commands.

    Args:
        catalogue: The catalogue's path or URL.
        rows: The rows.
        model: Name and digest of the model.
    """
    proposals = [
        {
            "image_id": row.item.image_id,
            "label": "",
            "model": model,
            "verdict": PROPOSED,
            "suggested": row.tags.top[0].label,
            "probability": row.tags.top[0].probability,
            "tag_probability": 0.0,
            "margin": row.tags.top[0].probability,
            # The least certain label comes first.
            "cost": 1 - row.tags.top[0].probability,
            "nearest": "[]",
        }
        for row in rows
        if row.tags.top
    ]
    earlier = sa.delete(TagVerdictRow).where(TagVerdictRow.verdict == PROPOSED)
    if rows[0].number > 1:
        # Those of a command that was killed before it had written their rows.
        earlier = earlier.where(TagVerdictRow.image_id.in_([row.item.image_id for row in rows]))
    with open_catalogue(catalogue, must_exist=True).begin() as session:
        session.execute(earlier)
        if proposals:
            session.execute(sa.insert(TagVerdictRow), proposals)


def prepare_items(
    items: Iterator[PhotoItem], tagger: Tagger
) -> Iterator[list[tuple[PhotoItem, PreparedPhoto]]]:
    """Yield chunks of photos that are prepared for the network, in their order."""
    taken: deque[tuple[PhotoItem, str]] = deque()

    def inputs() -> Iterator[PhotoInput]:
        for item in items:
            photo = item.open()
            taken.append((item, photo if isinstance(photo, str) else ""))
            yield PhotoInput(_no_photo) if isinstance(photo, str) else photo

    from model.inference.predictor import prepare_photos

    for chunk in prepare_photos(inputs(), tagger.preprocessor, tagger.predictor, tagger.engine):
        prepared = []
        for photo in chunk:
            item, problem = taken.popleft()
            prepared.append((item, replace(photo, problem=problem) if problem else photo))
        yield prepared


def _no_photo() -> bytes:
    raise FileNotFoundError


class TerminalOutput:
    """Writes rows as CSV to standard output."""

    def __init__(self) -> None:
        self.done, self.counts = 0, TagCounts()

    def write(self, rows: Sequence[TagRow], tagger: Tagger) -> None:  # noqa: ARG002
        """Write rows, the first ones below the names of the columns."""
        is_first = rows[0].number == 1
        text = _csv_text([COLUMNS] if is_first else [])
        click.echo(text + _csv_text(map(_csv_row, rows)), nl=False)


class FileOutput:
    """Writes rows to a file, which has its final name when it is complete.

    Args:
        out: The file, whose suffix decides the format.
        facts: The options that decide the rows.
        explain: Whether to draw an explanation of each label.

    Raises:
        BadInput: The suffix is another one, the file exists, or an interrupted command had other
            options.
    """

    def __init__(self, out: Path, facts: Mapping[str, Any], explain: bool) -> None:
        self.out, self.facts, self.explain = out, facts, explain
        self.is_json = is_json_lines(out)
        self.folder = unfinished_path(out)
        self.pictures = explanation_folder(out)
        self.done, self.last, self.counts = 0, "", TagCounts()
        self._size = 0
        self._resume()
        make_folder(self.folder, out)
        if explain:
            make_folder(self.folder / PICTURES_FOLDER, out)
        self._file = self._open_rows()

    def _resume(self) -> None:
        try:
            state = json.loads((self.folder / STATE_FILE).read_text(encoding="utf-8"))
            size = (self.folder / ROWS_FILE).stat().st_size
        except (OSError, ValueError):
            return
        names = [name for name in self.facts if state["facts"].get(name) != self.facts[name]]
        if names:
            raise BadInput(
                f"{self.folder} is an interrupted command with another {', '.join(names)}; repeat"
                " that command, remove the folder, or name another --out"
            )
        # After a power cut, rows that the state counts may be missing.
        if size < state["size"]:
            return
        self.done, self.last, self._size = state["done"], state["last"], state["size"]
        self.counts = TagCounts(**{name: Counter(c) for name, c in state["counts"].items()})

    def _open_rows(self) -> BinaryIO:
        path = self.folder / ROWS_FILE
        path.touch()
        file = path.open("r+b")
        # Rows after the last state are written again.
        file.truncate(self._size)
        file.seek(self._size)
        return file

    def write(self, rows: Sequence[TagRow], tagger: Tagger) -> None:
        """Write rows, their explanations, and the state."""
        names = self._explain(rows, tagger) if self.explain else [None] * len(rows)
        if self.is_json:
            lines = [_json_row(row, name) for row, name in zip(rows, names, strict=True)]
            text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        else:
            columns = (*COLUMNS, EXPLANATION) if self.explain else COLUMNS
            header = [] if self._size else [columns]
            cells = [
                [*_csv_row(row), *([name or ""] if self.explain else [])]
                for row, name in zip(rows, names, strict=True)
            ]
            text = _csv_text([*header, *cells])
        # File names may contain undecodable bytes.
        self._size += self._file.write(text.encode("utf-8", "backslashreplace"))
        self._file.flush()
        state = {
            "facts": self.facts,
            "done": rows[-1].number,
            "last": rows[-1].item.name,
            "size": self._size,
            "counts": vars(self.counts),
        }
        # In ASCII: names may have lone surrogates.
        write_atomically(self.folder / STATE_FILE, json.dumps(state).encode(), sync=False)

    def _explain(self, rows: Sequence[TagRow], tagger: Tagger) -> list[str | None]:
        """Draw an explanation of the most probable label of each photo; return their paths."""
        from model.inference.grad_cam import draw_explanation

        names: list[str | None] = []
        for row in rows:
            if row.pixels is None:
                names.append(None)
                continue
            label = row.tags.top[0].label
            name = f"{row.number:06}-{_file_stem(row.item.name)}.jpg"
            picture = draw_explanation(tagger.predictor, row.pixels, label)
            (self.folder / PICTURES_FOLDER / name).write_bytes(picture)
            names.append(f"{self.pictures.name}/{name}")
        return names

    def finish(self) -> None:
        """Give the file and the folder of explanations their final names."""
        self._file.close()
        if self.explain:
            (self.folder / PICTURES_FOLDER).rename(self.pictures)
        (self.folder / ROWS_FILE).rename(self.out)
        shutil.rmtree(self.folder)


def is_json_lines(out: Path) -> bool:
    """Return whether a file is written as JSON lines, by its suffix; otherwise it is CSV.

    Raises:
        BadInput: The suffix is that of neither.
    """
    suffix = out.suffix.lower()
    if suffix not in (*CSV_SUFFIXES, *JSON_LINES_SUFFIXES):
        raise BadInput(f"--out {out}: name a file that ends in .csv or .jsonl")
    return suffix in JSON_LINES_SUFFIXES


def explanation_folder(out: Path) -> Path:
    """Return the folder of the pictures of --explain."""
    return out.with_name(f"{out.stem}-{PICTURES_FOLDER}")


def require_new_outputs(out: Path, explain: bool) -> None:
    """Raise BadInput if the file or the folder of explanations exists."""
    is_json_lines(out)
    require_new_output(out, "name a new file")
    if explain:
        require_new_output(
            explanation_folder(out), "the explanations belong there; name another --out"
        )


def _file_stem(name: str) -> str:
    stem = name.replace("\\", "/").rstrip("/").rpartition("/")[2].rpartition(".")[0] or "photo"
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in stem)[:60]


def _csv_row(row: TagRow) -> list[Any]:
    tags = row.tags
    best = tags.top[0] if tags.top else None
    return [
        row.item.name,
        row.item.id,
        tags.status,
        best.label if best else "",
        f"{best.probability:.6g}" if best else "",
        SEPARATOR.join(score.label for score in tags.labels),
        "; ".join(f"{score.label} {score.probability:.3f}" for score in tags.top),
        tags.reason,
    ]


def _csv_text(rows: Any) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(map(spreadsheet_row, rows))
    return out.getvalue()


def _json_row(row: TagRow, explanation: str | None) -> dict[str, Any]:
    return {
        "photo": row.item.name,
        **({"id": row.item.id} if row.item.id else {}),
        **tags_as_json(row.tags),
        **({EXPLANATION: explanation} if explanation else {}),
    }


def tags_as_json(tags: PhotoTags) -> dict[str, Any]:
    """Return the tags of a photo for JSON."""
    return {
        "status": tags.status,
        "labels": [_score_as_json(score) for score in tags.labels],
        "top": [_score_as_json(score) for score in tags.top],
        "reason": tags.reason,
    }


def _score_as_json(score: LabelScore) -> dict[str, Any]:
    return {
        "label": score.label,
        "facet": score.facet or None,
        "probability": round(score.probability, 6),
    }


def _failed_lines(counts: TagCounts) -> Iterator[str]:
    for reason, count in counts.reasons.most_common(MAX_SHOWN_REASONS):
        yield f"failed: {count}: {shorten_for_display(reason)}"


def summary_lines(counts: TagCounts) -> Iterator[str]:
    """Yield how many photos were tagged, and why others failed, for users."""
    rows = [(status, str(counts.statuses[status])) for status in STATUSES]
    yield format_table(("status", "photos"), rows)
    if counts.labels:
        yield ""
        by_label = [(label, str(count)) for label, count in counts.labels.most_common()]
        yield format_table(("label", "tagged photos"), by_label)
    yield from _failed_lines(counts)
