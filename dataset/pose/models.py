"""Which pose networks are known, from models.toml; imports nothing heavy, for --help."""

import json
import os
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from dataset.errors import BadInput
from dataset.pose.annotations import JointSet
from dataset.utils.downloads import PublishedFile, file_digest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HERE = Path(__file__).parent
DEFAULT = "hrnet-small"


@cache
def entries() -> dict[str, dict[str, Any]]:
    """Name -> what models.toml says of the network."""
    return tomllib.loads((HERE / "models.toml").read_text(encoding="utf-8"))


def names() -> tuple[str, ...]:
    """The names that `--pose` takes."""
    return tuple(entries())


def architectures() -> tuple[str, ...]:
    """The networks that `train-pose` can train."""
    return tuple(dict.fromkeys(entry["architecture"] for entry in entries().values()))


COCO = JointSet(
    (
        "nose",
        *(f"{side}_{part}" for part in ("eye", "ear") for side in ("left", "right")),
        *(
            f"{side}_{part}"
            for part in ("shoulder", "elbow", "wrist")
            for side in ("left", "right")
        ),
        *(f"{side}_{part}" for part in ("hip", "knee", "ankle") for side in ("left", "right")),
    ),
    (
        *((15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7)),
        *((6, 8), (7, 9), (8, 10), (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6)),
    ),
)
# How a Keras weights file ends.
SUFFIX = ".weights.h5"
# Published networks: the score below which mmpose's and the authors' own tools drop a joint.
GATE = 0.2


@dataclass(frozen=True)
class PoseModel:
    """A pose network as data.

    Attributes:
        name: Name of the model, as `--pose` takes it.
        size: Height and width of the network's input in pixels.
        gate: Score below which a key point does not count.
        flip: Whether predictions are averaged with those of the mirrored view.
        weights: Weights file on this machine; None for `published` weights.
    """

    name: str
    architecture: str
    joints: JointSet
    size: tuple[int, int]
    gate: float = GATE
    flip: bool = False
    weights: Path | None = None
    published: PublishedFile | None = None


def find_model(name: str, weights: Path | None = None) -> PoseModel:
    """The model NAME, with its own weights or those of the file WEIGHTS.

    Raises:
        BadInput: WEIGHTS is no file, or what stands beside it can't be read.
    """
    entry = entries()[name]
    if weights is None and "weights" in entry:
        return described(name, HERE / entry["weights"])
    if weights is not None and not weights.is_file():
        raise BadInput(f"--pose-weights {weights}: no such file")
    if weights is not None and description_of(weights).is_file():
        return described(name, weights)
    if "url" not in entry:
        assert weights is not None
        published = " or ".join(n for n, e in entries().items() if "url" in e)
        trained = (
            f"{description_of(weights)} is missing; keep both files of train-pose together, or "
        )
        raise BadInput(
            f"--pose-weights {weights}: {'' if weights.suffix == '.pth' else trained}say which"
            f" published network it is: --pose {published}"
        )
    file = PublishedFile(entry["url"].rpartition("/")[2], entry["url"], entry["digest"])
    size = (entry["size"][0], entry["size"][1])
    return PoseModel(name, entry["architecture"], COCO, size, GATE, False, weights, file)


def description_of(weights: Path) -> Path:
    """The file that says what WEIGHTS are."""
    return weights.with_name(weights.name.removesuffix(SUFFIX) + ".json")


def described(name: str, weights: Path) -> PoseModel:
    """The model of WEIGHTS as the file beside them says.

    Raises:
        BadInput: that file is broken.
    """
    path = description_of(weights)
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        joints = JointSet(tuple(said["joints"]), tuple((a, b) for a, b in said["bones"]))
        height, width = said["size"]
        architecture, gate = said["architecture"], float(said["gate"])
        flip = bool(said.get("flip", False))
        if architecture not in architectures():
            raise ValueError(f"the architecture {architecture!r} is not known")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path} does not describe a pose network: {error}") from error
    return PoseModel(name, architecture, joints, (height, width), gate, flip, weights)


def cache_folder() -> Path:
    """Where what was fetched is kept: below XDG_CACHE_HOME, or ~/.cache."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "fashion-tagger"


def key_of(model: PoseModel) -> str:
    """What tells MODEL's answers from another's: its name, its weights' digest, how it is asked."""
    if model.weights is None:
        assert model.published is not None
        digest = model.published.digest
    else:
        digest = file_digest(model.weights, f"sha256:{'0' * 16}")
    return f"{model.name}:{digest.partition(':')[2]}{'+flip' if model.flip else ''}"
