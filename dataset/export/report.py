"""`report.html`: a build with pictures, on one page that needs no other file."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from html import escape
from typing import TYPE_CHECKING

from dataset.export import dataset_card
from dataset.images.io import Unreadable, thumbnail
from dataset.images.store import ImageStore
from dataset.selection.candidates import Candidate, ExcludedImage
from dataset.selection.labeling import LABEL_CONFLICT
from dataset.selection.quality_gates import GATES, QualityGates
from dataset.selection.splits import SPLITS
from dataset.utils import html

if TYPE_CHECKING:
    from dataset.export.build_result import BuildOptions, BuildResult

A_LABEL, A_REASON, CLUSTERS, COPIES = 12, 12, 12, 6
DUPLICATE = "duplicate of another photo"


def render_report(
    built: "BuildResult",
    options: "BuildOptions",
    gates: QualityGates,
    photos: Mapping[str, bytes],
    store: ImageStore,
) -> str:
    """The page of BUILT; PHOTOS: path -> JPEG of the written photos that it may show."""
    sections = [
        _head(built, options),
        html.part(
            "Photos", _counts(built), html.bullets(built.unmet, "Where shares are not as wished")
        ),
        html.part("Audit", _audit(built, photos)),
        *(
            html.part(label, html.figures((thumbnail(photos[p]), "") for p in shown))
            for label, shown in _by_label(built).items()
        ),
        html.part("Sources", _sources(built)),
        html.part("Quality gates", _gates(built, gates), *_stopped(built, store)),
        html.part("Conflicts of labels", *_conflicts(built, store)),
        html.part("Duplicates", *_duplicates(built, store)),
        html.part("Left out", html.table(("reason", "photos"), sorted(built.drops.counts.items()))),
        html.part(
            "Licences and known gaps",
            "<p>The photos belong to the shops and people who posted them.</p>",
            html.bullets(dataset_card.known_limitations(built)),
        ),
    ]
    body = "\n".join(sections)
    return html.document("fashion-tagger build", body)


def sampled_paths(built: "BuildResult") -> set[str]:
    """Paths of the written photos that the page and the contact sheets show."""
    paths = {path for shown in _by_label(built).values() for path in shown}
    paths |= {path for pair in built.audit.closest for path in (pair.one, pair.other)}
    labels = {item.label for item in built.items}
    return paths | {p for label in labels for p in dataset_card.sample_paths(built.items, label)}


def _by_label(built: "BuildResult") -> dict[str, list[str]]:
    labels = sorted({item.label for item in built.items})
    return {label: dataset_card.sample_paths(built.items, label, A_LABEL) for label in labels}


def _head(built: "BuildResult", options: "BuildOptions") -> str:
    labels = len({item.label for item in built.items})
    return (
        f"<h1>{len(built.items)} photos of {labels} labels</h1><p>{options.size} x {options.size}"
        f" pixels, {dataset_card.RESIZE_NAMES[options.resize]}, format {options.format}, shares"
        f" {', '.join(f'{share:g}' for share in options.splits)}, seed {options.seed}.</p>"
    )


def _originals(shown: Iterable[tuple[Candidate, str]], store: ImageStore) -> str:
    """Figures of photos as they were fetched; those that can't be read are named."""
    figures = []
    for photo, text in shown:
        try:
            figures.append(html.figure(thumbnail(store.read(photo.store_key)), text))
        except (OSError, Unreadable):
            figures.append(html.missing(f"{photo.store_key}: {text}"))
    return html.row(figures)


def _counts(built: "BuildResult") -> str:
    return html.table(("label", *SPLITS, "all"), dataset_card.count_rows(built.items))


def _audit(built: "BuildResult", photos: Mapping[str, bytes]) -> str:
    found = built.audit
    verdict = "bad" if found.leaks else "good"
    text = (
        f"<p class={verdict}>The {found.photos} written photos were read and hashed anew. Of"
        f" {found.compared} near pairs across splits {len(found.leaks)} are or may be one photo."
        "</p>"
    )
    if not found.closest:
        return text
    pairs = "".join(
        f"<div class=pair>{html.figure(thumbnail(photos[p.one]), p.one.split('/')[0])}"
        + html.figure(
            thumbnail(photos[p.other]), f"{p.other.split('/')[0]}: {p.similarity:.3f} alike"
        )
        + "</div>"
        for p in found.closest
    )
    return f"{text}<p>The closest pairs that remain:</p><div class=row>{pairs}</div>"


def _sources(built: "BuildResult") -> str:
    sites = Counter(site for item in built.items for site in item.photo.sites)
    return html.table(("site", "photos"), sorted(sites.items()))


def _gates(built: "BuildResult", gates: QualityGates) -> str:
    """Thresholds and what they stopped, a row a site and gate."""
    seen = {site for item in built.items for site in item.photo.sites}
    stopped: Counter[tuple[str, str]] = Counter()
    for one in built.drops.images:
        site = next(iter(one.photo.sites), "")
        seen |= {site} if site else set()
        stopped[site, one.reason] += 1
    rows = [
        (
            site,
            reason,
            f"{'at least' if least else 'at most'} {gates.of(site)[gate]:g} ({gate})",
            stopped[site, reason],
        )
        for site in sorted(seen)
        for gate, (reason, least) in GATES.items()
    ]
    return html.table(("source", "gate", "threshold", "stopped"), rows)


def _of_reason(built: "BuildResult", reason: str) -> list[ExcludedImage]:
    found = [one for one in built.drops.images if one.reason == reason]
    return sorted(found, key=lambda one: one.photo.sha256)


def _stopped(built: "BuildResult", store: ImageStore) -> list[str]:
    parts = []
    for reason, _ in GATES.values():
        found = _of_reason(built, reason)
        if found:
            shown = [(one.photo, one.detail) for one in found[:A_REASON]]
            parts.append(f"<h3>{escape(reason)}: {len(found)}</h3>{_originals(shown, store)}")
    return parts


def _conflicts(built: "BuildResult", store: ImageStore) -> list[str]:
    found = _of_reason(built, LABEL_CONFLICT)
    table = html.table(("labels", "photos"), dataset_card.count_conflicts(built).most_common())
    shown = [(one.photo, one.detail) for one in found[: 2 * A_REASON]]
    return [table, _originals(shown, store)] if found else []


def _duplicates(built: "BuildResult", store: ImageStore) -> list[str]:
    """Clusters with what was kept first and what was left out for it."""
    best = {item.photo.sha256: item.photo for item in built.items}
    copies: dict[str, list[Candidate]] = defaultdict(list)
    for one in _of_reason(built, DUPLICATE):
        copies[one.detail.removeprefix("of ")].append(one.photo)
    known = [(best[sha256], copies[sha256]) for sha256 in sorted(copies) if sha256 in best]
    if not known:
        return []
    rows = [
        _originals([(kept, "kept"), *((photo, "left out") for photo in others[:COPIES])], store)
        for kept, others in known[:CLUSTERS]
    ]
    return [f"<p>{len(known)} clusters of more than one photo, the first of them:</p>", *rows]
