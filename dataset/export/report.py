"""Render `report.html`: a build with images, on one page that needs no other file."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from dataset.export import dataset_card
from dataset.export.layout import BuildOptions, BuildResult, label_names
from dataset.export.leakage_audit import RECALL_SENTENCE, describe_audit
from dataset.images.io import thumbnail_or_none
from dataset.images.store import ImageStore
from dataset.selection.candidates import DUPLICATE, GATES, Candidate, ExcludedImage, QualityGates
from dataset.selection.labeling import LABEL_CONFLICT
from dataset.selection.splits import SPLITS
from dataset.utils.html import Figure, render

TEMPLATES = Path(__file__).with_name("templates")
IMAGES_PER_LABEL, IMAGES_PER_REASON, CLUSTERS, COPIES_PER_CLUSTER = 12, 12, 12, 6
SIDE_PIXELS = 112


def render_report(
    result: BuildResult,
    options: BuildOptions,
    gates: QualityGates,
    jpegs: Mapping[str, bytes],
    store: ImageStore,
) -> str:
    """Render the page.

    Args:
        result: The build.
        options: Its options.
        gates: Quality thresholds.
        jpegs: Path -> JPEG file of the written images in `sampled_paths`.
        store: Image store, for images that the build does not use.
    """
    clusters = _clusters(result)
    conflicts = _excluded_for(result, LABEL_CONFLICT)
    return render(
        TEMPLATES,
        "report.html",
        title="fashion-tagger build",
        result=result,
        options=options,
        resize=dataset_card.RESIZE_NAMES[options.resize],
        proportions=", ".join(f"{proportion:g}" for proportion in options.splits),
        headline=_headline(result),
        label_count=len(label_names(result.items)),
        count_columns=dataset_card.count_columns(result.items),
        counts=dataset_card.count_rows(result.items),
        label_counts=_label_counts(result).most_common(),
        closest=_closest_pairs(result, jpegs),
        audit_sentence=describe_audit(result.audit),
        recall_sentence=RECALL_SENTENCE,
        labels={
            label: [_figure(jpegs[path]) for path in paths]
            for label, paths in _paths_by_label(result).items()
        },
        sources=sorted(Counter(site for i in result.items for site in i.photo.sites).items()),
        gate_rows=_gate_rows(result, gates),
        rejected=_rejected(result, store),
        conflict_counts=dataset_card.count_conflicts(result).most_common(),
        conflict_images=_originals(
            ((e.photo, e.detail) for e in conflicts[: 2 * IMAGES_PER_REASON]), store
        ),
        cluster_count=len(clusters),
        clusters=[
            _originals([(best, "used"), *((copy, "excluded") for copy in copies)], store)
            for best, copies in clusters[:CLUSTERS]
        ],
        excluded=sorted(result.exclusions.counts.items()),
        limitations=dataset_card.known_limitations(result),
    )


def _label_counts(result: BuildResult) -> Counter[str]:
    """Return the number of photos of each label."""
    return Counter(label for item in result.items for label in item.labels)


def _headline(result: BuildResult) -> list[tuple[str, str, str]]:
    """Return the headline figures of the build: name, value, note."""
    by_split = Counter(item.split for item in result.items)
    counts = result.exclusions.counts
    labels = _label_counts(result).values()
    return [
        ("Photos", f"{len(result.items):,}", " / ".join(f"{by_split[s]:,}" for s in SPLITS)),
        ("Labels", f"{len(labels)}", f"{min(labels):,} to {max(labels):,} photos each"),
        ("Duplicates removed", f"{counts.get(DUPLICATE, 0):,}", ""),
        ("Excluded for other reasons", f"{counts.total() - counts.get(DUPLICATE, 0):,}", ""),
        ("Leaks found", f"{len(result.audit.leaks):,}", "by the leakage audit, see below"),
    ]


def sampled_paths(result: BuildResult) -> set[str]:
    """Return the paths of the written images that the page and the contact sheets show."""
    paths = {path for sample in _paths_by_label(result).values() for path in sample}
    paths |= {path for pair in result.audit.closest for path in (pair.first, pair.second)}
    return paths | {
        path
        for label in label_names(result.items)
        for path in dataset_card.sample_paths(result.items, label)
    }


def _paths_by_label(result: BuildResult) -> dict[str, list[str]]:
    return {
        label: dataset_card.sample_paths(result.items, label, IMAGES_PER_LABEL)
        for label in label_names(result.items)
    }


def _figure(jpeg: bytes, caption: str = "") -> Figure:
    return Figure(thumbnail_or_none(lambda: jpeg, SIDE_PIXELS), caption)


def _originals(images: Iterable[tuple[Candidate, str]], store: ImageStore) -> list[Figure]:
    """Return figures of stored images; unreadable ones are named instead."""
    figures = []
    for photo, caption in images:
        jpeg = thumbnail_or_none(partial(store.read, photo.store_key), SIDE_PIXELS)
        figures.append(Figure(jpeg, caption if jpeg else f"{photo.store_key}: {caption}"))
    return figures


def _closest_pairs(result: BuildResult, jpegs: Mapping[str, bytes]) -> list[tuple[Figure, Figure]]:
    split_of = {item.path: item.split for item in result.items}
    return [
        (
            _figure(jpegs[pair.first], split_of[pair.first]),
            _figure(
                jpegs[pair.second],
                f"{split_of[pair.second]}: similarity {pair.similarity:.3f}",
            ),
        )
        for pair in result.audit.closest
    ]


def _gate_rows(result: BuildResult, gates: QualityGates) -> list[Sequence[object]]:
    """Return a row for each site and gate: threshold and number of excluded images."""
    sites = {site for item in result.items for site in item.photo.sites}
    excluded: Counter[tuple[str, str]] = Counter()
    for image in result.exclusions.images:
        site = next(iter(image.photo.sites), "")
        sites |= {site} if site else set()
        excluded[site, image.reason] += 1
    return [
        (
            site,
            reason,
            f"{'at least' if is_minimum else 'at most'} {gates.for_site(site)[gate]:g} ({gate})",
            excluded[site, reason],
        )
        for site in sorted(sites)
        for gate, (reason, is_minimum) in GATES.items()
    ]


def _excluded_for(result: BuildResult, reason: str) -> list[ExcludedImage]:
    images = [image for image in result.exclusions.images if image.reason == reason]
    return sorted(images, key=lambda image: image.photo.sha256)


def _rejected(result: BuildResult, store: ImageStore) -> list[tuple[str, int, list[Figure]]]:
    """Return reason, number of images and examples for each quality gate that rejected some."""
    rejected = []
    for reason, _ in GATES.values():
        images = _excluded_for(result, reason)
        if images:
            examples = [(image.photo, image.detail) for image in images[:IMAGES_PER_REASON]]
            rejected.append((reason, len(images), _originals(examples, store)))
    return rejected


def _clusters(result: BuildResult) -> list[tuple[Candidate, list[Candidate]]]:
    """Return each used image that has copies, with its first excluded copies."""
    used = {item.photo.sha256: item.photo for item in result.items}
    copies: dict[str, list[Candidate]] = defaultdict(list)
    for image in _excluded_for(result, DUPLICATE):
        copies[image.detail.removeprefix("of ")].append(image.photo)
    return [
        (used[sha256], copies[sha256][:COPIES_PER_CLUSTER])
        for sha256 in sorted(copies)
        if sha256 in used
    ]
