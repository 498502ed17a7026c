"""Gates of quality: which photos are too poor to learn from, by thresholds a site."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dataset.errors import BadInput
from dataset.selection.candidates import Candidate, Exclusions
from dataset.vocabulary import read_toml

BUILT_IN_FILE = Path(__file__).with_name("gates.toml")
DEFAULT_SITE = "default"
# gate -> (what a photo is that it stops, whether the threshold is the least that passes)
GATES = {
    "side": ("too small", True),
    "shape": ("extreme shape", False),
    "contrast": ("blank", True),
    "blur": ("blurred", False),
    "text": ("text banner", False),
}
REASONS = tuple(reason for reason, _ in GATES.values())


@dataclass(frozen=True)
class QualityGates:
    """Thresholds: site -> gate -> number; 0 is an open gate."""

    sites: Mapping[str, Mapping[str, float]]

    def of(self, site: str) -> Mapping[str, float]:
        """The thresholds for photos of SITE."""
        return {**self.sites[DEFAULT_SITE], **self.sites.get(site, {})}

    def stop(self, photo: Candidate) -> tuple[str, str] | None:
        """Why PHOTO is too poor: the reason, and the number beside the threshold. Else None."""
        site = next(iter(photo.sites), DEFAULT_SITE)
        limits, measured = self.of(site), _measured(photo)
        for gate, (reason, least) in GATES.items():
            limit, value = limits[gate], measured.get(gate)
            if limit and value is not None and (value < limit if least else value > limit):
                return reason, f"{gate} {value:g}, {'at least' if least else 'at most'} {limit:g}"
        return None


def _measured(photo: Candidate) -> dict[str, float]:
    short, long = sorted((photo.width, photo.height))
    measured = {"side": float(short), "shape": long / max(1, short)}
    if photo.quality:
        measured |= {
            "contrast": photo.quality.contrast,
            "blur": photo.quality.blur,
            "text": photo.quality.text,
        }
    return measured


def apply_quality_gates(
    photos: Iterable[Candidate], gates: QualityGates, drops: Exclusions
) -> list[Candidate]:
    """PHOTOS that are good enough; one that a person gave a label to always is."""
    passed = []
    for photo in photos:
        stopped = None if photo.decisions and photo.decisions[-1][1] else gates.stop(photo)
        if stopped:
            drops.add(photo, *stopped)
        else:
            passed.append(photo)
    return passed


def load_quality_gates(own: Path | None = None) -> QualityGates:
    """The built-in thresholds, changed by what the file OWN names.

    Raises:
        BadInput: OWN can't be read, or names a gate or a number that is none.
    """
    sites = {name: dict(table) for name, table in read_toml(BUILT_IN_FILE).items()}
    for name, table in (read_toml(own) if own else {}).items():
        if not isinstance(table, dict):
            raise BadInput(
                f"{own}: {name} = {table!r} stands in no table; put it below [{DEFAULT_SITE}]"
            )
        for gate, value in table.items():
            if gate not in GATES or isinstance(value, bool) or not isinstance(value, int | float):
                raise BadInput(
                    f"{own}: [{name}] {gate} = {value!r} is no gate; gates are"
                    f" {', '.join(GATES)}, each a number, 0 to open it"
                )
        sites[name] = sites.get(name, {}) | table
    return QualityGates(sites)
