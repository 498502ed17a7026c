"""Exclude images that are too poor to learn from, by thresholds per site."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dataset.errors import BadInput
from dataset.selection.candidates import Candidate, Exclusions
from dataset.vocabulary import read_toml

BUILT_IN_FILE = Path(__file__).with_name("gates.toml")
DEFAULT_SITE = "default"
# Gate -> (reason of an exclusion, whether the threshold is a minimum rather than a maximum).
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
    """Thresholds of the quality gates.

    Attributes:
        sites: Site -> gate -> threshold. A threshold of 0 switches the gate off.
    """

    sites: Mapping[str, Mapping[str, float]]

    def for_site(self, site: str) -> Mapping[str, float]:
        """Return gate -> threshold for images of a site."""
        return {**self.sites[DEFAULT_SITE], **self.sites.get(site, {})}

    def rejection(self, photo: Candidate) -> tuple[str, str] | None:
        """Return why an image is rejected.

        Returns:
            The reason and the measured value beside its threshold; None for a good image.
        """
        thresholds = self.for_site(next(iter(photo.sites), DEFAULT_SITE))
        measured = _measurements(photo)
        for gate, (reason, is_minimum) in GATES.items():
            limit, value = thresholds[gate], measured.get(gate)
            if limit and value is not None and (value < limit if is_minimum else value > limit):
                bound = "at least" if is_minimum else "at most"
                return reason, f"{gate} {value:g}, {bound} {limit:g}"
        return None


def _measurements(photo: Candidate) -> dict[str, float]:
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
    photos: Iterable[Candidate], gates: QualityGates, exclusions: Exclusions
) -> list[Candidate]:
    """Return the images that pass all gates; images that a reviewer labeled always pass."""
    passed = []
    for photo in photos:
        is_reviewed = bool(photo.decisions and photo.decisions[-1][1])
        rejection = None if is_reviewed else gates.rejection(photo)
        if rejection:
            exclusions.add(photo, *rejection)
        else:
            passed.append(photo)
    return passed


def load_quality_gates(path: Path | None = None) -> QualityGates:
    """Load the built-in thresholds, overridden by those in a TOML file.

    Raises:
        BadInput: The file can't be read, or names an unknown gate or a value that is no number.
    """
    sites = {name: dict(table) for name, table in read_toml(BUILT_IN_FILE).items()}
    for name, table in (read_toml(path) if path else {}).items():
        if not isinstance(table, dict):
            raise BadInput(
                f"{path}: {name} = {table!r} is outside any table; move it below [{DEFAULT_SITE}]"
            )
        for gate, value in table.items():
            if gate not in GATES or isinstance(value, bool) or not isinstance(value, int | float):
                raise BadInput(
                    f"{path}: [{name}] {gate} = {value!r} is not a quality gate; the gates are"
                    f" {', '.join(GATES)}, each a number, 0 to switch it off"
                )
        sites[name] = sites.get(name, {}) | table
    return QualityGates(sites)
